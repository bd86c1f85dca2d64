"""Fitting a lens costs little more than the forward pass over its corpus.

The embedded default model, windows of 512 tokens; against the bridge up to its last residual point
with all points kept, which is what any fit must run, and against its plain forward.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

import lens_interventions as li
from benchmarks.common import in_turns, prose_tokens, ratio, report
from lens_interventions.adapter import residuals
from lens_interventions.points import select_points
from lens_interventions.ridge import RidgeMoments
from lens_interventions.windows import as_batch

WINDOW = 512


def main(
    windows: Annotated[int, typer.Option(help="of 512 tokens, in every round")] = 4,
    rounds: int = 5,
    out: Path | None = None,
) -> None:
    """Print the time of a fit, of its moments and of its solution, beside the forward pass."""
    bridge = li.load_model(device="cpu")
    pieces = list(prose_tokens(bridge, windows * WINDOW)[0].split(WINDOW))
    n_layers, d_model = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    labels = select_points(n_layers)

    @torch.no_grad()
    def forward() -> None:
        for piece in pieces:
            bridge(piece[None])

    @torch.no_grad()
    def points() -> None:
        for piece in pieces:
            residuals(bridge, as_batch(piece), labels)

    def fit() -> None:
        li.fit_affine_lens(bridge, pieces, window=WINDOW, holdout=windows, progress=False)

    moments = RidgeMoments(1, d_model, d_model)
    rows = torch.randn(4 * d_model, d_model)
    moments.add(0, rows, rows, torch.ones(len(rows), 1))

    def solve() -> None:
        moments.solve(0, moments)

    seconds = in_turns({"forward": forward, "points": points, "fit": fit, "solve": solve}, rounds)
    once = min(seconds["solve"]) * n_layers
    moments_only = [fit - once for fit in seconds["fit"]]
    seconds["pass"] = moments_only
    table = [
        {"work": "fit without solving, to forward", "measured": ratio(seconds, "pass", "forward"),
         "unit": "x", "goal": "<= 1.5"},
        {"work": "the same, to the blocks alone", "measured": ratio(seconds, "pass", "points"),
         "unit": "x", "goal": ""},
        {"work": f"solving {n_layers} maps, once a fit", "measured": once, "unit": "s", "goal": ""},
    ]  # fmt: skip
    report(f"Fitting an affine lens, {windows} windows of {WINDOW} tokens", table, out)


if __name__ == "__main__":
    typer.run(main)
