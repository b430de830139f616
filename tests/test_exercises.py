"""The exercises, one table: every solution passes, every stub is not tried, wrong answers raise. And the code
that the side roads gradients and bpe are about.
"""

import ast
import functools
import html
import importlib
import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ROOT

from lab import exercises_roads
from lab.checks import WrongAnswer
from lab.notebook import read
from lab.project import notebooks

PLACE = {path.stem: path for path in notebooks()}
MODULE = {"gpt_dev": "dev", "gpt2_training": "training", "gpt2_gradio": "gradio", "speed": "speed",
          "gradients": "roads", "bpe": "roads"}
CODE = {"gradients": "engine", "bpe": "bpe"}  # the tag of the cells that a side road is about
CLASS = {"log": "Number", "gelu": "Array", "rms_norm": "Array"}  # what the check takes beside the answer


@functools.cache
def solutions(notebook):
    path = ROOT / f"notebooks/solutions/{notebook}.py"
    spec = importlib.util.spec_from_file_location(f"solutions_{notebook}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def divides_by_width(x, wq, *rest):
    return solutions("speed").next_output(x, wq * (wq.size(1) / wq.size(0)) ** 0.5, *rest)


def rounded(weight, scale):
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def mean_of_windows(model, ids):
    parts = [(ids[s : s + 9][:-1], ids[s : s + 9][1:]) for s in range(0, len(ids) - 1, 8)]
    return sum(model.eval()(x[None], y[None])[1].item() for x, y in parts) / len(parts)


def array(data, parents, back):
    return type(parents[0])(data, parents, back)


def relu_like(x):
    return array(np.maximum(x.data, 0), (x,), lambda g: (g * (x.data > 0),))


def gelu_without_inner(x):  # the tanh's own way is forgotten
    t = np.tanh(math.sqrt(2 / math.pi) * (x.data + 0.044715 * x.data**3))
    return array(0.5 * x.data * (1 + t), (x,), lambda g: (g * 0.5 * (1 + t),))


def rms_norm_naive(x, w):  # as if the spread did not depend on x
    r = np.sqrt((x.data**2).mean(axis=-1, keepdims=True) + 1e-5)
    return array(w.data * x.data / r, (x, w), lambda g: (g * w.data / r, g * x.data / r))


def longest_first(ids, merges):
    ids = list(ids)
    while pair := next((p for p in reversed(merges) if p in pairwise(ids)), None):
        ids = solutions("bpe").merge(ids, pair, merges[pair])
    return ids


# (notebook, check, what the reader writes, usual mistakes: one function for each name)
TABLE = [
    ("gpt_dev", 0, ["never_seen"], [lambda alphabet, text: sorted(set(text))]),
    ("gpt_dev", 1, ["surprise_add_k"], [lambda count, total, k, V: -math.log((count + k) / (total + k))]),
    ("gpt_dev", 2, ["predict_first_loss"], [lambda scale: scale**2 / 2]),
    ("gpt_dev", 3, ["self_and_two_before"], [lambda T: torch.ones(T, T, dtype=torch.bool).tril()]),
    ("gpt_dev", 4, ["one_head_by_me", "variance"],
     [(lambda x, wq, wk, wv: ((x @ wq) @ (x @ wk).mT).softmax(-1) @ (x @ wv), lambda hs: 1.0)]),
    ("gpt_dev", 5, ["is_order_blind"], [lambda model, idx: True]),
    ("gpt_dev", 6, ["leaks"], [lambda mask: mask.triu(2).any().item()]),
    ("gpt_dev", 7, ["heads_without_a_loop"], [lambda q, k, v, nh: q]),
    ("gpt_dev", 8, ["diagnosis"], [lambda: {"A": "init", "B": "leak", "C": "scale"}]),
    ("gpt_dev", 9, ["block_parameters"], [lambda C: 12 * C * C]),
    ("gpt_dev", 10, ["top_p"], [lambda probs, p: probs]),
    ("gpt2_training", 1, ["my_lr"],
     [lambda s, w, n, p, low: p,
      lambda s, w, n, p, low: p * s / w if s < w else low + (p - low) * (n - s) / (n - w)]),
    ("gpt2_training", 2, ["exact_loss"],
     [mean_of_windows, lambda model, ids: model(ids[None, :8], ids[None, :8])[1].item()]),
    ("gpt2_training", 3, ["accumulated"],
     [lambda model, pieces: [model(x, y)[1].backward() for x, y in pieces],
      lambda model, pieces: model(*pieces[-1])[1].backward(), lambda model, pieces: None]),
    ("gpt2_training", 4, ["longest_copy"],
     [lambda text, source: len(text), lambda text, source: 0,
      lambda text, source: next((n for n in range(len(text), 0, -1) if text[:n] in source), 0)]),
    ("gpt2_gradio", 0, ["file_mb", "checkpoint_mb"],
     [(lambda n, bits: n * bits / 1e6, lambda n: 12 * n / 1e6),  # bits taken for bytes
      (lambda n, bits: n * bits / 8e6, lambda n: 8 * n / 1e6)]),  # the weights forgotten
    ("gpt2_gradio", 1, ["cache_mb"], [lambda L, C, T, bytes=4: L * T * C * bytes / 1e6]),  # keys only
    ("gpt2_gradio", 2, ["what_it_sees"],
     [lambda typed, t, B: t.decode(t.encode(typed)[:B]) or "\n",  # the beginning kept
      lambda typed, t, B: t.decode(t.encode(typed[-B:])) or "\n"]),  # cut before encoding
    ("gpt2_gradio", 3, ["harmless"],
     [lambda text: html.escape(text, quote=False),  # breaks out of an attribute
      lambda text: html.escape(text).replace("&", "&amp;"),  # escaped twice
      lambda text: text.replace("<", "")]),  # takes letters away
    ("speed", 1, ["next_output"],
     [divides_by_width, lambda x, wq, wk, wv, keys, values: x @ wv,
      lambda *given: solutions("speed").next_output(*given)[None]]),  # another shape
    ("speed", 2, ["most_letters"],
     [lambda n, bytes_each, gb_s: gb_s * 1e9 / n,  # letters of one byte a weight
      lambda n, bytes_each, gb_s: gb_s * 2**30 / (n * bytes_each)]),  # another GB
    ("speed", 3, ["to_int8"],
     [lambda w: rounded(w, w.abs().max().expand(len(w), 1) / 127),  # one scale for all
      lambda w: rounded(w, w.amax(dim=1, keepdim=True) / 127),  # the sign forgotten
      lambda w: (w.round(), torch.ones(len(w), 1))]),  # still floats
    ("speed", 4, ["whole"], [lambda shares, factors: sum(map(math.prod, zip(shares, factors, strict=True)))]),
    ("gradients", 1, ["slopes"],
     [lambda w, x, b: (2 * (w * x + b) * w, 2 * (w * x + b) * x, 2 * (w * x + b)),  # swapped
      lambda w, x, b: ((w * x + b) * x, (w * x + b) * w, w * x + b)]),  # z a parent once
    ("gradients", 2, ["log"],
     [lambda x: type(x)(math.log(x.value), [(x, x.value)]),
      lambda x: type(x)(math.log(x.value), [])]),  # forgets its parent
    ("gradients", 3, ["gelu"], [relu_like, gelu_without_inner]),
    ("gradients", 4, ["rms_norm"], [rms_norm_naive]),
    ("gradients", 5, ["arrives"],
     [lambda speeds, residual: sum(speeds) + residual,
      lambda speeds, residual: math.prod(speeds) + residual]),  # 1 + the product
    ("bpe", 1, ["commonest"],
     [lambda ids: max(pairwise(ids), key=list(pairwise(ids)).count)]),  # ties: the first
    ("bpe", 2, ["merge"],
     [lambda ids, pair, new: [new if i in pair else i for i in ids],
      lambda ids, pair, new: [new if p == pair else p[0] for p in pairwise([*ids, None])]]),
    ("bpe", 3, ["by_the_rules"], [longest_first]),
    ("bpe", 4, ["nats_a_character"],
     [lambda nats, lengths: nats * len(lengths) / sum(lengths),
      lambda nats, lengths: nats / (sum(lengths) / len(lengths))]),
]
IDS = [f"{row[0]}-{row[1]}" for row in TABLE]
ROWS = pytest.mark.parametrize("notebook, n, names, wrong", TABLE, ids=IDS)


def module_of(notebook):
    return importlib.import_module(f"lab.exercises_{MODULE[notebook]}")


@functools.cache
def own_code(notebook):
    """(how many lines of code a side road is about, the names that they define)."""
    lines, space = [], {}
    exec("import math, regex\nimport numpy as np\nfrom data.tokenizer import GPT2_PATTERN", space)
    exec("from collections import Counter, defaultdict\nfrom itertools import pairwise", space)
    for cell in read(PLACE[notebook]).cells:
        tags = cell.metadata.get("tags", [])
        lines += cell.source.splitlines() if CODE[notebook] in tags else []
        if CODE[notebook] in tags or "alphabet" in tags:
            exec(cell.source, space)
    return sum(bool(line.strip()) and not line.lstrip().startswith('"""') for line in lines), space


def check(notebook, n, names, answers, **options):
    """Run the check of an exercise; the roads' go by the name of the answer, and take a class of theirs."""
    name = names[0] if MODULE[notebook] == "roads" else n
    extra = [own_code(notebook)[1][CLASS[name]]] if name in CLASS else []
    return getattr(module_of(notebook), f"check_{name}")(*answers, *extra, **options)


@functools.cache
def cells(notebook):
    """(its prose, {name: stub of an exercise}, the code of all other cells)."""
    stubs, others = {}, []
    nb = read(PLACE[notebook])
    for cell in (cell for cell in nb.cells if cell.cell_type == "code"):
        lines = [line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!"))]
        tree = ast.parse("\n".join(lines))
        if "exercise" in cell.metadata.get("tags", []):
            for node in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
                exec(compile(ast.Module([node], []), cell.id, "exec"), {"torch": torch}, stubs)
        else:
            others.append(tree)
    return "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown"), stubs, others


@pytest.mark.parametrize("notebook", MODULE)
def test_the_table_knows_every_exercise_and_no_later_cell_needs_one(notebook):
    """An exercise that nobody tried to fool, a tool it names that is gone, a Run all that needs an answer."""
    prose, stubs, others = cells(notebook)
    told = re.findall(r"^(?:#+ |\*\*)Exercise (\d+)", prose, re.MULTILINE)
    assert [f"{notebook}-{n}" for n in told] == [name for name in IDS if name.startswith(f"{notebook}-")]
    tools = re.findall(r"`exercises\.(\w+)", prose)
    assert [tool for tool in tools if not hasattr(module_of(notebook), tool)] == []
    used = {node.id for tree in others for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not used & set(stubs)


@ROWS
def test_solution_passes_and_stub_is_not_tried(notebook, n, names, wrong, capsys):
    """A check that refuses the right answer; a stub that stops Run all; a folded solution that is wrong."""
    prose, stubs, _ = cells(notebook)
    file = vars(solutions(notebook))
    folded = {name: value for name, value in file.items() if name not in names}
    folded |= own_code(notebook)[1] if notebook in CODE else {}
    for block in re.findall(r"<summary>Solution</summary>\n+```python\n(.*?)```", prose, re.DOTALL):
        exec(block, folded)
    for right in (file, folded):
        assert check(notebook, n, names, [right[name] for name in names], strict=True)
        assert capsys.readouterr().out == f"Exercise {n}: right!\n"
    mine = [stubs[name] for name in names]
    assert check(notebook, n, names, mine) is False
    assert capsys.readouterr().out == f"Exercise {n}: not tried yet\n"
    with pytest.raises(NotImplementedError):
        check(notebook, n, names, mine, strict=True)


@ROWS
def test_wrong_answers_raise(notebook, n, names, wrong):
    """A check that a usual mistake passes, a message without what was given, got and expected."""
    for answer in wrong:
        with pytest.raises(WrongAnswer) as caught:
            check(notebook, n, names, answer if isinstance(answer, tuple) else (answer,))
        said = str(caught.value)
        assert "breaks out of" in said or all(word in said for word in ("given", "your answer", "expected"))


# ---- what the side roads are about; their own cells, run in QUICK mode, hold it against torch and libraries


@pytest.mark.parametrize(("road", "most"), [("gradients", 60), ("bpe", 40)])
def test_the_code_of_a_side_road_is_as_short_as_it_says(road, most):
    """Catches code that grows; the notebook promises its size."""
    assert 30 < own_code(road)[0] <= most


def random_graph(leaves, draw, product):
    """A random expression over the leaves; nodes are used again and again."""
    nodes = list(leaves)
    for _ in range(12):
        a, b = draw.choice(nodes), draw.choice(nodes)
        nodes.append(product(a, b) if draw.random() < 0.5 else a + b)
    return sum(nodes[-4:-1], nodes[-1])


@pytest.mark.parametrize("seed", range(5))
def test_slopes_of_a_random_graph_are_those_of_a_nudge(seed):
    """Catches a parent that keeps the last slope instead of the sum, and a walk in the wrong order."""
    Number, half = own_code("gradients")[1]["Number"], 0.5  # keeps the values small

    def value(numbers):
        return random_graph(numbers, random.Random(seed), lambda a, b: a * b * half)

    start = [0.7, -1.1, 0.4]
    leaves = [Number(x) for x in start]
    result = random_graph(leaves, random.Random(seed), lambda a, b: a * b * Number(half))
    result.backward()
    assert result.value == pytest.approx(value(start))
    for i, leaf in enumerate(leaves):
        wanted = exercises_roads.nudged(lambda *x: value(list(x)), start, i)
        assert leaf.slope == pytest.approx(wanted, abs=1e-5)


def test_what_numpy_repeats_along_an_axis_is_summed():
    """Catches grads in the shape of the result, or repeated numbers that count once."""
    a, b = (own_code("gradients")[1]["Array"](np.ones(shape)) for shape in ((2, 1), (1, 3)))
    (a * b).backward()
    assert a.grad.tolist() == [[3], [3]] and b.grad.tolist() == [[2, 2, 2]]
