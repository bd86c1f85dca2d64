"""The sections of the demo page on less text, from which they make the same figures."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# By the names of the constants.
_READ = {
    "measured_model.PROSE_TEXTS": 2,
    "measured_model.PROSE_TOKENS": 16,
    "first_block.PROSE_TEXTS": 2,
    "first_block.PROSE_TOKENS": 16,
    "rarity._EXCERPTS": 2,
    "rarity._TOKENS": 20,
    "repeated_text.ROUNDS": 2,
    # This one loops from its first new token on.
    "seeing.LOOPING": "A B C D " * 7 + "A B C D",
    "seeing.LOOPING_TOKENS": 20,
}


@contextmanager
def less_is_read() -> Iterator[None]:
    """In the block, sections read only a few short texts."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, less in _READ.items():
            monkeypatch.setattr(f"lens_interventions.pages.demo.{name}", less)
        yield
