"""A model's predictions along continuations of one prompt, by real tokens or distributions."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ..model.attention_cache import as_argument
from ..model.capabilities import fills_cache, frequencies_change_after
from ..model.embedding import Embedding, embedding
from ..model.hooks import HookFunction, temporary_hooks
from ..model.points import FINAL
from ..model.readout import Readout, readout, refuse_readout_hooks
from ..model.residuals import residuals
from ..model.tokens import TokenBatch
from ..model.user_hooks import has_user_hooks, hooked_modules

_EMBEDDED = "embed.hook_out"


@dataclass(frozen=True)
class Continuations:
    """A given prompt, tokens that vary, and a given ending.

    Attributes:
        bridge: the model.
        lead: `[lead]`, the tokens of the prompt that run again with every continuation: the last
            one, or all if the model cannot continue from cached keys and values.
        ending: `[ending]`, the tokens after those that vary.
        cache: keys and values of the prompt before `lead`.
        embed: the embedding that the model feeds for a token.
        read: the readout from the last residual to logits.
    """

    bridge: TransformerBridge
    lead: Int[Tensor, " lead"]
    ending: Int[Tensor, " ending"]
    cache: DynamicCache | None
    embed: Embedding
    read: Readout

    @property
    def d_vocab(self) -> int:
        """How many tokens there are to choose from."""
        return len(self.read.weight)

    def forward_tokens(self, rows: int) -> int:
        """How many tokens go through the model to give the logits of `rows` predictions."""
        return len(self.lead) - 1 + rows

    def of_tokens(
        self, tokens: Int[Tensor, "batch new"], rows: int
    ) -> Float[Tensor, "batch {rows} d_vocab"]:
        """Logits of `rows` predictions; the first predicts the first token."""
        return self._run(tokens, rows, None)

    def of_weights(
        self, weights: Float[Tensor, "batch new d_vocab"], rows: int
    ) -> Float[Tensor, "batch {rows} d_vocab"]:
        """The same where each token is the expected embedding of a distribution."""
        return self._run(weights.argmax(-1), rows, self.embed.mean(weights))

    def with_ending(self, tokens: Int[Tensor, "batch new"]) -> Int[Tensor, "batch text"]:
        """The tokens that vary, and the ending."""
        return torch.cat([tokens, self.ending.expand(len(tokens), -1)], dim=1)

    def _run(
        self,
        tokens: Int[Tensor, "batch new"],
        rows: int,
        embedded: Float[Tensor, "batch new d_model"] | None,
    ) -> Float[Tensor, "batch {rows} d_vocab"]:
        lead = self.lead.expand(len(tokens), -1)
        ids = torch.cat([lead, self.with_ending(tokens)], dim=1)[:, : self.forward_tokens(rows)]
        begin = lead.shape[1]
        hooks: list[tuple[HookPoint, HookFunction]] = []
        if embedded is not None:
            end = min(begin + tokens.shape[1], ids.shape[1])
            middle = embedded[:, : end - begin]

            def feed(fed: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Tensor:
                return torch.cat([fed[:, :begin], middle.to(fed.dtype), fed[:, end:]], dim=1)

            hooks.append((self.bridge.hook_dict[_EMBEDDED], feed))
        forward: dict[str, Any] = {}
        if self.cache is not None:
            cache = copy.deepcopy(self.cache)
            cache.batch_repeat_interleave(len(tokens))
            forward = {"use_cache": True, **as_argument(self.bridge, cache)}
        with temporary_hooks(hooks):
            whole = TokenBatch.unpadded(ids)
            (final,) = residuals(self.bridge, whole, [FINAL], **forward)
        return self.read(final[:, begin - 1 :])


def continuations(
    bridge: TransformerBridge,
    prompt: Int[Tensor, " prompt"],
    ending: Int[Tensor, " ending"],
    n: int,
) -> Continuations:
    """The continuations of `prompt` by `n` tokens and an ending; runs the prompt.

    The whole text runs each time if there is a hook on the bridge, which may be made for it, or if
    the model fills no cache or has other rotary frequencies for longer texts.

    Raises `ValueError` if a hook is on the embedding, the final norm or the unembedding;
    `ValueError` and `NotImplementedError` in the cases of `readout` and `embedding`.
    """
    read = readout(bridge)
    refuse_readout_hooks(bridge)
    for name in hooked_modules(bridge, "embed"):
        raise ValueError(
            f"there is a hook on {name}, which would not act on distributions over tokens: their "
            "expected embeddings replace what it returns. Take it off for this call, or hook "
            "blocks.0.hook_resid_pre"
        )
    embed = embedding(bridge)
    before, lead = prompt[None, :-1], prompt[-1:]
    length = len(prompt) + n + len(ending)
    cache = None
    if before.numel() and (
        has_user_hooks(bridge)
        or not fills_cache(bridge)
        or length > frequencies_change_after(bridge)
    ):
        lead = prompt
    elif before.numel():
        cache = DynamicCache()
        batch = TokenBatch.unpadded(before)
        with torch.no_grad():
            residuals(bridge, batch, [FINAL], use_cache=True, **as_argument(bridge, cache))
    return Continuations(bridge, lead, ending, cache, embed, read)
