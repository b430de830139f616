"""How fast is the model in the visitor's browser, and how much memory does it take? Headless Chromium.

    python -m bench.static_speed [--model FOLDER] [--large FOLDER] [--draft FOLDER]

Writes results/static_speed.json, a page a row. The small model is the project's own; --large names one
of gpt2-char's shape (85.9 M parameters, float16), --draft a small one that proposes letters to it. Rows
of a model that is not named are left out. Each row: letters a second as the page shows them (the model's
own time, fast mode) at the start of a text and deep in the context; the first letter after the page's
load event, where an address asks for a text at once; a prompt of 1,000 letters, from the field to the
first new letter; the peak memory of the page's process above that of the same page without a model.
"slowed 4x" stops the process three quarters of the time, worker and all; Chromium's own throttle slows
the page's thread and not the worker. Linux only: memory is read from /proc.
"""

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

from bench import common
from bench.browser import chromium, page_process, served
from data.files import say
from lab.project import ROOT
from space.static_site import build_static, halve

SLICE = 0.02  # seconds of one turn of stop and go
PROMPT = 1000  # letters
SPEECH = "To be, or not to be, that is the question:\n"
OTHER = "Now is the winter of our discontent\n"  # a prompt that begins as the text on the page is half read
VISITS = [  # model, kernels, slowed down so many times, letters to write, letters before those of tok_s_deep
    ("small", "auto", 1, 1000, 0), ("small", "plain", 1, 1000, 0), ("small", "auto", 4, 1000, 0),
    ("gpt2-char", "auto", 1, 100, 860), ("gpt2-char", "plain", 1, 100, 0),
    ("gpt2-char with a draft", "auto", 1, 300, 0)]
STATUS = "document.getElementById('status').textContent"
WATCH = """
new MutationObserver(() => {
  if (document.querySelector('#text .ch:not(.seed)')) window.first ??= performance.now();
}).observe(document, { childList: true, subtree: true });"""
FILL = """values => {
  for (const id in values) document.getElementById(id).value = values[id];
  for (const id of ['fast', 'to_line']) document.getElementById(id).checked = id === 'fast';
}"""


def sites(place, small, large, draft):
    """{name of a model: the folder of its page}"""
    found = {"small": build_static(small, place / "small")}
    if large:
        found["gpt2-char"] = build_static(large, place / "large")
    if large and draft:
        site = found["gpt2-char with a draft"] = build_static(large, place / "draft")
        shutil.copytree(draft, site / "model" / "draft")
        halve(site / "model" / "draft")
        settings = {"bos_token_id": 0, "draft": "draft"}
        (site / "model" / "generation_config.json").write_text(json.dumps(settings))
    return found


@contextlib.contextmanager
def slowed(pid, factor):
    """Stop a process all but 1/factor of the time."""
    stop = threading.Event()

    def turns():
        while factor > 1 and not stop.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE * (1 - 1 / factor))
            os.kill(pid, signal.SIGCONT)
            time.sleep(SLICE / factor)

    thread = threading.Thread(target=turns, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def open_page(browser, url, script=""):
    """A page that has settled."""
    page = browser.new_page(bypass_csp=True)  # the page's policy forbids what wait_for_function evaluates
    page.set_default_timeout(170_000)
    page.add_init_script(script)
    page.goto(url)
    page.wait_for_function(f"!/^(Starting|Fetching)/.test({STATUS})")
    return page


def generate(page, n, seed_text="ROMEO:\n"):
    """Write n tokens; the tokens a second that the page shows."""
    page.fill("#seed_text", seed_text)
    page.evaluate(FILL, {"max": n, "seed": 1})
    page.click("#go")
    page.wait_for_function(f"/^Done/.test({STATUS})")
    return float(re.search(r"([\d,]+) a second", page.inner_text("#status"))[1].replace(",", ""))


def first_letter_ms(url):
    """From the page's load event to the first letter that the model writes: the address asks for a text."""
    with chromium() as browser:
        page = open_page(browser, f"{url}?p=ROMEO:%0A&s=1&n=50", script=WATCH)
        page.wait_for_function(f"/^Done/.test({STATUS})")
        return page.evaluate("first - performance.getEntriesByType('navigation')[0].loadEventEnd")


def visit(page, slow, tokens, deep):
    """Load, warm up, write `tokens`; 40 more behind `deep` letters; a prompt of PROMPT."""
    began = time.perf_counter()
    if page.inner_text("#status") != "Ready.":
        page.click("#go")  # a large model is fetched when it is asked for
        page.wait_for_function(f"/^[0-9]+ letter/.test({STATUS})")
    found = {"first_letter_s": round(time.perf_counter() - began, 2), "tok_s_deep": None, "prompt_s": None}
    generate(page, 30)  # the engine compiles what runs often
    with slowed(page_process(), slow):
        found["tok_s"] = generate(page, tokens)
        if deep:
            found["tok_s_deep"] = generate(page, 40, SPEECH * (deep // len(SPEECH) + 1))
            prompt = (OTHER * (PROMPT // len(OTHER) + 1))[:PROMPT]
            found["prompt_s"] = round(common.seconds(lambda: generate(page, 1, prompt)), 2)
    return found | {"memory_mb": common.status_mb("VmHWM", page_process())}


def measure(folders):
    rows, empty = [], Path(shutil.copytree(folders["small"], folders["small"].with_name("empty")))
    (empty / "model" / "model.safetensors").unlink()
    with served(empty) as url, chromium() as browser:
        open_page(browser, url)
        version, empty_mb = browser.version, common.status_mb("VmHWM", page_process())
    for name, kernels, slow, tokens, deep in VISITS:
        if name in folders:
            size = (folders[name] / "model" / "model.safetensors").stat().st_size / 1e6
            with served(folders[name]) as url, chromium() as browser:
                row = visit(open_page(browser, f"{url}?kernels={kernels}"), slow, tokens, deep)
            row["memory_mb"] = round(row["memory_mb"] - empty_mb, 1)
            rows.append({"model": name, "file_mb": round(size, 1), "kernels": kernels, "slowed": slow,
                         "tokens": tokens, "deep": deep, **row})
            say(rows[-1])
    with served(folders["small"]) as url:
        firsts = sorted(round(first_letter_ms(url), 1) for _ in range(5))
    say(f"first letter, ms after the load event: {firsts}")
    return {"browser": f"Chromium {version}", "empty_page_mb": round(empty_mb, 1), "first_letter_ms": firsts,
            "rows": rows}


def main(argv=None):
    model = str(ROOT / "space" / "model")
    args = common.options(__doc__, argv, model=model, large="", draft="", out="static_speed.json")
    config = {"model": args.model, "large": args.large, "draft": args.draft, "prompt": PROMPT}
    with tempfile.TemporaryDirectory() as scratch:
        folders = sites(Path(scratch), args.model, args.large, args.draft)
        common.timed_result(common.RESULTS / args.out, config, None, lambda: measure(folders))


if __name__ == "__main__":
    common.start(main)
