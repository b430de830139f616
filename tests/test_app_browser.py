"""The app as a visitor meets it: Debian's Chromium, driven by Playwright. One app and one browser for all."""

import contextlib
import json
import re

import pytest

pytest.importorskip("gradio", reason="the app needs gradio: pip install -e .[ship]")
from pages import open_page, shuts_out
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from tiny_app import tiny_folder

from space import app


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A model that needs some seconds for 1,000 characters, so that there is something to stop."""
    folder = tiny_folder(tmp_path_factory.mktemp("model"), n_embd=256, block_size=64, n_layer=6, n_head=4)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["corpus"]["examples"] = ["ROMEO:\n", "Good morrow, neighbour", "He kills her", "And then", "O no"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    app.use(str(folder))
    demo, url = app.launch(prevent_thread_lock=True)
    yield url
    demo.close()


# notes every length that the written text has had
WATCH = """() => { window.lengths = new Set();
  new MutationObserver(() => window.lengths.add(document.querySelector('#paper .new')?.textContent.length))
    .observe(document.querySelector('#paper'), {childList: true, subtree: true, characterData: true}); }"""
RESTS = """() => /tok.s/.test(document.querySelector('#status .facts').textContent)
  && document.querySelector('#paper .letters .ch.at')"""


@pytest.fixture(scope="module")
def visit(address, browser):
    """Open the page as a visitor with these habits."""
    def visit(**habits):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **habits})
        visit.pages.append(open_page(context, address, until="#paper .ch.at"))
        visit.pages[-1].evaluate(WATCH)
        return visit.pages[-1]

    visit.pages = []
    return visit


@pytest.fixture(scope="module")
def page(visit):
    """A page that goes on from what an earlier test did, as a visitor's would."""
    return visit()


@pytest.fixture(autouse=True)
def no_errors(visit):
    """An error in a page's console fails the test."""
    yield
    assert not [error for page in visit.pages for error in page.thrown + page.told]


def set_number(page, where: str, value):
    """Type a number; the settings are folded at first. Gradio has it when the slider beside it moves.

    On a busy machine Gradio may set up its box after the number was typed: then it is typed again.
    """
    if where == "#tokens" and not page.locator(where).is_visible():
        page.click("#settings button")
    box = page.locator(f"{where} input[type=number]")
    moved = "([where, value]) => document.querySelector(`${where} input[type=range]`).value === value"
    for seconds in (2, 4, 8, 30):
        box.fill(str(value))
        box.blur()
        with contextlib.suppress(PlaywrightTimeout):
            return page.wait_for_function(moved, arg=[where, str(value)], timeout=1000 * seconds)
    raise AssertionError(f"{where} does not take {value}")


def begin(page, prompt="ROMEO:\n", tokens=60, seed="", top_n=""):
    """Fill in everything; what was said of an earlier text goes."""
    page.fill("#prompt textarea", prompt)
    set_number(page, "#tokens", tokens)
    page.fill("#seed input, #seed textarea", str(seed))
    page.fill("#top_n input, #top_n textarea", str(top_n))
    page.evaluate("window.lengths.clear(); document.querySelector('#status .facts').textContent = ''")


def write(page, *asked, **more):
    """Fill in, press Generate, wait until the text rests and can be looked into; returns the text."""
    begin(page, *asked, **more)
    page.click("#go")
    return finished(page)


def finished(page):
    page.wait_for_function(RESTS)
    return page.locator("#paper .paper").text_content()


def test_first_sight_is_a_finished_text_with_the_panel_beside_it(visit):
    """Catches an empty page, a panel below the fold, the text shown twice, a Stop that is loud while idle."""
    page = visit(viewport={"width": 1280, "height": 720})
    paper, bars = page.locator("#paper").bounding_box(), page.locator("#bars").bounding_box()
    assert bars["x"] >= paper["x"] + paper["width"] and bars["y"] < 400 and paper["y"] < 400
    text = page.locator("#paper .letters").text_content()
    assert page.locator("body").inner_text().replace("\n", "").count(text.replace("\n", "")[50:90]) == 1
    assert page.locator("#stop").is_disabled()


def test_text_streams_and_the_line_below_tells_speed_and_seed(page, address, monkeypatch):
    """Catches a page that shows everything at the end, a seed that does not hold, a font from elsewhere."""
    monkeypatch.setattr(app.writer, "STEP", 0.01)
    text = write(page, tokens=120, seed=7)
    assert text.startswith("ROMEO:\n") and len(text) == 127
    assert len([n for n in page.evaluate("[...window.lengths]") if n]) >= 4
    assert re.search(r"120 tokens.*tok/s.*seed 7$", page.locator("#status .facts").text_content())
    assert write(page, tokens=120, seed=7) == text
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked) and len(page.asked) > 5


def test_stop_works_and_leaves_a_text_that_can_be_looked_into(page):
    """A Stop that only hides the stream, a stopped text that Look inside does not know, a need of a mouse."""
    begin(page, "A", tokens=1000)
    page.press("#go", "Enter")
    page.wait_for_function("document.querySelector('#paper .new')?.textContent.length > 20")
    page.press("#stop", "Enter")
    page.wait_for_selector("#status >> text=stopped")
    text = finished(page)
    assert 20 < len(text) < 990
    assert page.locator("#stop").is_disabled()


def test_look_inside_by_mouse_and_by_keyboard(page):
    """Clicks that reach nothing, arrow keys that do not move, and bars that stay at the old letter."""
    write(page, prompt="ROMEO:\nWhy", seed=1)
    page.locator("#paper .ch").nth(20).click()
    page.wait_for_selector('#paper .ch.at[data-at="20"]')
    came = page.locator("#bars p b").text_content()
    for key, at in (("ArrowRight", 21), ("ArrowRight", 22), ("ArrowLeft", 21), ("ArrowLeft", 20)):
        page.keyboard.press(key)
        page.wait_for_selector(f'#paper .ch.at[data-at="{at}"]')
    assert page.locator("#bars p b").text_content() == came and "5-gram" in page.locator("#bars").inner_text()
    page.locator("#attention .mini").nth(6).click()  # layer 2, head 3 of 4
    page.wait_for_selector("#attention p:has-text('head 3 of layer 2 looked most at')")
    assert page.locator("#paper .ch.seen").count() > 0
    set_number(page, "#at", 5)
    page.locator("#at input[type=range]").press("ArrowRight")
    page.wait_for_selector('#paper .ch.at[data-at="6"]')
    page.wait_for_selector("#attention p:has-text('head 3 of layer 2')")  # it stays chosen


def test_what_was_changed_is_said_and_a_long_beginning_makes_no_long_page(page):
    """Silence, markup that becomes part of the page, 10,000 letters that push everything 5,000 px down."""
    text = write(page, prompt="Why " * 10_000 + "<b id=evil>{{7*7}}${1}", tokens=5, top_n="ten")
    assert text[:-5].endswith("<b id=evil>{{}}${}") and page.locator("#evil").count() == 0
    notes = page.locator("#status .note").all_text_contents()
    for words in ("at least 20,000", "Top N is to be", "Left out"):
        assert any(words in note for note in notes), words
    assert page.evaluate("document.documentElement.scrollHeight") < 2000


def test_phone_width(visit):
    """Catches a page that must be pushed sideways, and a text far below the button that makes it."""
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    write(page, tokens=200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#examples button").nth(1).bounding_box()["width"] > 150  # Good morrow, neighbour
    go, paper = page.locator("#go").bounding_box(), page.locator("#paper").bounding_box()
    assert 0 < paper["y"] - go["y"] < 200
    for part in ("#paper", "#bars", "#attention"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360, part


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark_and_without_colour(visit, scheme):
    """Catches dark text on a dark page (contrast of at least 4.5, WCAG AA), and what only a colour shows."""
    page = visit(color_scheme=scheme)
    write(page, prompt="ROMEO: 2", tokens=30)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    ours = "h1.top", ".card", "#paper", ".key", "#status", "#bars", "#attention", "p.fine", "#go"
    letters = {".paper .seed": "none", ".paper .ch:not(.seed)": "none"}
    found = shuts_out(page, {"include": [[part] for part in ours]}, letters)  # not what is Gradio's own
    assert [element for rule, element in found if rule == "color-contrast"] == []
    assert page.locator("#paper .ch.at").get_attribute("aria-current") == "true"
