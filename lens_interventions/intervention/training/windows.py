"""Windows of text and what enters the lowest patched layer in them, kept over a training.

The blocks below that layer never change. They run once for each window, without gradients, and a
batch is put together from what they left.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_bits
from ...model.fingerprint import fingerprint
from ...model.partial_run import run_late_blocks
from ...model.readout import readout
from ...model.residuals import residuals
from ...model.tokens import TextOrTokens, TokenBatch, require_texts
from ...model.windows import as_batch, token_windows
from ..known_text import KnownText
from .loss import next_token_nats

# One text or window in so many is held out where nobody said which.
_HELD_OUT = 10
_GIB = 2.0**30


@dataclass(frozen=True)
class WindowBatch:
    """A few windows, padded on the right.

    Attributes:
        resid: `[batch, pos, d_model]`, `r[layer]`; arbitrary at padding.
        text: their tokens, lengths and seeds.
        clean_nats: `[batch]`, what the next tokens of each cost without a patch.
    """

    resid: Float[Tensor, "batch pos d_model"]
    text: KnownText
    clean_nats: Float[Tensor, " batch"]


class ResidualStore:
    """What enters a layer in windows of text, kept between visits and between trainings.

    Several trainings on the same text, such as those of a source and its controls, need the blocks
    below the layer once if they are given the same store. It takes 4 d_model bytes a token in
    float32: 0.3 GB for 130,000 tokens of the default model.
    """

    def __init__(self, *, gib: float = 4.0) -> None:
        """Nothing more is kept when `gib` are full; the rest is computed at every visit."""
        self._room = gib * _GIB
        self._kept: dict[tuple[str, int, bytes], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def read(
        self, bridge: TransformerBridge, weights: str, layer: int, tokens: Int[Tensor, " pos"]
    ) -> tuple[Float[Tensor, "pos d_model"], Float[Tensor, ""]]:
        """`r[layer]` of a window, and the nats of its next tokens without a patch.

        `weights` is the bridge's fingerprint. A window is run alone, so that no batch changes a bit
        of it.
        """
        key = (weights, layer, tokens.cpu().numpy().tobytes())
        if key in self._kept:
            return self._kept[key]
        window = as_batch(tokens)
        (resid,) = residuals(bridge, window, [f"{layer}_pre"])
        late = run_late_blocks(bridge, layer, resid)
        (nats,) = next_token_nats(readout(bridge), late, KnownText.from_batch(window))
        size = resid.numel() * resid.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[key] = (resid[0], nats)
        return resid[0], nats


class TrainingWindows:
    """A corpus in windows, read at one layer.

    Attributes:
        windows: token ids of each.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        windows: Sequence[Int[Tensor, " _"]],
        *,
        layer: int,
        store: ResidualStore,
    ) -> None:
        """Nothing is run yet."""
        self.windows = tuple(windows)
        self._bridge, self._layer, self._store = bridge, layer, store
        self._weights = fingerprint(bridge)

    def batch(self, indices: Sequence[int], seeds: Int[Tensor, " batch"]) -> WindowBatch:
        """Some windows, each with a seed for the random sources."""
        tokens = [self.windows[index] for index in indices]
        read = [self._store.read(self._bridge, self._weights, self._layer, ids) for ids in tokens]
        lengths = torch.tensor([len(ids) for ids in tokens], device=tokens[0].device)
        column = torch.arange(int(lengths.max()), device=lengths.device)
        batch = TokenBatch(
            torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True), column < lengths[:, None]
        )
        return WindowBatch(
            torch.nn.utils.rnn.pad_sequence([resid for resid, _ in read], batch_first=True),
            KnownText.from_batch(batch, text_seeds=seeds),
            torch.stack([nats for _, nats in read]),
        )

    def groups(self, indices: Sequence[int], rows: int) -> list[list[int]]:
        """The same windows in groups of at most `rows` tokens, padding included, one at least."""
        groups: list[list[int]] = []
        for index in indices:
            longest = max(len(self.windows[i]) for i in [index, *(groups[-1] if groups else [])])
            if groups and (len(groups[-1]) + 1) * longest <= rows:
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def typical_sizes(self, layers: Sequence[int], first_position: int) -> Float[Tensor, " layer"]:
        """Median root mean square of `r[layer]` over positions from `first_position` up."""
        labels = [f"{layer}_pre" for layer in layers]
        sizes: list[list[Tensor]] = [[] for _ in layers]
        with torch.no_grad():
            for window in self.windows[:4]:
                streams = residuals(self._bridge, as_batch(window), labels)
                for rows, stream in zip(sizes, streams, strict=True):
                    late = stream[0, min(first_position, len(window) - 1) :]
                    wide = late.to(torch.promote_types(late.dtype, torch.float32))
                    rows.append(wide.square().mean(-1).sqrt())
        return torch.stack([torch.cat(rows).median() for rows in sizes])

    def digest(self) -> str:
        """A hash of all the tokens."""
        hashed = hashlib.sha256()
        for window in self.windows:
            hashed.update(window.cpu().numpy().tobytes() + b"|")
        return hashed.hexdigest()


def split_windows(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    held_out: Iterable[TextOrTokens] | None,
    *,
    window: int,
    n_held_out: int,
    prepend_bos: bool | None,
) -> tuple[list[Int[Tensor, " _"]], list[Int[Tensor, " _"]]]:
    """Windows to train on, and at most `n_held_out` others, spread evenly.

    Without texts to hold out, every tenth text is; every tenth window where texts are fewer.

    Raises `ValueError` where one of the two has nothing to predict.
    """

    def cut(some: Iterable[TextOrTokens]) -> list[list[Tensor]]:
        require_texts(some)
        pieces = (
            token_windows(bridge, [text], window=window, prepend_bos=prepend_bos) for text in some
        )
        texts = [[piece for piece in text if len(piece) > 1] for text in pieces]
        return [text for text in texts if text]

    units = cut(texts)
    if held_out is not None:
        others = cut(held_out)
    else:
        if len(units) < _HELD_OUT:
            units = [[piece] for unit in units for piece in unit]
        others = units[_HELD_OUT - 1 :: _HELD_OUT]
        units = [unit for i, unit in enumerate(units, 1) if i % _HELD_OUT]
    training, kept = [p for unit in units for p in unit], [p for unit in others for p in unit]
    if not training or not kept:
        raise ValueError(
            f"{len(training)} windows of {window} tokens to train on and {len(kept)} to hold out: "
            f"give more text, shorter windows, or texts as held_out (else one in {_HELD_OUT} is)"
        )
    n_kept = min(n_held_out, len(kept))
    return training, [kept[i * len(kept) // n_kept] for i in range(n_kept)]


def visited(n_windows: int, batch_size: int, step: int, seed: int) -> tuple[list[int], Tensor]:
    """Which windows a step trains on, and a seed for each that no other step uses.

    Every window once, in an order drawn anew each time through: a function of these numbers alone,
    so that all sources see the same.
    """
    visits = torch.arange(step * batch_size, (step + 1) * batch_size)
    indices: list[int] = []
    for epoch in (visits // n_windows).unique():
        order = random_bits(seed, torch.arange(n_windows), epoch).argsort(stable=True)
        indices += order[visits[visits // n_windows == epoch] % n_windows].tolist()
    return indices, random_bits(seed + 1, visits)
