"""What a learned map is: against maps made by hand, and against plain runs of tiny models."""

import dataclasses

import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments.design.sequences import TokenSequence
from lens_interventions.experiments.learned import reading
from lens_interventions.experiments.learned.inspection import (
    EVERYWHERE,
    WITHOUT_MATCHED,
    WITHOUT_OTHERS,
    measure_ablation,
    measure_attention,
    measure_directions,
    measure_geometry,
)
from lens_interventions.experiments.learned.inspection_tables import attention_changes
from lens_interventions.experiments.learned.learned_map import (
    KINDS,
    attention_by_kind,
    identity_cosine,
    learned_map,
    matched_positions,
    participation,
    position_kinds,
    principal_axes,
    singular_directions,
    subspace_share,
    token_cosines,
)
from lens_interventions.experiments.learned.writes import Training, write_bytes, write_text
from tests.intervention.test_learned_write import random_write
from tests.support.clean import left_as_found
from tests.support.planted_copying import N_TOKENS, ablated_bridge
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.usefixtures("exact", "without_gradients")


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def parameters(write, *, rank=None, seed=3):
    """A write as units get it."""
    training = Training(write.trained_with, write.layers[0], rank, 1, seed)
    return {**training.columns(), "write": write_text(write_bytes(write))}


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
        constant = dataclasses.replace(low, down=None, up=None, source="constant")
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
        monkeypatch.setattr(reading, "_ROWS", 7)
        found = token_cosines(embeddings, matrix, vectors)
        assert found == pytest.approx(tuple(map(float, expected)), abs=1e-12)
        assert subspace_share(axes[:3], principal_axes(vectors, 3)) == pytest.approx(1, abs=1e-9)


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


SAID = (9, 4, 7, 12, 5, 10)
TEXT = TokenSequence(2, "report", "c2", "", (0, *SAID, *SAID), len(SAID))


def planted_write(size=1.0):
    """What restores copying in the ablated model: the next token's embedding itself."""
    bridge = ablated_bridge()
    d_model = int(bridge.cfg.d_model)
    write = random_write(bridge, full=True, bias=False)
    return dataclasses.replace(write, up=size * torch.eye(d_model).double()[None])


class TestUnits:
    def test_directions_name_tokens(self):
        bridge = shared_bridge("llama")
        write = random_write(bridge, bias=False)
        # One embedding is read, and the unembedding of another token is written.
        e, u = bridge.W_E[50].detach(), bridge.W_U[:, 60].detach()
        write = dataclasses.replace(
            write,
            down=(e / e.norm())[None, :, None].double(),
            up=(7 * u / u.norm())[None, None, :].double(),
        )
        rows = measure_directions(bridge, parameters(write, rank=1), n=2)
        assert rows["value"].iloc[0] == pytest.approx(7, abs=1e-4)  # kept in float32
        assert rows["share"].iloc[0] == pytest.approx(1, abs=1e-6)
        first = rows[rows["direction"] == 0]
        # Signs go together: whichever reads the one token writes what the other is for.
        scores = bridge.W_E.double() @ (e / e.norm()).double()
        top = bridge.tokenizer.decode([int(scores.argmax())])
        reads = [text.split(" ")[0] for text in first["reads"]]
        assert li.plots.labels.visible(top) in reads
        sign = reads.index(li.plots.labels.visible(top))
        logits = bridge.unembed(bridge.ln_final(u[None, None].to(bridge.W_U.dtype)))[0, 0]
        expected = li.plots.labels.visible(bridge.tokenizer.decode([int(logits.argmax())]))
        assert first["writes"].iloc[sign].split(" ")[0] == expected

    def test_geometry_of_the_planted_write(self):
        bridge = ablated_bridge()
        rows = measure_geometry(bridge, parameters(planted_write(2.0)), n=4)
        values = rows.set_index("quantity")["value"]
        assert values["cosine to the identity"] == pytest.approx(1, abs=1e-9)
        assert values["size of the map"] == pytest.approx(2 * bridge.cfg.d_model**0.5, rel=1e-9)
        assert values["directions that share the work"] == pytest.approx(
            bridge.cfg.d_model, rel=1e-9
        )
        own = values["cosine of what is written to the token's embedding"]
        assert own == pytest.approx(1, abs=1e-9)
        assert (rows["seed"] == 3).all()

    def test_attention_is_that_of_plain_runs(self):
        bridge = shared_bridge("llama")
        write = random_write(bridge)
        text = dataclasses.replace(TEXT, tokens=(0, 50, 61, 52, 50, 61, 52), copied=3)
        with left_as_found(bridge):
            rows = measure_attention(bridge, parameters(write), text.values())
        patch = write.patch(seed=3)
        sums = torch.zeros(2, 2, 4, len(KINDS), dtype=torch.float64)  # patched, layer, head, kind
        for end in (5, 6):  # the second copy's tokens that predict one of it
            prefix = torch.tensor([text.tokens[:end]])
            hooks = patch.fwd_hooks(bridge, prefix, text_seeds=torch.tensor([2]))
            for which, used in enumerate(([], hooks)):
                with bridge.hooks(fwd_hooks=used):
                    _, cache = bridge.run_with_cache(prefix)
                for layer in (1, 2):
                    pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1]
                    sums[which, layer - 1] += attention_by_kind(pattern, position_kinds(prefix[0]))
        for row in rows.to_dict("records"):
            place = (row["layer"] - 1, row["head"], KINDS.index(row["kind"]))
            # The write is kept in float32, and so is the attention.
            assert row["clean"] == pytest.approx(float(sums[0][place]) / 2, abs=1e-6)
            assert row["patched"] == pytest.approx(float(sums[1][place]) / 2, abs=1e-5)
        assert len(rows) == 2 * 4 * len(KINDS)
        assert (rows["patched"] - rows["clean"]).abs().max() > 1e-3

    def test_changes_are_means_and_the_largest_comes_first(self):
        bridge = shared_bridge("llama")
        one, two = (
            measure_attention(
                bridge,
                parameters(random_write(bridge)),
                dataclasses.replace(TEXT, tokens=(0, *said, *said), copied=3).values(),
            )
            for said in ((50, 61, 52), (70, 71, 72))
        )
        found = attention_changes(pd.concat([one.assign(sequence=0), two.assign(sequence=1)]))
        assert (found["change"].abs().diff().dropna() <= 0).all()
        top = found.iloc[0]
        rows = [
            r[
                (r["layer"] == top["layer"])
                & (r["head"] == top["head"])
                & (r["kind"] == top["kind"])
            ]
            for r in (one, two)
        ]
        mean = sum(float((r["patched"] - r["clean"]).item()) for r in rows) / 2
        assert top["change"] == pytest.approx(mean, abs=1e-12)

    def test_copying_is_lost_with_the_matched_tokens_and_with_no_others(self):
        bridge = ablated_bridge()
        assert max(TEXT.tokens) < N_TOKENS
        rows = measure_ablation(bridge, parameters(planted_write()), TEXT.values())
        loss = rows.set_index("condition")["total"] / rows.set_index("condition")["count"]
        assert loss["none"] - loss[EVERYWHERE] > 0.5
        assert loss[WITHOUT_MATCHED] == pytest.approx(loss["none"], abs=0.05)
        assert loss[WITHOUT_OTHERS] == pytest.approx(loss[EVERYWHERE], abs=0.05)
        # Everywhere is the write as it was trained.
        tokens = torch.tensor([TEXT.tokens])
        log_probs = li.teacher_forced_log_probs(bridge, tokens, planted_write().patch())
        assert loss[EVERYWHERE] == pytest.approx(-float(log_probs[0, -5:].mean()), abs=1e-9)
