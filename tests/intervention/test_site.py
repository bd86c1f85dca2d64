"""What a source may see of a text, and what it draws."""

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.patch import NextTokenPatch
from tests.support.exact import close
from tests.support.tiny import random_tokens

pytestmark = pytest.mark.usefixtures("exact")


LENGTH = 9


@pytest.fixture
def tokens():
    return random_tokens(2, LENGTH)


def test_a_source_that_looks_ahead_is_refused(llama, tokens):
    patch = NextTokenPatch(
        layer=1, strength=1.0, source=lambda site: site.token_at(site.position + 2)
    )
    with pytest.raises(ValueError, match="that would leak"):
        li.teacher_forced_logits(llama, tokens, patch)


@torch.no_grad()
def test_nothing_is_written_where_a_source_looks_before_the_text(llama, tokens):
    patch = NextTokenPatch(
        layer=1, strength=1.0, source=lambda site: site.token_at(site.position - 2)
    )
    beginning = li.teacher_forced_logits(llama, tokens[:, :3], patch)
    close(beginning, li.teacher_forced_logits(llama, tokens[:, :3], None))
    whole = li.teacher_forced_logits(llama, tokens, patch)
    assert (whole[:, 3] - llama(tokens)[:, 3]).abs().max() > 0.01


def across_rows(site):
    return site.next_tokens.roll(-1, 1)


def of_the_row(site):
    return (site.embedding(site.current_tokens) + site.embedding(site.next_tokens)) / 2


@torch.no_grad()
@pytest.mark.parametrize(("source", "leaks"), [(across_rows, True), (of_the_row, False)])
def test_the_beginning_of_a_text_shows_whether_a_source_looks_across_rows(
    llama, tokens, source, leaks
):
    """As the page on the patch says, because no error does."""
    patch = NextTokenPatch(layer=1, strength=0.5, scale="norm", source=source)
    beginning = tokens[:, : LENGTH // 2]
    whole = li.teacher_forced_logits(llama, tokens, patch)[:, : LENGTH // 2]
    begun = li.teacher_forced_logits(llama, beginning, patch)
    assert ((whole - begun).abs().max() > 0.01) == leaks


@torch.no_grad()
def test_texts_draw_for_themselves_when_they_have_seeds(llama, tokens):
    patch = NextTokenPatch(layer=1, strength=1.0, source="random")
    same = tokens[:1].expand(2, -1)
    alike = li.teacher_forced_logits(llama, same, patch)
    close(alike[0], alike[1])
    apart = li.teacher_forced_logits(llama, same, patch, text_seeds=torch.tensor([0, 1]))
    close(apart[0], alike[0])
    assert (apart[1] - alike[1]).abs().max() > 0.01
    with pytest.raises(ValueError, match="one number for each of the 2 texts"):
        li.teacher_forced_logits(llama, same, patch, text_seeds=torch.tensor([0]))
