"""A patch on a model: each row is patched for itself alone, by any source and mode."""

import dataclasses
import math

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.modes import MODES
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.sources import source_names
from lens_interventions.model.tokens import TokenBatch
from tests.support.exact import close
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


LENGTH = 9


@pytest.fixture
def tokens():
    return random_tokens(2, LENGTH)


EVERY_KIND = [
    NextTokenPatch(layer=1, strength=0.4, mode=mode, source=source, scale="norm")
    for mode in MODES
    for source in source_names()
]


class TestRows:
    @torch.no_grad()
    @pytest.mark.parametrize("patch", EVERY_KIND, ids=lambda p: f"{p.mode}-{p.source}")
    def test_rows_are_patched_for_themselves_alone(self, llama, tokens, patch):
        """In any chunk, order, padding, batch, and however much more of the text is known."""
        text = KnownText.from_batch(
            TokenBatch(tokens, tokens >= 0), text_seeds=torch.tensor([5, 6])
        )
        resid, position = torch.randn(2, LENGTH, 32).double(), text.column_positions()
        bound = patch.bind(llama)

        def patched(rows, known=text, columns=position):
            return bound(rows, layer=1, position=columns, text=known)

        whole = patched(resid)
        torch.testing.assert_close(whole[:, -1], resid[:, -1], rtol=0, atol=0)
        changed = (whole[:, 1:-1] != resid[:, 1:-1]).any(-1)
        assert changed.all() != ((patch.mode, patch.source) == ("add", "zero"))

        order = torch.randperm(LENGTH)
        shuffled = patched(resid[:, order], columns=position[:, order])
        # The lens's products depend on their shape in the last bits.
        torch.testing.assert_close(shuffled, whole[:, order], rtol=0, atol=1e-12)

        for last in range(2, LENGTH):
            known = dataclasses.replace(
                text, tokens=tokens[:, : last + 1], length=torch.full((2,), last + 1)
            )
            two = slice(last - 1, last + 1)
            as_generated = patched(resid[:, two], known, position[:, two])
            expected = torch.stack([whole[:, last - 1], resid[:, last]], dim=1)
            torch.testing.assert_close(as_generated, expected, rtol=0, atol=1e-12)

        padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), tokens], dim=1)
        known = dataclasses.replace(text, tokens=padded, first=torch.tensor([3, 3]))
        rows = torch.cat([torch.randn(2, 3, 32).double(), resid], dim=1)
        left = patched(rows, known, known.column_positions())
        torch.testing.assert_close(left[:, 3:], whole, rtol=0, atol=1e-12)
        torch.testing.assert_close(left[:, :3], rows[:, :3], rtol=0, atol=0)

        for row in range(2):
            alone = KnownText(
                *(
                    part if part is None else part[row : row + 1]
                    for part in (
                        text.tokens,
                        text.first,
                        text.length,
                        text.prompt_length,
                        text.seed,
                    )
                )
            )
            single = patched(resid[row : row + 1], alone, position[row : row + 1])
            torch.testing.assert_close(single[0], whole[row], rtol=0, atol=1e-12)

    @torch.no_grad()
    @pytest.mark.parametrize("scale", ["raw", "norm"])
    def test_in_mode_correct_controls_move_rows_as_far_as_the_truth(self, llama, tokens, scale):
        text = KnownText.from_batch(TokenBatch(tokens, tokens >= 0))
        resid, position = torch.randn(2, LENGTH, 32).double(), text.column_positions()

        def moved(source):
            patch = NextTokenPatch(layer=1, strength=0.4, mode="correct", source=source)
            bound = dataclasses.replace(patch, scale=scale).bind(llama)
            return (bound(resid, layer=1, position=position, text=text) - resid)[:, 1:-1]

        expected = moved("true").norm(dim=-1)
        assert (expected > 0.1).all()
        for source in source_names("control", "bare", "no news"):
            torch.testing.assert_close(moved(source).norm(dim=-1), expected, rtol=1e-9, atol=0)
        own = moved(lambda site: site.current_tokens)
        assert (own.norm(dim=-1) / expected - 1).abs().max() > 0.01

    @torch.no_grad()
    @pytest.mark.parametrize("source", ["true", "shuffled", "direction"])
    def test_a_window_holds_wherever_the_patch_is_applied(self, llama, tokens, source):
        """For the last position or an earlier one, on whole texts and on rows of them."""
        text = KnownText.from_batch(TokenBatch(tokens, tokens >= 0))
        resid, position = torch.randn(2, LENGTH, 32).double(), text.column_positions()
        everywhere = NextTokenPatch(layer=1, strength=0.5, source=source)
        patched = everywhere.bind(llama)(resid, layer=1, position=position, text=text)
        bound = dataclasses.replace(everywhere, window=3).bind(llama)
        for predicting in (LENGTH - 1, 5, 2, 0):
            inside = range(max(predicting - 3, 0), predicting)
            expected = resid.clone()
            expected[:, inside] = patched[:, inside]
            given = torch.full((2, 1), predicting)
            for rows in (slice(None), slice(2, 4), slice(5, 9)):
                found = bound(
                    resid[:, rows],
                    layer=1,
                    position=position[:, rows],
                    text=text,
                    predicting=None if predicting == LENGTH - 1 else given,
                )
                torch.testing.assert_close(found, expected[:, rows], rtol=0, atol=1e-12)

    @torch.no_grad()
    def test_the_residual_given_is_not_written_to(self, llama, tokens):
        text = KnownText.from_batch(TokenBatch(tokens, tokens >= 0))
        resid = torch.randn(2, LENGTH, 32).double()
        before = resid.clone()
        bound = NextTokenPatch(layer=1, strength=1.0).bind(llama)
        bound(resid, layer=1, position=text.column_positions(), text=text)
        assert torch.equal(resid, before)

    @torch.no_grad()
    def test_an_embedding_of_length_zero_stays_zero_at_any_scale(self, tokens):
        bridge = tiny_bridge("llama")
        bridge.original_model.get_input_embeddings().weight[tokens[0, 3]] = 0.0
        text = KnownText.from_batch(TokenBatch(tokens[:1], tokens[:1] >= 0))
        resid = torch.randn(1, LENGTH, 32).double()
        patch = NextTokenPatch(layer=1, strength=0.5, scale="norm")
        patched = patch.bind(bridge)(resid, layer=1, position=text.column_positions(), text=text)
        torch.testing.assert_close(patched[0, 2], 0.5 * resid[0, 2])
        assert patched.isfinite().all()

    @torch.no_grad()
    def test_a_gate_opens_for_a_token_just_as_surprising_as_it(self, llama, tokens):
        surprisal = torch.tensor([[1.5, 2.0, 2.5] * 3] * 2)
        text = dataclasses.replace(
            KnownText.from_batch(TokenBatch(tokens, tokens >= 0)), surprisal=surprisal
        )
        bound = NextTokenPatch(layer=1, strength=0.5, gate=2.0, gate_on="output").bind(llama)
        resid, position = torch.randn(2, LENGTH, 32).double(), text.column_positions()
        changed = (bound(resid, layer=1, position=position, text=text) != resid).any(-1)
        expected = surprisal >= 2
        expected[:, 0] = expected[:, -1] = False  # the BOS, and the token that predicts
        assert torch.equal(changed, expected)

    def test_a_gate_on_the_output_needs_a_run_of_the_model(self, llama, tokens):
        text = KnownText.from_batch(TokenBatch(tokens, tokens >= 0))
        bound = NextTokenPatch(layer=1, strength=0.5, gate=4.0, gate_on="output").bind(llama)
        resid, position = torch.randn(2, LENGTH, 32).double(), text.column_positions()
        with pytest.raises(ValueError, match="need a run of the model without the patch"):
            bound(resid, layer=1, position=position, text=text)

    def test_generated_positions_need_a_prompt(self, llama, tokens):
        patch = NextTokenPatch(layer=1, strength=0.1, positions="generated")
        with pytest.raises(ValueError, match="pass prompt_length"):
            li.teacher_forced_logits(llama, tokens, patch)


class TestFunctions:
    def test_a_source_and_a_mode_of_ones_own_are_written_like_the_built_in_ones(
        self, llama, tokens
    ):
        def mine(site):
            return site.next_tokens

        def halfway(site, e, s, a):
            return (1 - a) * site.resid + a * s * e

        own = NextTokenPatch(layer=1, strength=0.5, source=mine, mode=halfway)
        built_in = NextTokenPatch(layer=1, strength=0.5)
        assert torch.equal(
            li.teacher_forced_logits(llama, tokens, own),
            li.teacher_forced_logits(llama, tokens, built_in),
        )

    @torch.no_grad()
    @pytest.mark.parametrize(
        ("field", "in_place", "plain"),
        [
            (
                "mode",
                lambda site, e, s, a: site.resid.mul_(1 - a).add_(a * s * e),
                lambda site, e, s, a: (1 - a) * site.resid + a * s * e,
            ),
            (
                "source",
                lambda site: torch.where(site.position > 3, site.resid.abs_()[..., 0].long(), -1),
                lambda site: torch.where(site.position > 3, site.resid.abs()[..., 0].long(), -1),
            ),
            (
                "lens",
                lambda resid, layer: resid.mul_(layer + 1).add_(1),
                lambda resid, layer: resid * (layer + 1) + 1,
            ),
        ],
        ids=["mode", "source", "lens"],
    )
    def test_functions_may_write_into_the_rows_that_they_get(
        self, llama, tokens, field, in_place, plain
    ):
        """As hooks of TransformerLens may; other patches, and rows left alone, do not see it."""
        built_in = NextTokenPatch(layer=1, strength=0.5, scale="norm", gate=4.5)
        assert not torch.equal(*li.teacher_forced_logits(llama, tokens, [None, built_in]))
        found, beside = (
            li.teacher_forced_logits(
                llama, tokens, [dataclasses.replace(built_in, **{field: function}), built_in]
            )
            for function in (in_place, plain)
        )
        assert torch.equal(found, beside)
        # Products of another number of rows may add up in another order.
        alone = li.teacher_forced_logits(llama, tokens, built_in)
        torch.testing.assert_close(found[1], alone, rtol=0, atol=1e-12)

    @torch.no_grad()
    def test_a_source_and_a_mode_may_be_objects_that_cannot_be_hashed(self, llama, tokens):
        @dataclasses.dataclass
        class Mine:
            def __call__(self, site, *parts):
                if not parts:
                    return site.next_tokens
                e, s, a = parts
                return (1 - a) * site.resid + a * s * e

        own = NextTokenPatch(layer=1, strength=0.5, source=Mine(), mode=Mine())
        assert torch.equal(
            li.teacher_forced_logits(llama, tokens, own),
            li.teacher_forced_logits(llama, tokens, NextTokenPatch(layer=1, strength=0.5)),
        )

    @torch.no_grad()
    def test_vectors_in_double_precision_are_written_into_any_model(self, tokens):
        bridge = shared_bridge("llama", torch.float32)
        double = NextTokenPatch(
            layer=1, strength=0.5, source=lambda site: site.embedding(site.next_tokens).double()
        )
        found = li.teacher_forced_logits(bridge, tokens, double)
        expected = li.teacher_forced_logits(bridge, tokens, NextTokenPatch(layer=1, strength=0.5))
        # Sums in float64 or in float32, then the rest of the model in float32.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)

    @torch.no_grad()
    def test_where_a_source_says_minus_one_nothing_is_written(self, llama, tokens):
        patch = NextTokenPatch(
            layer=1,
            strength=1.0,
            source=lambda site: site.next_tokens.where(site.position % 2 == 0, -1),
        )
        even = NextTokenPatch(layer=1, strength=1.0, positions=range(0, LENGTH, 2))
        assert torch.equal(
            li.teacher_forced_logits(llama, tokens, patch),
            li.teacher_forced_logits(llama, tokens, even),
        )

    @pytest.mark.parametrize(
        ("field", "function"),
        [
            ("source", lambda site: site.next_tokens[:, :1]),
            ("source", lambda site: site.resid[..., :4]),
            ("mode", lambda _site, e, _s, _a: e[..., :1]),
        ],
    )
    def test_a_wrong_shape_is_named(self, llama, tokens, field, function):
        patch = NextTokenPatch(layer=1, strength=1.0, **{field: function})
        with pytest.raises(ValueError, match=f"the {field} '<lambda>' returned shape"):
            li.teacher_forced_logits(llama, tokens, patch)

    @pytest.mark.parametrize("wrong", [-100, 112])
    def test_an_id_outside_the_vocabulary_is_named(self, llama, tokens, wrong):
        patch = NextTokenPatch(
            layer=1, strength=1.0, source=lambda site: torch.full_like(site.next_tokens, wrong)
        )
        message = rf"'<lambda>' returned the id {wrong}; expected ids in \[0, 112\), or -1"
        with pytest.raises(ValueError, match=message):
            li.teacher_forced_logits(llama, tokens, patch)

    @torch.no_grad()
    def test_a_fitted_lens_is_what_gate_guess_and_correction_read(self, llama, tokens):
        def doubled(resid, layer):
            assert layer == 1
            return resid @ torch.diag(torch.linspace(-1, 2, 32).double())

        # The surprisal of a uniform guess: the lens decides on which side of it a token is.
        gate = math.log(llama.cfg.d_vocab)
        for fields in ({"gate": gate}, {"source": "guess"}, {"mode": "correct"}):
            patch = NextTokenPatch(layer=1, strength=0.5, **fields)
            plain, fitted = li.teacher_forced_logits(
                llama, tokens, [patch, dataclasses.replace(patch, lens=doubled)]
            )
            assert (plain - fitted).abs().max() > 0.01
            same = dataclasses.replace(patch, lens=lambda resid, layer: resid + 0 * layer)
            close(li.teacher_forced_logits(llama, tokens, same), plain)

    @pytest.mark.parametrize("name", ["position", "log_probs"])
    def test_functions_may_write_into_whatever_a_site_tells(self, llama, name):
        def writes(site):
            getattr(site, name).zero_()
            return site.current_tokens

        tokens = random_tokens(2, 9)
        others = [
            li.NextTokenPatch(layer=1, strength=0.5, **fields)
            for fields in ({"source": "guess"}, {"mode": "correct"}, {"gate": 4.0}, {})
        ]
        # The first has the lens read before the function gets its answer.
        patches = [others[0], li.NextTokenPatch(layer=1, strength=0.5, source=writes), *others]
        together = li.teacher_forced_log_probs(llama, tokens, patches)[2:]
        alone = [li.teacher_forced_log_probs(llama, tokens, patch) for patch in others]
        close(together, torch.stack(alone))
