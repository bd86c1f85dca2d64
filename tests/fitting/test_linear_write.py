"""The steepest linear write: its slopes against patched losses, and a planted effect."""

import dataclasses

import numpy as np
import pytest
import torch

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.planted_learned import ablated_bridge, key_value_texts
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact", "unrounded")


@pytest.mark.parametrize("first_position", [0, 2])
def test_slopes_are_the_derivatives_of_the_patched_losses(llama, first_position):
    texts, held_out = [random_tokens(20) for _ in range(8)], [random_tokens(9), random_tokens(12)]
    found = li.linear_ceiling(
        llama, texts, held_out, layers=[0, 2], first_position=first_position, progress=False
    )
    assert found.counts.tolist() == [8, 11]
    h = 1e-4
    for place, layer in enumerate(found.layers):
        for number, write in enumerate(("without", "with")):
            patch = found.patch(layer, strength=0.0, write=write)
            for row, tokens in enumerate(held_out):
                up, up2, down, down2 = li.teacher_forced_log_probs(
                    llama,
                    tokens,
                    [dataclasses.replace(patch, strength=a) for a in (h, 2 * h, -h, -2 * h)],
                ).sum((-1, -2))
                slope = -float(8 * (up - down) - (up2 - down2)) / (12 * h)
                # Matrices are kept in the model's precision, moments in float32.
                assert found.totals[row, number, place] == pytest.approx(slope, rel=1e-4)


def test_the_write_is_the_ridge_regression_of_the_gradients(llama):
    """On the texts of the fit it is steeper than any other of its length, up to the ridge."""
    texts = [random_tokens(40) for _ in range(8)]
    found = li.linear_ceiling(llama, texts, texts, layers=[1], progress=False)
    without, with_news, free = found.totals.sum((0, 2))
    # The free write goes down the gradient at every position: none of this length is steeper.
    assert free < with_news < without < 0
    without, with_news = (write.matrices[1] for write in found.writes)
    assert without[:32].abs().max() == 0
    assert with_news[:32].abs().max() > 0


def rows_by_autograd(bridge, texts, layer):
    """Features and `-|r| g` of every position from 1 on, one loss of a plain run at a time."""
    table = bridge.W_E.detach()
    unit = table.norm(dim=-1).median()
    rows = []
    for tokens in texts:
        kept = []
        name = f"blocks.{layer}.hook_resid_pre"
        with (
            torch.enable_grad(),
            bridge.hooks(fwd_hooks=[(name, lambda resid, hook, kept=kept: kept.append(resid))]),
        ):
            log_probs = bridge(tokens[None])[0].log_softmax(-1)
        pull = torch.zeros(len(tokens), table.shape[1], dtype=table.dtype)
        for position in range(1, len(tokens) - 1):
            loss = -log_probs[position, tokens[position + 1]]
            (gradient,) = torch.autograd.grad(loss, kept[0], retain_graph=True)
            # What is written at a position does not change the prediction there.
            pull[:position] += gradient[0, :position]
        resid = kept[0][0].detach()
        length = resid.norm(dim=-1, keepdim=True)
        phi = [table[tokens.roll(-1)] / unit, table[tokens] / unit, resid / length]
        phi = torch.cat([*phi, torch.ones_like(length)], dim=1)
        rows.append((phi[1:-1], (-length * pull)[1:-1]))
    return [torch.cat(each) for each in zip(*rows, strict=True)]


def test_the_ridge_is_the_best_on_every_fourth_text_and_the_fit_is_to_the_others(llama):
    texts = list(torch.randint(4, 112, (12, 14), generator=torch.Generator().manual_seed(0)))
    texts = [text[: 14 - number % 3] for number, text in enumerate(texts)]
    found = li.linear_ceiling(llama, texts, texts[:1], layers=[1], progress=False)
    fitted = [text for number, text in enumerate(texts, 1) if number % 4]
    phi, wanted = rows_by_autograd(llama, fitted, 1)
    other_phi, other_wanted = rows_by_autograd(llama, texts[3::4], 1)
    for number, first in enumerate((32, 0)):  # without the 32 coordinates of the next token, with
        x, other = phi[:, first:], other_phi[:, first:]
        penalty = x.square().sum(0).mean().sqrt() * torch.eye(x.shape[1], dtype=x.dtype)
        tried = {}
        for ridge in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
            # Ridge as least squares with one more row per feature.
            rows = torch.cat([x, ridge**0.5 * penalty])
            targets = torch.cat([wanted, torch.zeros(len(penalty), 32, dtype=x.dtype)])
            write = torch.linalg.lstsq(rows, targets).solution
            write = write / (x @ write).square().sum(-1).mean().sqrt()
            tried[ridge] = float(((other @ write) * other_wanted).sum()), write
        best = max(tried, key=lambda ridge: tried[ridge][0])
        assert found.ridges[number, 0] == best
        # Moments are in float32.
        matrix = found.writes[number].matrices[1][first:]
        scale = float(matrix.abs().max())
        torch.testing.assert_close(matrix, tried[best][1].to(matrix), rtol=0, atol=1e-4 * scale)


class TestThePlantedModel:
    """Adding the next token's embedding at block 1 restores copying: a linear write."""

    @pytest.fixture(scope="class")
    @classmethod
    def ceiling(cls):
        return li.linear_ceiling(
            ablated_bridge(),
            key_value_texts(80, seed=0),
            key_value_texts(24, seed=1),
            first_position=0,
            progress=False,
        )

    def test_the_increment_is_found_where_it_is(self, ceiling):
        frame = ceiling.to_dataframe().set_index(["write", "layer"])
        assert frame.loc[("increment", 1), "high"] < 0
        assert frame.loc[("with", 1), "high"] < 0
        # What the tokens up to a position say of the next is nothing.
        assert frame.loc[("without", 1), "estimate"] > 0.3 * frame.loc[("with", 1), "estimate"]

    def test_the_figure_has_the_table_s_curves_and_the_free_write_apart(self, ceiling):
        frame, figure = ceiling.to_dataframe(), ceiling.plot()
        shown = {trace.name: list(trace.y) for trace in figure.data if trace.mode}
        for write, rows in frame.groupby("write"):
            # Figures hold six digits.
            np.testing.assert_allclose(shown[write], rows["estimate"], rtol=1e-5)
        (menu,) = figure.layout.updatemenus
        named = [button.label for button in menu.buttons]
        assert named == ["held-out texts", "held-out texts: the free write, a ceiling"]
        assert ceiling.patch(1, strength=0.1).mode.__name__ == "linear write"

    def test_run_as_a_patch_it_lowers_the_loss(self, ceiling):
        texts = torch.stack(key_value_texts(24, seed=1))
        patches = [ceiling.patch(1, strength=0.3, write=write) for write in ("without", "with")]
        clean, without, with_news = (
            -li.teacher_forced_log_probs(ablated_bridge(), texts, [None, *patches]).mean((1, 2))
        ).tolist()
        assert with_news < min(clean, without)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [3]}, "the model has blocks 0 to 2"),
        ({"texts": [random_tokens(5)] * 3}, "3 texts do not leave one in 4"),
        ({"texts": [random_tokens(2)] * 8}, "no position of 8 texts, .*: give longer texts"),
        ({"held_out": [[4]]}, "no text with a token to predict"),
        ({"held_out": []}, "there are no held-out texts"),
    ],
)
def test_mistakes(llama, arguments, message):
    texts = [random_tokens(8) for _ in range(4)]
    with pytest.raises(ValueError, match=message):
        li.linear_ceiling(
            llama, **{"texts": texts, "held_out": texts, "progress": False} | arguments
        )


def test_a_model_that_does_not_run_two_streams_is_refused():
    texts = [random_tokens(40) for _ in range(4)]
    with (
        left_as_found(shared_bridge("gpt_neo")) as neo,
        pytest.raises(NotImplementedError, match="does not run two copies of a text side by side"),
    ):
        li.linear_ceiling(neo, texts, texts, progress=False)


def test_a_patch_of_a_write_that_was_not_fitted(llama):
    texts = [random_tokens(8) for _ in range(4)]
    found = li.linear_ceiling(llama, texts, texts, layers=[1], progress=False)
    with pytest.raises(ValueError, match=r"at layers \[1\], not 'with' at 2"):
        found.patch(2, strength=1.0)


def test_a_write_is_refused_where_it_does_not_fit(llama):
    texts = [random_tokens(8) for _ in range(4)]
    patch = li.linear_ceiling(llama, texts, texts, layers=[1], progress=False).patch(
        1, strength=0.1
    )
    for change, message in [
        ({"source": "current"}, "of the source 'true', but the patch has 'W_E' and 'current'"),
        ({"embedding": "W_U"}, "but the patch has 'W_U' and 'true'"),
        ({"layer": 2}, r"fitted for layers \[1\], but the patch has \[2\]"),
    ]:
        with left_as_found(llama), pytest.raises(ValueError, match=message):
            li.teacher_forced_log_probs(llama, texts[0], dataclasses.replace(patch, **change))
    other = tiny_bridge("llama", seed=1)
    with pytest.raises(ValueError, match="fit one with linear_ceiling"):
        li.teacher_forced_log_probs(other, texts[0], patch)
