"""The drawing kit on top of plotly: colours, scales, cells, curves, titles, themes, files.

It knows numbers and labels, and never a result, and imports no other package of the library.
Functions that draw import plotly themselves. A new unit goes into `units.py`, a new look of all
curves into `curves.py`. Figures of only one kind of result are drawn beside that result.
"""
