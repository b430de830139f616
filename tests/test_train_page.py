"""space/static/train.html in Chromium: a text goes in, a model comes out that Python opens."""

import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import ROOT

from data.corpus import corpus_from_text
from data.ngram import NGram
from data.tokenizer import CharTokenizer
from model_gpt2 import GPT
from train_gpt2 import evaluate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TEXT = "".join(f"The {a} {b} sat on the {c}.\n" for a in ("black", "old", "small") for b in ("cat", "dog", "owl", "fox")
               for c in ("mat", "roof", "wall", "bed", "oak", "car", "boat"))  # 84 lines


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive Chromium")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(ROOT / "space" / "static")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.set_default_timeout(60_000)
        page.told = []
        page.on("pageerror", lambda error: page.told.append(str(error)))
        page.on("console", lambda message: message.type == "error" and page.told.append(message.text))
        page.goto(f"http://127.0.0.1:{server.server_port}/train.html")
        yield page
        browser.close()
    server.shutdown()


def give(page, text, name="cats.txt"):
    body = text if isinstance(text, bytes) else text.encode()
    page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": body})


def status(page, begin, seconds=120):
    from playwright.sync_api import expect
    expect(page.locator("#status")).to_have_text(re.compile(f"^{begin}"), timeout=1000 * seconds)


BAD = [(b"", "0 characters"), (b"a" * 3000, "one symbol"), (b"\xff\xfe" * 900, "UTF-8")]


@pytest.mark.parametrize("body, word", BAD)
def test_bad_text_is_one_sentence_and_the_page_goes_on(page, body, word):
    """Catches a page that falls silent, or trains on nothing."""
    give(page, body)
    page.locator("#problem", has_text=word).wait_for()
    assert page.is_disabled("#go")


@pytest.fixture(scope="module")
def trained(page, tmp_path_factory):
    """The page after a short run with a pause in it, and its files in a folder."""
    give(page, TEXT)
    status(page, "Ready")
    marks = page.eval_on_selector_all("#curve text", "all => all.map(t => t.textContent)")
    page.fill("#minutes", "0.12")
    page.click("#go")
    status(page, "Step")
    page.click("#pause")
    page.wait_for_timeout(400)
    stood = page.get_attribute("#curve .train", "d")
    page.wait_for_timeout(600)
    assert page.get_attribute("#curve .train", "d") == stood, "it goes on while paused"
    page.click("#pause")
    status(page, "Done", 240)
    page.click("#folder")
    page.locator("#files a", has_text="safetensors").wait_for()
    folder = tmp_path_factory.mktemp("model")
    for link in page.locator("#files a").all():
        with page.expect_download() as download:
            link.click()
        download.value.save_as(folder / download.value.suggested_filename)
    return {"marks": marks, "folder": folder, "status": page.inner_text("#status")}


def test_marks_are_those_of_python(page, trained):
    """Catches marks of another split, or of another way to count."""
    corpus = corpus_from_text(TEXT, "cats")
    V = corpus.tokenizer.vocab_size
    for n in range(1, 6):
        assert f"counting {n}: {NGram(n, V).fit(corpus.train).loss(corpus.val):.2f}" in trained["marks"]


def test_the_exact_loss_it_tells_is_that_of_the_files(page, trained):
    """Catches files of another moment than the loss, weights turned round, a loss that is an estimate."""
    corpus = corpus_from_text(TEXT, "cats")
    model = GPT.from_pretrained(trained["folder"])
    assert CharTokenizer.load(trained["folder"]) == corpus.tokenizer
    loss = evaluate(model, corpus.val)
    assert f" {loss:.3f} nats" in trained["status"] or f" {loss + 1e-4:.3f} nats" in trained["status"]
    assert loss < 2.5  # 3.3 is an even guess: it has learned something
    assert torch.isfinite(next(model.parameters())).all()


def test_it_wrote_samples_and_nothing_went_wrong(page, trained):
    """Catches an exception that only the console sees, a picture without words, samples that are missing."""
    assert page.told == []
    assert page.locator("#samples pre").count() >= 2
    assert "Exact loss" in page.get_attribute("#curve", "aria-label")
