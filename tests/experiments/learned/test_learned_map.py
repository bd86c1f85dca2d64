"""Learned maps against maps made by hand."""

import dataclasses

import pytest
import torch

from lens_interventions.experiments.learned import learned_map as maps
from lens_interventions.experiments.learned.learned_map import (
    identity_cosine,
    learned_map,
    participation,
    principal_axes,
    singular_directions,
    subspace_share,
    token_cosines,
)
from tests.intervention.test_learned_write import random_write
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.usefixtures("exact", "without_gradients")


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class TestMaps:
    def test_the_identity(self):
        assert identity_cosine(2 * torch.eye(6).double()) == pytest.approx(1, abs=1e-12)
        assert identity_cosine(-0.1 * torch.eye(6).double()) == pytest.approx(-1, abs=1e-12)
        # A projection to 2 of 8 directions is as near as a map of rank 2 can be.
        axes = torch.linalg.qr(draw(8, 2)).Q
        assert identity_cosine(axes @ axes.T) == pytest.approx((2 / 8) ** 0.5, abs=1e-12)
        rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
        assert identity_cosine(rotation) == pytest.approx(0, abs=1e-12)
        assert identity_cosine(torch.zeros(3, 3).double()) == 0

    def test_singular_directions_make_up_the_map(self):
        matrix = draw(7, 3) @ draw(3, 7)
        found = singular_directions(matrix, 3)
        made = torch.einsum("k,ki,kj->ij", found.values, found.inputs, found.outputs)
        torch.testing.assert_close(made, matrix, rtol=0, atol=1e-9)
        assert (found.values.diff() <= 0).all()
        # What is read is the embedding, a row: an input direction is written as its output.
        torch.testing.assert_close(
            found.inputs @ matrix, found.values[:, None] * found.outputs, rtol=0, atol=1e-9
        )

    def test_participation_counts(self):
        assert participation(torch.tensor([3.0, 3.0, 3.0, 0.0])) == pytest.approx(3)
        assert participation(torch.tensor([5.0, 0.0])) == pytest.approx(1)
        assert participation(torch.zeros(4)) == 0

    def test_the_map_of_a_write(self):
        bridge = shared_bridge("llama")
        low = random_write(bridge, layers=(0, 2))
        expected = low.down[1] @ low.up[1]
        torch.testing.assert_close(learned_map(low, 2), expected, rtol=0, atol=1e-12)
        full = random_write(bridge, full=True)
        torch.testing.assert_close(learned_map(full, 1), full.up[0], rtol=0, atol=0)
        constant = dataclasses.replace(low, down=None, up=None, source="zero")
        with pytest.raises(ValueError, match="has no map: it was trained with the source"):
            learned_map(constant, 2)

    def test_token_cosines_tell_a_token_from_another(self):
        vectors = draw(400, 16)
        common = 50 * draw(16)
        thrice, turned = 3 * torch.eye(16).double(), -torch.eye(16).double()
        own, other = token_cosines(vectors + common, thrice, vectors - common)
        assert own == pytest.approx(1, abs=1e-9)
        # Of 400 pairs of random vectors in 16 dimensions: a deviation of 0.25 / 20.
        assert abs(other) < 0.05
        own, other = token_cosines(vectors, turned, vectors)
        assert own == pytest.approx(-1, abs=1e-9)

    def test_subspaces(self):
        axes = torch.linalg.qr(draw(12, 12)).Q
        # Three large axes and nine small ones, off the origin.
        sizes = torch.tensor([9.0, 8.0, 7.0] + [0.1] * 9).double()
        rows = draw(500, 12) * sizes @ axes.T + 4 * draw(12)
        inside, outside = axes.T[:3], axes.T[3:]
        # The axes of 500 rows are off by about 0.1 / 7 / sqrt(500).
        found = principal_axes(rows, 3)
        assert subspace_share(inside, found) == pytest.approx(1, abs=1e-3)
        assert subspace_share(outside, found) == pytest.approx(0, abs=1e-3)
        half = (inside[:1] + outside[:1]) / 2**0.5
        assert subspace_share(half, found) == pytest.approx(0.5, abs=0.02)

    def test_a_vocabulary_is_read_in_parts(self, monkeypatch):
        embeddings, matrix, vectors = draw(50, 8) + 3, draw(8, 8), draw(50, 8) - 2
        written = embeddings @ matrix
        one, other = written - written.mean(0), vectors - vectors.mean(0)
        cosine = torch.nn.functional.cosine_similarity
        expected = cosine(one, other).mean(), cosine(one, other.roll(1, 0)).mean()
        _, _, axes = torch.linalg.svd(other)
        monkeypatch.setattr(maps, "_ROWS", 7)
        found = token_cosines(embeddings, matrix, vectors)
        assert found == pytest.approx(tuple(map(float, expected)), abs=1e-12)
        assert subspace_share(axes[:3], principal_axes(vectors, 3)) == pytest.approx(1, abs=1e-9)
