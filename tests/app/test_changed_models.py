"""A model that was changed, or whose hooks act differently, is read again."""

import pytest

import lens_interventions as li
from lens_interventions.app.subject import Origin, Subject
from tests.app.conftest import TEXT
from tests.support.explorer import answer, client_of, close, heat_maps
from tests.support.tiny import tiny_bridge


def zeroed(resid, hook):
    return 0 * resid


@pytest.mark.parametrize("change", ["permanent hook", "hook of torch", "weights"])
def test_a_changed_model_is_read_again(change):
    bridge = tiny_bridge("llama")
    with client_of(Subject(bridge, Origin())) as client:

        def shown():
            view = answer(client, "read", text=TEXT, statistic="entropy")["view"]
            return heat_maps(view["figure"])[0]

        before = shown()
        if change == "permanent hook":
            bridge.add_perma_hook("blocks.1.hook_resid_pre", zeroed)
        elif change == "hook of torch":
            bridge.blocks[1].mlp.register_forward_hook(lambda _module, _given, out: 0 * out)
        else:
            for parameter in bridge.original_model.parameters():
                parameter.data.mul_(2)
        assert shown() != before
        assert close(shown(), li.logit_lens(bridge, TEXT).entropy[1:, 0])


def test_a_hook_that_acts_differently_is_read_again():
    bridge, factor = tiny_bridge("llama"), 2.0
    bridge.add_hook("blocks.1.hook_resid_pre", lambda resid, hook: factor * resid)
    with client_of(Subject(bridge, Origin())) as client:
        for factor in (2.0, -1.0):  # noqa: B007 - the hook sees it
            view = answer(client, "read", text=TEXT, statistic="entropy")["view"]
            expected = li.logit_lens(bridge, TEXT).entropy[1:, 0]
            assert close(heat_maps(view["figure"])[0], expected)


@pytest.mark.parametrize(("panel", "readings"), [("read", 1), ("patch", 2), ("compare", 2)])
def test_under_a_hook_a_text_is_read_once_for_a_view(panel, readings, monkeypatch):
    """A hook that draws at random would show the tokens and the map of different readings."""
    bridge, read = tiny_bridge("llama"), []
    bridge.add_hook("blocks.0.hook_resid_pre", lambda resid, hook: resid)

    def counted(*args, **options):
        read.append(1)
        return li.logit_lens(*args, **options)

    monkeypatch.setattr("lens_interventions.app.reading.logit_lens", counted)
    with client_of(Subject(bridge, Origin())) as client:
        answer(client, panel, panel=panel, text=TEXT, other_text=f"{TEXT} {TEXT}", layer=1)
    assert len(read) == readings


def test_what_was_read_while_the_model_was_changed_is_not_kept():
    bridge = tiny_bridge("llama")
    subject = Subject(bridge, Origin())

    def meanwhile_hooked():
        bridge.add_hook("blocks.1.hook_resid_pre", zeroed)
        return "hooked"

    assert subject.kept("reading", meanwhile_hooked) == "hooked"
    bridge.reset_hooks()
    assert subject.kept("reading", lambda: "clean") == "clean"
