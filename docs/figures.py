"""Make the pictures of the README and of these pages: `python docs/figures.py`.

They show the embedded model. The script takes some eight minutes on two cores.
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

import lens_interventions as li
from lens_interventions.experiments.scratch.figures import draw
from lens_interventions.pages.demo.example_texts import PLASMA, PLASMA_WORD

IMAGES = Path(__file__).parent / "images"
RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Write all pictures."""
    bridge = li.load_model(device="cpu")
    prose = [document.text for document in li.materials.prose()]
    lens = li.default_affine_lens(bridge)
    raw, fitted = (li.logit_lens(bridge, PLASMA + PLASMA_WORD, lens=each) for each in (None, lens))
    due = raw.tokens.shape[-1] - 1  # the word's own column; the one before predicts it
    trajectory = li.logit_lens(bridge, PLASMA, watch=PLASMA_WORD)
    probe = li.fit_input_probe(bridge, list(li.sample_texts(bridge, 256)))
    figures = {
        "plasma": raw[due - 10 : due].plot("top1", every=2),
        "rank": trajectory[-9:].plot("final_rank", every=3),
        "position": li.plots.plot_position(trajectory, -1),
        "fitted": li.plots.plot_side_by_side(
            raw[due - 4 : due],
            fitted[due - 4 : due],
            "next_rank",
            names=("raw", "fitted"),
            every=2,
            title="How each layer ranks the next token, raw and through a fitted lens",
        ),
        "lens_quality": li.lens_quality(bridge, lens, prose, max_tokens=128).plot(),
        "scratch": draw(li.experiments.load_result(RESULTS / "scratch").tables)["curves"],
        "depth": gain_over_depth(),
        "recovery": li.input_recovery(bridge, probe, prose, max_tokens=128).plot(by_rarity=True),
    }
    for name, figure in figures.items():
        li.plots.save(figure, IMAGES / f"{name}.png")
    print(probe.overlap(bridge, k=32))


def gain_over_depth() -> go.Figure:
    """The gain of networks from scratch, from the runs at different depths, at equal steps.

    Of the longer runs their ends alone are comparable: on the way, their learning rate is another.
    """
    runs = [
        li.experiments.load_result(RESULTS / name)
        for name in ("scratch-depth", "scratch-six-blocks", "scratch-eight-blocks")
    ]
    longer = [
        li.experiments.load_result(RESULTS / name).tables["gains"].query("part == 1")
        for name in (
            "scratch-six-blocks-twice",
            "scratch-loops",
            "scratch-four-blocks-longer",
        )
    ]
    gains = pd.concat([*(run.tables["gains"] for run in runs), *longer])
    return draw({**runs[0].tables, "gains": gains})["gain"]


if __name__ == "__main__":
    main()
