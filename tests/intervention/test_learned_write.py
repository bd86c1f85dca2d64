"""A learned write as a patch: its formula, every way of running it, what it refuses, its file."""

import dataclasses

import jaxtyping
import pytest
import torch

import lens_interventions as li
from lens_interventions._files import load_tensors, save_tensors
from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.learned_write import LearnedWrite
from lens_interventions.intervention.sources import SOURCES
from lens_interventions.model.fingerprint import fingerprint
from lens_interventions.model.tokens import TokenBatch
from tests.support.clean import left_as_found
from tests.support.exact import tolerance
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

D_MODEL, RANK = 32, 5


def random_write(bridge, *, layers=(1,), full=False, bias=True, gate=False, **fields):
    """A write of some size in every tensor."""

    def draw(*shape):
        return 0.5 * torch.randn(len(layers), *shape).double()

    return LearnedWrite(
        **{
            "layers": layers,
            "down": None if full else draw(D_MODEL, RANK),
            "up": draw(D_MODEL if full else RANK, D_MODEL),
            "bias": draw(D_MODEL) if bias else None,
            "gate_weight": draw(D_MODEL) if gate else None,
            "gate_bias": draw() if gate else None,
            "trained_with": "true",
            "source": "true",
            "embedding": "W_E",
            "scale": "raw",
            "first_position": 1,
            "fingerprint": fingerprint(bridge),
            "settings": {"model": "some model"},
            **fields,
        }
    )


class TestFormula:
    @torch.no_grad()
    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("gate", [False, True])
    @pytest.mark.parametrize("scale", ["raw", "norm"])
    @pytest.mark.parametrize("embedding", ["W_E", "W_E_centred"])
    def test_rows_are_what_the_formula_says(self, full, bias, gate, scale, embedding):
        bridge = shared_bridge("llama")
        write = random_write(
            bridge,
            layers=(0, 2),
            full=full,
            bias=bias,
            gate=gate,
            embedding=embedding,
            scale=scale,
            first_position=2,
        )
        tokens = random_tokens(1, 6)
        patch = write.patch(strength=0.7)
        assert patch.layers == (0, 2)
        residuals = {}

        def before(resid, hook):
            residuals[hook.layer(), "before"] = resid.clone()

        def after(resid, hook):
            residuals[hook.layer(), "after"] = resid.clone()

        places = [f"blocks.{layer}.hook_resid_pre" for layer in (0, 2)]
        bridge.run_with_hooks(
            tokens,
            fwd_hooks=[
                *((place, before) for place in places),
                *patch.fwd_hooks(bridge, tokens),
                *((place, after) for place in places),
            ],
        )
        for index, layer in enumerate((0, 2)):
            for i in range(6):
                r = residuals[layer, "before"][0, i]
                expected = r
                if 2 <= i < 5:
                    e = bridge.W_E[tokens[0, i + 1]]
                    if embedding == "W_E_centred":
                        e = e - bridge.W_E.mean(0)
                    if scale == "norm":
                        e = e * r.norm() / e.norm()
                    written = (
                        e @ write.up[index] if full else e @ write.down[index] @ write.up[index]
                    )
                    if bias:
                        written = written + write.bias[index]
                    if gate:
                        unit = r / r.square().mean().sqrt()
                        level = unit @ write.gate_weight[index] + write.gate_bias[index]
                        written = written / (1 + (-level).exp())
                    expected = r + 0.7 * written
                torch.testing.assert_close(
                    residuals[layer, "after"][0, i], expected, rtol=0, atol=1e-9
                )

    @torch.no_grad()
    def test_without_a_map_the_bias_is_all(self):
        bridge = shared_bridge("llama")
        write = random_write(bridge, trained_with="zero", source="zero")
        without = dataclasses.replace(write, down=None, up=None)
        tokens = random_tokens(2, 7)
        both = li.teacher_forced_logits(bridge, tokens, [write.patch(), without.patch()])
        torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-12)
        none = li.teacher_forced_logits(bridge, tokens, None)
        assert (both[1, :, 2:] - none[:, 2:]).abs().max() > 0.1

    @torch.no_grad()
    def test_a_bias_makes_up_for_a_centred_embedding(self):
        bridge = shared_bridge("llama")
        write = random_write(bridge, layers=(1,), full=True)
        centred = dataclasses.replace(
            write,
            embedding="W_E_centred",
            bias=write.bias + bridge.W_E.mean(0) @ write.up,
        )
        tokens = random_tokens(2, 7)
        one, other = li.teacher_forced_logits(bridge, tokens, [write.patch(), centred.patch()])
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
        none = li.teacher_forced_logits(bridge, tokens, None)
        assert (one[:, 2:] - none[:, 2:]).abs().max() > 0.1

    def test_half_precision_models_read_it_in_float32(self):
        bridge = tiny_bridge("llama", dtype=torch.bfloat16)
        write = random_write(bridge, gate=True)
        tokens = random_tokens(4, 12)
        text = KnownText.from_batch(TokenBatch(tokens, tokens >= 0))
        resid = torch.randn(4, 12, D_MODEL).bfloat16()
        found = write.patch().bind(bridge)(
            resid, layer=1, position=text.column_positions(), text=text
        )
        e, rows = bridge.W_E[tokens[:, 2:]].double(), resid[:, 1:-1].double()
        unit = rows / rows.norm(dim=-1, keepdim=True) * D_MODEL**0.5
        gate = (unit @ write.gate_weight[0] + write.gate_bias[0]).sigmoid()
        written = gate[..., None] * (e @ write.down[0] @ write.up[0] + write.bias[0])
        assert found.dtype == torch.bfloat16
        # The sum alone is rounded, after the write; float32 may round a write the other way.
        same = found[:, 1:-1] == resid[:, 1:-1] + written.bfloat16()
        assert same.double().mean() > 0.99

    def test_it_compares_and_hashes_as_a_mode_should(self):
        write = random_write(shared_bridge("llama"))
        patch = write.patch()
        assert patch == dataclasses.replace(patch)
        assert hash(patch) == hash(write.patch())
        assert patch != random_write(shared_bridge("llama")).patch()
        assert not patch.reads_lens


class TestEveryWayOfRunning:
    """With the positions before the predicting one patched, however the text is run."""

    @torch.no_grad()
    @pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2", "gptj"])
    @pytest.mark.parametrize("layers", [(1,), (0, 2)])
    def test_teacher_forced_is_the_loop_of_hooks(self, arch, layers):
        with left_as_found(shared_bridge(arch)) as bridge:
            patch = random_write(bridge, layers=layers, gate=True).patch()
            tokens = random_tokens(2, 9)
            logits = li.teacher_forced_logits(bridge, tokens, patch)
            for stop in range(1, 10):
                prefix = tokens[:, :stop]
                hooks = patch.fwd_hooks(bridge, prefix)
                alone = bridge.run_with_hooks(prefix, fwd_hooks=hooks)[:, -1]
                torch.testing.assert_close(logits[:, stop - 1], alone, rtol=0, atol=tolerance(arch))

    @torch.no_grad()
    @pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
    def test_cached_generation_is_teacher_forcing(self, arch):
        with left_as_found(shared_bridge(arch)) as bridge:
            patch = random_write(bridge, layers=(0, 2), gate=True).patch(window=4)
            prompts = [[5, 6, 7], [9, 8]]
            new = li.generate(bridge, prompts, patch, max_new_tokens=6, stop_at_eos=False)
            for row, prompt in enumerate(prompts):
                whole = [*prompt, *new.tokens[row].tolist()]
                log_probs = li.teacher_forced_log_probs(bridge, whole, patch)[0]
                torch.testing.assert_close(
                    new.log_probs[row], log_probs[len(prompt) - 1 :], rtol=0, atol=1e-9
                )

    def test_an_effect_map_at_its_layer(self):
        bridge = shared_bridge("llama")
        patch, tokens = random_write(bridge).patch(), [5, 6, 7, 8, 9]

        def metric(logits):
            return logits[0, -1, 3]

        found = li.effect_map(bridge, tokens, metric, patch=patch)
        assert found.positions == (1, 2, 3)  # the first one stays as it is
        for place, position in enumerate(found.positions):
            alone = dataclasses.replace(patch, positions=[position])
            logits = li.teacher_forced_logits(bridge, tokens, alone)
            expected = float(metric(logits)) - found.baseline
            assert float(found.effect[0, place]) == pytest.approx(expected, abs=1e-9)
        with pytest.raises(ValueError, match=r"trained for layers \[1\], but the patch has \[0\]"):
            li.effect_map(bridge, tokens, metric, patch=patch, layers=[0])


class TestBase:
    """A write on top of one that reads another source."""

    @pytest.mark.parametrize(("source", "shift"), [("current", 0), ("previous", -1)])
    @pytest.mark.parametrize("scale", ["raw", "norm"])
    @torch.no_grad()
    def test_rows_are_the_sum_of_both_formulas(self, source, shift, scale):
        bridge = shared_bridge("llama")
        base = random_write(
            bridge, trained_with=source, source=source, gate=True, scale=scale, first_position=0
        )
        write = random_write(bridge, base=base, scale=scale, first_position=0)
        tokens, rows = random_tokens(1, 6), {}
        bridge.run_with_hooks(
            tokens,
            fwd_hooks=[
                ("blocks.1.hook_resid_pre", lambda r, hook: rows.update(before=r.clone())),
                *write.patch(strength=0.7).fwd_hooks(bridge, tokens),
                ("blocks.1.hook_resid_pre", lambda r, hook: rows.update(after=r.clone())),
            ],
        )
        for i in range(5):
            r = rows["before"][0, i]

            def embedded(place, r=r):
                e = bridge.W_E[tokens[0, place]]
                return e * r.norm() / e.norm() if scale == "norm" else e

            written = embedded(i + 1) @ write.down[0] @ write.up[0] + write.bias[0]
            if i + shift >= 0:
                level = r / r.square().mean().sqrt() @ base.gate_weight[0] + base.gate_bias[0]
                known = embedded(i + shift) @ base.down[0] @ base.up[0] + base.bias[0]
                written = written + known / (1 + (-level).exp())
            torch.testing.assert_close(rows["after"][0, i], r + 0.7 * written, rtol=0, atol=1e-9)

    def test_a_base_of_the_guess_asks_for_the_lens(self):
        bridge = shared_bridge("llama")
        for source, asks in (("guess", True), ("current", False)):
            base = random_write(bridge, trained_with=source, source=source)
            assert random_write(bridge, base=base).patch().reads_lens is asks

    @torch.no_grad()
    @pytest.mark.parametrize("source", ["shuffled", "previous"])
    def test_it_writes_where_the_source_of_the_increment_has_no_token(self, source):
        bridge, tokens = shared_bridge("llama"), random_tokens(2, 6)
        base = random_write(bridge, trained_with="current", source="current", first_position=0)
        own = {"trained_with": source, "source": source, "first_position": 0}
        write, rows = random_write(bridge, base=base, **own), []
        for patch in (write.patch(strength=0.7), base.patch(strength=0.7)):
            bridge.run_with_hooks(
                tokens,
                fwd_hooks=[
                    *patch.fwd_hooks(bridge, tokens),
                    ("blocks.1.hook_resid_pre", lambda r, hook: rows.append(r.clone())),
                ],
            )
        together, alone = rows
        # The first position has no earlier token. There the increment adds neither map nor bias.
        torch.testing.assert_close(together[:, 0], alone[:, 0], rtol=0, atol=1e-12)
        assert (together[:, 1:-1] - alone[:, 1:-1]).abs().amax(-1).min() > 0.01
        without = random_write(bridge, **own)
        unpatched = li.teacher_forced_log_probs(bridge, tokens, None)
        found = li.teacher_forced_log_probs(bridge, tokens[:, :2], without.patch())
        torch.testing.assert_close(found[:, 0], unpatched[:, 0], rtol=0, atol=1e-9)

    @torch.no_grad()
    def test_cached_generation_is_teacher_forcing_is_the_loop_of_hooks(self):
        bridge = shared_bridge("llama")
        base = random_write(bridge, trained_with="current", source="current")
        patch = random_write(bridge, base=base).patch()
        new = li.generate(bridge, [[5, 6, 7]], patch, max_new_tokens=6, stop_at_eos=False)
        whole = torch.tensor([[5, 6, 7, *new.tokens[0].tolist()]])
        log_probs = li.teacher_forced_log_probs(bridge, whole, patch)[0]
        torch.testing.assert_close(new.log_probs[0], log_probs[2:], rtol=0, atol=1e-9)
        for stop in range(1, whole.shape[1]):
            prefix = whole[:, :stop]
            alone = bridge.run_with_hooks(prefix, fwd_hooks=patch.fwd_hooks(bridge, prefix))
            expected = alone[0, -1].log_softmax(-1)[whole[0, stop]]
            assert float(log_probs[stop - 1]) == pytest.approx(float(expected), abs=1e-9)

    def test_it_is_in_the_file_and_its_digest_in_that_of_the_whole(self, tmp_path):
        bridge = shared_bridge("llama")
        base = random_write(bridge, trained_with="current", source="current", gate=True)
        write = random_write(bridge, base=base)
        write.save(tmp_path / "write")
        loaded = LearnedWrite.load(tmp_path / "write")
        assert loaded.base is not None
        assert loaded.base.source == "current"
        torch.testing.assert_close(loaded.base.up, base.up.float(), rtol=0, atol=0)
        torch.testing.assert_close(loaded.up, write.up.float(), rtol=0, atol=0)
        assert loaded.digest() == write.digest()
        assert dataclasses.replace(write, base=None).digest() != write.digest()
        loaded.patch().bind(bridge)


class TestRefusals:
    def test_another_source(self):
        bridge = shared_bridge("llama")
        write = random_write(bridge, trained_with="current", source="current")
        assert write.patch().source == "current"
        for use in (
            lambda patch: li.teacher_forced_log_probs(bridge, [5, 6, 7], patch),
            lambda patch: li.generate(bridge, [5, 6], patch, max_new_tokens=1),
            lambda patch: patch.fwd_hooks(bridge, [5, 6, 7]),
        ):
            with pytest.raises(ValueError, match=r"trained with the source 'current' .* 'true'"):
                use(li.NextTokenPatch(layer=1, strength=1.0, mode=write))
            with pytest.raises(ValueError, match=r"write\.for_source\('guess'\)"):
                use(dataclasses.replace(write.patch(), source="guess"))
            use(write.patch())

    @torch.no_grad()
    def test_another_source_when_asked_for(self):
        bridge, tokens = shared_bridge("llama"), random_tokens(1, 8)
        write = random_write(bridge)
        other = write.for_source("current")
        assert (other.trained_with, other.source) == ("true", "current")
        found = li.teacher_forced_log_probs(bridge, tokens, other.patch())
        trained_so = dataclasses.replace(write, trained_with="current", source="current")
        expected = li.teacher_forced_log_probs(bridge, tokens, trained_so.patch())
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        with pytest.raises(ValueError, match="for 'current', but the patch has 'true'"):
            dataclasses.replace(other.patch(), source="true").bind(bridge)
        with pytest.raises(ValueError, match=r"one of true, random, .*got 'next'"):
            write.for_source("next")

    def test_a_source_given_as_its_function_is_known(self):
        bridge = shared_bridge("llama")
        write = random_write(bridge, trained_with="zero", source="zero")
        assert write.patch().source == "zero"
        write.patch().bind(bridge)
        write.patch(source=SOURCES["zero"].function).bind(bridge)
        with pytest.raises(ValueError, match="has 'zero'"):
            random_write(bridge).patch(source="zero").bind(bridge)
        with pytest.raises(ValueError, match="lambda"):
            random_write(bridge).patch(source=lambda site: site.next_tokens).bind(bridge)

    @pytest.mark.parametrize("fields", [{"scale": "deviation"}, {"embedding": "lens"}])
    def test_what_only_a_patch_can_read(self, fields, monkeypatch):
        # Users run without the type checks of the test session, which would speak first.
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        with pytest.raises(ValueError, match="a learned write reads embedding 'W_E', "):
            random_write(shared_bridge("llama"), **fields)

    def test_other_weights(self):
        patch = random_write(shared_bridge("llama")).patch()
        with pytest.raises(ValueError, match="trained on some model with weights"):
            patch.bind(tiny_bridge("llama", seed=1))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"embedding": "W_U"}, "reads embedding='W_E'"),
            ({"embedding": "W_E_centred"}, "the patch has 'W_E_centred'"),
            ({"scale": "norm"}, "scale='raw'"),
            ({"layer": 2}, r"layers \[1\], but the patch has \[2\]"),
            ({"layer": (1, 2)}, r"layers \[1\], but the patch has \[2\]"),
        ],
    )
    def test_another_patch_than_it_was_trained_as(self, fields, message):
        bridge = shared_bridge("llama")
        with pytest.raises(ValueError, match=message):
            random_write(bridge).patch(**fields).bind(bridge)


class TestFile:
    def test_a_tensor_of_another_name_is_damage(self, tmp_path):
        path = tmp_path / "write.safetensors"
        random_write(shared_bridge("llama")).save(path)
        tensors, rest = load_tensors(path, kind="write")
        tensors["bais"] = tensors.pop("bias")
        save_tensors(path, tensors, kind="write", rest=rest)
        with pytest.raises(ValueError, match="is damaged: a learned write has no bais"):
            LearnedWrite.load(path)

    @pytest.mark.parametrize("kind", [{}, {"full": True, "bias": False}, {"gate": True}])
    def test_round_trip(self, tmp_path, kind):
        bridge = shared_bridge("llama")
        write = random_write(bridge, layers=(0, 2), **kind).for_source("random")
        write.save(tmp_path / "write.safetensors")
        loaded = LearnedWrite.load(tmp_path / "write.safetensors")
        for field in dataclasses.fields(LearnedWrite):
            kept, value = getattr(loaded, field.name), getattr(write, field.name)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(kept, value.float(), rtol=0, atol=0)
            else:
                assert kept == value, field.name
        loaded.patch().bind(bridge)

    def test_other_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no write at"):
            LearnedWrite.load(tmp_path / "none")
        (tmp_path / "text").write_text("x")
        with pytest.raises(ValueError, match="is not a saved write"):
            LearnedWrite.load(tmp_path / "text")
        lens = li.AffineLens(torch.zeros(1, 2, 2), torch.zeros(1, 2), "0", {})
        lens.save(tmp_path / "lens")
        with pytest.raises(ValueError, match="but not a saved write"):
            LearnedWrite.load(tmp_path / "lens")


def test_its_patch_spares_and_names_the_positions_that_it_spares(llama):
    write = random_write(llama)
    texts = [random_tokens(8), random_tokens(7)]
    plain = li.NextTokenPatch(layer=1, strength=1.0, first_position=1)
    labels = li.patch_loss(llama, texts, [write.patch(), plain], progress=False).to_dataframe()
    assert not labels["label"].str.contains("first position").any()
    all_positions = dataclasses.replace(write, first_position=0).patch()
    both = li.patch_loss(llama, texts, [write.patch(), all_positions], progress=False)
    assert both.to_dataframe()["label"].str.contains("first position [01]").all()


def test_what_compares_sources_takes_its_own(llama):
    write, texts = random_write(llama, source="previous"), [random_tokens(8).repeat(2)]
    for measure in (li.head_slopes, li.rescue):
        found = measure(llama, texts, write.patch(), scopes=["all"], progress=False)
        assert found.sources == ("previous",)
        with pytest.raises(ValueError, match="is for 'previous', but the patch has 'true'"):
            measure(llama, texts, write.patch(), sources=["true"], progress=False)


@pytest.mark.parametrize("other", [{"first_position": 2}, {"scale": "norm"}, {"source": "current"}])
def test_its_digest_depends_on_more_than_tensors(llama, other):
    write = random_write(llama)
    assert dataclasses.replace(write).digest() == write.digest()
    assert dataclasses.replace(write, **other).digest() != write.digest()


def test_positions_that_the_write_spares_are_said_to_be_out_of_reach(llama):
    """Whatever the patch says, since the write does not write there."""
    write = random_write(llama, first_position=3)
    tokens = random_tokens(8)
    assert write.patch(first_position=0).first_written == 3
    with pytest.warns(UserWarning, match="positions \\[0, 1\\] and the first 3 spared"):
        li.teacher_forced_log_probs(llama, tokens, write.patch(first_position=0, positions=[0, 1]))
    found = li.effect_map(
        llama, tokens, lambda logits: logits[0, -1, 5], patch=write.patch(first_position=0)
    )
    assert found.positions == (3, 4, 5, 6)


def test_a_base_with_a_base_of_its_own_is_refused(llama):
    """It would be left out of what is written."""
    below = random_write(llama)
    base = random_write(llama, base=below)
    with pytest.raises(ValueError, match="the base has a base of its own"):
        random_write(llama, base=base)


@pytest.mark.parametrize("other", [{"first_position": -1}, {"trained_with": "nobody"}])
def test_a_write_that_makes_no_sense_is_not_read(llama, tmp_path, other):
    path = tmp_path / "write.safetensors"
    dataclasses.replace(random_write(llama), **other).save(path)
    with pytest.raises(ValueError, match="is damaged"):
        LearnedWrite.load(path)
