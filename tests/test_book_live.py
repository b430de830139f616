"""The live pictures of the book: what they compute in JavaScript is what torch and numpy compute, to 1e-4."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from pages import needs_node, node
from safetensors.torch import load_file

from data.ngram import NGram
from gpt2.sampling import filter_probs
from lab import live, rungs
from lab.project import read_json
from model_gpt2 import GPT

pytestmark = needs_node
LINE = "Poor souls, they perish'd."


def close(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def in_node(tmp_path_factory):
    """Run a list of jobs of book_node.mjs on the files that a page gets; returns their answers."""
    folder = tmp_path_factory.mktemp("live")
    live.put_live(folder)
    return lambda jobs: node("book_node.mjs", folder, job=jobs)


@pytest.fixture(scope="module")
def nb(shakespeare):
    """The classes of the Build notebook."""
    return rungs.definitions()


def trained(nb, file):
    """A rung as torch has it. A class that has changed its parts does not take the numbers."""
    if file == "small_gpt":
        return GPT.from_pretrained(rungs.FOLDER / "small_gpt")
    model = rungs.RUNGS[file][1](nb)
    state = load_file(rungs.FOLDER / f"{file}.safetensors")
    model.load_state_dict({k: v.float() for k, v in state.items() if not k.startswith("step")})
    return model.eval()


def val_ids(nb, n, start=1000):
    return nb.corpus.val[start:start + n].tolist()


@torch.no_grad()
def test_a_rung_gives_torchs_logits(in_node, nb):
    """Catches a part read wrongly, a layer left out, a head in another's place: each moves a logit."""
    ids = val_ids(nb, 32)
    jobs = [{"job": job, "rung": file, "ids": ids, "V": nb.V}
            for job in ("logits", "ladder") for file in rungs.RUNGS]
    answers = in_node(jobs)
    for i, file in enumerate(rungs.RUNGS):
        want = trained(nb, file)(torch.tensor([ids]))[0][0]
        close(answers[i], want)
        close(answers[i + len(rungs.RUNGS)], want[-1].softmax(-1))


def reference_nats(model, ids, n):
    """The last n letters as the notebook's strip reads them: in one window, or in halves of it."""
    T = getattr(getattr(model, "config", None), "block_size", 32)
    step, nats = n if n <= T else T // 2, []
    for start in range(len(ids) - n, len(ids), step):
        end = min(start + step, len(ids))
        window = torch.tensor(ids[max(0, end - 1 - T):end])
        losses = F.cross_entropy(model(window[None, :-1])[0][0], window[1:], reduction="none")
        nats += losses[start - end:].tolist()
    return nats


@torch.no_grad()
def test_the_strip_is_the_notebooks(in_node, nb):
    """Catches surprise of the wrong letter, and a long line's letters lost at the seam of two windows."""
    before = read_json(rungs.FOLDER / "rungs.json")["before"]
    files = ["bigram", "one_head", "four_heads", "four_blocks", "small_gpt"]
    models = {file: trained(nb, file) for file in files}
    tables = {n: NGram(n, nb.V).fit(nb.corpus.train) for n in (1, 2, 5)}
    texts = [LINE, "x", "To be, or not to be: that is the question: whether it"]
    ask = {"job": "strip", "models": [*tables, *files], "before": before}
    for line, got in zip(texts, in_node([{**ask, "line": line} for line in texts]), strict=True):
        ids = nb.corpus.tokenizer.encode(before + line)
        for file, model in models.items():
            close(got[file], reference_nats(model, ids, len(line)))
        for n, table in tables.items():
            close(got[str(n)], table.losses(ids)[-len(line):])


def test_the_table_is_counted(in_node, nb):
    """Catches a fallback that takes the wrong share, and counts of another text than the notebook's."""
    five = NGram(5, nb.V).fit(nb.corpus.train)
    jobs = [{"job": "table", "ids": nb.corpus.tokenizer.encode(text)} for text in ("aptista", "", "zzzq")]
    for ids, orders in zip([job["ids"] for job in jobs], in_node(jobs), strict=True):
        close(orders[0]["probs"], five.next_probs(ids))
        for order in orders:
            context = nb.corpus.tokenizer.decode(order["context"])
            after = re.findall(f"(?={re.escape(context)}(.))", nb.corpus.train_text, re.DOTALL)
            assert (order["total"], order["types"]) == (len(after), len(set(after)))


@torch.no_grad()
def test_the_arcs_are_the_votes(in_node, nb):
    """Catches a head whose votes are another's, and positions that are said to be off and are not."""
    ids = val_ids(nb, 20)
    cases = [("one_head", True), ("positions", False), ("four_heads", True), ("small_gpt", True),
             ("small_gpt", False)]
    jobs = [{"job": "arcs", "rung": file, "ids": ids, "positions": on} for file, on in cases]
    for job, got in zip(jobs, in_node(jobs), strict=True):
        model, idx = trained(nb, job["rung"]), torch.tensor([ids])
        if not job["positions"]:
            (model.transformer.wpe if job["rung"] == "small_gpt" else model.wpe).weight.zero_()
        if job["rung"] == "small_gpt":
            want = torch.cat(model.attention_maps(idx), dim=1)[0]
        else:
            x = model.wte(idx) + (0 if model.wpe is None else model.wpe.weight[:len(ids)])
            heads = model.mix.heads if hasattr(model.mix, "heads") else [model.mix]
            want = torch.stack([head.votes(x)[0] for head in heads])
        close([[row + [0] * (len(ids) - len(row)) for row in head] for head in got["votes"]], want)
        close(got["probs"], model(idx)[0][0, -1].softmax(-1))


@torch.no_grad()
def test_the_dials_are_gpt2s(in_node, nb):
    """Catches a dial that cuts one letter too many, or one that is turned in another order."""
    ids = nb.corpus.tokenizer.encode("ROMEO:\nO, she doth teach the ")
    logits = trained(nb, "small_gpt")(torch.tensor([ids]))[0][:, -1]
    turned = [(1, 0, 1), (0, 0, 1), (0.5, 4, 1), (1.7, 0, 0.6)]
    jobs = [{"job": "dials", "ids": ids, "dials": {"temperature": t, "top_k": k, "top_p": p}}
            for t, k, p in turned]
    for (temperature, k, p), got in zip(turned, in_node(jobs), strict=True):
        cut = filter_probs(logits, temperature, k or None, p)[0] if temperature else logits[0]
        close(got, cut if temperature else F.one_hot(cut.argmax(), nb.V))


def test_a_head_by_hand(in_node):
    """Catches a mask on the wrong side, a score that is not divided by the root of two."""
    x = [[0.3, -0.7], [1.9, 0.2], [-1, 2]]
    wq, wk, wv = (torch.tensor(w) for w in ([[0., 3], [0, 0]], [[1., 0], [0, 1]], [[1., 0], [0, 10]]))
    q, k, v = (torch.tensor(x).float() @ w for w in (wq, wk, wv))
    votes = (q @ k.T / math.sqrt(2)).masked_fill(torch.ones(3, 3).triu(1).bool(), -math.inf).softmax(-1)
    [got] = in_node([{"job": "head", "x": x}])
    for name, want in {"queries": q, "scores": q @ k.T, "votes": votes, "out": votes @ v}.items():
        close(got[name], want)


def test_the_steps_come_to_the_counted_table(in_node, nb):
    """Catches saved steps out of order, and a distance that is not the one that the notebook claims."""
    counted = torch.from_numpy(NGram(2, nb.V).fit(nb.corpus.train).probs(range(nb.V)))
    pairs = torch.bincount(nb.corpus.train[:-1] * nb.V + nb.corpus.train[1:], minlength=nb.V**2)
    weight = (pairs / pairs.sum()).view(nb.V, nb.V)
    saved = load_file(rungs.FOLDER / "bigram.safetensors")
    [steps] = in_node([{"job": "steps"}])
    assert [step for step, _ in steps] == sorted(int(name[4:]) for name in saved if name.startswith("step"))
    for step, apart in steps:
        want = (weight * (saved[f"step{step}"].float().softmax(-1) - counted).abs()).sum().item()
        assert apart == pytest.approx(want, abs=1e-4)
    assert steps[-1][1] < 0.02 < steps[0][1]


def test_the_rungs_are_those_of_the_notebook():
    """Catches rungs trained otherwise than the ladder says, files that grew, and a picture that did."""
    ladder = {rung["name"]: rung["val_loss"] for rung in read_json(ROOT / "results" / "ladder.json")["rungs"]}
    facts = read_json(rungs.FOLDER / "rungs.json")
    assert ["even guess", *(rung["name"] for rung in facts["rungs"])] == list(ladder)
    for rung in facts["rungs"]:
        assert rung["val_loss"] == pytest.approx(ladder[rung["name"]], abs=0.02), rung["name"]
    assert sum(path.stat().st_size for path in rungs.FOLDER.rglob("*.*")) < 3_000_000
    for path in live.STATIC.glob("live_*.js"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 120 and max(map(len, lines)) <= 110, path.name
