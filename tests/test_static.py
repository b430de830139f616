"""The page that runs the model in a browser: its arithmetic in node, then the page itself in Chromium."""

import contextlib
import json
import re
import shutil
import threading
import types
import unicodedata

import numpy as np
import pytest
import torch
from pages import (
    EXAMPLES,
    HELDOUT,
    Patched,
    choose,
    finished,
    needs_node,
    node,
    random_model,
    served,
    settings,
    shuts_out,
    text_of,
    wait,
    wait_text,
    whole_folder,
    write,
)
from safetensors.torch import load_file, save_file

import space.static_site as builder
from data.ngram import NGram
from data.tokenizer import BPETokenizer, CharTokenizer
from gpt2.sampling import filter_probs
from model_gpt2 import GPT
from space.opening import SEED, TEMPERATURE, numbers, opening
from space.static_site import PAGE, PAGE_FILES, SiteError, build_static, make_server
from tests.models import CHARS


def in_node(**job):
    return node("static_node.mjs", job=job)


# ---- the arithmetic, in node

SHAPES = {
    "usual": {},
    "tied": {"tie_weights": True},
    "no multiple of 8": {"n_head": 5, "n_embd": 20},
    "no bias, padded": {"bias": False, "vocab_size": 70, "n_tokens": 65, "block_size": 33},
    "longer than a chunk": {"block_size": 200},
}
RUNS = [*((shape, dtype, "auto") for shape in SHAPES for dtype in (torch.float32, torch.float16)),
        ("usual", torch.float32, "plain"), ("longer than a chunk", torch.float16, "plain")]  # fmt: skip


@needs_node
@pytest.mark.parametrize("shape, dtype, kernels", RUNS)
def test_logits_attention_layers_and_greedy_text_are_torchs(tmp_path, shape, dtype, kernels):
    """Any slip in the forward pass, a swapped head, a wrong window rule (the text fills two contexts).

    Every position's logits are compared, read in chunks and one by one. F16 is held to 1e-4 against the
    rounded model and 2e-3 against the exact one.
    """
    model = random_model(**SHAPES[shape])
    model.save_pretrained(tmp_path, dtype=dtype)
    T = min(150, model.config.block_size - 1)
    rounded, ids = GPT.from_pretrained(tmp_path), torch.randint(0, 65, (1, T))
    got = in_node(do="model", folder=str(tmp_path), kernels=kernels, ids=ids[0].tolist(), n=70)
    logits = torch.tensor(got["all"])
    with torch.no_grad():
        scale = max(1.0, float(model(ids, ids)[0].abs().max()))
        assert (logits - rounded(ids, ids)[0][0, :, :65]).abs().max() < 1e-4 * max(1.0, scale / 30)
        near = 1e-4 if dtype == torch.float32 else 2e-3
        assert (logits - model(ids, ids)[0][0, :, :65]).abs().max() < near * scale
    assert (torch.tensor(got["single"]) - logits).abs().max() < 1e-4 * max(1.0, scale / 30)
    assert (torch.tensor(got["logits"]) - logits[-1]).abs().max() < 1e-4
    theirs = torch.cat([layer[0, :, -1] for layer in rounded.attention_maps(ids)])
    assert (torch.tensor(got["patterns"]) - theirs).abs().max() < 1e-4
    assert (torch.tensor(got["lens"]) - layer_by_layer(rounded, ids)).abs().max() < 1e-3
    assert got["greedy"] == rounded.generate(ids, 70, temperature=0)[0, T:].tolist()
    assert got["parameters"] == model.num_params() or not model.config.bias
    assert got["kernels"] == ("wasm" if kernels == "auto" and shape != "no multiple of 8" else "plain")


@torch.no_grad()
def layer_by_layer(model, ids):
    """(1 + n_layer, V): what the last position says at the start and after each layer, by the last norm."""
    found, blocks = [], model.transformer.h
    hooks = [blocks[0].register_forward_pre_hook(lambda _, args: found.append(args[0][0, -1]))]
    hooks += [block.register_forward_hook(lambda _, args, out: found.append(out[0, -1])) for block in blocks]
    model(ids)
    for hook in hooks:
        hook.remove()
    return model.lm_head(model.transformer.ln_f(torch.stack(found)))[:, :65]


@torch.no_grad()
def without_head(model, layer, head):
    """The same model in which one head says nothing: its columns of the output projection are zero."""
    other, hs = GPT(model.config).eval(), model.config.n_embd // model.config.n_head
    other.load_state_dict(model.state_dict())
    other.transformer.h[layer].attn.c_proj.weight[:, head * hs : (head + 1) * hs] = 0
    return other


@needs_node
def test_a_head_switched_off_is_torchs(tmp_path):
    """A switch that turns off another head, half of one, or leaves its old keys in the cache."""
    model, ids = random_model(), torch.randint(0, 65, (1, 25))
    model.save_pretrained(tmp_path)
    got = in_node(do="off", folder=str(tmp_path), ids=ids[0].tolist(), heads=[4])
    with torch.no_grad():
        want = without_head(model, 1, 1)(ids)[0][0, -1]
        off, on = ((torch.tensor(got[key]) - want).abs().max() for key in ("off", "on"))
        assert off < 1e-4 < on


@needs_node
def test_prompts_longer_than_the_context_and_a_shared_cache(tmp_path):
    """A long prompt cut elsewhere than in Python, a cache that looking inside spoils, an idle seed."""
    model = random_model()
    model.save_pretrained(tmp_path)
    for length in (7, 32, 33, 80):
        ids = torch.randint(0, 65, (1, length))
        got = in_node(do="cache", folder=str(tmp_path), ids=ids[0].tolist(), n=40)
        assert got["fresh"] == got["again"] != got["other"] and len(got["fresh"]) == 40
        assert got["greedy"] == model.generate(ids, 40, temperature=0)[0, length:].tolist()


@needs_node
def test_sampled_text_is_pythons(tmp_path):
    """Another generator, draw or temperature than the builder's: the opening would be lost."""
    folder = whole_folder(tmp_path, random_model())
    want = opening(folder, HELDOUT)
    assert want["text"].startswith("ANNA:\n") and want["n_prompt"] == 6
    ids = CharTokenizer(CHARS).encode(want["text"])
    law = dict(seed=SEED, temperature=TEMPERATURE)
    got = in_node(do="sample", folder=str(folder), ids=ids[:6], n=len(ids) - 6, **law)
    assert got["ids"] == ids[6:] and np.allclose(got["nats"], want["nats"][6:], atol=0.006)


@needs_node
def test_a_draft_changes_the_speed_and_not_the_text(tmp_path):
    """A cache that keeps refused letters, a proposal checked one place off, always keeping, a redraw.

    Greedy: letter for letter, over contexts that fill at different places. Drawn: the first two letters of
    4,000 seeds against their exact law, chi-square with 24 degrees of freedom at most (above 45 once in 170
    times by chance; the seeds are fixed).
    """
    for name, shape in (("large", {}), ("small", {"block_size": 20, "n_layer": 1})):
        random_model(seed=len(name), **shape).save_pretrained(tmp_path / name)
    for helper, most in (("large", 40), ("small", 90)):  # its own draft: nearly all is kept
        folders = dict(folder=str(tmp_path / "large"), helper=str(tmp_path / helper))
        got = in_node(do="speculate", **folders, ids=[3, 1, 4], n=90)
        assert got["greedy"] == got["plain"] and got["passes"] <= most
    five = dict(vocab_size=5, n_layer=1, n_head=2, n_embd=16, block_size=12)
    tiny = [random_model(seed, **five) for seed in (1, 2)]
    for model, name in zip(tiny, ("one", "two"), strict=True):
        with torch.no_grad():
            model.lm_head.weight.mul_(0.1)
        model.save_pretrained(tmp_path / name)
    folders = dict(folder=str(tmp_path / "one"), helper=str(tmp_path / "two"))
    drawn = in_node(do="speculate", **folders, ids=[0, 1], n=1, seeds=4000, length=3, top_k=4)["drawn"]

    def law(*ids):
        return filter_probs(tiny[0](torch.tensor([ids]))[0][:, -1], 1, 4)[0]

    expected = 4000 * (law(0, 1)[:, None] * torch.stack([law(0, 1, id) for id in range(5)])).flatten()
    counts = torch.bincount(torch.tensor([5 * text[0] + text[1] for text in drawn]), minlength=25)
    held = expected > 0
    assert counts[~held].sum() == 0 and held.sum() > 12
    assert ((counts - expected)[held] ** 2 / expected[held]).sum() < 45


@needs_node
def test_memory_is_at_most_twice_the_file(tmp_path):
    """A second copy of the weights on the heap. Weights dominate; the key-value cache is counted too."""
    model = random_model(n_embd=192, n_head=3, n_layer=4)
    limits = (torch.float32, "plain", 1.2), (torch.float16, "auto", 1.4), (torch.float16, "plain", 2.4)
    for dtype, kernels, most in limits:
        model.save_pretrained(tmp_path, dtype=dtype)
        got = in_node(do="model", folder=str(tmp_path), kernels=kernels, ids=[1, 2], n=1)
        assert got["heap"] < most * got["file"]


@needs_node
@pytest.mark.parametrize("rows, cols", [(64, 48), (4, 13)])
@pytest.mark.parametrize("T", [1, 4, 6])
def test_the_kernels_agree(rows, cols, T):
    """An opcode or constant of the WebAssembly that is off, also for subnormal float16 weights."""
    x = np.linspace(-9, 9, 64, dtype=np.float32)
    got = in_node(do="kernels", rows=rows, cols=cols, T=T, numbers=x.tolist())
    want = np.array(got["plain matmul 32"])
    for name in ("wasm matmul 32", "wasm matmul 16", "unfused matmul 32", "unfused matmul 16"):
        assert np.abs(np.array(got[name]) - want).max() < 1e-5 * max(1, np.abs(want).max()), name
    for kind in ("plain", "unfused", "wasm"):
        assert np.allclose(got[f"{kind} exp"], np.exp(x.astype(float)), rtol=1e-6)
        gelu = torch.nn.functional.gelu(torch.tensor(x).double(), approximate="tanh").numpy()
        assert np.allclose(got[f"{kind} gelu"], gelu, atol=1e-6)
    assert got["wrong"] == 0
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    table = np.array([float(x.replace("Infinity", "inf")) for x in got["table"]])
    assert np.array_equal(table, halves, equal_nan=True)


@needs_node
def test_characters_map_as_in_python(tmp_path):
    """A quote, accent or line end with another id than in Python, over 70,000 characters.

    A character that Unicode gained after Python's tables is left out of the comparison.
    """
    for chars in (CHARS, sorted(set(CHARS) - {"\n", "'"} | {"é", '"', "\t", "<"})):
        tokenizer = CharTokenizer(chars)
        tokenizer.save(tmp_path)
        every = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x11000), *range(0x1F000, 0x1FA00)]]
        every = [c for c in every if unicodedata.category(c) != "Cn"]
        texts = [*every, "a\r\nb\rc\n", "“Ach”, sagte er – “é2”…", "e\u0301", "😀 ok", "", "ﬁre ½", "x" * 99]
        answers = in_node(do="tokenizer", file=str(tmp_path / "tokenizer.json"), texts=texts)
        for text, got in zip(texts, answers, strict=True):
            ids = tokenizer.encode(text)
            want = {"ids": ids, "text": tokenizer.decode(ids), "dropped": tokenizer.dropped(text)}
            assert got == want, ascii(text)


@needs_node
def test_gpt2s_own_pieces(tmp_path, gpt2_vocabulary):
    """A wrong merge order, byte spelling or cut before merging, against tiktoken."""
    tokenizer = BPETokenizer()
    tokenizer.save(tmp_path)
    texts = ["Hello, world!", "  two  spaces \n\n\nlines\t", "don't I'll we've 12345 6",
             "naïve café — “quotes” 😀👩‍👩‍👧", "日本語 текст", "",
             "\ufeffa", "<|endoftext|>", "a" * 40, "ROMEO:\nBut soft! what light"]  # fmt: skip
    answers = in_node(do="tokenizer", file=str(tmp_path / "tokenizer.json"), texts=texts)
    for text, got in zip(texts, answers, strict=True):
        assert got == {"ids": tokenizer.encode(text), "text": text, "dropped": []}, ascii(text)


@needs_node
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_five_gram_is_pythons(tmp_path, n):
    """Another smoothing formula, a lost first string, a lookup that is off by one. Equal to 1e-12."""
    rng = np.random.default_rng(n)
    ids = rng.choice(7, 400, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.04, 0.01])
    table = NGram(n, 7).fit(ids)
    table.save(tmp_path / "t.npz")
    contexts = [[], [6], [5, 6], [6] * 4, ids[:3].tolist()]
    contexts += [rng.integers(0, 7, k % 12).tolist() for k in range(99)]
    got = np.array(in_node(do="ngram", file=str(tmp_path / "t.npz"), contexts=contexts))
    assert np.abs(got - np.array([table.next_probs(c) for c in contexts])).max() < 1e-12


@needs_node
def test_sampling_filters_and_draws():
    """Temperature, top N or top p in another order, a tie at the edge cut, a biased generator or draw.

    60,000 draws a seed; each count within 5 standard errors (false alarm: 3e-6).
    """
    rng = np.random.default_rng(1)
    cases = [  # ties at the edge of top N stay; at the edge of top p torch keeps any one, so there are none
        {"logits": (3 * rng.standard_normal(40)).round(1 if p == 1 else 6).tolist(), "t": t, "k": k, "p": p}
        for t in (0.05, 0.7, 1.5) for k in (0, 1, 5, 99) for p in (0.1, 0.9, 1.0)]  # fmt: skip
    for case, got in zip(cases, in_node(do="sampling", cases=cases), strict=True):
        want = filter_probs(torch.tensor([case["logits"]]), case["t"], case["k"], case["p"])[0]
        assert np.abs(np.array(got) - want.numpy()).max() < 1e-6, case
    probs = np.array([0.5, 0.0, 0.3, 0.15, 0.04, 0.01])
    for seed in (0, 123456):
        counts = np.array(in_node(do="draws", probs=probs.tolist(), n=60_000, seed=seed))
        assert (np.abs(counts - 60_000 * probs) <= 5 * np.sqrt(60_000 * probs)).all() and counts[1] == 0


@needs_node
def test_heads_are_named_by_what_they_do():
    """A head called by the wrong name: patterns that do one thing each, and one that does none."""
    names = in_node(do="heads")
    assert [name["name"] for name in names] == ["the last letter", "the letter before it", "line starts",
                                                "earlier copies of it", "spaces",
                                                "a bit of everything"]  # fmt: skip
    assert names[0]["share"] == pytest.approx(1) and names[5]["share"] == 0


def spoil(folder, name, change):
    """Replace a file by change(its bytes); None removes it."""
    data = change((folder / name).read_bytes())
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)


WEIGHTS, CONFIG = "model.safetensors", "config.json"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
DAMAGE = {  # name: (file, what happens to it, a word that the sentence must hold)
    "cut": (WEIGHTS, lambda b: b[:-100], "ends after"),
    "header": (WEIGHTS, lambda b: b[:60], "header"),
    "empty": (WEIGHTS, lambda b: b"", "cut off"),
    "lfs": (WEIGHTS, lambda b: LFS, "LFS"),
    "other": (WEIGHTS, lambda b: b"PK\x03\x04" + bytes(90), "safetensors"),
    "nan": (WEIGHTS, lambda b: b[:-4000] + b"\xff" * 4000, "finite"),
    "mixed": (CONFIG, lambda b: b.replace(b'"n_embd": 48', b'"n_embd": 24'), "fit"),
    "layers": (CONFIG, lambda b: b.replace(b'"n_layer": 3', b'"n_layer": 4'), "lacks"),
    "kind": (CONFIG, lambda b: b.replace(b'"gpt2"', b'"llama"'), "model_type"),
    "json": (CONFIG, lambda b: b[:30], "JSON"),
    "pieces": ("tokenizer.json", lambda b: b'{"model": {"type": "WordPiece", "vocab": {}}}', "WordPiece"),
    "fields": (CONFIG, lambda b: b.replace(b'"n_head"', b'"heads"'), "n_head"),
}


@needs_node
def test_damaged_files_are_one_sentence_and_openais_own_loads(tmp_path):
    """A damaged, cut, foreign or mixed model that loads, or fails with an engine's own message."""
    whole, openai = tmp_path / "whole", tmp_path / "openai"
    whole_folder(whole, random_model())
    shutil.copytree(whole, openai)  # theirs lacks the prefix, and carries the mask
    state = {k.removeprefix("transformer."): v for k, v in load_file(openai / WEIGHTS).items()}
    save_file({**state, "h.0.attn.bias": torch.ones(1, 1, 32, 32)}, openai / WEIGHTS)
    for name, (file, change, _) in DAMAGE.items():
        shutil.copytree(whole, tmp_path / name)
        spoil(tmp_path / name, file, change)
    said = in_node(do="errors", folders=[str(tmp_path / name) for name in ("whole", "openai", *DAMAGE)])
    assert said.pop(str(whole)) == "" == said.pop(str(openai))
    for name, (file, _, word) in DAMAGE.items():
        kind, _, sentence = said[str(tmp_path / name)].partition(": ")
        assert kind == "Error" and file in sentence and word in sentence, (name, sentence)
        assert sentence.endswith(".") and "\n" not in sentence


# ---- the folder


def test_the_built_folder(tmp_path):
    """A page file that is not published or not kept for offline, a Gradio front matter, a lost model file."""
    folder = whole_folder(tmp_path / "m", random_model())
    for step in (40, 5):
        random_model(step).save_pretrained(folder / "moments" / str(step))
    whole_folder(folder / "draft", random_model(1))
    links = {"the model": "https://x.y/z"}
    out = build_static(folder, tmp_path / "out", links=links, model_repo="me/model", address="https://x.y/")
    assert {p.name for p in PAGE.iterdir()} == set(PAGE_FILES) <= {p.name for p in out.iterdir()}
    kept = (PAGE / "offline.js").read_text()
    text = "".join((PAGE / name).read_text("utf-8") for name in ("index.html", "page.js", "worker.js"))
    used = set(re.findall(r'(?:from "|src="|href="|URL\(")(?:\./)?([a-z0-9]+\.(?:js|css))"', text))
    assert used and all(f'"{name}"' in kept for name in used)
    front = (out / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert 'sdk: "static"' in front and 'app_file: "index.html"' in front and '"me/model"' in front
    site = json.loads((out / "site.json").read_text())
    assert site["links"] == [["the model", "https://x.y/z"]] and site["opening"] == opening(folder, HELDOUT)
    assert site["examples"] == EXAMPLES and site["moments"] == [5, 40]
    assert site["bytes"] == (out / "model" / WEIGHTS).stat().st_size and len(site["version"]) == 16
    assert (out / "model/moments/40" / WEIGHTS).read_bytes() == (folder / "moments/40" / WEIGHTS).read_bytes()
    assert GPT.from_pretrained(out / "model/draft").config.n_layer == 3
    assert 'og:image" content="https://x.y/card.png"' in (out / "index.html").read_text(encoding="utf-8")
    assert 'thumbnail: "https://x.y/card.png"' in front and (out / "card.png").read_bytes()[:4] == b"\x89PNG"
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in out.rglob("*") if p.is_file())


def test_large_models_go_out_in_float16(tmp_path, monkeypatch):
    """344 MB where 172 are enough, a float16 copy that holds infinities, 16 MB of moments and more."""
    monkeypatch.setattr(builder, "HALF_ABOVE", 1000)
    monkeypatch.setattr(builder, "MOMENTS_BELOW", 1000)
    model = random_model()
    folder = whole_folder(tmp_path / "m", model)
    model.save_pretrained(folder / "moments" / "5")
    out = build_static(folder, tmp_path / "out")
    assert (out / "model" / WEIGHTS).stat().st_size < 0.55 * (folder / WEIGHTS).stat().st_size
    assert not (out / "model/moments").exists()
    got, ids = GPT.from_pretrained(out / "model"), torch.randint(0, 65, (1, 9))
    with torch.no_grad():
        assert 0 < (got(ids)[0] - model(ids)[0]).abs().max() < 2e-2
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = 1e6
    model.save_pretrained(folder)
    with pytest.raises(SiteError, match="float16"):
        build_static(folder, tmp_path / "out")


def test_wrong_folders_are_one_sentence(tmp_path, capsys):
    """A traceback for a folder without a model, a target that is the source, or a port that is taken."""
    folder = whole_folder(tmp_path / "m", random_model())
    with contextlib.closing(make_server(tmp_path).socket) as taken:
        port = str(taken.getsockname()[1])
        for target in ([tmp_path / "none", "--out", tmp_path / "o"], [folder, "--out", folder],
                       [folder, "--out", folder / CONFIG], [folder, "--serve", port]):  # fmt: skip
            assert builder.main([str(word) for word in target]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 4 and all(line.endswith(".") for line in said)


def test_local_preview_is_one_command(monkeypatch, capsys):
    """A preview that does not start, or does not say where."""
    began = []
    server = types.SimpleNamespace(server_port=7, serve_forever=lambda: began.append(True))
    monkeypatch.setattr(builder, "build_static", lambda model, out, **_: out)
    monkeypatch.setattr(builder, "make_server", lambda *_: server)
    assert builder.main(["a/model", "--serve", "0"]) == 0
    assert began and "Open http://127.0.0.1:7 " in capsys.readouterr().out


# ---- the page, in Chromium


def seen_at(ids, at, n_prompt, block_size):
    """The ids that the model saw when it wrote place `at`, by the window rule."""
    window = ids[:n_prompt]
    for i in range(n_prompt, at):
        window = [*(window[-(block_size // 2) :] if len(window) > block_size else window), ids[i]]
    return window[-(block_size // 2) :] if len(window) > block_size else window


def widths(page, bars):
    """The lengths of bars, in percent."""
    return page.locator(bars).evaluate_all("all => all.map(e => parseFloat(e.style.getPropertyValue('--w')))")


@pytest.mark.parametrize("width, height, scheme", [(1440, 757, "light"), (320, 640, "dark")])
def test_first_sight(visit, site, width, height, scheme):
    """An empty page, a panel below the fold, letters too small for a finger, a page pushed sideways."""
    page = visit(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=width < 800)
    opens = json.loads((site[1] / "site.json").read_text())["opening"]
    assert text_of(page) == opens["text"] and len(opens["text"]) >= 300
    at = int(page.get_attribute("#text", "aria-valuenow"))
    assert opens["nats"][at] == max(n for n in opens["nats"] if n is not None)
    paper, look = page.locator("#paper").bounding_box(), page.locator("#look").bounding_box()
    under, beside = look["y"] - paper["y"] - paper["height"], look["x"] - paper["x"] - paper["width"]
    assert 0 < beside < 60 if width > 1000 else 0 <= under < 60
    assert page.locator("#tab_guess").bounding_box()["y"] < height - 40
    for tab in ("guess", "looked", "layers"):
        page.click(f"#tab_{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    for name in ("#go", "#before", "#after"):
        assert page.locator(name).bounding_box()["height"] >= 44, name
    assert page.evaluate("document.querySelector('.ch').getBoundingClientRect().height") >= 24
    page.click("#after" if at < len(opens["text"]) - 1 else "#before")
    assert page.get_attribute("#text", "aria-valuenow") != str(at)
    assert page.asked and all(url.startswith((site[0], "blob:")) for url in page.asked)


def test_the_words_are_this_models_own(visit):
    """Shakespeare's name over another text, a number not from metrics.json, a link that runs something."""
    page = visit()
    assert page.inner_text("#card").startswith(
        "Learned my diary in five minutes on two processor cores from what two other models would guess, "
        "letter by letter. It guesses the next letter right 57.1% of the time; counting five letters: 52.7%.")
    page.click("#numbers summary")
    assert re.search(r"0\.09 million .* 1\.23[45] nats .* 1\.669", page.inner_text("#facts"))
    assert "Shakespeare" not in page.inner_text("body")
    links = page.evaluate("[...document.querySelectorAll('#links a')].map(a => a.getAttribute('href'))")
    assert links == ["train.html", "https://example.org/m"]
    assert page.locator("#examples button").all_inner_texts() == [example.strip() for example in EXAMPLES]
    settings(page, fast=True, max=40)
    page.locator("#examples button").nth(1).click()
    finished(page)
    assert text_of(page).startswith("The moon")


def test_it_writes_stops_and_keeps_the_focus(visit):
    """Text only at the end, an idle seed, a Stop that waits, a text cut inside its line, a lost focus."""
    page = visit()
    first = write(page, max=60)
    assert len(first) == 66 and write(page, max=60) == first != write(page, max=60, seed="")
    assert write(page, max=60, temperature=0) == write(page, max=60, temperature=0, seed=4)
    assert re.search(r"60 letters, [\d,]+ a second, seed 4\.", page.inner_text("#status"))
    settings(page, max=5000, fast=False)
    page.focus("#go")
    page.keyboard.press("Enter")
    wait(page, "document.querySelectorAll('#text .ch').length > 9")
    assert page.evaluate("document.activeElement.id") == "go"
    page.focus("#stop")
    page.keyboard.press("Enter")
    wait(page, "document.body.dataset.state === 'ready'")
    finished(page)
    assert len(text_of(page)) < 1000 and page.evaluate("document.activeElement.id") == "go"
    text = write(page, max=30, temperature=1.5, to_line=True, seed=5)
    assert text.endswith("\n") or len(text) == 6 + 30 + 120
    for name, value in (("max", "0"), ("max", "2.5"), ("top_k", "-1"), ("seed", "-3")):
        settings(page, **{"max": 10, "top_k": "", "seed": "", name: value})
        before = text_of(page)
        page.click("#go")
        assert page.locator("#settings input:invalid").count() == 1 and text_of(page) == before


def test_look_inside_shows_torchs_numbers(visit, site):
    """Bars, surprise, heads or layers of another place than the chosen one, also behind a moved window."""
    _, folder, model = site
    tokenizer, table = CharTokenizer(CHARS), NGram.load(folder / "model/ngram5.npz")
    page = visit(until="#duel:visible")
    ids = tokenizer.encode(write(page, seed_text="The moon", max=80))
    for at in (85, 40, 12, 3):
        page.click("#tab_guess")
        choose(page, at)
        window = torch.tensor([seen_at(ids, at, 8, 32) if at >= 8 else ids[:at]])
        with torch.no_grad():
            probs = model(window)[0][0, -1].softmax(-1)
        assert f"{-float(probs[ids[at]].log()):.2f} nats" in page.inner_text("#came")
        best = [id for id in probs.topk(8).indices.tolist() if id != ids[at]]
        assert np.allclose(widths(page, "#bars li:not(.came) i.model"), 100 * probs[best].numpy(), atol=0.06)
        counted = widths(page, "#bars i.table")[0]
        assert counted == pytest.approx(100 * table.next_probs(ids[:at])[int(probs.argmax())], abs=0.06)
        check_heads_and_layers(page, model, window)


def check_heads_and_layers(page, model, window):
    """Each head's strongest place as the sentence names it, and the best guess after each layer."""
    page.click("#tab_looked")
    maps, T = model.attention_maps(window), window.size(1)
    for layer, head in ((0, 0), (2, 1)):
        page.select_option("#layer", index=layer)
        page.select_option("#head", index=head)
        back, said = T - int(maps[layer][0, head, -1].argmax()), page.inner_text("#looked")
        first = said.split("looked most at ")[1].split(";")[0]
        assert f"head {head + 1} of layer {layer + 1}" in said
        assert ("just before" if back == 1 else f"{back} back") in first
        assert 1 <= page.locator("#arcs path").count() <= 12
    page.click("#tab_layers")
    want = layer_by_layer(model, window).softmax(-1).max(-1).values.numpy()
    assert np.allclose(widths(page, "#rows i"), 100 * want, atol=0.2)
    name = page.inner_text("#station_name")
    page.click("#step")
    assert "of 9" in name != page.inner_text("#station_name")


def test_what_if_and_a_head_switched_off(visit, site):
    """Another letter than the chosen bar's, a text that does not follow from it, a switch without effect."""
    model, tokenizer, page = site[2], CharTokenizer(CHARS), visit()
    before = write(page, seed_text="The moon", temperature=0, max=100)
    choose(page, 20)
    bar = page.locator("#bars li:not(.came) button").nth(1)
    letter = tokenizer.decode([int(bar.get_attribute("data-id"))])
    bar.click()
    finished(page)
    start = before[:20] + letter
    want = model.generate(torch.tensor([tokenizer.encode(start)]), 100, temperature=0)[0].tolist()
    assert text_of(page) == tokenizer.decode(want) and page.input_value("#seed_text") == start
    wait(page, "document.activeElement.id === 'text' && document.activeElement.ariaValueNow === '20'")
    page.click("#tab_looked")
    page.select_option("#layer", index=1)
    page.select_option("#head", index=2)
    page.click("#off")
    wait_text(page, "off_note", "head 3 of layer 2")
    other = without_head(model, 1, 2)
    with torch.no_grad():
        logits = other(torch.tensor([tokenizer.encode(before[:20])]))[0][0, -1]
    wait_text(page, "came", f"{-float(logits.log_softmax(-1)[tokenizer.encode(letter)]):.2f} nats")
    want = other.generate(torch.tensor([tokenizer.encode("The moon")]), 50, temperature=0)[0].tolist()
    assert write(page, seed_text="The moon", temperature=0, max=50) == tokenizer.decode(want)


def test_typing_is_shaded_and_weighed(visit, site):
    """Nats of another text than the typed one, a changed letter without a word, text read as HTML."""
    _, folder, model = site
    tokenizer, table = CharTokenizer(CHARS), NGram.load(folder / "model/ngram5.npz")
    page = visit(until="#duel:visible")
    for typed in ("The moon is up, said I.", "The moon was down"):  # the second keeps a beginning
        page.fill("#seed_text", typed)
        ids = tokenizer.encode(typed)
        with torch.no_grad():
            logits = model(torch.tensor([ids]), torch.tensor([ids]))[0][0]
        nats = -logits[:-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]].mean()
        wait_text(page, "verdict", f"{float(nats):.2f} nats")
        said = page.inner_text("#verdict")
        assert said.startswith("How much like my diary?") and f"counts: {table.loss(ids):.2f}" in said
        assert text_of(page) == typed
    page.fill("#seed_text", "“Café” <b>2 & 3</b> 😀")
    page.wait_for_selector("#dropped:visible")
    assert all(c in page.inner_text("#dropped") for c in "<>2/😀") and page.locator("#text b").count() == 0
    assert len(write(page, max=5, seed_text="")) == 6 and not page.is_visible("#dropped")


def test_against_counting_the_game_and_the_time_machine(visit, site):
    """A table with other odds than Python's, a score of other guesses, a moment of another step."""
    tokenizer, table = CharTokenizer(CHARS), NGram.load(site[1] / "model/ngram5.npz")
    page = visit(until="#duel:visible")
    write(page, seed_text="The moon", temperature=1, max=40, seed=7)
    page.click("#duel_go")
    page.wait_for_selector("#duel_texts:visible")
    ids, draws = tokenizer.encode("The moon"), numbers(7)
    for _ in range(40):
        ids.append(int(np.searchsorted(table.next_probs(ids).cumsum(), next(draws), side="right")))
    assert text_of(page, "duel_table").startswith(tokenizer.decode(ids))
    page.evaluate("Math.random = () => 0")
    page.click("#game_go")
    page.wait_for_selector("#board:visible")
    start = HELDOUT.index("\n", 60) + 4
    for n in range(10):
        page.locator("#letter").press_sequentially(HELDOUT[start + n] if n < 4 else "q")
    rows = page.locator("#score tbody tr").all_inner_texts()
    assert rows[0].split("\t")[:2] == ["you", "4 of 10"] and len(rows) == 3
    ids = tokenizer.encode(HELDOUT[: start + 10])
    assert rows[2].endswith(f"{table.losses(ids)[-10:].mean():.2f} nats")
    past = GPT.from_pretrained(site[1].parent / "m/moments/20")
    assert page.inner_text("#when_out") == "the whole training"
    for key, model in (("Home", past), ("End", site[2])):
        page.press("#when", key)
        wait(page, "document.getElementById('past_note').textContent.includes('never saw')")
        said = float(re.search(r"([\d.]+) nats", page.inner_text("#past_note"))[1])
        assert said == pytest.approx(surprise(model, tokenizer.encode(HELDOUT)), abs=0.03)
    assert text_of(page, "past_text").startswith("The moon")


@torch.no_grad()
def surprise(model, ids):
    """Nats a letter, in windows of 32, each without its first letter."""
    losses = []
    for i in range(0, len(ids), 32):
        x = torch.tensor([ids[i : i + 32]])
        losses += (-model(x, x)[0][0].log_softmax(-1)[range(x.size(1) - 1), x[0, 1:]]).tolist()
    return np.mean(losses)


def test_an_address_makes_the_text_again(visit):
    """A prompt, seed, setting or chosen letter that a shared address forgets."""
    page = visit()
    text = write(page, seed_text="The moon\n& 3", max=40, seed=77, temperature=1.2, top_k=9)
    choose(page, 30)
    page.click("#share")
    wait(page, "location.search.includes('at=30')")
    other = visit(page.evaluate("location.search"), until="#text .ch")
    finished(other)
    wait(other, "document.getElementById('text').ariaValueNow === '30'")
    assert text_of(other) == text


@pytest.fixture
def hub(browser, visit, tmp_path):
    """visit(), in a context in which huggingface.co has one model, me/mine; its folder is hub.folder."""
    folder = whole_folder(tmp_path / "mine", random_model(seed=5), "their letters")

    def answer(route):
        url, what = route.request.url, {"status": 404}
        file = folder / url.split("/resolve/main/")[-1]
        if "/api/models/" in url:
            what = {"json": {"sha": "abc"}}
        elif "me/mine" in url and file.is_file():
            what = {"path": file}
        route.fulfill(headers={"Access-Control-Allow-Origin": "*"}, **what)

    def open_page(path, script=" "):
        context = browser.new_context()
        context.route("https://huggingface.co/**", answer)
        context.add_init_script(script)
        return visit(path, context=context, until=None)

    open_page.folder = folder
    return open_page


VARIABLE = "window.huggingface = { variables: { MODEL: 'me/mine' } }"


@pytest.mark.parametrize("path, script", [("/?model=me/mine", " "), ("/", VARIABLE)])
def test_another_model_from_the_hub(hub, path, script):
    """Catches: ?model= or the Space's variable that show this page's own text, number or model."""
    page = hub(path, script)
    page.wait_for_selector("#bars li")
    assert page.inner_text("#title") == "mine"
    assert page.inner_text("#card").startswith("Learned their letters")
    page.fill("#repo", "me/none")
    page.click("#hub button")
    page.wait_for_selector("#problem:visible")
    assert "me/none is missing (404)" in page.inner_text("#problem")


def test_a_dropped_or_chosen_folder_runs(hub):
    """A folder in which the model lies deeper, a drop that the browser opens, the old page's text."""
    page, run = hub("/?model=../../x"), hub.folder.parent / "run"
    page.wait_for_selector("#problem:visible")
    assert "no model's name" in page.inner_text("#problem")
    shutil.copytree(hub.folder, run / "best")
    (run / "notes.txt").write_text("not the model")
    page.set_input_files("#folder", run)
    finished(page)
    assert page.inner_text("#card").startswith("Learned their letters") and text_of(page).startswith("ANNA:")
    page.evaluate("document.getElementById('status').textContent = ''")
    kept = page.evaluate("""() => { const drop = new DataTransfer();
        for (const file of document.getElementById('folder').files) drop.items.add(file);
        const event = new DragEvent('drop', { dataTransfer: drop, bubbles: true, cancelable: true });
        return document.body.dispatchEvent(event); }""")
    finished(page)
    assert not kept and page.inner_text("#title") == "Your model" and text_of(page).startswith("ANNA:")


def test_a_draft_from_the_address(hub):
    """Catches: ?draft= that is not fetched, not used, or that changes what is written."""
    plain = write(hub("/"), temperature=0, seed_text="The moon", max=60)
    page = hub("/?draft=me/mine")
    page.wait_for_selector("#bars li")
    page.click("#numbers summary")
    assert "proposes" in page.inner_text("#facts")
    assert write(page, temperature=0, seed_text="The moon", max=60) == plain


def test_a_broken_line_goes_on_where_it_stopped(visit, site):
    """A download that starts again, one that waits for ever, a progress bar that only moves at the end."""
    ranges, weights, arrived = [], (site[1] / "model" / WEIGHTS).read_bytes(), threading.Event()
    half = len(weights) // 2

    class Line(Patched):
        patches = {"fetching.js": [("WAIT = 1000", "WAIT = 50")], "worker.js": [("told > 60", "told >= 0")]}

        def do_GET(self):
            if not self.path.startswith("/model/model.safetensors"):
                return super().do_GET()
            ranges.append(self.headers.get("Range"))
            start = int(ranges[-1][6:-1]) if ranges[-1] else 0
            if len(ranges) in (2, 3):  # the attempts that nobody asked for fail too
                return self.send_error(503)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(weights) - start))
            self.end_headers()
            self.wfile.write(weights[start : half if len(ranges) == 1 else None])
            self.wfile.flush()
            arrived.wait(60)  # a line that breaks at once takes what it brought
            self.close_connection = True

    with served(site[1], Line) as address:
        page = visit(address=address, until=None)
        wait(page, f"document.getElementById('progress').value >= {half / len(weights)}")
        arrived.set()
        page.wait_for_selector("#retry:visible")
        assert 0.3 < page.evaluate("document.getElementById('progress').value") < 0.9 and len(ranges) == 3
        page.click("#retry")
        page.wait_for_selector("#bars li")
    assert ranges == [None, *[f"bytes={half}-"] * 3]


def test_a_second_thread_reads_the_same(visit, site):
    """A half of the columns that is lost, counted twice or read before it is there. Large models only."""
    typed = ("The moon is up, and all the lamps are lit." * 3)[:100]  # reads through several windows
    with served(site[1], patches={"gpt2.js": [("20e6", "0")]}) as address:
        two, one = visit(address=address, until="#duel:visible"), visit(until="#duel:visible")
        assert two.evaluate("crossOriginIsolated") and any(url.endswith("/hand.js") for url in two.asked)
        assert not any(url.endswith("/hand.js") for url in one.asked)
        for page in (two, one):
            page.fill("#seed_text", typed)
            wait(page, "document.querySelectorAll('#text .ch').length === 100")
            wait(page, "!document.getElementById('verdict').hidden")
        heights = "[...document.querySelectorAll('#text .ch')].map(e => e.style.getPropertyValue('--h'))"
        assert two.inner_text("#verdict") == one.inner_text("#verdict")
        assert two.evaluate(heights) == one.evaluate(heights)
        assert write(two, seed_text=typed, max=60) == write(one, seed_text=typed, max=60)


SOON = [("LATER = 1500", "LATER = 50"), ("SLOW = 2000", "SLOW = 200")]


@pytest.mark.parametrize("patches, slow", [(SOON, ""), ([*SOON, ("30e6", "0")], WEIGHTS)],
                         ids=["small", "large and slow"])
def test_a_second_visit_needs_no_network(visit, site, patches, slow):
    """A file that is not kept, or weights that come again. The third visit is offline.

    A large file is kept while it comes, also where that takes longer than one piece of it may wait.
    """
    with served(site[1], patches={"fetching.js": patches}, slow=slow) as address:
        page = visit(address=address)
        wait(page, "navigator.serviceWorker.controller !== null")
        wait(page, "caches.open('gpt2-models').then(shelf => shelf.keys()).then(keys => keys.length === 1)")
        page.close()
        asked = visit(address=address, context=page.context).asked
        assert not any(url.endswith(WEIGHTS) for url in asked)
        page.context.set_offline(True)
        again = visit(address=address, context=page.context)
        assert len(write(again, max=40, seed_text="A")) == 41


def test_nothing_leaves_the_device(visit):
    """A policy that lets the page or its worker talk to anybody."""
    page, told = visit(), []
    page.context.route("https://example.com/**", lambda route: told.append(route.request.url))
    fetches = "fetch('https://example.com/?' + 'secret').then(() => 'sent', () => 'refused')"
    assert page.workers and not told
    assert page.evaluate(fetches) == page.workers[0].evaluate(fetches) == "refused" and not told


def test_what_is_optional_may_be_missing_and_a_large_model_waits(visit, site, tmp_path):
    """A model without 5-gram, metrics or site.json that does not run; 172 MB fetched unasked."""
    shutil.copytree(site[1], tmp_path / "s")
    for name in ("model/metrics.json", "model/ngram5.npz", "model/generation_config.json", "site.json"):
        (tmp_path / "s" / name).unlink()
    with served(tmp_path / "s") as address:
        page = visit(address=address)
        assert "5-gram" not in page.inner_text("body") and len(text_of(page)) > 300
        assert not any(page.is_visible(f"#{part}") for part in ("game", "duel", "past"))
        (tmp_path / "s" / "site.json").write_text(json.dumps({"bytes": 172_000_000}))
        page = visit(address=address, until=None)
        wait_text(page, "status", "172 MB")
        assert not any(url.endswith(WEIGHTS) for url in page.asked)
        assert len(write(page, max=10, seed_text="A")) == 11


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_keyboard_and_names(visit, scheme):
    """A control that only a mouse reaches or that a screen reader cannot name, text that is hard to read."""
    page = visit(color_scheme=scheme, bypass_csp=True)
    page.focus("#seed_text")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("Escape")
    finished(page)
    page.focus("#text")
    page.keyboard.press("Home")
    wait_text(page, "came", "is the first")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#text", "aria-valuenow") == "1"
    page.focus("#tab_guess")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab_looked", "aria-selected") == "true" and page.is_visible("#looking")
    for tab in ("guess", "looked", "layers"):
        page.click(f"#tab_{tab}")
        assert shuts_out(page, letters={"#card": "var(--bar)"}) == []
