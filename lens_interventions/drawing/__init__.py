"""The drawing kit on top of plotly: colours, scales, cells, curves, titles, themes, files.

It knows numbers and labels, never a result, and imports no other package of the library. Plotly is
imported inside the functions that draw. A new unit goes into `units.py`, a new look of all curves
into `curves.py`; what only one result shows is drawn beside that result.
"""
