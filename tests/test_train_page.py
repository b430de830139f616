"""space/static/train.html in Chromium: a text goes in, a model comes out that Python opens; a run goes on."""

import re

import pytest
import torch
from conftest import ROOT
from pages import random_model, served, settings, wait, whole_folder

from data.corpus import corpus_from_text
from data.ngram import NGram
from data.tokenizer import CharTokenizer
from model_gpt2 import GPT
from space.static_site import build_static
from train_gpt2 import evaluate

TEXT = "".join(f"The {a} {b} sat on the {c}.\n" for a in ("black", "old", "small")
               for b in ("cat", "dog", "owl", "fox")
               for c in ("mat", "roof", "wall", "bed", "oak", "car", "boat"))  # 84 lines
LISTEN = """
window.heard = [];
window.Worker = class extends window.Worker {
  constructor(...what) {
    super(...what);
    this.addEventListener("message", ({ data }) => window.heard.push(data));
  }
};
"""
LOSSES = "heard.filter(m => m.type === 'steps').flatMap(m => m.items)"


@pytest.fixture(scope="module")
def train():
    with served(ROOT / "space" / "static") as address:
        yield f"{address}/train.html"


def open_page(context, address):
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.told = []
    page.on("pageerror", lambda error: page.told.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.told.append(message.text))
    page.add_init_script(LISTEN)
    page.goto(address)
    return page


@pytest.fixture(scope="module")
def page(browser, train):
    return open_page(browser.new_context(viewport={"width": 1000, "height": 900}), train)


def give(page, text, name="cats.txt"):
    body = text if isinstance(text, bytes) else text.encode()
    page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": body})


def status(page, begin, seconds=120):
    from playwright.sync_api import expect
    expect(page.locator("#status")).to_have_text(re.compile(f"^{begin}"), timeout=1000 * seconds)


def test_the_text_that_lies_beside_the_page(browser, tmp_path):
    """Catches an owner's text that the page does not find, no stand-in, and a Space that is not isolated."""
    (tmp_path / "cats.txt").write_text(TEXT)
    folder = whole_folder(tmp_path / "model", random_model())
    site = build_static(folder, tmp_path / "site", text=tmp_path / "cats.txt")
    assert '"cross-origin-embedder-policy": "require-corp"' in (site / "README.md").read_text()
    with served(site) as address:
        page = open_page(browser.new_context(), f"{address}/train.html")
        page.click("#own")
        page.locator("#facts", has_text="input.txt: 2,500 characters").wait_for()
        (site / "input.txt").unlink()
        page.reload()
        page.click("#own")
        page.locator("#facts", has_text="standin.txt: 1,115,394 characters, 65 different ones").wait_for()
        page.close()


BAD = [(b"", "0 characters"), (b"a" * 3000, "one symbol"), (b"\xff\xfe" * 900, "UTF-8"),
       ("".join(map(chr, range(0x4E00, 0x4E00 + 5000))).encode(), "5,000 different symbols"),
       (b"the cat sat\n" * 4_200_000, "more than 20 MB")]  # 50 MB


@pytest.mark.parametrize("body, word", BAD,
                         ids=["empty", "one symbol", "not UTF-8", "5,000 symbols", "50 MB"])
def test_bad_text_is_one_sentence_and_the_page_goes_on(page, tmp_path, body, word):
    """Catches a page that falls silent, or trains on nothing."""
    (tmp_path / "bad.txt").write_bytes(body)
    page.set_input_files("#file", tmp_path / "bad.txt")
    page.locator("#problem", has_text=word).wait_for()
    said = page.inner_text("#problem")
    assert said.endswith(".") and said.count(". ") == 0
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
    assert CharTokenizer.load(trained["folder"]).chars == corpus.tokenizer.chars
    loss = evaluate(model, corpus.val)
    assert f" {loss:.3f} nats" in trained["status"] or f" {loss + 1e-4:.3f} nats" in trained["status"]
    assert loss < 2.5  # 3.3 is an even guess: it has learned something
    assert torch.isfinite(next(model.parameters())).all()


def test_it_wrote_samples_and_nothing_went_wrong(page, trained):
    """Catches an exception that only the console sees, a picture without words, samples that are missing."""
    assert page.told == []
    assert page.locator("#samples pre").count() >= 2
    assert "Exact loss" in page.get_attribute("#curve", "aria-label")
    over = page.evaluate("heard.filter(m => m.type === 'steps').map(m => m.over)")
    assert over == sorted(over) and over[-1] == pytest.approx(1, abs=0.2)  # its clock ends it


def test_the_writing_page_opens_it(page, trained):
    """Catches a model that the rest of the page cannot run, or that is gone when train.html is left."""
    page.click("#open")
    page.locator("#status", has_text="seed").wait_for()
    settings(page, fast=True, max=60)
    page.fill("#seed_text", "The old cat")
    page.locator("#verdict", has_text="nats of surprise").wait_for()
    page.click("#go")
    page.locator("#status", has_text="Done:").wait_for()
    assert page.inner_text("#text").startswith("The old cat") and len(page.inner_text("#text")) > 40
    assert page.locator("#bars li").count() > 2
    page.click("#duel_go")  # the table of counts came along
    page.locator("#duel_table", has_text="sat on the").wait_for()
    assert page.told == [message for message in page.told if "404" in message]


def losses_of(browser, address, leave=lambda page: page):
    """{step: loss} of a run, and the page; leave(page) is called in its midst and gives the page to go on."""
    page = open_page(browser.new_context(), address)
    give(page, TEXT)
    status(page, "Ready")
    page.click("#go")
    status(page, "Step")
    page = leave(page)
    status(page, "Done", 240)
    return dict(map(tuple, page.evaluate(LOSSES))), page


def stop_early(page):
    page.click("#stop")
    return page


def close_and_come_back(page):
    """Pause, so that all is kept; close the tab; open another, which offers to go on."""
    page.click("#pause")
    wait(page, "import('./train_store.js').then(store => store.kept('run')).then(run => run !== null)")
    context, address = page.context, page.url
    page.close()
    page = open_page(context, address)
    page.locator("#left_at", has_text="cats.txt was left at step").wait_for()
    page.click("#go_on")
    return page


def test_a_run_that_was_left_goes_on_and_workers_share_a_batch(browser, train):
    """Catches moments, batches or a schedule that are lost with the tab, and workers who see other text."""
    whole, two = losses_of(browser, train + "?steps=60&workers=2")
    members = two.evaluate("heard.find(m => m.type === 'begun').members")
    alone, _ = losses_of(browser, train + "?steps=60&workers=1", stop_early)
    resumed, _ = losses_of(browser, train + "?steps=60&workers=2", close_and_come_back)
    assert members == 2, "the page is not isolated: no workers"
    assert list(whole) == list(range(1, 61)) and list(resumed)[-1] == 60 and len(resumed) < 60
    assert len(alone) > 3 and alone == pytest.approx({step: whole[step] for step in alone}, abs=2e-3)
    assert alone[3] == pytest.approx(whole[3], abs=1e-5)
    for step, loss in resumed.items():
        assert loss == pytest.approx(whole[step], abs=1e-5)


def test_a_full_storage_is_one_sentence_and_training_goes_on(browser, train):
    """Catches a run that dies, or keeps silent, because the browser has no room to keep it."""
    page = open_page(browser.new_context(), train + "?steps=8")
    session, origin = page.context.new_cdp_session(page), train.removesuffix("/train.html")
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 1000})
    give(page, TEXT)
    status(page, "Ready")
    page.click("#go")
    page.locator("#problem", has_text="no room to keep the run: it goes on").wait_for()
    status(page, "Done", 240)
    assert page.told == []
