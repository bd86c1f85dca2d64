"""Teacher forcing under hooks of the user's own, above and below the patch."""

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.ablation import ablate_directions
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from lens_interventions.intervention.teacher_forcing.row_hooks import hooks_by_row
from tests.support.clean import left_as_found
from tests.support.exact import close
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")
STEERING = torch.linspace(-1, 1, 32, dtype=torch.float64)


def steer(tensor, hook):
    return tensor + STEERING


def ablate(tensor, hook):
    # In place, and returns nothing, as TransformerLens allows.
    tensor[..., :5] = 0


def autoencode(tensor, hook):
    features = (tensor @ torch.outer(STEERING, STEERING) + 0.1).relu()
    return features / (1 + features.norm(dim=-1, keepdim=True))


OWN = [
    ("blocks.0.hook_resid_post", steer),
    ("blocks.1.hook_mlp_out", autoencode),
    ("blocks.2.hook_attn_out", ablate),
]


@torch.no_grad()
@pytest.mark.parametrize("bridge", ["gpt2", "llama", "gemma2"], indirect=True)
@pytest.mark.parametrize(
    "patch", [PATCH, None, NextTokenPatch(layer=(0, 2), strength=0.3, window=2)]
)
def test_they_act_as_in_a_samplers_runs(bridge, patch):
    tokens = random_tokens(9)
    with left_as_found(bridge):
        logits = teacher_forced_logits(bridge, tokens, patch, fwd_hooks=OWN)
    with bridge.hooks(fwd_hooks=OWN):
        expected = bridge(tokens)[0] if patch is None else patched_logits(bridge, tokens, patch)
    close(logits[0], expected)


@torch.no_grad()
@pytest.mark.usefixtures("as_users_run")
def test_pairs_that_are_made_one_by_one_act_too(llama):
    tokens = random_tokens(9)
    expected = teacher_forced_logits(llama, tokens, PATCH, fwd_hooks=OWN)
    found = teacher_forced_logits(llama, tokens, PATCH, fwd_hooks=iter(OWN))
    close(found, expected)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*does not run two copies of a text")
@pytest.mark.parametrize("bridge", ["gpt_neo"], indirect=True)
def test_they_act_where_each_position_is_a_run_of_its_own(bridge):
    tokens = random_tokens(6)
    logits = teacher_forced_logits(bridge, tokens, PATCH, fwd_hooks=OWN)
    with bridge.hooks(fwd_hooks=OWN):
        expected = patched_logits(bridge, tokens, PATCH)
    close(logits[0], expected, 1e-4)  # its attention is in float32


@torch.no_grad()
def test_texts_patches_and_pieces_share_them(llama):
    tokens = random_tokens(2, 150)
    patches = [PATCH, None]
    together = teacher_forced_log_probs(
        llama, tokens, patches, fwd_hooks=OWN, max_length=40, overlap=0
    )
    for text in range(2):
        for start in (0, 40, 120):
            piece = tokens[text : text + 1, start : start + 40]
            for patch, row in zip(patches, together, strict=True):
                alone = teacher_forced_log_probs(llama, piece, patch, fwd_hooks=OWN)
                close(row[text, start : start + piece.shape[1] - 1], alone[0])


def test_a_filter_of_names_stands_for_all_that_it_picks(llama):
    def last(name):
        return name == "blocks.2.hook_resid_post"

    tokens = random_tokens(6)
    filtered = teacher_forced_log_probs(llama, tokens, PATCH, fwd_hooks=[(last, steer)])
    named = teacher_forced_log_probs(
        llama, tokens, PATCH, fwd_hooks=[("blocks.2.hook_resid_post", steer)]
    )
    close(filtered, named)


def test_a_filter_acts_once_where_two_names_are_one_point():
    bridge = tiny_bridge("mixtral")
    names = ("blocks.1.hook_mlp_out", "blocks.1.mlp.hook_post")
    assert bridge.hook_dict[names[0]] is bridge.hook_dict[names[1]]
    given = [(lambda name: name in names, steer)]
    tokens = random_tokens(6)
    found = teacher_forced_log_probs(bridge, tokens, PATCH, fwd_hooks=given)
    close(found, teacher_forced_log_probs(bridge, tokens, PATCH, fwd_hooks=[(names[0], steer)]))


@torch.no_grad()
def test_a_point_can_be_called_by_any_of_its_names(llama):
    """A bridge has names of its own for the points of `OWN`, beside those of TransformerLens."""
    tokens = random_tokens(1, 8)
    expected = teacher_forced_logits(llama, tokens, PATCH, fwd_hooks=OWN)
    for spelling in (
        {"hook_resid_post": "hook_out", "hook_mlp_out": "mlp.hook_out"},
        {"hook_attn_out": "attn.hook_out"},
    ):
        renamed = []
        for name, fn in OWN:
            for usual, own in spelling.items():
                assert llama.hook_dict[name] is llama.hook_dict[name.replace(usual, own)]
                name = name.replace(usual, own)
            renamed.append((name, fn))
        assert renamed != OWN
        found = teacher_forced_logits(llama, tokens, PATCH, fwd_hooks=renamed)
        assert torch.equal(found, expected)
    by_filter = [(lambda name: name == "blocks.1.mlp.hook_out", OWN[1][1])]
    assert torch.equal(
        teacher_forced_logits(llama, tokens, PATCH, fwd_hooks=by_filter),
        teacher_forced_logits(llama, tokens, PATCH, fwd_hooks=OWN[1:2]),
    )


def test_what_enters_a_block_can_be_hooked_as_what_leaves_the_one_before(llama):
    tokens = random_tokens(6)
    direction = torch.linspace(-1, 1, 32, dtype=torch.float64)
    ablated = ablate_directions(PATCH.layers[0] + 1, direction[None])
    found = teacher_forced_log_probs(llama, tokens, PATCH, fwd_hooks=ablated)
    ((name, fn),) = ablated
    assert name.endswith("hook_resid_pre")
    left = [(f"blocks.{PATCH.layers[0]}.hook_resid_post", fn)]
    close(found, teacher_forced_log_probs(llama, tokens, PATCH, fwd_hooks=left))
    assert not torch.allclose(found, teacher_forced_log_probs(llama, tokens, PATCH), atol=1e-3)


def later_only(tensor, hook):
    return torch.cat([tensor[:, :4], tensor[:, 4:] + 1], dim=1)


def far_only(tensor, hook):
    return torch.cat([tensor[:, :35], tensor[:, 35:] + 1], dim=1)


def last_only(tensor, hook):
    tensor[:, -1] += 1


def centred(tensor, hook):
    return tensor - tensor.mean(1, keepdim=True)


def first_text_only(tensor, hook):
    tensor[0] += 1


def noisy(tensor, hook):
    return tensor + torch.randn_like(tensor)


@pytest.mark.parametrize("fn", [later_only, far_only, last_only, centred, first_text_only, noisy])
def test_what_does_not_act_by_position_is_refused(llama, fn):
    with (
        left_as_found(llama),
        pytest.raises(ValueError, match=r"the hook on blocks\.2\.hook_resid_post does not change"),
    ):
        teacher_forced_log_probs(
            llama, random_tokens(2, 40), PATCH, fwd_hooks=[("blocks.2.hook_resid_post", fn)]
        )


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.1), (torch.bfloat16, 0.5)])
def test_a_long_first_row_hides_no_leak(dtype, share):
    """Models park attention in a first token whose residual is a hundred times the others'."""
    bridge, tokens = tiny_bridge("llama", dtype=dtype), random_tokens(9)
    with torch.no_grad():
        bridge.original_model.get_input_embeddings().weight[tokens[0], 0] = 25_000

    def leak(tensor, hook):
        before = torch.nn.functional.normalize(tensor[:, :-1], dim=-1).roll(1, -1)
        sizes = tensor[:, 1:].norm(dim=-1, keepdim=True)
        return torch.cat([tensor[:, :1], tensor[:, 1:] + share * sizes * before], 1)

    def steered(tensor, hook):
        return tensor + STEERING.to(tensor)

    name = "blocks.1.hook_resid_post"
    with pytest.raises(ValueError, match="does not change every position in the same way"):
        teacher_forced_log_probs(bridge, tokens, PATCH, fwd_hooks=[(name, leak)])
    teacher_forced_log_probs(bridge, tokens, PATCH, fwd_hooks=[(name, steered)])


@torch.no_grad()
@pytest.mark.usefixtures("as_users_run")
def test_neurons_may_be_switched_off_by_minus_infinity():
    bridge, tokens = tiny_bridge("opt", dtype=torch.float32), random_tokens(9)
    turned = torch.linalg.qr(torch.randn(64, 64))[0]

    def off(tensor, hook):
        return (tensor @ turned[: tensor.shape[-1], : tensor.shape[-1]]).index_fill(
            -1, torch.arange(3), -torch.inf
        )

    hooks = [("blocks.1.mlp.hook_pre", off)]
    assert teacher_forced_log_probs(bridge, tokens, PATCH, fwd_hooks=hooks).isfinite().all()


def test_a_result_of_another_shape_is_refused(llama):
    with pytest.raises(ValueError, match=r"returned shape \(2, 12, 5\) for \(2, 12, 32\)"):
        teacher_forced_log_probs(
            llama,
            random_tokens(2, 6),
            PATCH,
            fwd_hooks=[("blocks.2.hook_resid_post", lambda tensor, hook: tensor[..., :5])],
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.9.hook_resid_post", "has no hook called 'blocks.9.hook_resid_post'"),
        ("blocks.2.attn.hook_pattern", "one row for each position; got blocks.2.attn.hook_pattern"),
        ("blocks.0.hook_resid_pre", "but not on blocks.0.hook_resid_pre"),
        ("ln_final.hook_normalized", "one row for each position; got ln_final"),
        (lambda name: "hook_mlpout" in name, "a filter of fwd_hooks fits none"),
    ],
)
def test_points_without_a_row_for_each_position_are_refused(llama, name, message):
    with pytest.raises(ValueError, match=message):
        teacher_forced_log_probs(llama, random_tokens(6), PATCH, fwd_hooks=[(name, steer)])


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2, (1, 2)])
@pytest.mark.parametrize("at", [1, 2])
def test_a_hook_is_told_the_point_that_it_was_put_on(llama, layer, at):
    """A steering vector for each layer is chosen by it, as is a filter's."""
    vectors = torch.eye(3, 32, dtype=torch.float64) * torch.tensor([[5.0], [7.0], [9.0]])
    seen = set()

    def steer_layer(resid, hook):
        seen.add((hook.name, hook.layer()))
        return resid + vectors[hook.layer()]

    def before_later_blocks(name):
        return name.endswith("hook_resid_pre") and name != "blocks.0.hook_resid_pre"

    tokens, patch = random_tokens(8), NextTokenPatch(layer=layer, strength=0.4)
    for hooks in (
        [(f"blocks.{at}.hook_resid_pre", steer_layer)],
        [(before_later_blocks, steer_layer)],
    ):
        found = teacher_forced_logits(llama, tokens, [None, patch], fwd_hooks=hooks)[:, 0]
        told, seen = seen, set()
        with llama.hooks(fwd_hooks=hooks):
            plain = llama(tokens)[0]
            assert told == seen
            close(found, torch.stack([plain, patched_logits(llama, tokens, patch)]))
        seen = set()


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_hooks_act_in_the_order_of_their_points(llama, layer, turned):
    def halve(resid, hook):
        return resid * torch.linspace(0, 2, 32, dtype=torch.float64)

    hooks = [("blocks.1.hook_resid_pre", steer), ("blocks.0.hook_resid_post", halve)]
    hooks += [("blocks.2.hook_resid_pre", halve), ("blocks.1.hook_resid_post", steer)]
    hooks = hooks[::-1] if turned else hooks
    tokens, patch = random_tokens(8), NextTokenPatch(layer=layer, strength=0.4)
    found = teacher_forced_logits(llama, tokens, [None, patch], fwd_hooks=hooks)[:, 0]
    with llama.hooks(fwd_hooks=hooks):
        close(found, torch.stack([llama(tokens)[0], patched_logits(llama, tokens, patch)]))


@torch.no_grad()
def test_hooks_on_the_bridge_act_before_those_that_are_given(llama):
    def halve(resid, hook):
        return resid * torch.linspace(0, 2, 32, dtype=torch.float64)

    tokens, patch = random_tokens(8), NextTokenPatch(layer=2, strength=0.4)
    for point in ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"):
        given = [("blocks.1.hook_resid_pre", steer), ("blocks.2.hook_resid_pre", steer)]
        with llama.hooks(fwd_hooks=[(point, halve)]):
            found = teacher_forced_logits(llama, tokens, [None, patch], fwd_hooks=given)[:, 0]
            with llama.hooks(fwd_hooks=given):
                close(found, torch.stack([llama(tokens)[0], patched_logits(llama, tokens, patch)]))


def test_hooks_left_on_above_the_patch_are_refused_with_the_way(llama):
    with (
        llama.hooks(fwd_hooks=[("blocks.2.hook_resid_post", steer)]),
        pytest.raises(ValueError, match="accepts it there if it changes each position"),
    ):
        teacher_forced_log_probs(llama, random_tokens(6), PATCH)


def test_a_name_that_is_not_there_is_said_as_it_was_given(llama):
    with pytest.raises(ValueError, match=r"no hook called 'blocks\.9\.hook_resid_pre'"):
        li.teacher_forced_log_probs(
            llama, "people", fwd_hooks=[("blocks.9.hook_resid_pre", lambda value, hook: value)]
        )


def test_a_hook_may_write_into_its_rows(llama):
    """Its trial leaves the rows of the run alone."""
    tokens = random_tokens(2, 8)

    def in_place(tensor, hook):
        tensor.mul_(1.5)

    found, expected = (
        teacher_forced_log_probs(llama, tokens, PATCH, fwd_hooks=[("blocks.2.hook_mlp_out", fn)])
        for fn in (in_place, lambda tensor, hook: 1.5 * tensor)
    )
    close(found, expected)


def test_a_hook_that_acts_from_some_position_on_is_found_in_its_first_chunk(llama):
    def late(tensor, hook):
        return torch.cat([tensor[:, :20], 2 * tensor[:, 20:]], dim=1)

    name = "blocks.1.hook_mlp_out"
    ((_, tried),) = hooks_by_row(llama, [(name, late)], 50, [None])
    with pytest.raises(ValueError, match="does not change every position in the same way"):
        tried(torch.randn(1, 6, 32), hook=llama.hook_dict[name])
