"""Checks of what a bridge can do, made by running it on a few tokens.

The name of an architecture says too little, so each check runs the model on a few tokens and keeps
its answer. Checks of the model alone are here. A check that needs a patch is beside the code that
it guards, in `intervention`, and keeps its answer here too. `capabilities` returns all answers.
"""

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException
from transformers import DynamicCache

from .._progress import say
from .attention_cache import as_argument
from .exclusive import exclusive
from .hooks import capture, torch_hooks_as_found, without_hooks
from .kinds import ReadableModel, architecture, inner_model, recurrent_parts, weight_dtype
from .points import FINAL, INPUT, hook_name
from .precision import at_least_float32, is_half
from .product import product_dtype
from .replaced_forwards import forwards_of_user
from .user_hooks import lasting_hooks

Answer = TypeVar("Answer")

REFUSALS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""Errors that models raise if rows, masks or caches are not what they expect."""

# Torch raises an error of its own only on a GPU; on a CPU it is a plain RuntimeError.
_LACKS_MEMORY = re.compile("out of memory|allocate memory|not enough memory|ALLOC_FAILED", re.I)

_PATIENCE = 2.0  # seconds

# What decides how a bridge runs, and what the user has put on it: hooks that a check leaves on, and
# replaced forwards. The latter is None for answers that neither changes.
_State = tuple[tuple[Any, ...], tuple[Any, ...] | None]

_found: WeakKeyDictionary[ReadableModel, dict[_State, dict[str, Any]]] = WeakKeyDictionary()


def capabilities(bridge: ReadableModel) -> dict[str, Any]:
    """All answers found so far for a bridge in its current mode, with its hooks and forwards.

    Empty for a bridge on which no check has run. The values are those that the checks return.
    """
    return {**_answers(bridge, None), **_answers(bridge, _put_on(bridge))}


@exclusive
def recall(
    bridge: ReadableModel, question: str, find: Callable[[], Answer], *, any_hooks: bool = False
) -> Answer:
    """The answer to a question, found by calling `find` the first time.

    It is found anew when the user's permanent hooks, hooks of torch or replaced forwards are
    others, unless `any_hooks` says that none changes the answer. To look for them takes some
    milliseconds.
    """
    answers = _answers(bridge, None if any_hooks else _put_on(bridge))
    if question not in answers:
        answers[question] = find()
    return answers[question]


@contextmanager
def slow_check(what: str) -> Iterator[None]:
    """Tell the user what runs, if a check takes more than two seconds."""
    notice = threading.Timer(_PATIENCE, say, [f"trying {what} ..."])
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def record(bridge: ReadableModel, question: str, answer: object) -> None:
    """Keep the answer to a question, instead of an earlier one."""
    _answers(bridge, _put_on(bridge))[question] = answer


def _put_on(bridge: ReadableModel) -> tuple[Any, ...]:
    return (*lasting_hooks(bridge), *forwards_of_user(bridge))


def _answers(bridge: ReadableModel, put_on: tuple[Any, ...] | None) -> dict[str, Any]:
    modes = (
        bool(getattr(bridge, name, False)) for name in ("_weights_processed", "compatibility_mode")
    )
    config = getattr(inner_model(bridge), "config", None)
    attention = getattr(config, "_attn_implementation", None)
    states = _found.setdefault(bridge, {})
    dtypes = (weight_dtype(bridge), product_dtype(bridge.W_E))
    state = ((*modes, *dtypes, attention), put_on)
    if put_on and state not in states:
        # Hooks that are put on again count as others, so answers would pile up in a loop.
        for other in [known for known in states if known[-1]]:
            del states[other]
    return states.setdefault(state, {})


def weights_processed(bridge: TransformerBridge) -> bool:
    """Whether TransformerLens has folded or centred weights, or runs the model in its own way."""
    return bool(bridge.compatibility_mode or bridge._weights_processed)


def blocks_return_tuples(bridge: TransformerBridge) -> bool:
    """Whether a block returns a tuple that begins with the residual, as in some architectures."""

    def find() -> bool:
        outputs: list[object] = []

        def look(_module: nn.Module, _args: tuple, output: object) -> None:
            outputs.append(output)
            raise StopAtLayerException(torch.empty(0))

        # This may be asked while a text runs, and its hooks expect no other text.
        with (
            torch.no_grad(),
            without_hooks(bridge.hook_points()),
            torch_hooks_as_found([bridge.blocks[0]]),
        ):
            bridge.blocks[0].register_forward_hook(look)
            bridge(torch.zeros(1, 1, dtype=torch.long, device=bridge.cfg.device))
        return isinstance(outputs[0], tuple)

    return recall(bridge, "blocks return tuples", find, any_hooks=True)  # at every decoding step


def fills_cache(bridge: TransformerBridge) -> bool:
    """Whether the model's attention fills a cache of keys and values that it is given.

    With some pairs of versions, transformers and TransformerLens leave the cache empty without an
    error. A recurrent layer keeps something else.
    """

    def find() -> bool:
        if recurrent_parts(bridge):
            return False
        tokens, cache = few_tokens(bridge), DynamicCache()
        final = hook_name(FINAL, int(bridge.cfg.n_layers))
        with torch.no_grad(), without_hooks(bridge.hook_points()):
            for piece in tokens.split(2, dim=-1):
                capture(bridge, piece, [final], use_cache=True, **as_argument(bridge, cache))
        return cache.get_seq_length() == tokens.shape[1]

    return recall(bridge, "attention fills a cache of keys and values", find)


def frequencies_change_after(bridge: TransformerBridge) -> float:
    """The length in tokens beyond which a text has other rotary frequencies; infinity if none.

    Beyond it, cached keys have the angles of a shorter text. The length is read off the model's
    config and modules, because a run that long would take minutes.
    """

    def find() -> float:
        found = []
        for module in bridge.original_model.modules():
            kinds = getattr(module, "rope_type", None)
            for layer_type, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
                if isinstance(kind, str) and ("dynamic" in kind or kind == "longrope"):
                    config: Any = module.config
                    rope = config.rope_parameters
                    rope = rope if layer_type is None else rope[layer_type]
                    default = config.max_position_embeddings
                    found.append(float(rope.get("original_max_position_embeddings") or default))
        return min(found, default=math.inf)

    return recall(bridge, "rotary frequencies change after so many tokens", find)


def lacks_memory(error: Exception) -> bool:
    """Whether an error tells of the machine's memory, and so nothing about the model."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_LACKS_MEMORY.search(str(error)))


def refuse_training_mode(bridge: ReadableModel) -> None:
    """Raise `ValueError` if a part of a bridge is in training mode."""
    # A HookedTransformer has no dropout, and is in training mode when it is loaded.
    if isinstance(bridge, TransformerBridge):
        parts = bridge.original_model.named_modules()
        # What stands at a hook, such as an autoencoder of sae-lens, is no part of the model.
        training = next((n for n, part in parts if part.training and ".hook_" not in f".{n}"), None)
        if training is not None:
            raise ValueError(
                f"{training or 'the model'} is in training mode, where dropout is on: call "
                "bridge.eval()"
            )


@exclusive
def embedding_factor(bridge: ReadableModel) -> float:
    """The number by which the model multiplies a row of `W_E` before its first block.

    It is measured at every call, because a permanent hook may change it.

    Raises `NotImplementedError` if the model does more to an embedding than multiply it;
    `ValueError` if the four rows that are tried are not finite, or the model is in training mode.
    """
    refuse_training_mode(bridge)
    weight = bridge.W_E.detach()
    tokens = few_tokens(bridge)
    if not weight[tokens].isfinite().all():
        raise ValueError("W_E is not finite (NaN or infinite): look at the weights of the model")
    if not weight[tokens].any():
        return 1.0  # of zeros no factor can be told
    # In a bridge of BLOOM `hook_embed` comes after a norm; a HookedTransformer has no other.
    fed_at = "embed.hook_out" if "embed.hook_out" in bridge.hook_dict else "hook_embed"
    points = [fed_at, hook_name(INPUT, int(bridge.cfg.n_layers))]
    with torch.no_grad(), without_hooks(bridge.hook_points()):
        fed, entering = capture(bridge, tokens, points)
    rows = weight[tokens]
    # A half-precision model rounds its factor and its products.
    tolerance = 2e-2 if is_half(weight.dtype) else 1e-5
    # Without position embeddings, the embedding is what enters the first block. In TransformerLens
    # 3.9 no earlier hook sees the factor of Granite.
    rows, entering, fed = (part.to(at_least_float32(part.dtype)) for part in (rows, entering, fed))
    for embedded in (entering, fed):
        factor = float((embedded * rows).sum() / (rows * rows).sum())
        atol = tolerance * float(embedded.std())
        if torch.allclose(embedded, rows * factor, rtol=tolerance, atol=atol) and (
            embedded is entering or _only_adds_positions(bridge, factor, tolerance)
        ):
            factor = 1.0 if abs(factor - 1) < tolerance else factor
            record(bridge, "factor of the token embedding", factor)
            return factor
    raise NotImplementedError(
        f"{architecture(bridge)} transforms its token embeddings before the first block, so a "
        "row of W_E is not what it feeds: use the unembedding (embedding='W_U')"
    )


def _only_adds_positions(bridge: ReadableModel, factor: float, tolerance: float) -> bool:
    """Whether all that comes between `factor` times a row of `W_E` and block 0 is a sum.

    What is added must be the same for other tokens at the same positions, as it is not for the norm
    of BLOOM. A hook may act differently on another text, so with lasting hooks nothing is tried.
    """
    if lasting_hooks(bridge):
        return True
    tokens = few_tokens(bridge)
    # The first token stays, because a model may treat padding at the beginning in its own way.
    texts = (tokens, tokens[:, [0, 2, 1, 3]])
    with torch.no_grad(), without_hooks(bridge.hook_points()):
        entering, other = (
            capture(bridge, text, [hook_name(INPUT, int(bridge.cfg.n_layers))])[0].float()
            for text in texts
        )
    one, two = (bridge.W_E.detach()[text].float() * factor for text in texts)
    atol = tolerance * float(entering.abs().max())
    return torch.allclose(entering - one, other - two, rtol=0, atol=atol)


def few_tokens(bridge: ReadableModel) -> torch.Tensor:
    """Four token ids, `[1, 4]`, for a check."""
    return torch.arange(4, device=bridge.cfg.device)[None] % int(bridge.cfg.d_vocab)
