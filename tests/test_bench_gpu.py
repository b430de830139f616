"""bench/gpu_steps.py: without a card one sentence, on a toy the whole table, and rows that do what they say."""

import json

import pytest
import torch
import torch.nn.functional as F

from bench import gpu_steps as steps
from bench.gpu_steps import FIRST_BATCH, SHAPES, TINY, Row, Runner, conditions, ladder, shape_of
from gpt2.plan import card_peak, count_params

CPU = torch.device("cpu")


def test_no_gpu_is_one_sentence(capsys, tmp_path):
    """A traceback where there is no card, days of work on a CPU, a toy's numbers in results/."""
    if not torch.cuda.is_available():
        assert steps.main(["--part", "85m"]) == 2
        assert "Colab or Kaggle" in capsys.readouterr().err
    assert steps.main(["--device", "cpu"]) == 2 and "--tiny" in capsys.readouterr().err
    assert steps.main(["--device", "cpu", "--tiny"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--out" in said


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_each_row_changes_one_thing(half):
    """Two changes in one row: a gain given to the wrong one. A T4 must go on in fp16, not skip the rest."""
    rows = ladder(padding=True, half=half)
    fields = ("dtype", "tf32", "attention", "fused", "padded", "compile", "batch")
    for before, row in zip(rows, rows[1:-1], strict=False):
        if row.name.startswith("+"):
            assert sum(getattr(before, f) != getattr(row, f) for f in fields) == 1, row.name
    if half == "fp16":
        named = {row.name: row for row in rows}
        for name in ("+ SDPA", "+ fused AdamW", "+ compile"):
            assert named[name].dtype == "fp16" and named[name].needs == (0, 0)
    assert sorted(r.name for r in rows) == sorted(r.name for r in ladder(padding=True))
    assert all(row.expect for row in rows)


def test_shapes_are_the_two_models():
    """A table of some other model: 85.9 M with 65 symbols, 124.4 M with 50,257 rows, then 50,304."""
    assert count_params(SHAPES["85m"])[0] == 85_892_352 and set(FIRST_BATCH) == set(SHAPES) == set(TINY)
    assert count_params(SHAPES["124m"])[0] == 124_439_808
    padded = shape_of("124m", Row("", "", padded=True), tiny=False)
    assert (padded.vocab_size, padded.n_tokens) == (50304, 50257)


@pytest.mark.parametrize("have, sees", [((7, 5), "needs compute capability 8.0"), ((8, 0), "")])
def test_capability_decides_what_is_run(monkeypatch, have, sees):
    """bf16 timed on a T4, which only emulates it, or left out on an A100."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: have)
    card = torch.device("cuda")
    bf16 = next(row for row in ladder(False) if row.name == "bf16")
    assert steps.why_not(bf16, card).startswith(sees) and bool(steps.why_not(bf16, card)) == bool(sees)
    assert steps.half_of(card) == ("bf16" if have >= (8, 0) else "fp16")


def test_mfu_is_judged_by_the_rows_own_peak(monkeypatch):
    """TF32 against the fp32 units would show more than 100%; half precision against them, ten times too much."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA A100-SXM4-80GB")
    card = torch.device("cuda")
    assert steps.row_peak(Row("", ""), card) == 19.5e12
    assert steps.row_peak(Row("", "", tf32=True), card) == 156e12
    assert steps.row_peak(Row("", "", dtype="bf16"), card) == 312e12 == card_peak(card, torch.float16)
    assert steps.row_peak(Row("", ""), CPU) is None


def test_attention_by_hand_is_by_hand_and_put_back(monkeypatch):
    """A row "by hand" that runs SDPA, a patch that outlives its row, or one that changes the loss."""
    calls, original = [], F.scaled_dot_product_attention

    def counted(q, k, v, dropout):
        calls.append(1)
        return original(q, k, v, is_causal=True), None

    monkeypatch.setattr(steps, "attention_by_hand", counted)
    hand, sdpa = Row("", ""), Row("", "", attention="sdpa")
    for row, want in ((hand, 2), (sdpa, 0)):
        calls.clear()
        runner = Runner(row, TINY["85m"], 2, CPU, mine=True)
        before = len(calls)
        runner.times(1)
        assert len(calls) - before == want  # two layers
    with pytest.raises(ZeroDivisionError), conditions(Row("", "", tf32=True), True):
        1 / 0  # noqa: B018
    assert F.scaled_dot_product_attention is original and torch.get_float32_matmul_precision() == "highest"


def test_theirs_is_the_same_model():
    """A comparison with another model: same parameters, same loss where the weights are the same."""
    transformers = pytest.importorskip("transformers")
    del transformers
    from gpt2.weights import from_hugging_face
    from model_gpt2 import GPT
    g = TINY["85m"]
    theirs = steps.Theirs(g, "sdpa")
    state = {k: v for k, v in theirs.hf.state_dict().items()}
    ours = GPT(g)
    ours.load_state_dict(from_hugging_face(state, ours, "transformers"))
    x, y = torch.randint(65, (2, 3, g.block_size))
    assert count_params(g)[0] == sum(p.numel() for p in theirs.parameters())
    assert ours(x, y)[1].item() == pytest.approx(theirs(x, y)[1].item(), abs=1e-5)


def test_one_row_that_fails_does_not_stop_the_table(monkeypatch):
    """An out-of-memory in theirs that takes ours, and the rest of the night, with it."""
    def fail(*_):
        raise torch.OutOfMemoryError("no room")
    monkeypatch.setattr(steps, "Theirs", fail)
    found = steps.measure_row("85m", ladder(False)[0], CPU, tiny=True)
    assert found["ours"]["tok_s"] > 0 and "theirs" not in found and "OutOfMemoryError" in found["note"]


def test_the_table_on_a_toy(tmp_path, monkeypatch):
    """The script that breaks on the one day when there is a card: both shapes, file, table, picture."""
    monkeypatch.setattr(steps, "WARM", 1)
    monkeypatch.setattr(steps, "STEPS", 1)
    monkeypatch.setattr(steps, "ladder", lambda padding, half="bf16": ladder(padding, half)[:2])
    out = tmp_path / "steps.json"
    for part in ("85m", "124m"):
        assert steps.main(["--device", "cpu", "--tiny", "--part", part, "--out", str(out)]) == 0
    saved = json.loads(out.read_text())
    assert all(row["measured"]["ours"]["tok_s"] > 0 and row["measured"]["date"] for row in saved["rows"])
    assert len(saved["rows"]) == 4 and saved["t4"]["measured"] is None
    assert (tmp_path / "steps.png").stat().st_size > 5000 and "Tokens a second" in saved["picture"]["alt"]
    assert steps.table_markdown(saved).count("124 M, BPE") == 2


def test_a_t4s_run_on_a_toy():
    """A "T4 run" that is not fp16, or keeps no scaler, or learns nothing."""
    config = steps.t4_config(False, CPU)
    assert (config.precision, config.compile, config.tokens_per_step) == ("fp16", False, 32768)
    from data.shakespeare import corpus_from_text
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 40
    found = steps.measure_t4(CPU, True, corpus_from_text(text, "toy"))
    assert found["steps"] == 8 and found["last_loss"] < found["first_loss"] and found["last_scale"]


def test_the_projection_for_a_t4_is_one():
    """Tokens a second above the card's own limits, or not marked."""
    p = steps.project_t4(SHAPES["85m"], 32, 8)
    assert p["projection"] and p["tok_s"] < p["tok_s_at_full_rates"] and 15e3 < p["tok_s"] < 45e3


def test_what_is_committed_is_the_table():
    """Rows in results/ that the script no longer has, or a measured row without its card."""
    saved, want = json.loads(steps.RESULT.read_text()), steps.blank()
    assert [(r["part"], r["name"]) for r in saved["rows"]] == [(r["part"], r["name"]) for r in want["rows"]]
    for row in saved["rows"]:
        assert row["measured"] is None or row["measured"]["card"]
    assert ("not yet measured" in steps.table_markdown(saved)) == any(r["measured"] is None for r in saved["rows"])
