"""In which order the pieces of a corpus are visited."""

from lens_interventions.intervention.training.corpus import visited


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
