"""The identities that hold everything together, on every architecture, in float64."""

import dataclasses

import pytest
import torch

from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.sources import BackPatch
from lens_interventions.intervention.teacher_forcing import two_streams as two_streams_module
from lens_interventions.intervention.teacher_forcing.log_probs import teacher_forced_logits
from lens_interventions.intervention.teacher_forcing.two_streams import two_streams
from lens_interventions.model.partial_run import run_late_blocks, run_late_rows
from lens_interventions.model.tokens import TokenBatch
from tests.support.architectures import MPT_WITH_CACHE
from tests.support.clean import left_as_found
from tests.support.exact import tolerance
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import D_VOCAB, long_rope_bridge, shared_bridge
from tests.support.user_hooks import permanent_hook

pytestmark = pytest.mark.usefixtures("exact")

# Together: every mode, scale, source and embedding, one and several layers, gates, windows and
# every choice of positions.
PATCHES = [
    NextTokenPatch(layer=1, strength=0.3),
    NextTokenPatch(layer=0, strength=1.0, source="guess", positions=[0, 3, 4]),
    NextTokenPatch(layer=(0, 2), strength=0.8, mode="add", scale="norm", source="random", seed=3),
    NextTokenPatch(layer=1, strength=0.5, scale="norm", source="shuffled", positions="generated"),
    NextTokenPatch(layer=2, strength=0.5, mode="correct", embedding="W_U", gate=3.0, window=2),
    NextTokenPatch(layer=(1, 2), strength=0.5, source="direction", window=1, gate=2.0),
    NextTokenPatch(layer=2, strength=0.4, mode="correct", source="current", scale="norm", window=4),
    NextTokenPatch(layer=(0, 2), strength=0.6, scale="deviation", source="average"),
    NextTokenPatch(layer=1, strength=0.9, gate=4.0, gate_on="output"),
    NextTokenPatch(layer=2, strength=0.9, gate=4.0, gate_on="output", source="shuffled", window=2),
    NextTokenPatch(layer=(0, 1), strength=0.8, source=BackPatch(3)),
    NextTokenPatch(layer=(0, 2), strength=0.7, mode="add", scale="norm", embedding="W_E_centred"),
    NextTokenPatch(layer=1, strength=0.6, mode="correct", embedding="W_E_centred", window=3),
]
LENGTH = 8  # longer than the sliding windows of the tiny models
PROMPT_LENGTH = 4


@pytest.fixture
def tokens():
    return torch.randint(0, D_VOCAB, (LENGTH,))


@torch.no_grad()
def test_late_blocks_on_r_l_are_the_model(bridge, tokens):
    _, cache = bridge.run_with_cache(tokens)
    final = cache[f"blocks.{bridge.cfg.n_layers - 1}.hook_resid_post"]
    position = torch.arange(LENGTH)
    for layer in range(bridge.cfg.n_layers):
        resid = cache[f"blocks.{layer}.hook_resid_pre"]
        as_rows = run_late_rows(bridge, layer, resid, position=position)
        for late in (run_late_blocks(bridge, layer, resid), as_rows):
            torch.testing.assert_close(late, final, rtol=0, atol=1e-9)


@torch.no_grad()
def test_two_streams_are_the_step_by_step_loop(request, bridge, tokens):
    atol = tolerance(request.node.callspec.params["bridge"])
    logits = teacher_forced_logits(bridge, tokens, PATCHES, prompt_length=PROMPT_LENGTH)
    for patch, row in zip(PATCHES, logits[:, 0], strict=True):
        expected = patched_logits(bridge, tokens, patch, prompt_length=PROMPT_LENGTH)
        torch.testing.assert_close(row, expected, rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("layer", [1, 2])
def test_a_lasting_hook_where_a_patch_enters_acts_once(architecture, layer, tokens):
    # The reference finds mean residuals once for each model, with or without hooks.
    patches = [patch for patch in PATCHES if patch.scale != "deviation"]
    with (
        left_as_found(shared_bridge(architecture)) as bridge,
        permanent_hook(bridge, layer, lambda resid, hook: 1.5 * resid + 0.5),
    ):
        logits = teacher_forced_logits(
            bridge, tokens, [None, *patches], prompt_length=PROMPT_LENGTH
        )
        torch.testing.assert_close(logits[0], bridge(tokens), rtol=0, atol=tolerance(architecture))
        for patch, row in zip(patches, logits[1:, 0], strict=True):
            expected = patched_logits(bridge, tokens, patch, prompt_length=PROMPT_LENGTH)
            torch.testing.assert_close(row, expected, rtol=0, atol=tolerance(architecture))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:decoding with a cache is not exact")
def test_each_position_predicts_with_the_rotary_frequencies_of_its_own_text(tokens):
    bridge = long_rope_bridge(6)
    with pytest.warns(UserWarning, match="does not run two copies of a text side by side"):
        logits = teacher_forced_logits(bridge, tokens, PATCHES[:2])
    for patch, row in zip(PATCHES[:2], logits[:, 0], strict=True):
        expected = patched_logits(bridge, tokens, patch)
        torch.testing.assert_close(row, expected, rtol=0, atol=tolerance("phi3"))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt_neo", MPT_WITH_CACHE, "bloom"])
@pytest.mark.filterwarnings("ignore:decoding with a cache is not exact")
def test_where_two_streams_are_wrong_steps_are_taken(architecture, tokens):
    # BLOOM normalizes its embeddings before the first block, and refuses W_E.
    patches = [dataclasses.replace(patch, embedding="W_U") for patch in PATCHES]
    with left_as_found(shared_bridge(architecture)) as bridge:
        with pytest.warns(UserWarning, match="does not run two copies of a text side by side"):
            logits = teacher_forced_logits(bridge, tokens, patches, prompt_length=PROMPT_LENGTH)
        for patch, row in zip(patches, logits[:, 0], strict=True):
            expected = patched_logits(bridge, tokens, patch, prompt_length=PROMPT_LENGTH)
            torch.testing.assert_close(row, expected, rtol=0, atol=tolerance(architecture))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:the patch at positions .* changes nothing")
def test_no_strength_or_a_closed_gate_is_the_model(request, bridge, tokens):
    architecture = request.node.callspec.params["bridge"]
    closed = {"layer": 1, "strength": 1.0, "gate": 1e6}
    patches = [
        NextTokenPatch(layer=(0, 1), strength=0.0),
        NextTokenPatch(layer=2, strength=0.0, mode="correct"),
        NextTokenPatch(**closed),
        NextTokenPatch(**closed, window=2),
        NextTokenPatch(layer=0, strength=1.0, positions=[]),
        None,
    ]
    logits = teacher_forced_logits(bridge, tokens, patches)
    torch.testing.assert_close(
        logits,
        bridge(tokens).expand(len(patches), -1, -1, -1),
        rtol=0,
        atol=tolerance(architecture),
    )


@torch.no_grad()
def test_a_later_token_changes_no_bit_before_it(bridge, tokens):
    assert _first_changed(
        tokens,
        lambda texts: teacher_forced_logits(bridge, texts, PATCHES, prompt_length=PROMPT_LENGTH),
    ) == list(range(LENGTH))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt_neo", MPT_WITH_CACHE, "bloom"])
@pytest.mark.filterwarnings("ignore")
def test_a_later_token_changes_no_bit_before_it_step_by_step(architecture, tokens):
    patch = NextTokenPatch(layer=1, strength=0.5, embedding="W_U")
    bridge = shared_bridge(architecture)
    assert _first_changed(
        tokens, lambda texts: teacher_forced_logits(bridge, texts, patch)
    ) == list(range(LENGTH))


@torch.no_grad()
def test_the_causality_test_catches_a_leak(tokens):
    bridge, patch = shared_bridge("llama"), PATCHES[0]

    def reference(texts):
        return torch.stack([patched_logits(bridge, text, patch, leak=True) for text in texts])

    leaking = _first_changed(tokens, reference)
    # Position j - 1 was patched with token j, the one that it predicts.
    assert leaking == [0, *range(LENGTH - 1)]

    def hooked(texts):
        return bridge.run_with_hooks(texts, fwd_hooks=patch.fwd_hooks(bridge, texts))

    # Hooks on a whole text are for its last position only, as their documentation says.
    assert _first_changed(tokens, hooked) == leaking


@torch.no_grad()
def test_identity_fails_for_a_wrong_layer_token_or_mask(tokens, monkeypatch):
    bridge, patch = shared_bridge("llama"), PATCHES[0]
    text = KnownText.from_batch(TokenBatch(tokens[None], tokens[None] >= 0))
    expected = patched_logits(bridge, tokens, patch)

    def largest_error(patch=patch, text=text, layer=1):
        bound = patch.bind(bridge)
        _, cache = bridge.run_with_cache(tokens, names_filter=f"blocks.{layer}.hook_in")
        chunks = two_streams(
            bridge,
            [bound],
            cache[f"blocks.{layer}.hook_in"],
            text,
            layer=layer,
            chunk_size=4,
        )
        logits = bound.readout(torch.cat(list(chunks), dim=2))[0, 0]
        return (logits - expected).abs().max()

    assert largest_error() < 1e-9
    assert largest_error(dataclasses.replace(patch, layer=2), layer=2) > 1e-3
    other = tokens.clone()
    other[3] = (other[3] + 1) % D_VOCAB
    assert largest_error(text=dataclasses.replace(text, tokens=other[None])) > 1e-3
    visible = two_streams_module.visible

    def sees_no_stream(rows, start):
        seen = visible(rows, start)
        seen[-1, 0] = False
        return seen

    monkeypatch.setattr(two_streams_module, "visible", sees_no_stream)
    assert largest_error() > 1e-3


def _first_changed(tokens, logits_of):
    """For every j, the first position whose logits move by a bit when token j changes.

    `logits_of` maps texts `[batch, pos]` to `[..., batch, pos, d_vocab]`. It reads all changed
    texts at once, and as many copies of the text: bits are those of batches of one shape.
    """
    copies = tokens.repeat(len(tokens), 1)
    others = (copies + torch.eye(len(tokens), dtype=copies.dtype)) % D_VOCAB
    changed = (logits_of(others) != logits_of(copies)).any(-1)
    first = []
    for row in changed.reshape(-1, *copies.shape).any(0):
        first.append(int(row.int().argmax()) if row.any() else len(tokens))
    return first
