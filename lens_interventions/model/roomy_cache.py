"""A cache of keys and values that adds a token without copying those before it.

The `DynamicCache` of transformers copies old and new tokens at every step, in all layers of all
texts.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

# Columns for which room is made at a time.
_ROOM = 64


class _RoomyLayer(DynamicLayer):
    """Keys and values as the first columns of buffers with room for more."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rooms: tuple[Tensor, ...] = ()

    def update(
        self,
        key_states: Float[Tensor, "batch head new d_key"],
        value_states: Float[Tensor, "batch head new d_value"],
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        start, new = self.get_seq_length(), (key_states, value_states)
        stop = start + key_states.shape[-2]
        if not self._has_room(stop):
            known = (self.keys, self.values)
            self.lazy_initialization(key_states, value_states)
            self._rooms = tuple(
                states.new_empty(
                    *states.shape[:-2],
                    stop + _ROOM,
                    states.shape[-1],
                    # As in a `DynamicLayer`: OLMo 2 in half precision has keys in float32, and
                    # cannot attend unless the values are in float32 too.
                    dtype=torch.promote_types(key_states.dtype, states.dtype),
                )
                for states in new
            )
            for room, states in zip(self._rooms, known, strict=True):
                if states is not None:
                    room[..., :start, :] = states
        for room, states in zip(self._rooms, new, strict=True):
            room[..., start:stop, :] = states
        self.keys, self.values = (room[..., :stop, :] for room in self._rooms)
        return self.keys, self.values

    def _has_room(self, columns: int) -> bool:
        if self.keys is None or not self._rooms:
            return False
        room = self._rooms[0]
        # Choosing or repeating texts replaces the buffers' columns by other tensors.
        return room.data_ptr() == self.keys.data_ptr() and room.shape[-2] >= columns


def roomy_cache() -> Cache:
    """An empty cache, whose layers keep positions that leave a sliding window."""
    return Cache(layer_class_to_replicate=_RoomyLayer)
