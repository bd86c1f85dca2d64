"""Two streams are tried on a model before they are trusted."""

from dataclasses import replace

import pytest
import torch

from lens_interventions.intervention.generation.generate import generate
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.slopes.slope_map import slope_map
from lens_interventions.intervention.sources import BackPatch
from lens_interventions.intervention.teacher_forcing import self_check
from lens_interventions.intervention.teacher_forcing import two_streams as two_streams_module
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_logits,
)
from lens_interventions.intervention.teacher_forcing.self_check import two_streams_hold
from lens_interventions.intervention.teacher_forcing.two_streams import MAX_CHUNK
from lens_interventions.model import capabilities, kept_answers
from tests.support.exact import close
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import long_rope_bridge, random_tokens, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")


@torch.no_grad()
def test_a_window_by_place_is_found_at_the_length_at_which_it_shows():
    bridge = tiny_bridge("gpt_neo", window_size=80)
    patch, short, long = PATCH, random_tokens(20), random_tokens(50)
    # Up to 40 tokens every key is less than 80 places away.
    close(
        teacher_forced_logits(bridge, short, patch)[0],
        patched_logits(bridge, short, patch),
        1e-4,
    )
    with pytest.warns(UserWarning, match="GPTNeo.* does not run two copies of a text"):
        logits = teacher_forced_logits(bridge, long, patch)
    close(logits[0], patched_logits(bridge, long, patch), 1e-4)
    # A text that is short goes in one pass as before: a warning would be an error here.
    close(
        teacher_forced_logits(bridge, short, patch)[0],
        patched_logits(bridge, short, patch),
        1e-4,
    )
    with pytest.warns(UserWarning, match="GPTNeo.* does not run two copies of a text"):
        teacher_forced_logits(bridge, long, patch)


@torch.no_grad()
@pytest.mark.parametrize("broken", ["mask", "positions"])
def test_two_streams_that_are_wrong_are_not_used(broken, monkeypatch):
    bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)
    if broken == "mask":
        visible = two_streams_module.visible

        def leaky(rows, start):
            seen = visible(rows, start)
            return seen | (
                rows.position[:, None] == torch.cat([torch.arange(start), rows.position])
            )

        monkeypatch.setattr(two_streams_module, "visible", leaky)
    else:
        run = two_streams_module.run_late_rows
        monkeypatch.setattr(
            two_streams_module,
            "run_late_rows",
            lambda *args, position, **kwargs: run(*args, position=2 * position, **kwargs),
        )
    with pytest.warns(UserWarning, match="does not run two copies of a text"):
        logits = teacher_forced_logits(bridge, tokens, PATCH)
    close(logits[0], patched_logits(bridge, tokens[0], PATCH))


@torch.no_grad()
def test_an_error_on_two_streams_is_told(monkeypatch):
    """As it is raised where versions do not fit each other, which is not the model's fault."""

    def refuse(*args, **kwargs):
        raise TypeError("got an unexpected keyword argument 'cache'")

    bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)
    monkeypatch.setattr(two_streams_module, "run_late_rows", refuse)
    with pytest.warns(UserWarning, match=r"raised TypeError: got an unexpected .* 'cache'\)"):
        logits = teacher_forced_logits(bridge, tokens, PATCH)
    close(logits[0], patched_logits(bridge, tokens[0], PATCH))


@torch.no_grad()
@pytest.mark.parametrize(("trial", "length"), [("two_streams", 8), ("end_of_text", 40)])
def test_memory_that_lacks_once_is_no_fault_of_the_model(trial, length, monkeypatch):
    """On a CPU torch raises a plain `RuntimeError`."""
    bridge, tokens = tiny_bridge("llama"), random_tokens(1, length)
    with monkeypatch.context() as full:
        full.setattr(self_check, trial, lambda *_args, **_options: torch.empty(10**16))
        with pytest.raises(RuntimeError, match=r"allocate memory|not enough memory"):
            teacher_forced_logits(bridge, tokens, PATCH)
    # A warning would be an error here.
    close(teacher_forced_logits(bridge, tokens, PATCH)[0], patched_logits(bridge, tokens[0], PATCH))


@torch.no_grad()
def test_weights_that_are_no_numbers_are_named_and_can_be_mended():
    bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)
    weight = bridge.original_model.model.layers[2].mlp.down_proj.weight
    kept = weight.data[0, 0].clone()
    weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="logits of random tokens are NaN"):
        teacher_forced_logits(bridge, tokens, PATCH)
    weight.data[0, 0] = kept
    close(teacher_forced_logits(bridge, tokens, PATCH)[0], patched_logits(bridge, tokens[0], PATCH))


@torch.no_grad()
def test_a_patch_that_no_other_position_hears_of_is_no_reason_to_mistrust():
    bridge, tokens = tiny_bridge("llama", dtype=torch.float32), random_tokens(1, 40)
    for block in bridge.original_model.model.layers[1:]:
        block.self_attn.o_proj.weight.zero_()
    plain = bridge(tokens)
    # Without a warning, and rounding of float32 is all the difference that there is.
    close(teacher_forced_logits(bridge, tokens, PATCH), plain, 1e-4)


@torch.no_grad()
def test_it_is_tried_once_with_steps_and_at_each_layer_for_each_power_of_two(monkeypatch):
    bridge, tried = tiny_bridge("llama"), []
    for name in ("_tried_against_steps", "_tried_against_plain"):
        function = getattr(self_check, name)
        monkeypatch.setattr(
            self_check,
            name,
            lambda *args, name=name, function=function: tried.append(name) or function(*args),
        )
    for n in (3, 20, 33, 60):
        teacher_forced_logits(bridge, random_tokens(1, n), PATCH)
    assert tried == ["_tried_against_steps", *["_tried_against_plain"] * 2]
    tried.clear()
    teacher_forced_logits(bridge, random_tokens(1, 20), replace(PATCH, layer=2))
    teacher_forced_logits(bridge, random_tokens(1, 20), replace(PATCH, layer=0))
    assert tried == ["_tried_against_plain"] * 2


@torch.no_grad()
def test_what_was_right_is_not_tried_with_steps_in_the_next_process(monkeypatch, user_cache):
    monkeypatch.setattr(kept_answers, "_LARGE", 0)
    tokens, tried = random_tokens(1, 8), []
    function = self_check._tried_against_steps
    monkeypatch.setattr(
        self_check, "_tried_against_steps", lambda *args: tried.append(args) or function(*args)
    )
    for _process in range(2):
        bridge = tiny_bridge("llama")  # with nothing found yet
        close(
            teacher_forced_logits(bridge, tokens, PATCH)[0],
            patched_logits(bridge, tokens[0], PATCH),
        )
    assert len(tried) == 1


@torch.no_grad()
def test_a_layer_above_those_that_are_wrong_is_tried_alone():
    """The middle one of three blocks sees a window by place, from which the last one is free."""
    bridge, tokens = tiny_bridge("gpt_neo", window_size=3), random_tokens(1, 8)
    with pytest.warns(UserWarning, match="does not run two copies of a text"):
        teacher_forced_logits(bridge, tokens, replace(PATCH, layer=0))
    top = replace(PATCH, layer=2)
    close(
        teacher_forced_logits(bridge, tokens, top)[0], patched_logits(bridge, tokens[0], top), 1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_whoever_waits_for_it_reads_why(monkeypatch, capsys, patience):
    monkeypatch.setattr(capabilities, "_PATIENCE", patience)
    teacher_forced_logits(tiny_bridge("llama"), random_tokens(1, 8), PATCH)
    said = "trying whether two copies of a text can be run side by side, once for this model ...\n"
    assert capsys.readouterr().err == ("" if patience else said)


@torch.no_grad()
def test_a_long_text_is_tried_on_two_chunks_of_rows():
    """Not on all of its rows, whose attention scores grow with the square of the length."""
    bridge, rows, keys = tiny_bridge("llama", max_position_embeddings=1024), [], []

    def see(_module, args, kwargs):
        rows.append(kwargs["hidden_states"].shape[1])
        mask = kwargs["attention_mask"]
        keys.append(0 if mask is None else mask.shape[-1])

    # Listeners of libraries do not count as the user's hooks, under which the whole text runs.
    see.__module__ = "transformers"
    resid = torch.randn(1, 700, int(bridge.cfg.d_model), dtype=torch.float64)
    handle = bridge.original_model.model.layers[2].self_attn.register_forward_pre_hook(
        see, with_kwargs=True
    )
    assert two_streams_hold(bridge, 1, resid)
    handle.remove()
    assert max(rows) == 2 * MAX_CHUNK
    assert max(keys) == 1024 + MAX_CHUNK


@torch.no_grad()
def test_a_window_by_place_is_found_behind_the_first_chunk():
    bridge = tiny_bridge("gpt_neo", window_size=400, max_position_embeddings=1024)
    resid = torch.randn(1, 500, int(bridge.cfg.d_model), dtype=torch.float64)
    assert two_streams_hold(bridge, 1, resid[:, :200])
    assert not two_streams_hold(bridge, 1, resid)


@torch.no_grad()
def test_a_window_by_place_is_found_by_the_copies_that_a_patch_s_window_takes():
    """A text of 60 tokens has 120 rows, but 420 with a window of five positions."""
    bridge = tiny_bridge("gpt_neo", window_size=256, max_position_embeddings=512)
    tokens, patch = random_tokens(60), replace(PATCH, embedding="W_U")
    # It attends in float32.
    expected = patched_logits(bridge, tokens, patch)
    close(teacher_forced_logits(bridge, tokens, patch)[0], expected, 1e-4)
    patch = replace(patch, window=5)
    with pytest.warns(UserWarning, match="GPTNeo.* does not run two copies of a text"):
        found = teacher_forced_logits(bridge, tokens, patch)
    close(found[0], patched_logits(bridge, tokens, patch), 1e-4)
    slopes = {"layers": [1], "progress": False}
    slope_map(bridge, [tokens], **slopes)
    with pytest.raises(NotImplementedError, match=r"GPTNeo.* does not run two copies of a text"):
        slope_map(bridge, [tokens], window=5, **slopes)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral", "gpt2"])
@pytest.mark.parametrize("window", [1, 4, 200])
def test_copies_that_a_window_takes_from_before_the_last_chunk_are_right(architecture, window):
    """A text of 200 tokens is tried at 256, where the first chunk is shorter than what is before.

    One of 600 is tried at 1,024, behind several chunks.
    """
    bridge = tiny_bridge(architecture, max_position_embeddings=1024)
    resid = torch.randn(1, 600, int(bridge.cfg.d_model), dtype=torch.float64)
    for length in (200, 600):
        assert two_streams_hold(bridge, 1, resid[:, :length], window=window), length


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("kind", ["permanent", "of torch"])
def test_a_lasting_hook_on_columns_beyond_the_first_chunk_is_found(kind, window):
    """No shorter run has these columns, so a trial on one says nothing of the hook."""
    bridge, tokens = tiny_bridge("llama", max_position_embeddings=512), random_tokens(312)

    def zeroed(resid):
        return torch.cat([resid[:, :300], resid[:, 300:310] * 0, resid[:, 310:]], dim=1)

    if kind == "permanent":
        bridge.add_hook("blocks.1.hook_mlp_out", lambda out, hook: zeroed(out), is_permanent=True)
    else:
        bridge.blocks[1].mlp.register_forward_hook(lambda _module, _given, out: zeroed(out))
    patch = replace(PATCH, window=window)
    with pytest.warns(UserWarning, match="Llama.* does not run two copies of a text"):
        found = teacher_forced_logits(bridge, tokens, patch)[0]
    # Texts without these columns go in one pass: a warning would be an error here.
    short = teacher_forced_logits(bridge, tokens[:60], patch)[0]
    for end, logits in ((59, short), (299, found), (304, found), (311, found)):
        expected = patched_logits(bridge, tokens[: end + 1], patch, only_last=True)
        close(logits[end], expected[0], 1e-9)


@torch.no_grad()
def test_a_window_by_place_is_found_where_a_text_runs_in_one_piece():
    bridge = tiny_bridge("gpt_neo", window_size=400, max_position_embeddings=512)
    resid = torch.randn(1, 250, int(bridge.cfg.d_model), dtype=torch.float64)
    assert two_streams_hold(bridge, 1, resid)
    assert two_streams_hold(bridge, 1, resid[:, :190], whole=True)
    assert not two_streams_hold(bridge, 1, resid, whole=True)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Phi3.* does not run two copies", "ignore:decoding with a cache")
@pytest.mark.parametrize(
    "patches",
    [
        # So many that a text of 43 tokens would go through the blocks in three pieces.
        [PATCH] * 12,
        [replace(PATCH, source=BackPatch(2))],
        [replace(PATCH, gate=4.5, gate_on="output")],
    ],
)
def test_beyond_a_limit_of_rotary_frequencies_each_beginning_has_its_own(patches):
    """Also in what a patch reads of the unpatched model."""
    bridge, tokens, at = long_rope_bridge(40), random_tokens(1, 43), 20
    logits = teacher_forced_logits(bridge, tokens, patches)[-1, :, at]
    written = generate(
        bridge, tokens[:, : at + 1], patches[-1], max_new_tokens=1, stop_at_eos=False
    )
    close(logits.log_softmax(-1).gather(-1, written.tokens), written.log_probs)


@torch.no_grad()
def test_rotary_frequencies_that_change_with_the_length_are_found_where_they_change():
    bridge = long_rope_bridge(260, max_position_embeddings=512)
    resid = torch.randn(1, 300, int(bridge.cfg.d_model), dtype=torch.float64)
    assert two_streams_hold(bridge, 1, resid[:, :200])
    assert not two_streams_hold(bridge, 1, resid)
    assert two_streams_hold(bridge, 1, resid[:, :260])
    assert not two_streams_hold(bridge, 1, resid[:, :261])
