"""space/static/train.html in Chromium: a text goes in, a model comes out that Python opens; a run goes on."""

import re

import pytest
import torch
from conftest import ROOT
from pages import open_page, random_model, served, settings, wait, whole_folder

from data.corpus import corpus_from_text
from data.tokenizer import CharTokenizer
from model_gpt2 import GPT
from space.static_site import build_static
from train_gpt2 import evaluate

TEXT = "".join(f"The {a} {b} sat on the {c}.\n" for a in ("black", "old", "small")
               for b in ("cat", "dog", "owl", "fox")
               for c in ("mat", "roof", "wall", "bed", "oak", "car", "boat"))  # 84 lines
LISTEN = """
window.heard = [];
window.losses = () => heard.filter(m => m.type === "steps").flatMap(m => m.items);
window.Worker = class extends window.Worker {
  constructor(...what) {
    super(...what);
    this.addEventListener("message", ({ data }) => {
      window.heard.push(data);
      if (data.type === "steps") window.at_steps?.();
    });
  }
};
"""
KEPT = "import('./train_store.js').then(store => store.kept('run')).then(run => run !== null)"
# presses a button as soon as so many steps are done
PRESS = """([id, least]) => { window.at_steps = () => {
  if (losses().length < least) return;
  window.at_steps = null;
  document.getElementById(id).click();
}; }"""


@pytest.fixture(scope="module")
def train():
    quick = [("times.length < 3", "times.length < 1"), ("begin < 800", "begin < 1"),  # to measure the device
             ("VALIDATIONS = 6", "VALIDATIONS = 2"), ("told > 250", "told >= 0")]  # it tells of each step
    with served(ROOT / "space" / "static", patches={"train_worker.js": quick}) as address:
        yield f"{address}/train.html"


@pytest.fixture(scope="module")
def page(browser, train):
    return open_page(browser.new_context(), f"{train}?steps=60", script=LISTEN)


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
    page.evaluate(PRESS, ["pause", 1])
    page.click("#go")
    wait(page, KEPT)
    assert page.inner_text("#status") == "Paused."
    page.click("#pause")
    status(page, "Done", 240)
    page.click("#folder")
    page.locator("#files a", has_text="safetensors").wait_for()
    folder = tmp_path_factory.mktemp("model")
    for link in page.locator("#files a").all():
        with page.expect_download() as download:
            link.click()
        download.value.save_as(folder / download.value.suggested_filename)
    return folder, page.inner_text("#status")


def test_the_exact_loss_it_tells_is_that_of_the_files(trained):
    """Catches files of another moment than the loss, weights turned round, a loss that is an estimate."""
    folder, status = trained
    corpus, model = corpus_from_text(TEXT, "cats"), GPT.from_pretrained(folder)
    assert CharTokenizer.load(folder).chars == corpus.tokenizer.chars
    loss = evaluate(model, corpus.val)
    assert float(re.search(r"([\d.]+) nats", status)[1]) == pytest.approx(loss, abs=6e-4)
    assert loss < 2.5  # 3.3 is an even guess: it has learned something
    assert torch.isfinite(next(model.parameters())).all()


def test_it_wrote_samples_and_nothing_went_wrong(page, train, trained):
    """An exception that only the console sees, a picture without words or marks, a request to elsewhere."""
    assert page.told == page.thrown == []
    assert page.locator("#samples pre").count() >= 2
    said = page.get_attribute("#curve", "aria-label")
    assert "Exact loss" in said and "5 marks" in said
    assert all(url.startswith((train.removesuffix("train.html"), "blob:")) for url in page.asked)


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


def losses_of(browser, address, leave=lambda page: page, button=None):
    """{step: loss} of a run; after three steps it presses a button; leave(page) gives the page to go on."""
    page = open_page(browser.new_context(), address, script=LISTEN)
    give(page, TEXT)
    status(page, "Ready")
    if button:
        page.evaluate(PRESS, [button, 3])
    page.click("#go")
    page = leave(page)
    status(page, "Done", 240)
    return dict(map(tuple, page.evaluate("losses()"))), page


def close_and_come_back(page):
    """Wait until all is kept; close the tab; open another, which offers to go on."""
    wait(page, KEPT)
    context, address = page.context, page.url
    page.close()
    page = open_page(context, address, script=LISTEN)
    page.locator("#left_at", has_text="cats.txt was left at step").wait_for()
    page.click("#go_on")
    return page


def test_a_run_that_was_left_goes_on_and_workers_share_a_batch(browser, train):
    """Catches moments, batches or a schedule that are lost with the tab, and workers who see other text."""
    whole, two = losses_of(browser, train + "?steps=24&workers=2")
    members = two.evaluate("heard.find(m => m.type === 'begun').members")
    alone, _ = losses_of(browser, train + "?steps=24&workers=1", button="stop")
    resumed, _ = losses_of(browser, train + "?steps=24&workers=2", close_and_come_back, button="pause")
    assert members == 2, "the page is not isolated: no workers"
    assert list(whole) == list(range(1, 25)) and list(resumed)[-1] == 24 and len(resumed) < 24
    assert alone == pytest.approx({step: whole[step] for step in alone}, abs=2e-3)
    assert alone[3] == pytest.approx(whole[3], abs=1e-5)
    for step, loss in resumed.items():
        assert loss == pytest.approx(whole[step], abs=1e-5)


def test_a_full_storage_is_one_sentence_and_training_goes_on(browser, train):
    """A run that dies, or keeps silent, because the browser has no room to keep it; one without an end."""
    page = open_page(browser.new_context(), train, script=LISTEN)
    session, origin = page.context.new_cdp_session(page), train.removesuffix("/train.html")
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 1000})
    give(page, TEXT)
    status(page, "Ready")
    page.fill("#minutes", "0.02")
    page.click("#go")
    page.locator("#problem", has_text="no room to keep the run: it goes on").wait_for()
    status(page, "Done", 240)
    assert page.evaluate("heard.findLast(m => m.type === 'steps').over") >= 1  # its clock ended it
    assert not page.told + page.thrown
