"""Pages in Chromium and their scripts in node: what the tests of them share."""

import contextlib
import functools
import json
import shutil
import subprocess
import threading
import time
import types
from pathlib import Path

import pytest
import torch

from space import static_site
from space.static_site import Handler, build_static, make_server
from tests.models import model_folder, small

HELDOUT = "ANNA:\nThe moon is up, and all the lamps are lit.\n" * 8
EXAMPLES = ["ANNA:\n", "The moon", "<b>lamps"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE = shutil.which("node")
static_site.standin = types.SimpleNamespace(make=functools.cache(static_site.standin.make))  # a second each
needs_node = pytest.mark.skipif(NODE is None, reason="needs node to run the page's JavaScript")


def node(script, *args, job=None):
    """The JSON that a script of this folder prints; `job` goes to it as JSON."""
    command = [NODE, Path(__file__).with_name(script), *args]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def random_model(seed=0, **shape):
    """Its head is its own unless asked for: a random tied model repeats its last character: it hides much."""
    return small(seed, **{**dict(block_size=32, n_head=3, n_embd=48, tie_weights=False), **shape})


def whole_folder(folder, model, name="my diary"):
    """A folder with all that the page shows of a model."""
    return model_folder(folder, model, corpus={"name": name, "examples": EXAMPLES}, heldout=HELDOUT,
                        ngram5_val_loss=1.669, accuracy=0.5711544, ngram_accuracy=0.5270174,
                        config={"teacher": "a/best,b/best"})


@contextlib.contextmanager
def chromium():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive Chromium")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def open_page(context, address, until=None, script=""):
    """A new page. asked: what it asked for; thrown: its errors; told: those that the console shows."""
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.asked, page.thrown, page.told = [], [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.thrown.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.told.append(message.text))
    if script:
        page.add_init_script(script)
    page.goto(address)
    if until:
        page.wait_for_selector(until)
    return page


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(address, folder, torch model) of a small random model behind the page, with one earlier moment."""
    place, model = tmp_path_factory.mktemp("site"), random_model()
    links = {"the model": "https://example.org/m", "a trap": "javascript:alert(1)"}
    random_model(7).save_pretrained(place / "m/moments/20", dtype=torch.float16)
    folder = build_static(whole_folder(place / "m", model), place / "out", links=links)
    with served(folder) as address:
        yield address, folder, model


class Patched(Handler):
    """Serves files with changes, {name: [(old, new)]}, and `slow` with a pause in its midst."""

    patches, slow = {}, ""

    def do_GET(self):
        file = Path(self.translate_path(self.path))
        file = file / "index.html" if file.is_dir() else file
        if file.name not in (*self.patches, self.slow):
            return super().do_GET()
        body = file.read_bytes()
        for old, new in self.patches.get(file.name, []):
            assert old.encode() in body
            body = body.replace(old.encode(), new.encode())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(file))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:9999])
        time.sleep(0.3 if file.name == self.slow else 0)
        self.wfile.write(body[9999:])


@contextlib.contextmanager
def served(folder, handler=Patched, **changed):
    """The address of a folder; `changed` are attributes of the handler."""
    server = make_server(folder)
    server.RequestHandlerClass = functools.partial(type("Here", (handler,), changed), directory=str(folder))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, request):
    """visit(path, **options of the context) opens a page, waits for its bars; its errors fail the test."""
    pages = []

    def visit(path="/", address=None, until="#bars li", context=None, **options):
        address = address or request.getfixturevalue("site")[0]
        context = context or browser.new_context(**{"viewport": {"width": 1440, "height": 757}, **options})
        pages.append(open_page(context, address + path, until))
        return pages[-1]

    yield visit
    for page in pages:
        page.context.close()
    assert not [error for page in pages for error in page.thrown]


def shuts_out(page, context=None, letters=None):
    """What axe finds against a page: [(rule, element)].

    It judges neither a gradient nor a single letter: `letters`, {selector: background}, stand for them.
    """
    for selector, background in (letters or {}).items():
        change = "(e, back) => { e.textContent = 'letters'; e.style.background = back; }"
        page.eval_on_selector(selector, change, background)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page, context).response["violations"]
    return [(one["id"], node["html"][:200]) for one in found for node in one["nodes"]]


def wait(page, condition, seconds=60):
    """Wait for a JavaScript condition. (Playwright's own way evaluates strings, which the policy forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, (condition, page.inner_text("#status"), page.inner_text("#problem"))
        page.wait_for_timeout(40)


def wait_text(page, id, words):
    wait(page, f"document.getElementById({id!r}).textContent.includes({words!r})")


def settings(page, **values):
    """Set fields by id; True and False are for boxes."""
    for name, value in values.items():
        key, value = ("checked", value) if isinstance(value, bool) else ("value", str(value))
        change = "([id, key, v]) => { const e = document.getElementById(id); e[key] = v; e.oninput?.(); }"
        page.evaluate(change, [name, key, value])


def write(page, **values):
    """Generate with these settings and wait for the end; returns the whole text."""
    settings(page, **{"fast": True, "to_line": False, "seed": 3, **values})
    page.click("#go")
    finished(page)
    return text_of(page)


def finished(page):
    wait(page, "/^(Done|Stopped)/.test(document.getElementById('status').textContent)")


def text_of(page, id="text"):
    return page.evaluate(f"document.getElementById({id!r}).textContent")


def choose(page, at):
    """Choose a letter and wait until the panel shows it."""
    page.evaluate("document.getElementById('came').textContent = ''")
    page.locator("#text .ch").nth(at).click()
    wait(page, "document.getElementById('came').textContent !== ''")
