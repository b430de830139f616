"""How fast is the model in the visitor's browser, and how much memory does it take? Headless Chromium.

    python -m bench.static_speed [--model FOLDER] [--large FOLDER] [--draft FOLDER]

Writes results/static_speed.json, a page a row. The small model is the project's own. The large one has
the shape of gpt2-char (85.9 M parameters, float16); without --large its weights are random: speed does
not depend on what they are, except with a draft model, whose proposals are kept as often as the two
agree. Each row: letters a second as the page shows them (the model's own time, fast mode) at the start
of a text and deep in the context; the first letter after the page's load event, where an address asks
for a text at once; a prompt of 1,000 letters, from the field to the first new letter; the peak memory
of the page's process above that of the same page without a model. "slowed 4x" stops the process three
quarters of the time, worker and all; Chromium's own throttle slows the page's thread and not the
worker. Linux only: memory is read from /proc.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from playwright.sync_api import sync_playwright

from data.files import say
from lab.machine import write_result
from lab.project import ROOT
from model_gpt2 import GPT, GPTConfig
from space.static_site import build_static, halve, make_server

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SLICE = 0.02  # seconds of one turn of stop and go
PROMPT = 1000  # letters
WAYS = {"small": [("auto", 1), ("plain", 1), ("auto", 4)], "gpt2-char": [("auto", 1), ("plain", 1)]}
STATUS = "document.getElementById('status').textContent"
WATCH = """
new MutationObserver(() => {
  if (document.querySelector('#text .ch:not(.seed)')) window.first ??= performance.now();
}).observe(document, { childList: true, subtree: true });"""


def large_model(folder: Path, small: Path) -> Path:
    """A folder with gpt2-char's shape and random weights, and the small model's tokenizer and 5-gram."""
    torch.manual_seed(0)
    GPT(GPTConfig(vocab_size=65)).save_pretrained(folder, dtype=torch.float16)
    for name in ("tokenizer.json", "ngram5.npz"):
        if (small / name).is_file():
            shutil.copyfile(small / name, folder / name)
    return folder


@contextlib.contextmanager
def served(folder: Path):
    """The address of a folder, served from a thread."""
    server = make_server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def peak_mb(pid: int) -> float:
    """The most memory that a process has had resident, MB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


@contextlib.contextmanager
def slowed(pid: int, factor: int):
    """Stop a process all but 1/factor of the time."""
    stop = threading.Event()

    def turns():
        while not stop.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE * (1 - 1 / factor))
            os.kill(pid, signal.SIGCONT)
            time.sleep(SLICE / factor)

    thread = threading.Thread(target=turns, daemon=True)
    if factor > 1:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if factor > 1:
            thread.join()
        os.kill(pid, signal.SIGCONT)


def generate(page, n: int, seed_text: str = "ROMEO:\n") -> float:
    """Write n tokens; the tokens a second that the page shows."""
    page.fill("#seed_text", seed_text)
    values = {"max": n, "seed": 1}
    fill = "values => { for (const id in values) document.getElementById(id).value = values[id]; }"
    page.evaluate(fill, values)
    page.evaluate("for (const id of ['fast', 'to_line']) document.getElementById(id).checked = id === 'fast'")
    page.click("#go")
    page.wait_for_function(f"/^Done/.test({STATUS})", timeout=170_000)
    return float(re.search(r"([\d,]+) a second", page.inner_text("#status"))[1].replace(",", ""))


def prompt_seconds(page, n: int) -> float:
    """Seconds from a prompt of n letters in the field, with Generate pressed, to one letter behind it."""
    began = time.perf_counter()
    generate(page, 1, ("Now is the winter of our discontent\n" * (n // 36 + 1))[:n])
    return time.perf_counter() - began


def first_letter_ms(playwright, url: str) -> float:
    """From the page's load event to the first letter that the model writes: the address asks for a text."""
    browser, page = open_page(playwright, f"{url}?p=ROMEO:%0A&s=1&n=50", script=WATCH)
    page.wait_for_function(f"/^Done/.test({STATUS})", timeout=170_000)
    began = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    first = page.evaluate("window.first") - began
    browser.close()
    return first


def open_page(playwright, url: str, script: str = ""):
    """A fresh browser with one page that has settled; returns (browser, page)."""
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGS)
    page = browser.new_page(bypass_csp=True)  # the page's policy forbids what wait_for_function evaluates
    page.add_init_script(script)
    page.goto(url)
    page.wait_for_function(f"!/^(Starting|Fetching)/.test({STATUS})", timeout=120_000)
    return browser, page


def page_process() -> int:
    """The process of the page: of those that run pages (Chromium keeps a spare one), the largest."""
    family = psutil.Process().children(recursive=True)
    pages = [p for p in family if "--type=renderer" in " ".join(p.cmdline())]
    return max(pages, key=lambda p: p.memory_info().rss).pid


def row(playwright, url: str, kernels: str, tokens: int, deep: int, slow: int, empty_mb: float) -> dict:
    """One visit: load, warm up, write `tokens`; 40 more behind `deep` letters; a prompt of PROMPT."""
    browser, page = open_page(playwright, f"{url}?kernels={kernels}")
    began = time.perf_counter()
    if page.inner_text("#status") != "Ready.":
        page.click("#go")  # a large model is fetched when it is asked for
        page.wait_for_function(f"/^Done/.test({STATUS})", timeout=120_000)
    load = time.perf_counter() - began
    generate(page, 30)  # the engine compiles what runs often
    pid = page_process()
    with slowed(pid, slow):
        speed = generate(page, tokens)
        text = "To be, or not to be, that is the question:\n" * (deep // 43 + 1)
        behind = generate(page, 40, text) if deep else None
        prompt = round(prompt_seconds(page, PROMPT), 2) if deep else None
    used = peak_mb(pid) - empty_mb
    browser.close()
    return {"kernels": kernels, "slowed": slow, "tokens": tokens, "tok_s": speed, "tok_s_deep": behind,
            "deep": deep, "prompt_s": prompt, "first_text_s": round(load, 2), "memory_mb": round(used, 1)}


def empty_page(playwright, site: Path) -> tuple[str, float]:
    """Chromium's version, and the memory of the page without a model."""
    (site / "model" / "model.safetensors").unlink()
    with served(site) as url:
        browser, _ = open_page(playwright, url)
        version, used = browser.version, peak_mb(page_process())
        browser.close()
    return version, used


def add_draft(site: Path, draft: Path) -> None:
    """The page's model names a draft from now on."""
    shutil.copytree(draft, site / "model" / "draft")
    halve(site / "model" / "draft")
    (site / "model" / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "draft": "draft"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "space" / "model"))
    parser.add_argument("--large", help="a folder of the large shape; default: made with random weights")
    parser.add_argument("--draft", help="a folder of a small model that proposes letters to the large one")
    parser.add_argument("--out", default=str(ROOT / "results" / "static_speed.json"))
    args = parser.parse_args()
    began, rows, small = time.perf_counter(), [], Path(args.model)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        place = Path(scratch)
        large = Path(args.large) if args.large else large_model(place / "large", small)
        version, empty_mb = empty_page(playwright, build_static(small, place / "none"))
        for name, folder, tokens, deep in (("small", small, 1000, 0), ("gpt2-char", large, 100, 860)):
            site = build_static(folder, place / "site" / name)
            size = (site / "model" / "model.safetensors").stat().st_size / 1e6

            def measure(kind, kernels, slow, tokens, deep, url, size=size):
                measured = row(playwright, url, kernels, tokens, deep, slow, empty_mb)
                rows.append({"model": kind, "file_mb": round(size, 1), **measured})
                say(rows[-1])

            with served(site) as url:
                for kernels, slow in WAYS[name]:
                    behind = deep if kernels == "auto" else 0  # plain would read it for a minute
                    measure(name, kernels, slow, tokens, behind, url)
                if name == "small":
                    firsts = sorted(round(first_letter_ms(playwright, url), 1) for _ in range(5))
                    say(f"first letter, ms after the load event: {firsts}")
                elif args.draft:
                    add_draft(site, Path(args.draft))
                    measure("gpt2-char with a draft", "auto", 1, 300, 0, url)
    seconds = round(time.perf_counter() - began, 1)
    config = {"small": "space/model", "large": "12 layers x 768, context 1024, F16", "prompt": PROMPT,
              "weights": "trained" if args.large else "random"}  # fmt: skip
    page = {"browser": f"Chromium {version}", "empty_page_mb": round(empty_mb, 1), "first_letter_ms": firsts}
    write_result(args.out, config, seconds=seconds, **page, rows=rows)


if __name__ == "__main__":
    main()
