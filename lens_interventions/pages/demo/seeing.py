"""The post's idea for sampling: let late layers see the token that really came next."""

from ...experiments.design.sequences import continuation
from ...intervention.generation.generate import generate
from ...intervention.patch import NextTokenPatch
from ...lens.logit_lens import logit_lens
from ...measures.behaviour import ending_loops
from ...model.hooks import hooked
from ...model.points import FINAL
from ...plots import plot_side_by_side
from .example_texts import LOOPING, LOOPING_TOKENS, PLASMA, PLASMA_WORD
from .measured_model import MeasuredModel
from .section import Condition, Figure, Section

STRENGTH = 0.1
_SHOWN_TOKENS, _CELL_WIDTH = 5, 40.0  # so that two readings and their difference fit the page


def seeing(model: MeasuredModel) -> Section:
    """The plasma sentence and a looping continuation, clean and patched."""
    bridge = model.bridge
    n_layers = int(bridge.cfg.n_layers)
    layer = min(round(0.8 * n_layers), n_layers - 1)
    patch = NextTokenPatch(layer=layer, strength=STRENGTH, scale="norm", first_position=1)
    tokens = bridge.to_tokens(PLASMA)
    word = continuation(bridge, PLASMA, PLASMA_WORD)[0]
    clean = logit_lens(bridge, tokens, next_token=word)
    with hooked(bridge, patch.fwd_hooks(bridge, tokens)):
        patched = logit_lens(bridge, tokens, next_token=word)
    last = clean.points.index(FINAL)
    before, after = (float(read.next_log_prob[last, 0, -1].exp()) for read in (clean, patched))
    out = generate(bridge, LOOPING, [None, patch], max_new_tokens=LOOPING_TOKENS)
    texts = [LOOPING + text for text in out.texts or ()]
    loops = ending_loops(out.tokens, lengths=out.lengths)
    ends = [
        "no loop" if loop is None else f"a loop of {loop.period} tokens from token {loop.start} on"
        for loop in loops
    ]
    return Section(
        name="seeing",
        title="Letting late layers see the true next token",
        brief=f"p(“plasma”) = {before:.2f} without the patch, {after:.2f} with it; the patched "
        f"continuation ends in {ends[1]}",
        claim="In a comment the author thinks of replacing late activations, which are a guess at "
        "the next token, with the embedding of the token that really came. Later positions would "
        "then see what happened rather than what was expected.",
        conditions=(
            Condition(
                "the patch makes the copy of “plasma” more probable",
                after > before,
                f"p = {before:.2f} without the patch, {after:.2f} with it",
            ),
            Condition(
                "the model's own continuation ends in an exact loop, the patched one does not",
                loops[0] is not None and loops[1] is None,
                f"{ends[0]} without the patch, {ends[1]} with it",
            ),
        ),
        text=(
            f"The patch moves the residual that enters block {layer} a tenth of the way toward the "
            "embedding of the next token, scaled to the residual's length, at every position "
            "whose next token is known, but for the first, where models park attention. It leaves "
            "the predicting position alone, so a sampler can do exactly this. Two texts show what "
            "the patch does and prove nothing; the experiments measure it over many texts, against "
            "controls. If a word has several tokens, p is the probability of the first.",
            f"Greedy, without the patch: {texts[0]}",
            f"Greedy, with the patch: {texts[1]}",
        ),
        figures=(
            Figure(
                f"The end of the plasma sentence, read clean and with block {layer} patched. From "
                "that block up, a patched position holds the token that it should predict, so (*) "
                "there does not say that the model predicts it. Only the last column is not "
                "patched.",
                plot_side_by_side(
                    clean[slice(-_SHOWN_TOKENS, None)],
                    patched[slice(-_SHOWN_TOKENS, None)],
                    "next_log_prob",
                    names=("clean", "patched"),
                    cell_width=_CELL_WIDTH,
                ),
            ),
        ),
    )
