"""Which pieces of a corpus are held out, and in which order the others are visited."""

import numpy as np

from lens_interventions.intervention.training.corpus import split_corpus, visited
from tests.support.tiny import shared_bridge


def test_every_piece_once_in_every_round_and_never_the_same_seed():
    seen, seeds = [], []
    for step in range(14):
        indices, drawn = visited(7, 4, step, 3)
        seen += indices
        seeds += drawn.tolist()
    rounds = [seen[i : i + 7] for i in range(0, 56, 7)]
    assert all(sorted(one) == list(range(7)) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 8
    assert len(set(seeds)) == 56
    assert visited(7, 4, 5, 3)[0] == seen[20:24]


def test_held_out_windows_are_spread_evenly_over_the_text():
    bridge = shared_bridge("llama")
    texts = [[token, token, token] for token in range(5, 35)]
    training, kept = split_corpus(
        bridge, texts[:1], texts, length=12, n_held_out=8, prepend_bos=False
    )
    assert [piece.tolist() for piece in training] == texts[:1]
    places = [int(piece[0]) - 5 for piece in kept]
    # Windows are 30 / 8 texts apart, so that each share of the text has one.
    gaps = np.diff([*places, 30])
    assert len(places) == 8
    assert set(gaps.tolist()) == {3, 4}
