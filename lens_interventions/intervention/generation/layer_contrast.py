"""DoLa and SLED: choose the next token by how the last layer differs from earlier ones."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import LogitsProcessor

from ...model.argument_types import require_numbers, require_whole_numbers
from ...model.embedding import embeddings_are_tied
from ...model.points import chosen_layers
from ...model.readout import Readout, readout, refuse_readout_hooks
from .contrasted_logits import dola, sled

EarlyLayers = str | Sequence[int]
"""Candidate layers: "low", "high", "all" or a list; see `DoLa`."""

# From this many layers on, "low" and "high" are the first and the last 20 layers, not the halves.
_DEEP, _BUCKET = 41, 20


class LayerContrast(LogitsProcessor, ABC):
    """A rule that compares the last layer's logits with the lens's readings of earlier layers.

    It goes into the `logits_processor` of `generate`, which hands it the residual stream.
    """

    layers: EarlyLayers

    def __call__(self, _input_ids: Tensor, _scores: Tensor) -> NoReturn:
        """Raises `TypeError`: ids and scores do not contain the readings of earlier layers."""
        raise TypeError(
            f"{type(self).__name__} reads the residual stream, which transformers does not hand to "
            "processors: generate with lens_interventions.generate, or pass "
            "custom_generate=lens_interventions.as_custom_generate(bridge, None) to model.generate"
        )

    @abstractmethod
    def contrast(
        self, last: Float[Tensor, "row d_vocab"], early: Float[Tensor, "layer row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        """The new logits, from those of the last layer and of earlier ones."""

    def bind(self, bridge: TransformerBridge) -> "BoundContrast":
        """The rule on a model.

        Raises `ValueError` for layers that the model does not have, if its logits are not read off
        its last residual, or if a hook is on the final norm or the unembedding; `TypeError` for
        layers that are neither a word nor a list of whole numbers.
        """
        refuse_readout_hooks(bridge)
        n_layers = int(bridge.cfg.n_layers)
        layers = early_layers(self.layers, n_layers, tied=embeddings_are_tied(bridge))
        return BoundContrast(self, readout(bridge), tuple(f"{layer}_pre" for layer in layers))


@dataclass(frozen=True)
class DoLa(LayerContrast):
    """Prefers tokens that the last layer finds likelier than an earlier one (Chuang et al. 2023).

    At each step, the rule takes the candidate layer whose distribution is furthest from the last
    layer's, by Jensen-Shannon divergence. The logits become `log p_last - log p_early`. Tokens with
    less than `alpha` times the probability of the likeliest are cut off.

    The authors add a repetition penalty of 1.2: put
    `transformers.RepetitionPenaltyLogitsProcessor(1.2)` into the same list of processors.

    Earlier layers are read through the final norm, as the lens reads them. The authors' code, and
    transformers' code after it, leaves the norm out and takes one layer for the whole batch.

    Source: [DoLa: Decoding by Contrasting Layers](https://arxiv.org/abs/2309.03883), ICLR 2024.

    Attributes:
        layers: the candidates, as l of the residual `r[l]`: a list, "all", or every second layer of
            the lower half ("low") or the upper half ("high"); in a model of more than 40 layers, of
            the first or the last 20. If the embedding is the unembedding, "low" and "all" begin at
            2, because the input would be read as its own token.
        alpha: above 0 and at most 1.

    Raises `ValueError` for an unknown word as `layers`, or if `alpha` is out of range, and
    `TypeError` if it is not a number.
    """

    layers: EarlyLayers = "low"
    alpha: float = 0.1

    def __post_init__(self) -> None:
        _require_word(self.layers)
        require_numbers(alpha=self.alpha)
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, got {self.alpha}")

    def contrast(
        self, last: Float[Tensor, "row d_vocab"], early: Float[Tensor, "layer row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        """`log p_last - log p_early` of the tokens that are likely enough, -inf elsewhere."""
        return dola(last, early, alpha=self.alpha)


@dataclass(frozen=True)
class SLED(LayerContrast):
    """Carries the logits further in the direction of their evolution (Zhang et al. 2024).

    The change of the logits from each earlier layer to the last shows the direction in which they
    evolve. All layers together estimate the distribution that lies ahead, and the logits take one
    gradient step towards it. All but the `scale` likeliest tokens are cut off.

    Earlier layers are read through the final norm, as the lens reads them. The rule takes one step;
    the authors' code takes ten, at falling rates.

    Source: [SLED: Self Logits Evolution Decoding](https://arxiv.org/abs/2411.02433), NeurIPS 2024.

    Attributes:
        layers: the earlier layers, chosen as in `DoLa`.
        rate: the size of the step, which the authors call evolution rate.
        scale: how many tokens are kept, which the authors call evolution scale.

    Raises `ValueError` for an unknown word as `layers`, or if `rate` is not finite or `scale` below
    1, and `TypeError` if `rate` is not a number or `scale` not a whole number.
    """

    layers: EarlyLayers = "all"
    rate: float = 2.0
    scale: int = 10

    def __post_init__(self) -> None:
        _require_word(self.layers)
        require_numbers(rate=self.rate)
        require_whole_numbers(scale=self.scale)
        if self.scale < 1:
            raise ValueError(f"scale must be at least 1 token, got {self.scale}")
        if not math.isfinite(self.rate):
            raise ValueError(f"rate must be finite, got {self.rate}")

    def contrast(
        self, last: Float[Tensor, "row d_vocab"], early: Float[Tensor, "layer row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        """The logits of the likeliest tokens after the step, -inf elsewhere."""
        return sled(last, early, rate=self.rate, scale=self.scale)


@dataclass(frozen=True)
class BoundContrast:
    """A rule on a model.

    Attributes:
        rule: the rule that changes the logits.
        readout: the model's own, through which earlier layers are read.
        labels: the residual points of the earlier layers.
    """

    rule: LayerContrast
    readout: Readout
    labels: tuple[str, ...]

    def __call__(
        self,
        last: Float[Tensor, "row d_vocab"],
        residuals: Mapping[str, Float[Tensor, "row d_model"]],
    ) -> Float[Tensor, "row d_vocab"]:
        """New logits from the model's own and the residual stream at `labels`, row by row."""
        # One product for all layers: with few rows, reading the weight takes most of the time.
        early = self.readout(torch.stack([residuals[label] for label in self.labels]))
        return self.rule.contrast(last, early.to(last))


def early_layers(layers: EarlyLayers, n_layers: int, *, tied: bool) -> tuple[int, ...]:
    """The candidate layers, each the l of `r[l]`, as transformers 4 chose them for `dola_layers`.

    `tied` says whether the embedding is the unembedding.

    Raises `ValueError` for an unknown word, an empty list and layers that do not exist, and
    `TypeError` for anything else but a list of whole numbers.
    """
    _require_word(layers)
    if not isinstance(layers, str):
        return chosen_layers(layers, n_layers)
    first = min(2, n_layers - 1) if tied else 0
    deep = n_layers >= _DEEP
    found = {
        "low": range(first, _BUCKET if deep else n_layers // 2, 2),
        "high": range(n_layers - _BUCKET if deep else n_layers // 2, n_layers, 2),
        "all": range(first, n_layers),
    }
    # A shallow model with tied embeddings may have no lower half at all.
    return tuple(found[layers]) or (first,)


def _require_word(layers: object) -> None:
    if isinstance(layers, str) and layers not in ("low", "high", "all"):
        raise ValueError(f"layers must be 'low', 'high', 'all' or a list of ints, got {layers!r}")
