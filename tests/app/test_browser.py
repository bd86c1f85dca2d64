"""The explorer as a person uses it: in a browser, on the embedded model."""

import io
import re
from urllib.parse import quote

import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.app.explore import Explorer, bound_socket
from lens_interventions.app.subject import Origin, Subject
from lens_interventions.drawing.labels import visible
from tests.support.clean import left_as_found
from tests.support.tabs import headless
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.long

TEXT = "The capital of France is"
HEAT_MAP = "document.getElementById('heat-map')"
Z = f"{HEAT_MAP}.data.filter((trace) => trace.type === 'heatmap').map((trace) => trace.z)"
ERROR = "!document.getElementById('error').hidden && document.getElementById('error').textContent"


@pytest.fixture(scope="module")
def new_page():
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def explorer(default_bridge):
    with left_as_found(default_bridge) as bridge:
        running = li.explore(bridge)
        yield running
        running.stop()


@pytest.fixture(scope="module")
def page(new_page):
    """A tab that tests share; each goes to an address of its own."""
    return new_page()


def address(explorer, **state):
    return f"{explorer.url}#" + "&".join(f"{k}={quote(str(v))}" for k, v in state.items())


def cells(page):
    return torch.tensor(page.js(Z), dtype=torch.float64)


def test_what_is_typed_is_read_and_a_cell_can_be_opened(page, explorer, default_bridge):
    page.open(address(explorer, text="The", statistic="kl_final"))
    page.type("#text", TEXT)
    read = li.logit_lens(default_bridge, TEXT, top_k=10)
    assert torch.allclose(cells(page)[0], read.kl_final[:, 0].double(), atol=1e-3)
    tokens = page.texts("#strip .piece")
    assert tokens[1:] == ["The", "·capital", "·of", "·France", "·is"]
    assert page.texts(".settles") == list(read.commitment().names())

    # The cell of layer 25 and the last token, by the mouse.
    x, y = page.js(
        f"""(() => {{
          const place = {HEAT_MAP}, {{ xaxis, yaxis }} = place._fullLayout;
          place.scrollIntoView({{ block: "center" }});
          const box = place.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(5), box.y + yaxis._offset + yaxis.d2p(25)];
        }})()"""
    )
    page.click_at(x, y)
    page.wait("document.getElementById('point')?.value === '25_pre'")
    page.wait("document.querySelector('#leaders .main-svg')")
    assert page.texts(".guess button") == [
        visible(read.vocab[token]) for token in read.top_ids[25, 0, -1].tolist()
    ]
    assert "position=5" in page.js("location.hash")
    assert not page.complaints


def test_a_link_opens_the_same_view_in_another_tab(page, new_page, explorer):
    page.open(
        address(explorer, text=TEXT, statistic="entropy", every=3, position=2, point="27_pre")
    )
    other = new_page()
    other.open(page.js("location.href"))
    assert other.js(Z) == page.js(Z)
    assert len(other.js(Z)[0]) == 11
    assert other.js("document.getElementById('statistic').value") == "entropy"
    other.wait("document.querySelector('#more h2')?.textContent.startsWith('Position 2')")


def test_two_tabs_at_once_get_what_each_asked_for(page, new_page, explorer, default_bridge):
    other = new_page()
    texts = ["When people say", "One two three four"]
    for tab, text in zip((page, other), texts, strict=True):
        tab.visit(address(explorer, text=text, statistic="entropy"))
    for tab, text in zip((page, other), texts, strict=True):
        tab.wait_idle()
        expected = li.logit_lens(default_bridge, text).entropy[1:, 0].double()
        assert torch.allclose(cells(tab)[0], expected, atol=1e-3)


def test_patch_shows_the_exact_numbers(page, explorer, default_bridge):
    options = {"layer": 24, "strength": 0.3}
    page.open(address(explorer, panel="patch", text=TEXT, **options))
    patch = li.NextTokenPatch(scale="norm", first_position=1, **options)
    log_probs = li.teacher_forced_log_probs(default_bridge, TEXT, [None, patch])[:, 0].double()
    expected = (log_probs[1] - log_probs[0]).tolist()
    numbers = [float(text.replace("−", "-")) for text in page.texts(".effect span")]
    assert numbers == pytest.approx(expected, abs=0.0051)
    assert len(cells(page)) == 3


def test_writing_streams_stops_and_branches(page, explorer, default_bridge):
    page.visit(address(explorer, panel="write", text=TEXT, max_new_tokens=400, layer=20))
    page.wait("document.querySelectorAll('#text-clean .written').length > 4")
    page.click("#stop")
    page.wait_idle()
    count = page.js("document.querySelectorAll('.written').length")
    assert count < 700
    texts = page.js(
        "[...document.querySelectorAll('#text-clean .written')].map((e) => e.textContent)"
    )
    out = li.generate(default_bridge, TEXT, max_new_tokens=4)
    assert "".join(texts).startswith(out.texts[0])

    page.js("document.querySelectorAll('#text-clean .written')[1].click()")
    page.wait("document.querySelectorAll('#alternatives .guess').length === 10")
    assert page.js("document.querySelectorAll('.written').length") == count  # it had stopped
    page.js("document.querySelectorAll('#alternatives .guess button')[1].click()")
    forced = page.wait("document.querySelector('#text-clean .forced').textContent")
    assert forced.startswith(texts[0])
    assert not forced.startswith(texts[0] + texts[1])
    page.js("document.getElementById('stop').click()")
    page.js("history.back()")
    page.wait("!location.hash.includes('prefix')")


def test_alternatives_and_branches_are_of_the_text_that_is_shown(page, explorer, default_bridge):
    page.open(address(explorer, panel="write", text=TEXT, max_new_tokens=3, layer=20))
    texts = page.texts("#text-clean .written")
    for name, value in (("text", "One two three four"), ("max_new_tokens", "5")):
        page.js(
            f"""(() => {{
              const control = document.getElementById({name!r});
              control.value = {value!r};
              control.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }})()"""
        )
    page.js("document.querySelectorAll('#text-clean .written')[1].click()")
    page.wait("document.querySelectorAll('#alternatives .guess').length === 10")
    guesses = page.texts("#alternatives .guess button")
    assert guesses[0] == visible(texts[1])  # the likeliest was written

    page.js("document.querySelectorAll('#alternatives .guess button')[1].click()")
    page.wait("document.querySelector('#text-clean .forced').textContent")
    page.wait_idle()
    assert page.js("document.getElementById('text').value") == TEXT
    assert len(page.texts("#text-clean .written")) == 3
    assert visible(page.texts("#text-clean .forced")[0]) == visible(texts[0]) + guesses[1]

    page.js("URL.createObjectURL = (blob) => (blob.text().then((t) => { window.saved = t; }), '#')")
    page.js("document.getElementById('save-csv').click()")
    saved = pd.read_csv(io.StringIO(page.wait("window.saved")), keep_default_na=False)
    clean = saved[saved["arm"] == "clean"]
    assert clean["step"].tolist() == list(range(5))  # two of the branch and three after it
    forced, after = clean["token"][:2], clean["token"][2:]
    assert "".join(forced) == page.texts("#text-clean .forced")[0]
    assert after.tolist() == page.texts("#text-clean .written")
    assert (clean["log_prob"] == "").tolist() == [True, True, False, False, False]

    # Back is to the text that was shown, whatever was chosen after it had been written.
    page.js("history.back()")
    page.wait("!location.hash.includes('prefix')")
    page.wait_idle()
    assert page.texts("#text-clean .written") == texts


def test_another_prompt_has_neither_the_branch_nor_the_position_of_this_one(page, explorer):
    for click in ("[data-chat=true]", "#add-message", ".message button"):
        chat = str("chat" not in click).lower()
        page.open(address(explorer, text=TEXT, chat=chat, position=2, prefix=[500]))
        assert {"position=", "prefix="} <= set(re.findall(r"\w+=", page.js("location.hash")))
        page.js(f"document.querySelector('{click}').click()")
        page.wait_idle()
        assert not re.search("position|prefix", page.js("location.hash")), click


def test_a_view_that_failed_is_dimmed_and_leaves_nothing_to_copy(page, explorer):
    is_stale = "document.getElementById('views').classList.contains('stale')"
    page.open(address(explorer, text=TEXT))
    assert not page.js(is_stale)
    page.js("location.hash = 'statistic=nonsense'")
    page.wait(ERROR)
    page.wait(is_stale)
    for kind in ("python", "command"):
        page.js("document.getElementById('status').textContent = ''")
        page.js(f"document.getElementById('copy-{kind}').click()")
        assert page.texts("#status") == ["Nothing to copy yet."]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"panel": "patch", "strength": '"nan"'}, "strength must be a number, got 'nan'"),
        ({"text": "say " * 600}, "the explorer shows 512: shorten it"),
        ({"text": "a" * 300_000}, "characters"),
    ],
)
def test_a_mistake_gets_a_sentence_on_the_page(page, explorer, state, sentence):
    page.open(address(explorer, **state))
    assert sentence in page.wait(ERROR)


def test_a_text_that_cannot_be_written_leaves_no_other_panels_figure(page, explorer):
    page.open(address(explorer, text=TEXT))
    assert page.js("document.getElementById('heat-map') !== null")
    page.js("location.hash = 'panel=write&max_new_tokens=9999&text=say'")
    page.wait(ERROR)
    assert page.js("document.getElementById('heat-map') === null")


def test_a_link_is_to_what_is_read_even_where_the_address_lags_behind(page, explorer):
    page.open(address(explorer, text="The"))
    page.js(
        """history.replaceState = () => { throw new DOMException("too many", "SecurityError"); };
        navigator.clipboard.writeText = async (text) => { window.copied = text; };"""
    )
    page.type("#text", "The people say")
    page.wait("document.querySelectorAll('#strip .piece').length === 4")
    page.wait_idle()
    page.js("document.getElementById('copy-link').click()")
    assert page.wait("window.copied").endswith("#text=The%20people%20say")


@pytest.mark.parametrize("link", ["panel=foo", "messages=null", "every=%22"])
def test_a_broken_link_opens_what_can_be_read_of_it(page, explorer, link):
    page.open(f"{explorer.url}#{link}&text=when")
    assert page.texts("#strip .piece")[1] == "when"
    assert not page.js(ERROR)


def test_back_shows_the_prompt_that_is_read(page, explorer):
    page.open(address(explorer, text="The", panel="read"))
    page.js("document.getElementById('tab-patch').click()")
    page.wait_idle()
    page.type("#text", TEXT)
    page.js("history.back()")
    page.wait("document.getElementById('tab-read').getAttribute('aria-selected') === 'true'")
    page.wait_idle()
    assert page.js("document.getElementById('text').value") == "The"
    assert page.texts("#strip .piece")[1:] == ["The"]


def test_a_position_that_is_no_longer_read_is_let_go(page, explorer):
    page.open(address(explorer, text=TEXT, position=1, last=3))
    page.wait("document.querySelector('#more h2')?.textContent.startsWith('Position 5')")
    assert not page.js(ERROR)


def test_markup_is_text(page, explorer):
    text = "<img src=x onerror=document.title='hurt'><b>\x07"
    page.open(address(explorer, text=text))
    assert "<" in page.texts("#strip .piece")[1]
    assert page.js("document.querySelectorAll('img[src=x], #strip b').length") == 0
    assert page.js("document.title") != "hurt"


def test_keys_reach_a_cell_and_a_phone_needs_no_sideways_scrolling(page, explorer):
    page.send(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    page.open(address(explorer, text=TEXT))
    assert page.js("document.documentElement.scrollWidth") <= 390
    page.js(f"{HEAT_MAP}.focus()")
    for key in ("ArrowUp", "ArrowDown", "ArrowLeft"):
        page.press(key)
    # What a screen reader says, too.
    assert page.js("document.getElementById('status').textContent") == "Layer 29, token ·France"
    page.press("Enter")
    page.wait("document.getElementById('point')?.value === '29_pre'")
    assert "position=4" in page.js("location.hash")
    assert not page.js("document.getElementById('controls').open")
    page.send("Page.bringToFront")  # a tab behind others draws nothing, and hears of no change
    wide = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.send("Emulation.setDeviceMetricsOverride", **wide)
    page.wait("document.getElementById('controls').open")
    page.send("Emulation.clearDeviceMetricsOverride")


def test_keys_and_marks_go_on_in_the_second_part_of_a_long_prompt(page, explorer):
    page.open(address(explorer, text="say " * 60, position=50, point="10_pre"))
    axis = f"{HEAT_MAP}.layout.shapes[0]?.xref"
    assert page.wait(axis) != "x"
    columns = page.js(f"{HEAT_MAP}.data.filter((t) => t.type === 'heatmap')[0].z[0].length")
    page.js(f"{HEAT_MAP}.focus()")
    for _ in range(50 - columns + 1):
        page.press("ArrowLeft")
    assert page.js(axis) == "x"
    page.press("Enter")
    page.wait(f"/position={columns - 1}(&|$)/.test(location.hash)")


def test_in_compare_nothing_offers_a_choice_that_does_nothing(page, explorer):
    page.open(address(explorer, panel="compare", text=TEXT, other_text="The capital of Italy is"))
    assert len(page.js(Z)) == 3
    assert page.js("[...document.querySelectorAll('#strip button')].every((each) => each.disabled)")
    assert page.js(f"{HEAT_MAP}.getAttribute('role')") is None
    assert page.js(f"{HEAT_MAP}.tabIndex") == -1


def test_one_token_of_the_strip_is_a_stop_of_the_tab_key(page, explorer):
    page.open(address(explorer, text=TEXT))
    page.js("document.querySelectorAll('#strip button')[2].focus()")
    page.press("ArrowRight")
    assert page.js("[...document.querySelectorAll('#strip button')].map((b) => b.tabIndex)") == [
        *(-1, -1, -1, 0, -1, -1)
    ]


def test_a_chosen_token_keeps_the_focus_and_curves_of_another_cell_are_dimmed(page, explorer):
    page.open(address(explorer, text=TEXT, position=4, point="final_post"))
    choose = "document.querySelectorAll('#more .guess button')[1]"
    token = page.wait(f"document.querySelector('#leaders .main-svg') && {choose}.value")
    page.js(f"{choose}.focus(), {choose}.click()")
    page.wait_idle()
    page.wait(f"document.activeElement.value === '{token}' && {choose}?.value")
    dimmed = "document.getElementById('curves').classList.contains('stale')"
    page.wait(f"!{dimmed}")
    assert page.js(f"document.querySelectorAll('#strip button')[2].click(), {dimmed}")
    page.wait(f"!{dimmed}")


def test_a_statistic_of_watched_tokens_ends_with_the_last_of_them(page, explorer):
    page.open(address(explorer, text=TEXT, watch_text=" the", statistic="watched_rank"))
    assert len(page.texts("#watched button")) == 1
    page.js("document.querySelector('#watched button').click()")
    page.wait_idle()
    page.wait("document.getElementById('statistic').value === 'top1'")
    assert page.texts("#watched button") == []
    assert page.js("document.getElementById('error').hidden")


def test_a_server_that_is_stopped_while_it_writes_is_said_on_the_page(page, default_bridge):
    running = Explorer(Subject(default_bridge, Origin()), bound_socket(0))
    page.visit(f"{running.url}#panel=write&max_new_tokens=400&text=when")
    page.wait("document.querySelectorAll('.written').length > 2")
    running.stop()
    assert "was stopped before this was finished" in page.wait(ERROR)


def test_a_server_that_is_gone_is_said_on_the_page(page):
    running = Explorer(Subject(shared_bridge("llama"), Origin()), bound_socket(0))
    page.open(f"{running.url}#panel=write&max_new_tokens=1&text=when")
    running.stop()
    page.js("document.getElementById('write').click()")
    assert "The explorer does not answer" in page.wait(ERROR)
