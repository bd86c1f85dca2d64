"""One position through the layers: how the ranks of its tokens and its divergences develop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...drawing.curves import Curve, draw_curves
from ...drawing.labels import markup, rounded, shorten
from ...drawing.theme import ThemeName
from ..trajectory import Trajectory
from .grid import make_grid

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DEFAULT = ("final_rank", "input_rank", "next_rank", "kl_final", "kl_input", "entropy")


def plot_position(
    trajectory: Trajectory,
    position: int = -1,
    statistics: Sequence[str] | None = None,
    *,
    batch: int = 0,
    include_input: bool = False,
    title: str | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Statistics of one position over the layers, as lines.

    Ranks are zero-based, on a logarithmic axis with rank 0, the top guess, at the top.

    **Arguments:**

    - `trajectory`: of `logit_lens`.
    - `position`: a column of the prompt, negative ones from its end.
    - `statistics`: one or more names as for `plot`; `watched_rank` and `watched_log_prob` give a
        line for each watched token. By default the ranks of the final guess, the input, the next
        token where there is one and the watched tokens; the divergences to the final point and to
        the input; and the entropy.
    - `batch`: which prompt.
    - `include_input`: begin at the input, whose divergences dwarf the rest.
    - `title`, `theme`: as in `plot`.

    Raises `ValueError` for a statistic or `IndexError` for a position that does not exist.
    """
    base = make_grid(trajectory, "top1", batch=batch, every=1, include_input=include_input)
    column = base.trajectory[position]  # for its range check
    position %= len(base.inputs)
    if statistics is None:
        has_next = bool((column.next_tokens >= 0).all())
        statistics = [name for name in _DEFAULT if name != "next_rank" or has_next]
        statistics += ["watched_rank"] if trajectory.watched else []
    if isinstance(statistics, str):
        statistics = [statistics]
    lines: list[tuple[str, str | int | None]] = []
    for name in statistics:
        tokens = trajectory.watched if name.startswith("watched") else ()
        lines += [(name, token) for token in tokens] or [(name, None)]
    curves: list[Curve] = []
    for name, token in lines:
        grid = make_grid(
            trajectory, name, batch=batch, every=1, include_input=include_input, token=token
        )
        values = grid.values[:, position]
        among = sum(curve.unit == grid.scale.unit for curve in curves)
        curves.append(
            Curve(
                label=grid.title,
                unit=grid.scale.unit,
                values=grid.scale.position(values),
                hover=[
                    f"layer {row}, {markup(grid.title)}: {rounded(value)}<br>"
                    f"top guess: {markup(shorten(guesses[position], 40))}"
                    for row, value, guesses in zip(
                        grid.rows, values.tolist(), grid.guesses, strict=True
                    )
                ],
                colour=among,
                dash=among,
            )
        )
    following = base.outputs[position]
    token = base.inputs[position]
    heading = f"Position {int(column.positions[0, 0])}: {token}"
    return draw_curves(
        curves,
        base.rows,
        title=title or (f"{heading}, followed by {following}" if following else heading),
        subtitle="A layer's distribution over the next token, at one position.",
        theme=theme,
    )
