"""The app as a visitor meets it: Debian's Chromium, driven by Playwright. One app and one browser for all."""

import json
import re
import shutil

import pytest

pytest.importorskip("gradio", reason="the app needs gradio: pip install -e .[ship]")
pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
from playwright import sync_api as playwright
from tiny_app import tiny_folder

from space import app

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


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


ERRORS = []  # of every page
# notes every length that the written text has had
WATCH = """() => { window.lengths = new Set();
  new MutationObserver(() => window.lengths.add(document.querySelector('#paper .new')?.textContent.length))
    .observe(document.querySelector('#paper'), {childList: true, subtree: true, characterData: true}); }"""
RESTS = """() => /tok.s/.test(document.querySelector('#status .facts').textContent)
  && document.querySelector('#paper .letters .ch.at')"""


@pytest.fixture(scope="module")
def open_page(address):
    """Open the page as a visitor with these habits."""
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def visit(**habits):
            page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **habits})
            page.set_default_timeout(30_000)
            page.requests = []
            page.on("pageerror", lambda e: ERRORS.append(str(e)))
            page.on("console", lambda m: ERRORS.append(m.text) if m.type == "error" else None)
            page.on("request", lambda r: page.requests.append(r.url))
            page.goto(address)
            page.wait_for_selector("#paper .ch.at")
            page.evaluate(WATCH)
            return page

        yield visit
        browser.close()


@pytest.fixture(scope="module")
def page(open_page):
    """A page that goes on from what an earlier test did, as a visitor's would."""
    return open_page()


@pytest.fixture(autouse=True)
def no_errors():
    """An error in a page's console fails the test."""
    ERRORS.clear()
    yield
    assert not ERRORS


def set_number(page, where: str, value):
    """Type a number; the settings are folded at first."""
    if where == "#tokens" and not page.locator(where).is_visible():
        page.click("#settings button")
    page.locator(f"{where} input[type=number]").fill(str(value))
    page.locator(f"{where} input[type=number]").blur()


def begin(page, prompt="ROMEO:\n", tokens=60, seed="", top_n=""):
    """Fill in everything; what was said of an earlier text goes."""
    page.fill("#prompt textarea", prompt)
    set_number(page, "#tokens", tokens)
    page.fill("#seed input, #seed textarea", str(seed))
    page.fill("#top_n input, #top_n textarea", str(top_n))
    page.wait_for_timeout(500)  # Gradio takes a number over a moment after it was typed
    page.evaluate("window.lengths.clear(); document.querySelector('#status .facts').textContent = ''")


def write(page, *asked, **more):
    """Fill in, press Generate, wait until the text rests and can be looked into; returns the text."""
    begin(page, *asked, **more)
    page.click("#go")
    return finished(page)


def finished(page):
    page.wait_for_function(RESTS)
    return page.locator("#paper .paper").text_content()


def test_first_sight_is_a_finished_text_with_the_panel_beside_it(open_page):
    """Catches an empty page, a panel below the fold, the text shown twice, a Stop that is loud while idle."""
    page = open_page(viewport={"width": 1280, "height": 720})
    paper, bars = page.locator("#paper").bounding_box(), page.locator("#bars").bounding_box()
    assert bars["x"] >= paper["x"] + paper["width"] and bars["y"] < 400 and paper["y"] < 400
    assert page.locator("#bars tbody tr").count() >= 8 and page.locator("#attention h3").count() == 1
    text = page.locator("#paper .letters").text_content()
    assert page.locator("body").inner_text().replace("\n", "").count(text.replace("\n", "")[50:90]) == 1
    assert page.locator("#stop").is_disabled()


def test_text_streams_and_the_line_below_tells_speed_and_seed(page, address):
    """Catches a page that shows everything at the end, a seed that does not hold, a font from elsewhere."""
    text = write(page, tokens=300, seed=7)
    assert text.startswith("ROMEO:\n") and len(text) == 307
    assert len([n for n in page.evaluate("[...window.lengths]") if n]) >= 4
    assert re.search(r"300 tokens.*tok/s.*seed 7$", page.locator("#status .facts").text_content())
    assert write(page, tokens=300, seed=7) == text
    outside = [url for url in page.requests if not url.startswith((address, "data:", "blob:"))]
    assert not outside and len(page.requests) > 5


def test_stop_works_and_leaves_a_text_that_can_be_looked_into(page):
    """Catches a Stop that only hides the stream, and a stopped text that Look inside does not know."""
    begin(page, "A", tokens=1000)
    page.click("#go")
    page.wait_for_function("document.querySelector('#paper .new')?.textContent.length > 20")
    page.click("#stop")
    page.wait_for_selector("#status >> text=stopped")
    text = finished(page)
    assert 20 < len(text) < 990
    page.wait_for_timeout(800)
    assert page.locator("#paper .paper").text_content() == text and page.locator("#stop").is_disabled()


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


def test_what_was_changed_or_left_out_is_said(page):
    """Catches an error, silence, or markup from the beginning that becomes part of the page."""
    text = write(page, prompt="\u00e92 <b id=evil>{{7*7}}${1}\u202e\U0001f600", tokens=5, top_n="ten",
                 seed="x")
    assert text.startswith("e <b id=evil>{{7}}{}") or text.startswith("e <b id=evil>{{")
    notes = page.locator("#status .note").all_text_contents()
    for word in ("Top N is to be", "Seed is to be", "Left out"):
        assert any(word in note for note in notes), word
    assert "right-to-left override" in notes[-1] and "\U0001f600" in notes[-1] and "\u202e" not in notes[-1]
    assert page.locator("#evil").count() == 0 and "49" not in text


def test_a_long_beginning_makes_no_long_page(page):
    """10,000 letters that push everything 5,000 px down, and a pasted book that is lost or refused."""
    text = write(page, prompt="Why " * 10_000, tokens=30)
    assert page.evaluate("document.documentElement.scrollHeight") < 2000
    assert "at least 20,000" in page.locator("#status .note").text_content() and len(text) > 60


def test_empty_beginning_and_keyboard_only(page):
    """Catches an app that needs a mouse or a prompt."""
    begin(page, "", tokens=20)
    page.focus("#prompt textarea")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#go') !== null"):
            break
    page.keyboard.press("Enter")
    assert len(finished(page)) == 21  # the start that it was given is shown too


def test_phone_width(open_page):
    """Catches a page that must be pushed sideways, and a text far below the button that makes it."""
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    write(page, tokens=200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#examples button").nth(1).bounding_box()["width"] > 150  # Good morrow, neighbour
    go, paper = page.locator("#go").bounding_box(), page.locator("#paper").bounding_box()
    assert 0 < paper["y"] - go["y"] < 200
    for part in ("#paper", "#bars", "#attention"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360, part


CONTRAST = """(selector) => {
  const luminance = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(x => x / 255)
    .map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const element = document.querySelector(selector); let back = element;
  const clear = /rgba\\(.*, 0\\)|transparent/;
  while (back && clear.test(getComputedStyle(back).backgroundColor)) back = back.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(back).backgroundColor].map(luminance);
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark_and_without_colour(open_page, scheme):
    """Catches dark text on a dark page (contrast of at least 4.5, WCAG AA), and what only a colour shows."""
    page = open_page(color_scheme=scheme)
    write(page, prompt="ROMEO: 2", tokens=30)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    for selector in ("h1.top", ".card", ".paper .seed", ".paper .ch:not(.seed)", ".facts", ".status .note",
                     ".inside p", "table.bars th", ".lane span", ".mini span", "p.fine", "#go", ".key span"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector
    heights = page.eval_on_selector_all("#paper .ch", "all => all.map(e => e.style.getPropertyValue('--h'))")
    titles = page.eval_on_selector_all("#paper .ch", "all => all.map(e => e.title)")
    assert len(set(heights)) > 5 and all(re.search(r"\d nats|no guess", t) for t in titles)
    assert page.locator("#paper .ch.at").get_attribute("aria-current") == "true"
