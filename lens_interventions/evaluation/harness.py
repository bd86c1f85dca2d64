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

    It needs the extra `eval`: from the checkout, `pip install ".[eval]"`. Continuations are scored
    as in `teacher_forced_log_probs`, and texts are continued as in `generate`: each token is
    written once it is known, at all positions of the patch, including those of the context. With
    `positions="generated"` the prompt is the request's context. The answer to a request does not
    depend on other requests or their order, up to rounding and except for sampled requests that
    have the same context.

    With `use_cache=` the harness stores answers by request only, so give each patch a file of its
    own.

    **Arguments:**

    - `patch`: what to write; None is the model without a patch.
    - `batch_size`: how many texts the model reads at a time.
    - `prepend_bos`: whether to put a BOS token before contexts that do not begin with one; by
        default as `bridge.to_tokens` does. The harness's own `hf` model leaves this to the
        tokenizer, which adds none for GPT-2 and SmolLM2. An empty context, and a text whose
        perplexity is asked for, always get one BOS token, or EOS if there is no BOS.
    - `max_length`: how many tokens the model reads at a time, its context by default. Longer
        contexts lose their beginning, with a warning. Longer texts of `loglikelihood_rolling` are
        read in windows that predict every token once, each window as a separate text.
    - `max_gen_toks`: how many tokens to generate if the task does not say.
    - `seed`: the seed of sampling. Draws also depend on the context, and on how many earlier
        requests had the same context.

    **Returns:** an `lm_eval.api.model.LM`.

    Raises `ImportError` if lm_eval is not installed; `ValueError` for a bridge without a tokenizer
    that names BOS or EOS, or for a length beyond the model's context; `TypeError` for a list of
    patches, or a `batch_size` such as `"auto"`.
    """
    try:
        from .patched_lm import PatchedLM
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise ImportError(
            'the harness is not installed; from the checkout: pip install ".[eval]"'
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
