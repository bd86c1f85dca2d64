"""Inspecting a write, against plain runs of tiny models."""

import dataclasses

import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.drawing.labels import visible
from lens_interventions.experiments.design.kept_writes import encoded_write, write_bytes
from lens_interventions.experiments.design.sequences import TokenSequence
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
from lens_interventions.experiments.learned.position_kinds import (
    KINDS,
    attention_by_kind,
    position_kinds,
)
from lens_interventions.experiments.learned.writes import Training
from tests.intervention.test_learned_write import random_write
from tests.support.clean import left_as_found
from tests.support.planted_copying import N_TOKENS, ablated_bridge
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.usefixtures("exact", "without_gradients")


def parameters(write, *, rank=None, seed=3):
    """A write as units get it."""
    training = Training(write.trained_with, write.layers[0], rank, 1, seed)
    return {**training.columns(), "write": encoded_write(write_bytes(write))}


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
        assert visible(top) in reads
        sign = reads.index(visible(top))
        logits = bridge.unembed(bridge.ln_final(u[None, None].to(bridge.W_U.dtype)))[0, 0]
        expected = visible(bridge.tokenizer.decode([int(logits.argmax())]))
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
