"""Token ids for tests of what a text does."""

import torch
from hypothesis import strategies as st

# Three symbols make repeats of every kind likely.
short_texts = st.lists(st.integers(0, 2), max_size=24)


def ids(text):
    return torch.tensor([ord(character) for character in text], dtype=torch.long)
