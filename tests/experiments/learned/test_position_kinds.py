"""Kinds of positions, by hand."""

import torch

from lens_interventions.experiments.learned.position_kinds import (
    KINDS,
    attention_by_kind,
    matched_positions,
    position_kinds,
)


class TestPositions:
    def test_kinds(self):
        tokens = torch.tensor([0, 7, 5, 8, 9, 4, 5, 3, 5])
        assert position_kinds(tokens) == [
            "first",
            "before one",
            "earlier occurrence",
            "after one",
            "other",
            "before one",
            "earlier occurrence",
            "after one",
            "itself",
        ]
        assert position_kinds(torch.tensor([5, 5, 5])) == ["first", "earlier occurrence", "itself"]
        assert position_kinds(torch.tensor([5])) == ["first"]

    def test_attention_is_shared_out_whole(self):
        kinds = position_kinds(torch.tensor([0, 5, 8, 5, 8, 5]))
        pattern = torch.rand(3, 6).softmax(-1)
        found = attention_by_kind(pattern, kinds)
        assert found.shape == (3, len(KINDS))
        torch.testing.assert_close(found.sum(-1), torch.ones(3))
        earlier = found[:, KINDS.index("earlier occurrence")]
        torch.testing.assert_close(earlier, pattern[:, 1] + pattern[:, 3])

    def test_matched_positions_hold_what_is_due_again(self):
        #                            0  1  2  3  4  5  6  7  8
        assert matched_positions(torch.tensor([0, 4, 5, 6, 4, 5, 9, 4, 5])) == [1, 4]
        assert matched_positions(torch.tensor([0, 4, 5, 6])) == []
        said_twice = torch.tensor([0, 4, 5, 6, 7, 4, 5, 6, 7])
        assert matched_positions(said_twice) == [1, 2, 3]
