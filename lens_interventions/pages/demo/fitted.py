"""Finding of the comments and of later work: fitted maps let the middle layers speak."""

from ...fitting.default_lens import default_affine_lens
from ...fitting.lens_quality import LensQuality
from .measured_model import CELL_WIDTH, PROSE_TEXTS, PROSE_TOKENS, MeasuredModel, middle
from .plasma import found_from
from .section import Condition, Figure, Section


def fitted(model: MeasuredModel) -> Section:
    """The plasma sentence and prose, read raw and through an affine lens."""
    lens = default_affine_lens(model.bridge, progress=False)
    quality = LensQuality(
        {"raw": model.prose, "fitted": model.prose_through(lens)}, {"fitted": lens.settings}
    )
    kl = {name: reading.means("kl_final") for name, reading in quality.readings.items()}
    nearer = int((kl["fitted"][:-1] < kl["raw"][:-1]).sum())
    agree = {
        name: float(reading.means("agrees_final")[middle(len(kl["raw"]))].mean())
        for name, reading in quality.readings.items()
    }
    read = {"raw": model.plasma, "fitted": model.plasma_through(lens)}
    found = {
        name: found_from(trajectory.next_rank[:, 0, model.plasma_due].tolist(), top=1)
        for name, trajectory in read.items()
    }
    n_points = len(kl["raw"])
    means = {name: float(values.mean()) for name, values in kl.items()}
    said = {
        name: "never" if point is None else f"from point {point} of {n_points - 1} on"
        for name, point in found.items()
    }
    return Section(
        name="fitted",
        title="Fitted maps let the layers speak",
        brief=f"KL to the output, mean over the layers: {means['raw']:.1f} nats raw, "
        f"{means['fitted']:.1f} fitted",
        claim="The raw lens reads every layer in the coordinates of the last one. Comments under "
        "the post, and later the tuned lens (Belrose et al. 2023), put a linear map for each layer "
        "in between.",
        conditions=(
            Condition(
                "at every layer the fitted lens is closer to the output than the raw one",
                nearer == n_points - 1,
                f"at {nearer} of {n_points - 1} points; mean KL(final ‖ point) {means['raw']:.2f} "
                f"nats raw, {means['fitted']:.2f} fitted",
            ),
            Condition(
                "in the middle half of the layers, its top guess is more often that of the output",
                agree["fitted"] > agree["raw"],
                f"{agree['raw']:.0%} raw, {agree['fitted']:.0%} fitted",
            ),
            Condition(
                "“plasma” becomes the top guess at a lower layer",
                found["fitted"] is not None
                and (found["raw"] is None or found["fitted"] < found["raw"]),
                f"raw {said['raw']}, fitted {said['fitted']}",
            ),
        ),
        text=(
            f"The maps were fitted by ridge regression to {lens.settings['tokens']:,} tokens that "
            f"the model wrote itself, and tried on {PROSE_TEXTS} pieces of prose of {PROSE_TOKENS} "
            "tokens each. They are kept in the user's cache; the fit-lens command makes others.",
        ),
        figures=(
            Figure(
                "The plasma sentence up to the copy, raw.",
                read["raw"][model.plasma_shown].plot("top1", every=2, cell_width=CELL_WIDTH),
            ),
            Figure(
                "The same, through the fitted lens.",
                read["fitted"][model.plasma_shown].plot("top1", every=2, cell_width=CELL_WIDTH),
            ),
            Figure("On prose, layer by layer.", quality.plot()),
        ),
    )
