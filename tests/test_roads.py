"""The side roads gradients and bpe: what their code promises, and their exercises."""

import importlib.util
import json
import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from conftest import ROOT

from lab import exercises_roads as exercises
from lab.checks import WrongAnswer
from lab.notebook import read


def cells(road, tag):
    """Sources of the code cells of a side road that carry a tag."""
    nb = read(ROOT / "notebooks" / f"{road}.ipynb")
    return [cell.source for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def run_cells(road, tag):
    """The names that these cells define."""
    space = {}
    exec("import math, regex\nimport numpy as np\nfrom data.tokenizer import GPT2_PATTERN", space)
    exec("from collections import Counter, defaultdict\nfrom itertools import pairwise", space)
    for source in cells(road, "alphabet") + cells(road, tag):
        exec(source, space)
    return space


def code_lines(sources):
    """Lines of code, without empty ones and docstrings of one line."""
    lines = [line.strip() for source in sources for line in source.splitlines()]
    return sum(bool(line) and not line.startswith('"""') for line in lines)


def solution(road, name):
    """A solution from notebooks/solutions."""
    path = ROOT / "notebooks" / "solutions" / f"{road}.py"
    spec = importlib.util.spec_from_file_location(f"solutions_{road}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.fixture(scope="module")
def engine():
    return run_cells("gradients", "engine")


@pytest.fixture(scope="module")
def bpe():
    return run_cells("bpe", "bpe")


# ---- gradients


def test_the_engine_has_at_most_60_lines():
    """Catches an engine that grows; the notebook promises its size."""
    assert 30 < code_lines(cells("gradients", "engine")) <= 60


def random_graph(leaves, draw, product):
    """A random expression over the leaves; nodes are used again and again."""
    nodes = list(leaves)
    for _ in range(12):
        a, b = draw.choice(nodes), draw.choice(nodes)
        nodes.append(product(a, b) if draw.random() < 0.5 else a + b)
    return sum(nodes[-4:-1], nodes[-1])


@pytest.mark.parametrize("seed", range(5))
def test_slopes_of_a_random_graph_are_those_of_a_nudge(engine, seed):
    """Catches a parent that keeps the last slope instead of the sum, and a walk in the wrong order."""
    half = 0.5  # keeps the values small

    def value(numbers):
        return random_graph(numbers, random.Random(seed), lambda a, b: a * b * half)

    start = [0.7, -1.1, 0.4]
    leaves = [engine["Number"](x) for x in start]
    result = random_graph(leaves, random.Random(seed), lambda a, b: a * b * engine["Number"](half))
    result.backward()
    assert result.value == pytest.approx(value(start))
    for i, leaf in enumerate(leaves):
        assert leaf.slope == pytest.approx(exercises.nudged(lambda *x: value(list(x)), start, i), abs=1e-5)


SHAPES = [((2, 3), (3,)), ((2, 1), (1, 3)), ((4, 2, 3), (2, 1)), ((), (3,)), ((1, 3), (2, 3))]


@pytest.mark.parametrize("shapes", SHAPES)
def test_what_numpy_repeats_is_summed(engine, shapes):
    """Catches grads in the shape of the result, or repeated numbers that count once."""
    draw = np.random.default_rng(0)
    a, b = (engine["Array"](draw.normal(size=shape)) for shape in shapes)
    (a * b + b).backward()
    full = np.broadcast_shapes(*shapes)
    for mine, wanted in ((a, np.broadcast_to(b.data, full)), (b, np.broadcast_to(a.data + 1, full))):
        assert mine.grad.shape == mine.data.shape
        assert mine.grad.sum() == pytest.approx(wanted.sum())


# ---- pieces


def test_byte_pair_encoding_has_at_most_forty_lines():
    """Catches code that grows; the notebook promises its size."""
    assert 30 < code_lines(cells("bpe", "bpe")) <= 40


def random_text(seed, letters, length=300):
    draw = random.Random(seed)
    return "".join(draw.choice(letters) for _ in range(length))


EVERYTHING = "aab \n\té日😀\u0301\u200d'sll²٣Ⅷ—  .0"
TEXTS = [random_text(0, "aab "), random_text(1, "abc \n."), random_text(2, EVERYTHING),
         "aaaaaaa aaaa aaaaa" * 9]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(bpe, text):
    """Catches a cut that loses a space, or a merge that loses a byte, in other texts than the learned one."""
    merges = bpe["learn"](bpe["Counter"](bpe["split"](text)), 12)
    for other in (text, random_text(5, EVERYTHING), "", "\n", "x"):
        assert bpe["decode"](bpe["encode"](other, merges), merges) == other


@pytest.mark.parametrize("text", TEXTS)
def test_merges_are_those_of_tokenizers(bpe, text):
    """Catches ties that go to the wrong pair and overlaps (aaa) that are merged from the right."""
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=264, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator([text], trainer)
    merges = bpe["learn"](bpe["Counter"](bpe["split"](text)), 8)
    assert len(json.loads(theirs.to_str())["model"]["merges"]) == len(merges) == 8
    for other in (text, random_text(7, EVERYTHING)):
        assert bpe["encode"](other, merges) == theirs.encode(other).ids


def test_with_gpt2s_merges_the_ids_are_those_of_tiktoken(bpe, gpt2_vocabulary):
    """Catches the longest piece first in place of the oldest rule first, and another order of the bytes."""
    import tiktoken
    theirs = tiktoken.get_encoding("gpt2")
    pieces = (p for p in theirs.token_byte_values() if p != b"<|endoftext|>")
    ranked = sorted((theirs.encode_single_token(p), p) for p in pieces)
    merges = {}
    for number, p in ranked[256:]:
        merges[tuple(bpe["spell"](p, merges))] = number
    assert len(merges) == 50000
    for text in (*TEXTS, "Petruchio unhappily overestimated 12345 tokenizers"):
        assert bpe["encode"](text, merges) == theirs.encode_ordinary(text)


# ---- exercises


class Kept:
    """Classes that the checks of gradients.ipynb are given, from the notebook."""

    space = None


def call(name, answer, **options):
    """Run a check by the name of the reader's function."""
    space = Kept.space = Kept.space or run_cells("gradients", "engine")
    extra = {"log": ["Number"], "gelu": ["Array"], "rms_norm": ["Array"]}.get(name, [])
    return getattr(exercises, f"check_{name}")(answer, *(space[e] for e in extra), **options)


NAMES = [("gradients", n) for n in ("slopes", "log", "gelu", "rms_norm", "arrives")]
NAMES += [("bpe", n) for n in ("commonest", "merge", "by_the_rules", "nats_a_character")]


def folded_solutions(road):
    """Sources of the solutions as they stand in the notebook's folded parts."""
    nb = read(ROOT / f"notebooks/{road}.ipynb")
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    return re.findall(r"<summary>Solution</summary>\s*```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(("road", "name"), NAMES)
def test_both_copies_of_a_solution_pass(road, name):
    """Catches a check that refuses the right answer, and a wrong solution, here or folded in the notebook."""
    assert call(name, solution(road, name), strict=True)
    folded = next(source for source in folded_solutions(road) if f"def {name}(" in source)
    space = run_cells(road, {"gradients": "engine", "bpe": "bpe"}[road])
    exec(folded, space)
    assert call(name, space[name], strict=True)


@pytest.mark.parametrize(("road", "name"), NAMES)
def test_a_stub_is_shown_as_not_tried(road, name, capsys):
    """Catches an untouched stub that stops the notebook, or that counts as right."""
    def stub(*_):
        raise NotImplementedError

    assert call(name, stub) is False and "not tried yet" in capsys.readouterr().out


def number(value, parents, like):
    return type(like)(value, parents)


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
    while pair := next((p for p in reversed(merges) if p in zip(ids, ids[1:], strict=False)), None):
        ids = solution("bpe", "merge")(ids, pair, merges[pair])
    return ids


MISTAKES = [
    ("slopes", lambda w, x, b: (2 * (w * x + b) * w, 2 * (w * x + b) * x, 2 * (w * x + b))),  # swapped
    ("slopes", lambda w, x, b: ((w * x + b) * x, (w * x + b) * w, w * x + b)),  # z a parent once
    ("log", lambda x: number(math.log(x.value), [(x, x.value)], x)),
    ("log", lambda x: number(math.log(x.value), [], x)),  # forgets its parent
    ("gelu", relu_like),
    ("gelu", gelu_without_inner),
    ("rms_norm", rms_norm_naive),
    ("arrives", lambda speeds, residual: sum(speeds) + residual),
    ("arrives", lambda speeds, residual: math.prod(speeds) + residual),  # 1 + the product
    ("commonest", lambda ids: max(pairwise(ids), key=list(pairwise(ids)).count)),  # ties: the first
    ("merge", lambda ids, pair, new: [new if i in pair else i for i in ids]),
    ("merge", lambda ids, pair, new: [new if p == pair else p[0] for p in pairwise([*ids, None])]),
    ("by_the_rules", longest_first),
    ("nats_a_character", lambda nats, lengths: nats * len(lengths) / sum(lengths)),
    ("nats_a_character", lambda nats, lengths: nats / (sum(lengths) / len(lengths))),
]


@pytest.mark.parametrize(("name", "answer"), MISTAKES)
def test_a_likely_mistake_raises(name, answer):
    """Catches a check that accepts what readers get wrong."""
    with pytest.raises(WrongAnswer):
        call(name, answer)
