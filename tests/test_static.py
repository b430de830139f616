"""The page that runs the model in a browser: its arithmetic in node, then the page itself in Chromium."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data.ngram import NGram
from data.tokenizer import BPETokenizer, CharTokenizer
from gpt2.sampling import filter_probs
from model_gpt2 import GPT, GPTConfig
from space.static_site import PAGE, PAGE_FILES, SiteError, build_static, make_server

HERE = Path(__file__).parent
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHARS = sorted(set("\n !$&',-.3:;?" + "".join(map(chr, [*range(65, 91), *range(97, 123)]))))  # Tiny Shakespeare's 65

needs_node = pytest.mark.skipif(NODE is None, reason="needs node to run the page's JavaScript")


def in_node(**job):
    """Run one job of static_node.mjs."""
    done = subprocess.run(
        [NODE, HERE / "static_node.mjs"], input=json.dumps(job), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def random_model(seed=0, **config):
    """A GPT with large random weights, so that nothing is nearly uniform and a swapped head or row shows.

    Its head is its own unless asked for: a random tied model repeats its last character, and would hide much.
    """
    config = {"tie_weights": False, **config}
    torch.manual_seed(seed)
    model = GPT(
        GPTConfig(**{"block_size": 32, "vocab_size": 65, "n_layer": 3, "n_head": 3, "n_embd": 48, **config})
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8.0) if p.dim() > 1 else p.add_(0.1 * torch.randn_like(p))
    return model


def whole_folder(folder, model):
    """A model folder as training writes it: with tokenizer, 5-gram and metrics."""
    model.save_pretrained(folder)
    CharTokenizer(CHARS).save(folder, model.config.block_size)
    ids = np.random.default_rng(0).integers(0, 65, 3000)
    NGram(5, 65).fit(ids).save(Path(folder) / "ngram5.npz")
    numbers = {"val_loss": 1.2345, "val_loss_char": 1.2345, "ngram5_val_loss": 1.669, "parameters": model.num_params()}
    (Path(folder) / "metrics.json").write_text(json.dumps(numbers))
    return Path(folder)


# ---- the arithmetic, in node

SHAPES = {
    "usual": {},
    "tied": {"tie_weights": True},
    "no multiple of 8": {"n_head": 5, "n_embd": 20},
    "untied, no bias, padded": {
        "tie_weights": False,
        "bias": False,
        "vocab_size": 70,
        "n_tokens": 65,
        "block_size": 33,
    },
}


@needs_node
@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_attention_and_greedy_text_are_torchs(tmp_path, shape, dtype, kernels):
    """Catches: any slip in the forward pass, a swapped head, a wrong window rule (the text fills the context twice).

    F16 is held to 2e-3 against the float32 model (its weights are rounded) and to 1e-4 against the rounded one.
    """
    model = random_model(**SHAPES[shape])
    model.save_pretrained(tmp_path, dtype=dtype)
    rounded, ids = GPT.from_pretrained(tmp_path), torch.randint(0, 65, (1, 23))
    got = in_node(do="model", folder=str(tmp_path), kernels=kernels, ids=ids[0].tolist(), n=70)
    logits = torch.tensor(got["logits"])
    with torch.no_grad():
        assert (logits - rounded(ids)[0][0, -1, :65]).abs().max() < 1e-4
        exact = model(ids)[0][0, -1, :65]
    scale = max(1.0, float(exact.abs().max()))
    assert (logits - exact).abs().max() < (1e-4 if dtype == torch.float32 else 2e-3) * scale
    theirs = torch.cat([layer[0, :, -1] for layer in rounded.attention_maps(ids)])
    assert (torch.tensor(got["patterns"]) - theirs).abs().max() < 1e-5
    greedy = rounded.generate(ids, 70, temperature=0)[0, 23:].tolist()
    assert got["greedy"] == greedy and (shape == "tied" or len(set(greedy[-40:])) > 3)
    assert got["parameters"] == (model.num_params() if model.config.bias else got["parameters"])
    assert got["kernels"] == ("wasm" if kernels == "auto" and shape != "no multiple of 8" else "plain")


@needs_node
def test_prompts_longer_than_the_context(tmp_path):
    """Catches: a long prompt that is cut at another place than in Python, or read at positions that do not exist."""
    model = random_model()
    model.save_pretrained(tmp_path)
    for length in (31, 32, 33, 80):
        ids = torch.randint(0, 65, (1, length))
        got = in_node(do="model", folder=str(tmp_path), kernels="auto", ids=ids[0, -32:].tolist(), n=0)
        with torch.no_grad():
            assert (torch.tensor(got["logits"]) - model(ids[:, -32:])[0][0, -1]).abs().max() < 1e-4
        got = in_node(do="cache", folder=str(tmp_path), ids=ids[0].tolist(), n=40)
        assert got["fresh"] == got["again"] and len(got["fresh"]) == 40


@needs_node
def test_same_seed_same_text_whoever_looks_inside(tmp_path):
    """Catches: a cache that looking inside spoils, a seed that does nothing (chance of a false pass: below 1e-30)."""
    random_model().save_pretrained(tmp_path)
    got = in_node(do="cache", folder=str(tmp_path), ids=[1, 2, 3, 4, 5, 6, 7], n=60)
    assert got["fresh"] == got["again"] != got["other"]


@needs_node
def test_memory_is_at_most_twice_the_file(tmp_path):
    """Catches: a second copy of the weights on the heap. Weights dominate here; the key-value cache is counted too."""
    model = random_model(n_embd=192, n_head=3, n_layer=4)
    for dtype, kernels, most in (
        (torch.float32, "plain", 1.2),
        (torch.float16, "auto", 1.3),
        (torch.float16, "plain", 2.3),
    ):
        model.save_pretrained(tmp_path, dtype=dtype)
        got = in_node(do="model", folder=str(tmp_path), kernels=kernels, ids=[1], n=1)
        assert got["heap"] < most * got["file"]


@needs_node
@pytest.mark.parametrize("rows, cols", [(64, 48), (4, 8), (100, 16)])
def test_the_kernels_agree(rows, cols):
    """Catches: an opcode or constant of the WebAssembly that is off, also for subnormal float16 weights."""
    got = in_node(do="kernels", rows=rows, cols=cols)
    for name in ("vecmat32", "matvec32", "vecmat16", "matvec16"):
        want = np.array(got[f"plain {name[:-2]}32"])
        assert np.abs(np.array(got[f"wasm {name}"]) - want).max() < 1e-5 * max(1, np.abs(want).max())
    assert got["widened"] and got["wrong"] == 0
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    table = np.array([float(x.replace("Infinity", "inf")) for x in got["table"]])
    assert np.array_equal(table, halves, equal_nan=True)


@needs_node
def test_characters_map_as_in_python(tmp_path):
    """Catches: a quote, accent or line end that the browser maps to another id than Python, over 70,000 characters.

    A character that Unicode gained after Python's tables is left out of the comparison.
    """
    import unicodedata

    for chars in (CHARS, sorted(set(CHARS) - {"\n", "'"} | {"é", '"', "\t", "<"})):
        tokenizer = CharTokenizer(chars)
        tokenizer.save(tmp_path)
        every = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x11000), *range(0x1F000, 0x1FA00)]]
        every = [c for c in every if unicodedata.category(c) != "Cn"]
        texts = [*every, "a\r\nb\rc\n", "“Ach”, sagte er – “é2”…", "e\u0301", "😀 ok", "", "ﬁre ½", "x" * 500]
        answers = in_node(do="tokenizer", file=str(tmp_path / "tokenizer.json"), texts=texts)
        for text, got in zip(texts, answers, strict=True):
            ids = tokenizer.encode(text)
            assert got == {"ids": ids, "text": tokenizer.decode(ids), "dropped": tokenizer.dropped(text)}, ascii(text)


@needs_node
def test_gpt2s_own_pieces(tmp_path, gpt2_vocabulary):
    """Catches: a wrong merge order, byte spelling or cut before merging, against tiktoken."""
    tokenizer = BPETokenizer()
    tokenizer.save(tmp_path)
    texts = [
        "Hello, world!",
        "  two  spaces \n\n\nlines\t",
        "don't I'll we've 12345 6",
        "naïve café — “quotes” 😀👩‍👩‍👧",
        "日本語 текст",
        "",
        "\ufeffa",
        "<|endoftext|>",
        "a" * 40,
        "ROMEO:\nBut soft! what light",
    ]
    for text, got in zip(
        texts, in_node(do="tokenizer", file=str(tmp_path / "tokenizer.json"), texts=texts), strict=True
    ):
        assert got == {"ids": tokenizer.encode(text), "text": text, "dropped": []}, ascii(text)


@needs_node
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_five_gram_is_pythons(tmp_path, n):
    """Catches: another smoothing formula, a lost first string, a lookup that is off by one. Equal to 1e-12."""
    rng = np.random.default_rng(n)
    ids = rng.choice(7, 400, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.04, 0.01])
    table = NGram(n, 7).fit(ids)
    table.save(tmp_path / "t.npz")
    contexts = [
        [],
        [6],
        [5, 6],
        [6, 6, 6, 6],
        ids[:3].tolist(),
        *(rng.integers(0, 7, k).tolist() for k in range(12) for _ in range(9)),
    ]
    got = np.array(in_node(do="ngram", file=str(tmp_path / "t.npz"), contexts=contexts))
    assert np.abs(got - np.array([table.next_probs(c) for c in contexts])).max() < 1e-12


@needs_node
def test_sampling_filters_are_pythons():
    """Catches: temperature, top N or top p applied in another order, or a tie at the edge cut."""
    rng = np.random.default_rng(1)
    cases = [
        # ties at the edge of top N stay; at the edge of top p torch keeps any one of them, so there are none
        {"logits": (3 * rng.standard_normal(40)).round(1 if p == 1 else 6).tolist(), "t": t, "k": k, "p": p}
        for t in (0.05, 0.7, 1.0, 1.5)
        for k in (0, 1, 5, 40, 99)
        for p in (0.1, 0.9, 1.0)
    ]
    for case, got in zip(cases, in_node(do="sampling", cases=cases), strict=True):
        want = filter_probs(torch.tensor([case["logits"]]), case["t"], case["k"], case["p"])[0]
        assert np.abs(np.array(got) - want.numpy()).max() < 1e-6, case


@needs_node
def test_draws_follow_the_odds():
    """Catches: a biased generator or draw. 60,000 draws; each count within 5 standard errors (false alarm: 3e-6)."""
    probs = [0.5, 0.0, 0.3, 0.15, 0.04, 0.01]
    for seed in (0, 1, 123456):
        counts = np.array(in_node(do="draws", probs=probs, n=60_000, seed=seed))
        assert (np.abs(counts - 60_000 * np.array(probs)) <= 5 * np.sqrt(60_000 * np.array(probs))).all() and counts[
            1
        ] == 0


def spoil(folder, name, change):
    """Replace a file by change(its bytes); None removes it."""
    data = change((folder / name).read_bytes())
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)


DAMAGE = {  # name: (file, what happens to it, a word that the sentence must hold)
    "cut": ("model.safetensors", lambda b: b[:-100], "ends after"),
    "header": ("model.safetensors", lambda b: b[:60], "header"),
    "empty": ("model.safetensors", lambda b: b"", "cut off"),
    "lfs": (
        "model.safetensors",
        lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "LFS",
    ),
    "other": ("model.safetensors", lambda b: b"PK\x03\x04" + bytes(90), "safetensors"),
    "nan": ("model.safetensors", lambda b: b[:-4000] + b"\xff" * 4000, "finite"),
    "mixed": ("config.json", lambda b: b.replace(b'"n_embd": 48', b'"n_embd": 24'), "fit"),
    "layers": ("config.json", lambda b: b.replace(b'"n_layer": 3', b'"n_layer": 4'), "lacks"),
    "kind": ("config.json", lambda b: b.replace(b'"gpt2"', b'"llama"'), "model_type"),
    "json": ("config.json", lambda b: b[:30], "JSON"),
    "fields": ("config.json", lambda b: b.replace(b'"n_head"', b'"heads"'), "n_head"),
}


@needs_node
def test_damaged_files_are_one_sentence(tmp_path):
    """Catches: a damaged, cut, foreign or mixed model that loads, or that fails with an engine's own message."""
    whole = tmp_path / "whole"
    random_model().save_pretrained(whole)
    for name, (file, change, _) in DAMAGE.items():
        shutil.copytree(whole, tmp_path / name)
        spoil(tmp_path / name, file, change)
    said = in_node(do="errors", folders=[str(whole), *(str(tmp_path / name) for name in DAMAGE)])
    assert said.pop(str(whole)) == ""
    for name, (file, _, word) in DAMAGE.items():
        kind, _, sentence = said[str(tmp_path / name)].partition(": ")
        assert kind == "Error" and file in sentence and word in sentence and sentence.endswith("."), (name, sentence)
        assert "\n" not in sentence


@needs_node
def test_openais_own_file_loads(tmp_path):
    """Catches: a loader that insists on our prefix, or stumbles over the mask that OpenAI's file carries."""
    from safetensors.torch import load_file, save_file

    model, ids = random_model(), [3, 1, 4, 1, 5]
    model.save_pretrained(tmp_path)
    state = {k.removeprefix("transformer."): v for k, v in load_file(tmp_path / "model.safetensors").items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    save_file(state, tmp_path / "model.safetensors")
    got = in_node(do="model", folder=str(tmp_path), kernels="auto", ids=ids, n=0)
    with torch.no_grad():
        assert (torch.tensor(got["logits"]) - model(torch.tensor([ids]))[0][0, -1]).abs().max() < 1e-4


# ---- the folder


def test_the_built_folder(tmp_path):
    """Catches: a page file that is not published, a front matter that would make a Gradio Space, a lost model file."""
    out = build_static(
        whole_folder(tmp_path / "m", random_model()),
        tmp_path / "out",
        links={"the model": "https://x.y/z"},
        model_repo="me/model",
    )
    assert {p.name for p in PAGE.iterdir() if p.is_file()} == set(PAGE_FILES) <= {p.name for p in out.iterdir()}
    assert {p.name for p in (out / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "ngram5.npz",
        "metrics.json",
    }
    front = (out / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert 'sdk: "static"' in front and 'app_file: "index.html"' in front and '"me/model"' in front
    site = json.loads((out / "site.json").read_text())
    assert site["links"] == [["the model", "https://x.y/z"]]
    assert site["bytes"] == (out / "model" / "model.safetensors").stat().st_size
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in out.rglob("*") if p.is_file())


def test_large_models_go_out_in_float16(tmp_path, monkeypatch):
    """Catches: 344 MB where 172 are enough, and a float16 copy that holds infinities."""
    import space.static_site as site

    monkeypatch.setattr(site, "HALF_ABOVE", 1000)
    model = random_model()
    folder = whole_folder(tmp_path / "m", model)
    out = build_static(folder, tmp_path / "out")
    assert (out / "model/model.safetensors").stat().st_size < 0.55 * (folder / "model.safetensors").stat().st_size
    got, ids = GPT.from_pretrained(out / "model"), torch.randint(0, 65, (1, 9))
    with torch.no_grad():
        assert 0 < (got(ids)[0] - model(ids)[0]).abs().max() < 2e-2
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = 1e6
    model.save_pretrained(folder)
    with pytest.raises(SiteError, match="float16"):
        build_static(folder, tmp_path / "out")


def test_wrong_folders_are_one_sentence(tmp_path, capsys):
    """Catches: a traceback for a folder without a model, a target that is the source, or a port that is taken."""
    from space.static_site import main

    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 1
    folder = whole_folder(tmp_path / "m", random_model())
    assert main([str(folder), "--out", str(folder)]) == 1
    assert main([str(folder), "--out", str(folder / "config.json")]) == 1
    server = make_server(tmp_path)
    assert main([str(folder), "--serve", str(server.server_port)]) == 1
    server.server_close()
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 4 and all(line.endswith(".") for line in said)


def test_the_page_asks_nobody_else():
    """Catches: a font, script or picture from another host, in any of the page's files."""
    for name in PAGE_FILES:
        text = (PAGE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(https?:)?//[a-z0-9-]+\.[a-z]""", text), name


def test_local_preview_is_one_command(tmp_path):
    """Catches: a preview that does not start, or serves scripts with a type that browsers refuse."""
    import urllib.request

    folder = whole_folder(tmp_path / "m", random_model())
    command = [sys.executable, "-m", "space.static_site", str(folder), "--serve", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        with urllib.request.urlopen(address + "/gpt2.js", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/javascript")
    finally:
        process.terminate()
        process.wait(10)


# ---- the page, in Chromium


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive Chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(address, folder, torch model) of a small random model behind the page."""
    place = tmp_path_factory.mktemp("site")
    model = random_model()
    folder = build_static(whole_folder(place / "m", model), place / "out", links={"the model": "https://example.org/m"})
    server = make_server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, model
    server.shutdown()


@pytest.fixture
def visit(browser, site):
    """visit(**options of the context, path="/") opens the page and waits for the model; its errors fail the test."""
    contexts, faults = [], []

    def open_page(path="/", ready=True, **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.asked = []
        context.on("request", lambda request: page.asked.append(request.url))
        page.goto(site[0] + path)
        if ready:
            page.wait_for_selector("#go:not([disabled])")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def settings(page, **values):
    """Set fields by id; True and False are for boxes."""
    for name, value in values.items():
        if isinstance(value, bool):
            page.evaluate("([id, on]) => { document.getElementById(id).checked = on; }", [name, value])
        else:
            page.evaluate(
                "([id, v]) => { const e = document.querySelector('#' + id); e.value = v; e.oninput?.(); }",
                [name, str(value)],
            )


def write(page, **values):
    """Generate with these settings and wait for the end; returns the whole text."""
    settings(page, **{"fast": True, "seed": 3, **values})
    page.click("#go")
    finished(page)
    return text_of(page)


def finished(page):
    page.wait_for_function("/^(Done|Stopped)/.test(document.getElementById('status').textContent)")


def text_of(page):
    return page.evaluate("document.getElementById('text').textContent")


def test_it_writes_and_streams_at_reading_speed(visit, site):
    """Catches: a page that shows its text only at the end, or asks another host for anything."""
    page = visit()
    settings(page, seed=3, max=25, seed_text="ROMEO:\n")
    page.click("#go")
    page.wait_for_function("document.querySelectorAll('#text .ch').length > 7")  # the first character it wrote
    early = page.evaluate("document.querySelectorAll('#text .ch').length")
    finished(page)
    assert early < 7 + 25 == page.evaluate("document.querySelectorAll('#text .ch').length")
    assert text_of(page).startswith("ROMEO:\n")
    assert re.search(r"25 tokens, [\d,]+ tok/s computed, random seed 3\.", page.inner_text("#status"))
    assert page.asked and all(url.startswith(site[0]) for url in page.asked)
    card = page.inner_text("#card")
    assert "1.234" in card or "1.235" in card
    assert "1.669" in card and "0.09 million" in card


def test_same_seed_same_text_and_a_new_one_without(visit):
    """Catches: a seed field that does nothing. 60 characters: an accidental match is out of the question."""
    page = visit()
    first = write(page, max=60)
    assert write(page, max=60) == first != write(page, max=60, seed="")
    assert write(page, max=60, seed=3, temperature=0) == write(page, max=60, seed=4, temperature=0)
    assert write(page, max=60, seed=3, top_k=1, temperature=1) == write(page, max=60, seed=9, temperature=0, top_k="")


def test_text_goes_on_past_the_context(visit, site):
    """Catches: a page that ends, or goes wrong, where the context of 32 is full. The text must be Python's, greedy."""
    _, _, model = site
    tokenizer = CharTokenizer(CHARS)
    ids = torch.tensor([tokenizer.encode("The moon")])
    want = tokenizer.decode(model.generate(ids, 90, temperature=0)[0].tolist())
    for path in ("/", "/?kernels=plain"):
        assert write(visit(path), seed_text="The moon", temperature=0, max=90) == want


def test_stop_is_at_once_and_one_can_go_on(visit):
    """Catches: a Stop that waits for the end, and a page that is stuck after it."""
    page = visit()
    settings(page, max=5000)
    page.click("#go")
    page.wait_for_function("document.querySelectorAll('#text .ch').length > 12")
    began = time.perf_counter()
    page.click("#stop")
    finished(page)
    assert time.perf_counter() - began < 2.0
    length = page.evaluate("document.querySelectorAll('#text .ch').length")
    page.wait_for_timeout(200)
    assert length == page.evaluate("document.querySelectorAll('#text .ch').length") < 500
    assert page.inner_text("#status").startswith("Stopped after")
    assert len(write(page, max=20, seed_text="A")) == 21


def test_the_page_stays_responsive_while_it_writes(visit):
    """Catches: a model on the page's own thread: frames must keep coming while it writes as fast as it can."""
    page = visit()
    settings(page, max=5000, fast=True)
    page.click("#go")
    longest = page.evaluate("""() => new Promise(done => {
        let last = performance.now(), worst = 0, n = 0;
        const frame = now => { worst = Math.max(worst, now - last); last = now;
                               if (++n < 20) requestAnimationFrame(frame); else done(worst); };
        requestAnimationFrame(frame); })""")
    assert longest < 1000  # milliseconds, on a busy test machine; a blocked page would show none at all


def test_look_inside_shows_torchs_numbers(visit, site):
    """Catches: bars, surprise, arcs or 5-gram of another place than the chosen one, also behind a moved window."""
    _, folder, model = site
    tokenizer, table = CharTokenizer(CHARS), NGram.load(folder / "model/ngram5.npz")
    page = visit()
    text = write(page, seed_text="The moon", max=80)
    ids = tokenizer.encode(text)
    for at in (85, 40, 12, 3):
        page.locator("#text .ch").nth(at).click()
        page.wait_for_function(
            "at => document.querySelector('#text').ariaValueNow == at && document.querySelector('#looked').textContent"
            ".includes('To guess') && window.seen !== document.querySelector('#came').textContent",
            arg=at,
        )
        page.evaluate("window.seen = document.querySelector('#came').textContent")
        window = seen_at(ids, at, 8, 32)
        with torch.no_grad():
            logits = model(torch.tensor([window]))[0][0, -1]
        nats = -float(logits.log_softmax(-1)[ids[at]])
        assert f"a surprise of {nats:.2f} nats" in page.inner_text("#came")
        assert f"{-np.log(table.next_probs(ids[:at])[ids[at]]):.2f} nats." in page.inner_text("#came")
        shown = page.evaluate(
            "[...document.querySelectorAll('#bars i.model')].map(e => parseFloat(e.style.getPropertyValue('--w')))"
        )
        assert np.allclose(shown, 100 * logits.softmax(-1).topk(8).values.numpy(), atol=0.06)
        check_attention(page, model, window)


def seen_at(ids, at, n_prompt, block_size):
    """The ids that the model saw when it wrote place `at`, by the window rule."""
    window = ids[:n_prompt]
    for i in range(n_prompt, at + 1):
        if len(window) > block_size:
            window = window[-(block_size // 2) :]
        if i == at:
            return window
        window = [*window, ids[i]]
    return ids[:at]


def check_attention(page, model, window):
    """Each head's strongest place, as the sentence names it, and at least one arc."""
    maps = model.attention_maps(torch.tensor([window]))
    for layer, head in ((0, 0), (2, 1)):
        page.select_option("#layer", index=layer)
        page.select_option("#head", index=head)
        pattern = maps[layer][0, head, -1]
        back = len(window) - int(pattern.argmax())
        said = page.inner_text("#looked")
        assert f"head {head + 1} of layer {layer + 1}" in said
        first = said.split("looked most at ")[1].split(";")[0]
        assert ("just before" in first) == (back == 1) and (back == 1 or f"{back} back" in first)
        assert 1 <= page.locator("#arcs path").count() <= 12


def test_temperature_reshapes_the_bars(visit):
    """Catches: a slider that moves nothing: cold must sharpen the likeliest, hot must flatten it."""
    page = visit()
    write(page, max=20)
    page.locator("#text .ch").nth(12).click()
    page.wait_for_selector("#bars li")

    def top(temperature):
        settings(page, reshape=temperature)
        return page.evaluate("parseFloat(document.querySelector('#bars i.model').style.getPropertyValue('--w'))")

    assert top(0.2) > top(1) > top(2)


def test_the_keyboard_is_enough(visit):
    """Catches: a control that only a mouse reaches: write, stop and look inside with keys alone."""
    page = visit()
    settings(page, max=5000)
    page.focus("#seed_text")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("document.querySelectorAll('#text .ch').length > 12")
    page.keyboard.press("Escape")
    finished(page)
    page.focus("#text")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#bars li")
    first = page.get_attribute("#text", "aria-valuenow")
    for key, step in (("ArrowRight", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert page.get_attribute("#text", "aria-valuenow") == str(int(first) + step)
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('#came').textContent.includes('is the first')")


def test_controls_have_names(visit):
    """Catches: a field, button or picture that a screen reader cannot name."""
    page = visit()
    write(page, max=20)
    page.locator("#text .ch").nth(12).click()
    page.wait_for_selector("#bars li")
    nameless = page.evaluate("""
        [...document.querySelectorAll('input,textarea,select,button,progress,[role=slider],svg')]
        .filter(e => e.checkVisibility() && !e.closest('[aria-hidden=true]') && !e.labels?.length
                     && !e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.outerHTML)""")
    assert nameless == []
    assert page.get_attribute("html", "lang") == "en" and page.locator("#status[role=status]").count() == 1
    assert page.evaluate("document.getElementById('spoken').textContent").strip()


@pytest.mark.parametrize("width", [320, 360, 768])
def test_narrow_screens(visit, width):
    """Catches: a page that must be pushed sideways, or buttons too small for a thumb."""
    page = visit(viewport={"width": width, "height": 740}, has_touch=True)
    write(page, max=80)
    page.locator("#text .ch").nth(30).tap()
    page.wait_for_selector("#bars li")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(page.locator(name).bounding_box()["height"] >= 40 for name in ("#go", "#stop"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(visit, scheme):
    """Catches: text that is hard to read in light or dark mode: WCAG asks for 4.5 to 1."""
    page = visit(color_scheme=scheme)
    write(page, max=20)
    colours = page.evaluate(
        """(names) => { const style = getComputedStyle(document.documentElement);
        const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        return Object.fromEntries(names.map(name => { paint.fillStyle = style.getPropertyValue('--' + name);
            paint.fillRect(0, 0, 1, 1);
            return [name, [...paint.getImageData(0, 0, 1, 1).data.slice(0, 3)]]; })); }""",
        ["ink", "soft", "accent", "table", "back", "paper", "bar", "on-accent"],
    )

    def light(rgb):
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert (light(colours["paper"]) > 0.5) == (scheme == "light")
    pairs = [
        ("ink", "paper"),
        ("ink", "back"),
        ("soft", "paper"),
        ("soft", "back"),
        ("accent", "back"),
        ("accent", "paper"),
        ("on-accent", "accent"),
        ("ink", "bar"),
    ]
    for a, b in pairs:
        low, high = sorted((light(colours[a]), light(colours[b])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (a, b)


def test_inside_a_frame_of_another_site(visit, site):
    """Catches: a page that only works on its own: the Hub shows a Space in a frame, from another host."""
    page = visit(ready=False, path="/model/config.json")
    port = site[0].rsplit(":", 1)[1]
    page.evaluate(
        """address => { document.body.innerHTML = '<iframe width=900 height=800 sandbox="allow-scripts '
        + 'allow-same-origin '
        + 'allow-forms allow-popups" src="' + address + '"></iframe>'; }""",
        f"http://localhost:{port}/",
    )
    frame = page.frame_locator("iframe")
    frame.locator("#go:not([disabled])").click()
    frame.locator("#text .ch").nth(12).wait_for()
    frame.locator("#stop").click()
    frame.locator("#text .ch").nth(9).click()
    frame.locator("#bars li").first.wait_for()


def test_it_works_offline_once_loaded(visit):
    """Catches: a file that is fetched only when it is first needed."""
    page = visit()
    page.context.set_offline(True)
    assert len(write(page, max=40, seed_text="A")) == 41
    page.locator("#text .ch").nth(20).click()
    page.wait_for_selector("#bars li")


def test_unknown_characters_are_listed(visit):
    """Catches: a seed text that is changed without a word, or read as HTML."""
    page = visit()
    text = write(page, max=5, seed_text="“Café” <b>2 & 3</b> 😀")
    assert text.startswith("'Cafe' b & 3b ") or text.startswith("'Cafe' b &")
    said = page.inner_text("#dropped")
    assert all(c in said for c in "<>2/😀") and page.locator("#text b").count() == 0
    assert len(write(page, max=5, seed_text="")) == 6  # an empty seed begins with a new line
    assert not page.is_visible("#dropped")


def test_impossible_settings_are_refused_by_the_form(visit):
    """Catches: a letter, a zero or a fraction that reaches the model."""
    page = visit()
    for name, value in (("max", "0"), ("max", ""), ("max", "2.5"), ("top_k", "-1"), ("seed", "-3")):
        settings(page, max=10, top_k="", seed="")
        settings(page, **{name: value})
        page.click("#go")
        assert page.evaluate("document.querySelectorAll('input:invalid').length") == 1 and text_of(page) == ""


@pytest.mark.parametrize("file, change, word", [
    ("model.safetensors", lambda b: b[: len(b) // 2], "ends after"),
    ("model.safetensors", lambda b: None, "missing"),
    ("tokenizer.json", lambda b: b"{", "JSON"),
    ("tokenizer.json", lambda b: b'{"model": {"type": "WordPiece", "vocab": {}}}', "WordPiece"),
])  # fmt: skip
def test_damaged_files_on_the_page(browser, site, tmp_path, file, change, word):
    """Catches: a page that waits for ever, or shows an engine's message, when a file is cut, missing or foreign."""
    shutil.copytree(site[1], tmp_path / "s")
    spoil(tmp_path / "s" / "model", file, change)
    with open_site(browser, tmp_path / "s") as page:
        page.wait_for_selector("#problem:visible")
        said = page.inner_text("#problem")
        assert file in said and word in said and said.endswith(".") and page.is_disabled("#go")


def test_what_is_optional_may_be_missing(browser, site, tmp_path):
    """Catches: a model without 5-gram, metrics or site.json that does not run."""
    shutil.copytree(site[1], tmp_path / "s")
    for name in ("model/metrics.json", "model/ngram5.npz", "model/generation_config.json", "site.json"):
        (tmp_path / "s" / name).unlink()
    with open_site(browser, tmp_path / "s") as page:
        page.wait_for_selector("#go:not([disabled])")
        write(page, max=10)
        page.locator("#text .ch").nth(9).click()
        page.wait_for_selector("#bars li")
        assert "5-gram" not in page.inner_text("#inside")


def test_a_large_model_waits_for_generate(browser, site, tmp_path):
    """Catches: 172 MB that are fetched by a phone which only opened the page."""
    shutil.copytree(site[1], tmp_path / "s")
    (tmp_path / "s" / "site.json").write_text(json.dumps({"bytes": 172_000_000}))
    with open_site(browser, tmp_path / "s") as page:
        page.wait_for_selector("#go:not([disabled])")
        assert "172 MB" in page.inner_text("#status") and not any(
            "safetensors" in url.split("/")[-1] and "model/" in url for url in page.asked
        )
        assert len(write(page, max=10, seed_text="A")) == 11


class open_site:
    """A page on a folder of its own, for tests that spoil one."""

    def __init__(self, browser, folder):
        self.browser, self.server = browser, make_server(folder)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        self.page = self.browser.new_page(viewport={"width": 1000, "height": 900})
        self.page.set_default_timeout(20_000)
        self.page.asked = []
        self.page.on("request", lambda request: self.page.asked.append(request.url))
        self.page.goto(f"http://127.0.0.1:{self.server.server_port}/")
        return self.page

    def __exit__(self, *args):
        self.page.close()
        self.server.shutdown()
        self.server.server_close()
