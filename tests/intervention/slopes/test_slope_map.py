"""Slopes against central differences of patched losses."""

import dataclasses

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.sources import BackPatch
from tests.intervention.test_learned_write import random_write
from tests.support.central_differences import central_difference
from tests.support.clean import left_as_found
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact", "unrounded")


ARCHITECTURES = [
    "gpt2",
    "gpt_neox",
    "opt",
    "llama",
    "mistral",
    "mixtral",
    "gemma2",
    "qwen3",
    "cohere2",
    "phi",
]


def previous(site):
    return site.token_at(site.position - 1).where(site.position > 0, -1)


def doubled(site, e, s, a):
    """A mode of one's own, not linear in the strength."""
    return site.resid + (a + 2 * a**2) * s * e.roll(1, dims=-1)


def in_place(site, e, s, a):
    """The same as `add`, written into all that it gets."""
    return site.resid.add_(e.mul_(s.mul_(a)))


def reading(site, e, s, a):
    """A mode that reads the lens, and the rows that it then writes into."""
    likely = site.log_probs.amax(-1, keepdim=True).exp()
    site.resid.add_(a * s * e)
    return site.resid + a * likely * site.resid


def reading_plainly(site, e, s, a):
    likely = site.log_probs.amax(-1, keepdim=True).exp()
    return (site.resid + a * s * e) * (1 + a * likely)


def assert_equal_to_differences(bridge, texts, found, cells, **patch):
    for layer, source, mode, embedding in cells:
        totals = found.totals[
            :,
            0,
            found.embeddings.index(embedding),
            found.modes.index(mode if isinstance(mode, str) else mode.__name__),
            found.sources.index(
                source if isinstance(source, str) else getattr(source, "__name__", repr(source))
            ),
            found.layers.index(layer),
        ]
        positions = tuple(range(1, 128))
        at_cell = li.NextTokenPatch(
            layer=layer,
            strength=0.0,
            source=previous if source == "previous" else source,
            mode=mode,
            embedding=embedding,
            **{"scale": "norm", "positions": positions} | patch,
        )
        expected = central_difference(bridge, texts, at_cell)
        scale = np.abs(expected).max()
        assert scale > 1e-3
        np.testing.assert_allclose(totals, expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("bridge", ARCHITECTURES, indirect=True)
def test_slopes_are_the_derivatives_of_patched_losses(bridge):
    texts = [random_tokens(9), random_tokens(12)]
    found = li.slope_map(
        bridge,
        texts,
        sources=["true", "current", "previous", "random", "guess", "zero"],
        modes=["add", "interpolate", "correct"],
        embeddings=["W_U"],
        progress=False,
    )
    cells = [
        (0, "true", "add", "W_U"),
        (1, "previous", "interpolate", "W_U"),
        (1, "random", "add", "W_U"),
        (2, "current", "correct", "W_U"),
        (2, "guess", "add", "W_U"),
        (1, "zero", "correct", "W_U"),
    ]
    assert_equal_to_differences(bridge, texts, found, cells)


def test_other_embeddings_scales_gates_and_functions(llama):
    texts = [random_tokens(9), random_tokens(12)]
    lens = li.fit_affine_lens(llama, [random_tokens(40) for _ in range(12)], progress=False)
    options = {"scale": "raw", "gate": 4.0, "lens": lens, "seed": 5}
    found = li.slope_map(
        llama,
        texts,
        sources=["true", "shuffled", "direction", previous],
        modes=["add", doubled, "correct"],
        embeddings=["W_E", "lens"],
        layers=[1, 2],
        progress=False,
        **options,
    )
    assert found.layers == (1, 2)
    cells = [
        (1, "true", "add", "W_E"),
        (2, "shuffled", doubled, "W_E"),
        (1, "direction", "correct", "lens"),
        (2, "shuffled", "add", "lens"),
        (2, previous, doubled, "lens"),
    ]
    assert_equal_to_differences(llama, texts, found, cells, **options)


@dataclasses.dataclass
class Shifted:
    """A source that is not hashable."""

    by: int

    def __call__(self, site):
        return site.text.at(site.position + self.by)


def test_a_source_need_not_be_hashable(llama):
    tokens, options = random_tokens(9), {"layers": [1], "progress": False}
    own, named = (
        li.slope_map(llama, [tokens], sources=[source], **options)
        for source in (Shifted(1), "true")
    )
    np.testing.assert_allclose(own.totals, named.totals, rtol=1e-12)


def test_the_slope_of_a_mode_of_ones_own_is_not_lost_in_half_precision():
    def own_add(site, e, s, a):
        return site.resid + a * s * e

    bridge = shared_bridge("llama", torch.bfloat16)
    options = {"layers": [1], "sources": ["true"], "scale": "raw", "progress": False}
    tokens = random_tokens(30)
    own, add = (
        li.slope_map(bridge, [tokens], modes=[mode], **options).totals for mode in (own_add, "add")
    )
    # The directions are rounded to 8 bits.
    np.testing.assert_allclose(own, add, rtol=0.02)


def test_a_gate_on_the_output(llama):
    texts, options = [random_tokens(9), random_tokens(12)], {"gate": 4.0, "gate_on": "output"}
    found = li.slope_map(llama, texts, sources=["true"], progress=False, **options)
    assert_equal_to_differences(llama, texts, found, [(1, "true", "add", "W_E")], **options)


def test_back_patching(llama):
    texts, source = [random_tokens(9), random_tokens(12)], BackPatch(3)
    found = li.slope_map(llama, texts, sources=["true", source], progress=False)
    assert_equal_to_differences(llama, texts, found, [(1, source, "add", "W_E")])


@pytest.mark.parametrize("window", [1, 3])
def test_a_window(llama, window):
    texts = [random_tokens(11)]
    found = li.slope_map(
        llama, texts, sources=["true", "random"], window=window, first_position=0, progress=False
    )
    cells = [(0, "true", "add", "W_E"), (1, "random", "add", "W_E")]
    assert_equal_to_differences(llama, texts, found, cells, window=window, positions="all")


def test_a_window_that_spans_the_text_is_none(llama):
    texts = [random_tokens(11)]
    plain, wide = (
        li.slope_map(llama, texts, sources=["true"], window=window, progress=False)
        for window in (None, 10)
    )
    np.testing.assert_array_equal(plain.totals, wide.totals)


def test_the_final_guess_is_the_models(llama):
    tokens = random_tokens(10)
    guesses = llama(tokens[None])[0].argmax(-1)

    def table(site):
        return guesses[site.position.clamp(min=0)]

    found = li.slope_map(llama, [tokens], sources=["final_guess", table], progress=False)
    np.testing.assert_allclose(
        found.totals[..., 0, :], found.totals[..., 1, :], rtol=1e-12, atol=1e-12
    )


def test_several_layers_are_sums(llama):
    tokens = random_tokens(12)
    found = li.slope_map(llama, [tokens], sources=["true"], modes=["correct"], progress=False)
    patch = dataclasses.replace(found.patch(0, strength=0.0, mode="correct"), layer=(0, 2))
    expected = central_difference(llama, [tokens], patch).item() / 11
    assert found.predict(patch).slope.estimate == pytest.approx(expected, rel=1e-6)


def test_nothing_written_is_the_clean_loss(llama):
    tokens = random_tokens(3, 20)
    found = li.slope_map(llama, tokens, sources=["zero"], progress=False)
    expected = -li.teacher_forced_log_probs(llama, tokens, None).sum(-1)
    np.testing.assert_allclose(found.nats[:, 0], expected, rtol=1e-12)
    assert not found.totals.any()
    assert found.counts[:, 0].tolist() == [19, 19, 19]


@pytest.mark.parametrize("bridge", ["gpt2", "llama"], indirect=True)
def test_the_bridge_comes_back_as_it_was(bridge):
    """`bridge` asserts it, after an interruption and inside somebody's `no_grad` too."""

    def interrupts(_site):
        raise KeyboardInterrupt

    with torch.no_grad():
        with pytest.raises(KeyboardInterrupt):
            li.slope_map(bridge, [random_tokens(6)], sources=[interrupts], progress=False)
        li.slope_map(bridge, [random_tokens(6)], progress=False)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ["next"]}, r"sources must be some of 'true'.*or functions; got 'next'"),
        ({"sources": []}, "sources must be one or more"),
        ({"scopes": "all"}, r"scopes must be a list, such as \['all'\]; got 'all'"),
        ({"modes": ["add", "add"]}, "with different names"),
        ({"scopes": ["rare"]}, "scopes must be some of 'all'"),
        ({"embeddings": ["lens"]}, "needs lens= to be an AffineLens"),
        ({"layers": [3]}, "the model has blocks 0 to 2"),
        (
            {"sources": ["true", BackPatch(99)]},
            r"residuals r\[0\] to r\[3\], but the patch writes that of BackPatch\(layer=99\)",
        ),
        ({"max_length": 1}, "max_length must be from 2 to the model's 128"),
        ({"first_position": -1}, "first_position must be from 0 to"),
        ({"texts": [[4]]}, "no text with a token to predict"),
        ({"texts": []}, "there is no text"),
        (
            {"scopes": [lambda _tokens, nats: nats > 1, lambda _tokens, nats: nats]},
            "with different names",
        ),
        ({"scopes": [lambda _tokens, nats: nats]}, "returned torch.float64 of shape"),
        ({"modes": [lambda _site, e, _s, _a: e[0]]}, "the mode '<lambda>' returned shape"),
    ],
)
def test_mistakes(llama, arguments, message):
    given = {"texts": [random_tokens(6)], "progress": False} | arguments
    with pytest.raises(ValueError, match=message):
        li.slope_map(llama, **given)


def test_one_text_is_not_texts(llama):
    with pytest.raises(TypeError, match="put it in a list"):
        li.slope_map(llama, "the time", progress=False)


def test_a_hook_on_a_block_is_refused(llama):
    with (
        llama.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda resid, hook: resid)]),
        pytest.raises(
            ValueError, match=r"there is a hook on blocks.1.* = blocks.1.hook_resid_pre:"
        ),
    ):
        li.slope_map(llama, [random_tokens(6)], progress=False)


def test_a_model_that_does_not_run_two_streams_is_refused():
    with (
        left_as_found(shared_bridge("gpt_neo")) as neo,
        pytest.raises(NotImplementedError, match="does not run two copies of a text side by side"),
    ):
        li.slope_map(neo, [random_tokens(40)], progress=False)


def test_weights_that_ask_for_gradients_get_none():
    bridge = tiny_bridge("llama")
    for parameter in bridge.original_model.parameters():
        parameter.requires_grad_(True)
    with left_as_found(bridge):
        li.slope_map(bridge, [random_tokens(8)], modes=["correct"], progress=False)
        li.curvature(
            bridge, [random_tokens(8)], [li.NextTokenPatch(layer=1, strength=1.0)], progress=False
        )


def test_a_mode_may_write_into_what_it_gets(llama):
    """Neither its own slopes nor those of the patches beside it know of that."""
    texts = [random_tokens(12)]
    found = li.slope_map(
        llama, texts, modes=["add", in_place, reading, reading_plainly], progress=False
    )
    usual, written, asked, asked_plainly = found.totals.swapaxes(0, 3)
    assert np.abs(usual).max() > 0
    # Central differences of what is linear, or of degree 2, differ by rounding alone.
    np.testing.assert_allclose(written, usual, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(asked, asked_plainly, rtol=1e-9, atol=1e-12)
    (alone,) = li.slope_map(llama, texts, modes=["add"], progress=False).totals.swapaxes(0, 3)
    np.testing.assert_allclose(usual, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_a_learned_write_with_a_base_has_rows_of_its_own_beside_other_modes(llama, turned):
    """It writes also where its source writes nothing."""
    fields = {"first_position": 0, "scale": "norm"}
    base = random_write(llama, **fields)
    shuffled = {"trained_with": "shuffled", "source": "shuffled"}
    modes = ["add", random_write(llama, **shuffled, **fields, base=base)]
    modes = modes[::-1] if turned else modes
    options = {"sources": ["shuffled"], "layers": [1], "first_position": 0, "progress": False}
    texts = [random_tokens(8)]
    both = li.slope_map(llama, texts, modes=modes, **options)
    for place, mode in enumerate(modes):
        alone = li.slope_map(llama, texts, modes=[mode], **options)
        np.testing.assert_allclose(both.totals[:, :, :, place], alone.totals[:, :, :, 0])
