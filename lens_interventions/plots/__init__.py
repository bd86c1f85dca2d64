"""Figures of a lens's readings: functions from results to plotly figures.

No function shows or saves a figure, except `save`. This package has the figures' public names. It
may import `lens`, `fitting`, `drawing` and packages below them, and only the command line, the
explorer and the pages import it. A figure itself is drawn in `lens.figures` or beside the result
that it shows, and gets a name here.

- `plot_position`: one position through the layers, as lines
- `plot_side_by_side`: two trajectories of the same tokens, and their difference
- `plot_aggregate`: means over many texts, with bands
- `plot_recovery`: how well a probe recovers the input token
- `save`: write a figure as .html, .png, .svg, .pdf or .json
"""

from ..drawing.export import save as save
from ..fitting.input_recovery import plot_recovery as plot_recovery
from ..lens.aggregate import plot_aggregate as plot_aggregate
from ._trajectories import plot_position as plot_position
from ._trajectories import plot_side_by_side as plot_side_by_side
