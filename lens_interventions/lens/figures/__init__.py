"""Figures of a lens's readings. They draw a `Grid` or curves, and know no trajectory.

It may import `drawing`, names of points from `model`, and the table of statistics. `grid.py` and
`hover.py` decide what is in a cell and what appears over it; the module of a figure decides its
layout. A new figure takes grids or curves, and gets a function in `plots` that makes them.
"""
