"""Finding: the input is discarded at once."""

from ...plots import plot_aggregate
from .measured_model import MeasuredModel, entering
from .ranks import count, typical_rank
from .section import Condition, Figure, Section

_SHARE = 0.05


def discarding(model: MeasuredModel) -> Section:
    """KL to the output and KL to the input, compared across the first block."""
    to_final, to_input = model.prose.means("kl_final"), model.prose.means("kl_input")
    shares = model.prose.means("agrees_input")
    ranks = [typical_rank(mean) for mean in model.prose.means("log10_input_rank")]
    looks = entering(model.prose.points[shares[1:].argmax() + 1])
    one_way, other_way = (
        model.abstract.statistic(name)[:2].mean(dim=(1, 2)).tolist()
        for name in ("kl_final", "kl_final_reverse")
    )
    drop, rise = to_final[0] - to_final[1], to_input[1] - to_input[0]
    return Section(
        name="discarding",
        title="The input is discarded at once",
        brief=f"after the first block {to_final[1]:.1f} nats from the output, {to_input[1]:.1f} "
        "from the input",
        claim="After the very first block the stream already looks more like the output than like "
        "the input. Only the input looks like the input tokens, although some of them keep a high "
        "rank in a vocabulary of tens of thousands.",
        conditions=(
            Condition(
                "after the first block the layer is closer to the output than to the input: "
                "KL(final ‖ layer) < KL(input ‖ layer)",
                bool(to_final[1] < to_input[1]),
                f"{to_final[1]:.1f} nats to the output, {to_input[1]:.1f} to the input",
            ),
            Condition(
                "KL(input ‖ layer) jumps too across the first block, but less than "
                "KL(final ‖ layer)",
                bool(0 < rise < drop),
                f"KL(final ‖ layer) goes from {to_final[0]:.1f} to {to_final[1]:.1f} nats, "
                f"KL(input ‖ layer) from {to_input[0]:.1f} to {to_input[1]:.1f}",
            ),
            Condition(
                f"no layer after the input guesses the input token at {_SHARE:.0%} of the "
                "positions or more",
                bool((shares[1:] < _SHARE).all()),
                f"at most {shares[1:].max():.1%} ({looks}); at the input itself {shares[0]:.0%}",
            ),
        ),
        text=(
            "KL divergence is not a distance: it is not symmetric and does not add up along a "
            "path. So the post compares both with the same colours, cut at 30 nats.",
            f"The input token's typical rank is {count(ranks[1])} after the first block and "
            f"{count(ranks[len(ranks) // 2])} halfway up: far from the top, far from random.",
            "A comment asks for the other direction. At the positions shown, KL(layer ‖ final) "
            f"goes from {other_way[0]:.1f} nats at the input to {other_way[1]:.1f} after the first "
            f"block, while KL(final ‖ layer) goes from {one_way[0]:.1f} to {one_way[1]:.1f}.",
        ),
        figures=(
            Figure(
                "Each layer compared with the output. Bright is close.",
                model.abstract_map("kl_final"),
            ),
            Figure(
                "The same the other way round: the output compared with each layer.",
                model.abstract_map("kl_final_reverse"),
            ),
            Figure(
                "Each layer compared with the input, in the same colours.",
                model.abstract_map("kl_input"),
            ),
            Figure(
                "How each layer ranks the input token. Colours stop at rank 1,000.",
                model.abstract_map("input_rank"),
            ),
            Figure(
                "Means over short texts, beginning at the input.",
                plot_aggregate(
                    model.prose,
                    ["kl_final", "kl_input"],
                    include_input=True,
                    title="Layers compared with the output and with the input",
                ),
            ),
        ),
    )
