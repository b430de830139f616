"""The book: it builds without a warning, every link inside leads somewhere, and a reader can use it."""

import os
import re
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT, SLOW
from filelock import FileLock
from pages import shuts_out

from lab import book

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
# pages of different kinds, and the theme in which axe looks; all code of a long page takes it half a minute
PAGES = {"index.html": "dark", "gpt_dev.html": "dark", "gpt2_training.html": "light",
         "exercises.html": "light", "notebooks/speed.html": ""}
CODE = {"exclude": [[".highlight"]]}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The book of the committed notebooks, built once for all workers; a warning of Sphinx is an error."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = base / "book" / "Bob's book"
    with FileLock(base / "book.lock"):
        if not (out / "index.html").exists():
            book.build(out, strict=True)
    return out


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def test_no_dead_link_inside(built):
    """Catches a link to a page, a heading or a file that is not in the book."""
    pages = {path: soup(path) for path in built.rglob("*.html") if "_static" not in path.parts}
    ids = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    dead = []
    for path, page in pages.items():
        for link in {tag.get("href") or tag.get("src") for tag in page.find_all()} - {None, "", "#"}:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            lost = parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]
            if not parts.scheme and not parts.netloc and (lost or not target.exists()):
                dead.append(f"{path.relative_to(built)}: {link}")
    assert dead == []


def test_pictures_keep_their_words_and_folds(built):
    """Catches alt text lost on the way, a folded cell in full sight, and a page without its run."""
    nb = nbformat.read(ROOT / "gpt_dev.ipynb", as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    alts = [" ".join(o.metadata["image/png"]["alt"].split()) for o in pictures]
    page = (built / "gpt_dev.html").read_text(encoding="utf-8")
    shown = [picture.get("alt") for picture in soup(built / "gpt_dev.html").find_all("img")]
    assert alts and [alt for alt in alts if alt not in shown] == []
    assert page.count("<summary>Solution</summary>") == 11 and "tag_hide-input" in page
    assert f"commit {nb.metadata['walkthrough']['commit']}" in page


def test_every_exercise_is_listed(built):
    """Catches an exercise that the list of all of them does not know, or one without stars and minutes."""
    page = (built / "exercises.html").read_text(encoding="utf-8")
    known = page.lower().replace("_", "-")
    for path in book.notebooks():
        nb = nbformat.read(path, as_version=4)
        cells = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        for number in re.findall(r"^(?:#+ |\*\*)Exercise (\w+)", "\n".join(cells), re.MULTILINE):
            link = f"{path.stem}.html#{path.stem}-exercise-{number}"
            assert link.lower().replace("_", "-") in known, link
    rows = re.findall(r"<tr class=\"row-(?:odd|even)\">(.*?)</tr>", page, re.DOTALL)
    rows = [re.sub(r"<[^>]+>", "|", row) for row in rows if "Exercise" in row]
    assert rows and all("★" in row and re.search(r"\|\d+\|", row) for row in rows)


def test_the_book_of_a_run_shows_that_run(tmp_path):
    """Catches `make run` that ends with the committed outputs, and a place of a live picture that is lost."""
    nb = nbformat.read(ROOT / "gpt2_gradio.ipynb", as_version=4)
    cell = next(cell for cell in nb.cells if cell.cell_type == "code" and cell.id != "setup")
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="FROM THIS RUN")]
    cell.metadata["tags"] = ["live-strip"]
    nbformat.write(nb, tmp_path / "run.ipynb")
    book.lay_out(tmp_path / "source", {"gpt2_gradio.ipynb": tmp_path / "run.ipynb"})
    text = (tmp_path / "source" / "gpt2_gradio.ipynb").read_text(encoding="utf-8")
    assert "FROM THIS RUN" in text and 'data-live=\\"strip\\"' in text


# ---- as a reader meets it


@pytest.fixture
def read(visit, built):
    """Open a page of the book from its file; a request to elsewhere fails the test."""
    pages = []

    def read(name, width=1200):
        view = {"width": width, "height": 900}
        pages.append(visit(name, f"{built.as_uri()}/", until=None, viewport=view))
        return pages[-1]

    yield read
    assert all(url.startswith(("file:", "data:")) for page in pages for url in page.asked)


def test_search_finds_perplexity(read):
    """Catches a search that needs a server, or an index that misses the text of the cells."""
    page = read("search.html")
    page.goto(page.url + "?q=perplexity")
    page.wait_for_selector("#search-results li a")
    assert "Build" in page.inner_text("#search-results")


def test_a_bet_comes_before_the_answer(read):
    """Catches an answer in sight before the bet, a bet that is forgotten, and a tally that miscounts."""
    page = read("gpt_dev.html")
    first = page.locator(".bet").first
    after = first.locator("xpath=following-sibling::*").first
    next_section = page.locator("section > section").nth(2)
    assert not after.is_visible() and not next_section.is_visible()
    first.get_by_text("(b)").click()  # gpt_dev's first answer is (b)
    assert after.is_visible()
    assert page.inner_text(".tally") == "You foresaw 1 of 1 on this page."
    page.reload()
    assert after.is_visible() and page.inner_text(".tally") == "You foresaw 1 of 1 on this page."
    deep = read("gpt_dev.html#gpt-dev-exercise-9")
    assert deep.locator("#gpt-dev-exercise-9").is_visible()


def fill_pictures(page):
    """Place all bets and bring each place of a live picture near the screen, until it is filled."""
    page.evaluate("document.querySelectorAll('.bet').forEach(show)")
    for place in page.locator("[data-live]").all():
        place.evaluate("(place) => place.scrollIntoView()")
        playwright.expect(place).to_have_class(re.compile(r"\bon\b"), timeout=60_000)


def by_keyboard(picture, label, *keys):
    picture.get_by_label(label).focus()
    for key in keys:
        picture.page.keyboard.press(key)


def type_line(picture, text):
    picture.get_by_label("Your line", exact=True).fill(text)


LIVE = {  # picture: (what a reader does, what they then read)
    "strip": (lambda p: type_line(p, "qqq€"), "The models know no €: left out."),
    "strip-counts": (lambda p: type_line(p, "o§"), "The models know no §: left out."),
    "table": (lambda p: p.get_by_label("A few letters").fill("zzq"), "“zzq”: never seen in train."),
    "arcs": (lambda p: (p.get_by_label("Model").select_option("one_head"),
                        by_keyboard(p, "shuffle", "Space")), "The shuffle changed nothing."),
    "dials": (lambda p: by_keyboard(p, "Temperature", "Home"), "1 letter to draw from"),
    "ladder": (lambda p: p.get_by_role("button", name="neural bigram").press("Enter"), "wrote:"),
    "head": (lambda p: by_keyboard(p, "a, vowel", "Home"), "-10.00"),
    "steps": (lambda p: by_keyboard(p, "Step", "End"), "After 1500 steps"),
}


def test_live_pictures_work(read):
    """Catches a picture that stays empty, that only a mouse can move, or that the notebook no longer has."""
    page = read("gpt_dev.html", width=390)
    fill_pictures(page)
    assert {place.get_attribute("data-live") for place in page.locator("[data-live]").all()} == set(LIVE)
    for name, (act, words) in LIVE.items():
        picture = page.locator(f"[data-live='{name}']")
        act(picture)
        playwright.expect(picture).to_contain_text(words, timeout=60_000)
    shown = page.locator(".cell:has(+ .live.replaces) .cell_output img").first
    assert not shown.is_visible()
    page.emulate_media(media="print")
    assert shown.is_visible() and not page.locator(".live").first.is_visible()


def test_words_are_explained_by_tap(read):
    """Catches a term that only a mouse can open, or that the keyboard cannot reach."""
    page = read("gpt2_gradio.html", width=390)
    word = page.locator(".term").first
    word.click()
    assert page.inner_text("#term-box") in book.terms().values()
    page.keyboard.press("Escape")
    assert page.locator("#term-box").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shuts_nobody_out(read, name):
    """Catches what makes a phone scroll sideways, low contrast, missing names, boxes without a keyboard."""
    page = read(name)
    fill_pictures(page)
    for width, theme in ((768, ""), (360, "dark"), (1440, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        assert page.evaluate("document.documentElement.scrollWidth") <= width + 1
        if theme and (theme == PAGES[name] or SLOW):
            page.wait_for_timeout(500)  # the theme looks for boxes that scroll
            assert shuts_out(page, CODE if name.startswith("gpt") and not SLOW else None) == []


def test_the_place_is_remembered(read):
    """Catches progress that is lost with the page."""
    page = read("gpt2_training.html")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    page.wait_for_function("localStorage.getItem('read') !== null")
    page.reload()
    assert page.locator("button.go-on").is_visible()
    assert os.path.basename(page.url) == "gpt2_training.html"
    assert page.locator(".bd-links a[data-read]").count() >= 1
