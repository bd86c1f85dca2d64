"""Fitting a lens costs little more than the forward pass over its corpus.

The embedded model, windows of 512 tokens; against the bridge up to its last residual point
with all points kept, which is what any fit must run, and against its plain forward.
"""

import torch

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import in_turns, ratio, reference_tokens
from benchmarks.results import Row
from lens_interventions.fitting.ridge import RidgeMoments
from lens_interventions.model.points import select_points
from lens_interventions.model.residuals import residuals
from lens_interventions.model.tokens import TokenBatch


def measure(quick: bool) -> list[Row]:
    """The time of a fit without its solution, beside the forward pass; that of the solution."""
    window, windows, rounds = (16, 2, 1) if quick else (512, 4, 5)
    bridge = li.load_model(device="cpu")
    pieces = list(reference_tokens(bridge, windows * window)[0].split(window))
    n_layers, d_model = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    labels = select_points(n_layers)

    @torch.no_grad()
    def forward() -> None:
        for piece in pieces:
            bridge(piece[None])

    @torch.no_grad()
    def points() -> None:
        for piece in pieces:
            residuals(bridge, TokenBatch.unpadded(piece[None]), labels)

    def fit() -> None:
        li.fit_affine_lens(bridge, pieces, window=window, holdout=windows, progress=False)

    moments = RidgeMoments(1, d_model, d_model)
    rows = torch.randn(4 * d_model, d_model)
    moments.add(0, rows, rows, torch.ones(len(rows), 1))

    def solve() -> None:
        moments.solve(0, moments)

    seconds = in_turns({"forward": forward, "points": points, "fit": fit, "solve": solve}, rounds)
    once = min(seconds["solve"]) * n_layers
    seconds["pass"] = [fit - once for fit in seconds["fit"]]
    return [
        Row(
            work=f"{windows} windows of {window}, without solving, to the forward",
            measured=ratio(seconds, "pass", "forward"),
            unit="x",
            at_most=1.5,
        ),
        Row(
            work="to the blocks alone",
            measured=ratio(seconds, "pass", "points"),
            unit="x",
        ),
        Row(work=f"solving {n_layers} maps, once a fit", measured=once, unit="s"),
    ]


if __name__ == "__main__":
    run(measure)
