"""A patched model for EleutherAI's lm-evaluation-harness, with the extra `eval`."""

from typing import TYPE_CHECKING

from transformer_lens.model_bridge import TransformerBridge

from ..intervention.patch import NextTokenPatch
from ..model.exclusive import exclusive

if TYPE_CHECKING:
    from .patched_lm import PatchedLM


@exclusive
def as_harness_model(
    bridge: TransformerBridge,
    patch: NextTokenPatch | None,
    *,
    batch_size: int = 8,
    prepend_bos: bool | None = None,
    max_length: int | None = None,
    max_gen_toks: int = 256,
    seed: int = 0,
) -> "PatchedLM":
    """A model under a patch, for the `model` of `lm_eval.simple_evaluate`.

    It needs the extra `eval`: `pip install "lens-interventions[eval]"`. Continuations are scored as
    `teacher_forced_log_probs` scores them and texts continued as by `generate`: at all positions
    that the patch is for, those of the context too, each token is written where it is known. With
    `positions="generated"` the prompt is the request's context. A request gets what it gets alone,
    in any order and batch, up to rounding.

    The harness keeps answers of `use_cache=` by their request alone: give each patch a file of its
    own.

    **Arguments:**

    - `patch`: what to write; None is the model without a patch.
    - `batch_size`: how many texts the model reads at a time.
    - `prepend_bos`: whether contexts begin with a BOS token, unless they bring it; by default as
        `bridge.to_tokens` does. The harness's own `hf` model leaves that to the tokenizer, which is
        False for GPT-2 and SmolLM2. An empty context, and a text whose perplexity is asked for, are
        always preceded by one BOS token, or EOS where there is none.
    - `max_length`: how many tokens the model reads, its context by default. Longer contexts lose
        their beginning, with a warning; longer texts of `loglikelihood_rolling` are read in
        windows that predict every token once, each a text of its own.
    - `max_gen_toks`: how many tokens are generated where a task does not say.
    - `seed`: of sampling. Draws also depend on the context, and on how often it was asked before.

    **Returns:** an `lm_eval.api.model.LM`.

    Raises `ImportError` without lm_eval, and `ValueError` for a bridge without a tokenizer that
    names BOS or EOS, or for a length beyond the model's context.
    """
    try:
        from .patched_lm import PatchedLM
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise ImportError(
            "the harness is not installed: pip install 'lens-interventions[eval]'"
        ) from error
    return PatchedLM(
        bridge,
        patch,
        batch_size=batch_size,
        prepend_bos=prepend_bos,
        max_length=max_length,
        max_gen_toks=max_gen_toks,
        seed=seed,
    )
