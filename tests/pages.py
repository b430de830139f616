"""The static page behind a loopback address, in Chromium: what the tests of it share."""

import contextlib
import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data.ngram import NGram
from data.tokenizer import CharTokenizer
from model_gpt2 import GPT, GPTConfig
from space.static_site import build_static, make_server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHARS = sorted(set("\n !$&',-.3:;?" + "".join(map(chr, [*range(65, 91), *range(97, 123)]))))  # 65
HELDOUT = "ANNA:\nThe moon is up, and all the lamps are lit.\n" * 8
EXAMPLES = ["ANNA:\n", "The moon", "<b>lamps"]


def random_model(seed=0, **config):
    """A GPT with large random weights, so that nothing is nearly uniform and a swapped head or row shows.

    Its head is its own unless asked for: a random tied model repeats its last character, and would hide much.
    """
    shape = dict(block_size=32, vocab_size=65, n_layer=3, n_head=3, n_embd=48, tie_weights=False)
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**shape, **config})).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8.0) if p.dim() > 1 else p.add_(0.1 * torch.randn_like(p))
    return model


def whole_folder(folder, model, name="my diary"):
    """A model folder as training writes it: with tokenizer, 5-gram and metrics."""
    model.save_pretrained(folder)
    CharTokenizer(CHARS).save(folder, model.config.block_size)
    NGram(5, 65).fit(np.random.default_rng(0).integers(0, 65, 3000)).save(Path(folder) / "ngram5.npz")
    metrics = {"val_loss": 1.2345, "val_loss_char": 1.2345, "ngram5_val_loss": 1.669, "accuracy": 0.5711544,
               "ngram_accuracy": 0.5270174, "heldout": HELDOUT, "seconds": 291.9,
               "corpus": {"name": name, "examples": EXAMPLES},
               "config": {"teacher": "a/best,b/best"}, "machine": {"device": "cpu", "threads": 2}}
    (Path(folder) / "metrics.json").write_text(json.dumps(metrics))
    return Path(folder)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive Chromium")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(address, folder, torch model) of a small random model behind the page, with one earlier moment."""
    place, model = tmp_path_factory.mktemp("site"), random_model()
    links = {"the model": "https://example.org/m", "a trap": "javascript:alert(1)"}
    random_model(7).save_pretrained(place / "m/moments/20", dtype=torch.float16)
    folder = build_static(whole_folder(place / "m", model), place / "out", links=links)
    with served(folder) as address:
        yield address, folder, model


@contextlib.contextmanager
def served(folder, handler=None):
    server = make_server(folder)
    server.RequestHandlerClass = handler or server.RequestHandlerClass
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, site):
    """visit(path, **options of the context) opens the page, waits for its bars; its errors fail the test."""
    contexts, faults = [], []

    def open_page(path="/", address=site[0], until="#bars li", context=None, **options):
        context = context or browser.new_context(**{"viewport": {"width": 1440, "height": 757}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address + path)
        if until:
            page.wait_for_selector(until)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


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


def text_at(site):
    """The text that the page opens with."""
    return json.loads((site[1] / "site.json").read_text())["opening"]["text"]
