"""The pictures of "Reading the figures", from the embedded model: `python docs/figures.py`."""

from pathlib import Path

import lens_interventions as li

IMAGES = Path(__file__).parent / "images"
TEXT = (
    "Sometimes, when people say plasma, they mean a state of matter. Other times, when people say"
)


def main() -> None:
    """Write the pictures anew."""
    bridge = li.load_model(device="cpu")
    trajectory = li.logit_lens(bridge, TEXT, watch=" plasma")
    li.plots.save(trajectory[-9:].plot("final_rank", every=3), IMAGES / "rank.png")
    li.plots.save(li.plots.plot_position(trajectory, -1), IMAGES / "position.png")


if __name__ == "__main__":
    main()
