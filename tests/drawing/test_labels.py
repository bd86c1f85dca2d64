"""Tokens as people can see them."""

from dataclasses import replace

import pytest

from lens_interventions.drawing.labels import markup, percent, shorten, signed, visible
from tests.support.figures import heat, texts_by_cell


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" plasma", "·plasma"),
        ("a b", "a·b"),
        (" ", "␣"),
        ("  ", "␣␣"),
        (" " * 8, "␣×8"),
        ("\n", "⏎"),
        ("\n\n\n\n\n", "⏎×5"),
        ("\n   x", "⏎···x"),
        ("\t\treturn", "⇥⇥return"),
        ("\r\n", "\\r⏎"),
        ("\u00a0", "⍽"),
        ("\u200b", "<U+200B>"),
        ("\x00", "<U+0000>"),
        ("\ufffd", "\ufffd"),
        ("\u0301", "◌\u0301"),
        ("", "∅"),
        ("naïve", "naïve"),
        ("日本", "日本"),
    ],
)
def test_every_token_is_visible(token, shown):
    assert visible(token) == shown


def test_a_signed_number_has_a_minus_of_full_width():
    assert [signed(0.12345), signed(-0.12345), signed(-2.0, 2)] == ["+0.123", "−0.123", "−2"]


def test_long_tokens_are_cut():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


def test_tokens_cannot_act_as_markup(trajectory):
    wild = "<b>&$x$%{y}"
    assert markup(wild) == "&lt;b&gt;&amp;&#36;x&#36;%&#123;y}"
    vocab = dict.fromkeys(trajectory.vocab, wild)
    figure = replace(trajectory, vocab=vocab).plot("watched_rank", cell_width=200)
    for part in (
        *figure.layout.xaxis.ticktext,
        *figure.layout.xaxis2.ticktext,
        *(text for text, _ in texts_by_cell(figure).values()),
        figure.layout.title.text.replace("<b>", "", 1),  # the title's own
        heat(figure).hovertemplate.replace("<b>", "", 1),
        *(item for item in heat(figure).customdata[0][0] if isinstance(item, str)),
    ):
        assert "<b>" not in part
        assert "$" not in part


@pytest.mark.parametrize(("share", "said"), [(0.95, "95%"), (0.999, "99.9%"), (1 - 0.95, "5%")])
def test_a_confidence_is_said_as_it_was_asked_for(share, said):
    assert percent(share) == said
