"""What does each speed-up bring on a GPU? One change at a time, ours and transformers' GPT-2 in turns, one command.

    python -m bench.gpu_steps                     all parts on the card at hand: results/gpu_steps.json and .png
    python -m bench.gpu_steps --part 85m          one part: 85m, 124m or t4 (each under ten minutes on a large card)
    python -m bench.gpu_steps --device cpu --tiny --out /tmp/steps.json      the table on a toy, to test the script

On a machine with no network bring the text along, in a folder that git ignores, and name it:

    mkdir -p out/carry && cp PATH/OF/input.txt out/carry/input.txt                                     # here
    GPT2_DATA=out/carry/input.txt python3 -m bench.gpu_steps --part 85m --out "$OUT/gpu_steps.json"      # there, $OUT
    GPT2_DATA=out/carry/input.txt python3 -m bench.gpu_steps --part 124m --out "$OUT/gpu_steps.json"     # is what
    GPT2_DATA=out/carry/input.txt python3 -m bench.gpu_steps --part t4 --out "$OUT/gpu_steps.json"       # comes back

Only the part `t4` reads the text; the others time steps on random ids. A part replaces its own rows in the file and
leaves the others, so copy results/gpu_steps.json to $OUT first. The file is written after every row: a run that is
cut off keeps what it has. Needs torch and matplotlib; without transformers its column stays empty.
"""

import contextlib
import gc
import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.common import CARDS, GPT2, floors, markdown
from bench.cost import seen_reach
from data.files import write_atomic
from data.shakespeare import DataError
from gpt2.device import NAMES
from gpt2.errors import TrainError
from gpt2.machine import commit, machine, matmul_works
from gpt2.plan import card_peak, flops_per_token, memory_plan
from gpt2.settings import OneSentence, TrainConfig
from lab.machine import today
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig, attention_by_hand
from train_gpt2 import optimizer_step, train

RESULT = ROOT / "results" / "gpu_steps.json"
NO_GPU = ("torch sees no GPU here: run this on a machine that has one (Colab or Kaggle with a T4 will do), or try the "
          "script with --device cpu --tiny --out FILE.")
WARM, STEPS, ROUNDS = 3, 5, 3  # steps before the clock starts; steps a turn; turns of ours and theirs
T4_BYTES = 14.5e9  # what a T4's 16 GB leave to a program


@dataclass(frozen=True)
class Row:
    """One line of the table: how a step is run. Each differs from the one before it in one thing."""

    name: str
    expect: str  # what it should bring, written before it was measured
    dtype: str = "fp32"
    tf32: bool = False
    attention: str = "hand"  # hand, sdpa, or efficient: the only fast one that a T4 has
    fused: bool = False
    padded: bool = False  # 50,304 rows instead of 50,257
    compile: bool = False
    batch: int = 1  # times the first batch
    needs: tuple = (0, 0)  # compute capability


def ladder(padding, half="bf16"):
    """The rows in order. padding: whether the vocabulary has rows to pad (124 M) or not (65 symbols).

    half: the type in which the table goes on after the fp32 rows; fp16 for a card without bf16 units (a T4).
    """
    row = Row("fp32, attention by hand", "The starting point: fp32 units only.")
    rows = [row]

    def add(name, expect, **changes):
        rows.append(replace(rows[-1], name=name, expect=expect, **changes))

    add("+ TF32", "Matmuls 7 times as fast on paper, a step 2 to 3 times: the bytes stay.", tf32=True, needs=(8, 0))
    rows.append(replace(row, name="fp16 + GradScaler", dtype="fp16", expect="On a T4 2 to 3 times fp32; beside bf16 "
                        "a little slower: unscaling reads every gradient once more."))
    rows.append(replace(rows[1], name="bf16", dtype="bf16", expect="A third faster than TF32: half the bytes of "
                        "activations, twice the matmul rate; softmax and loss stay in fp32.", needs=(8, 0)))
    if half == "fp16":  # the next row changes one thing of that one
        rows.append(rows.pop(2))
    add("+ SDPA", "1.3 to 2 times: the T x T pattern is never written to memory.", attention="sdpa")
    add("+ fused AdamW", "A few percent: one pass over 16 bytes a parameter, not several.", fused=True)
    if padding:
        add("+ 50,304 rows", "A few percent: a multiple of 64 suits the matmul of the head.", padded=True)
    add("+ compile", "1.3 to 1.6 times: elementwise operations melt into one pass.", compile=True)
    add("+ batch x 2", "A few percent: the optimizer and the launches are shared by more tokens.", batch=2)
    add("+ batch x 4", "Hardly more.", batch=4)
    best16 = replace(rows[-3], name="fp16 + GradScaler, SDPA, fused", dtype="fp16", tf32=False, compile=False,
                     expect="The same step as a T4 would run it: mem-efficient attention, no compile.",
                     attention="efficient", needs=(0, 0))
    return [*rows, best16]


SHAPES = {"85m": GPTConfig(vocab_size=65), "124m": GPTConfig(vocab_size=50257)}
TINY = {"85m": GPTConfig(32, 65, 2, 2, 32), "124m": GPTConfig(32, 257, 2, 2, 32)}
FIRST_BATCH = {"85m": 8, "124m": 8}
THEORY = ("85.9 M and 124 M do about the same work in the blocks; the large vocabulary adds 45% of arithmetic and the "
          "logits, 0.5 MB a token. On an H100 the bytes bound an uncompiled step, so compile and SDPA bring the most.")


# ---- One way to run a step


def shape_of(part, row, tiny):
    g = (TINY if tiny else SHAPES)[part]
    if not row.padded:
        return g
    return replace(g, vocab_size=-(-g.vocab_size // 64) * 64, n_tokens=g.vocab_size)


class Theirs(torch.nn.Module):
    """transformers' GPT-2 with our call: (x, y) -> (logits, loss). The loss is ours, so only the model differs."""

    def __init__(self, g, attention):
        from transformers import GPT2Config, GPT2LMHeadModel
        super().__init__()
        self.hf = GPT2LMHeadModel(GPT2Config(
            vocab_size=g.vocab_size, n_positions=g.block_size, n_embd=g.n_embd, n_layer=g.n_layer, n_head=g.n_head,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
            attn_implementation="eager" if attention == "hand" else "sdpa"))

    def forward(self, x, y):
        logits = self.hf(input_ids=x, use_cache=False).logits
        return logits, F.cross_entropy(logits.flatten(0, 1), y.flatten())


def by_hand(q, k, v, dropout_p=0.0, **_):
    return attention_by_hand(q, k, v, dropout_p)[0]


@contextlib.contextmanager
def conditions(row, mine):
    """Everything of a row that is not in the model or the optimizer; put back at the end."""
    before = torch.get_float32_matmul_precision(), F.scaled_dot_product_attention
    torch.set_float32_matmul_precision("high" if row.tf32 else "highest")
    kernel = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]) if row.attention == "efficient" else \
        contextlib.nullcontext()
    try:
        if row.attention == "hand" and mine:
            F.scaled_dot_product_attention = by_hand
        with kernel:
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        F.scaled_dot_product_attention = before[1]


def adamw(model, fused):
    """The optimizer of a row: torch's default (several passes) or the fused one. Decay on matrices only."""
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
              {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, 1e-4, (0.9, 0.95), fused=fused)


class Runner:
    """A model, ours or theirs, that can be asked for steps in the way of one row."""

    def __init__(self, row, g, sequences, device, mine):
        self.row, self.device, self.mine = row, device, mine
        self.dtype = {name: dtype for dtype, name in NAMES.items()}[row.dtype]
        cuda = device.type == "cuda"
        before = torch.cuda.memory_allocated(device) if cuda else 0
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        torch.manual_seed(0)
        raw = (GPT(g) if mine else Theirs(g, row.attention)).to(device)
        self.optimizers = [adamw(raw, row.fused)]
        self.model = torch.compile(raw) if row.compile and cuda else raw
        self.scaler = torch.amp.GradScaler(device.type, enabled=row.dtype == "fp16")
        ids = torch.randint(g.n_tokens or g.vocab_size, (2, sequences, g.block_size)).to(device)
        self.batches, self.tokens = [(ids[0], ids[1])], sequences * g.block_size
        self.times(WARM)
        self.peak = torch.cuda.max_memory_allocated(device) - before if cuda else None

    def times(self, steps):
        """Seconds of each of `steps` steps, the device waited for."""
        with conditions(self.row, self.mine):
            return [self._one() for _ in range(steps)]

    def _one(self):
        wait(self.device)
        start = time.perf_counter()
        optimizer_step(self.model, self.optimizers, self.scaler, self.batches, self.dtype)
        wait(self.device)
        return time.perf_counter() - start


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row_peak(row, device):
    """Peak FLOP/s that a row is judged by: its type's; for TF32 half of half precision (by the data sheets)."""
    half, single = (card_peak(device, dtype) for dtype in (torch.bfloat16, torch.float32))
    if half is None:
        return None
    return half if row.dtype != "fp32" else half / 2 if row.tf32 else single


def why_not(row, device):
    """Why a row cannot be run on this device, or ""."""
    if device.type == "cuda":
        have = torch.cuda.get_device_capability(device)
        if have < row.needs:
            return f"needs compute capability {row.needs[0]}.{row.needs[1]}, this card has {have[0]}.{have[1]}"
    return ""


def measure_row(part, row, device, tiny):
    """One row: ours and theirs in turns; medians, peak memory, MFU. {"note": why} where it cannot be."""
    g, sequences = shape_of(part, row, tiny), row.batch * (2 if tiny else FIRST_BATCH[part])
    if reason := why_not(row, device):
        return {"note": reason}
    runners, notes = {}, []
    for name in ("ours", "theirs"):
        try:
            runners[name] = Runner(row, g, sequences, device, name == "ours")
        except Exception as error:  # out of memory, no transformers, a compiler that fails: the other rows go on
            notes.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
    times = {name: [] for name in runners}
    try:
        for _ in range(1 if tiny else ROUNDS):
            for name, runner in runners.items():
                times[name] += runner.times(STEPS)
    except torch.OutOfMemoryError:
        return {"note": f"out of memory with {sequences} sequences"}
    result = {name: summary(times[name], runner, g, row_peak(row, device)) for name, runner in runners.items()}
    if len(result) == 2:
        result["ratio"] = round(result["ours"]["tok_s"] / result["theirs"]["tok_s"], 3)
    return {**result, "sequences": sequences, **({"note": "; ".join(notes)} if notes else {})}


def summary(times, runner, g, peak):
    median, tokens = statistics.median(times), runner.tokens
    found = {"tok_s": round(tokens / median), "ms": round(1e3 * median, 3), "ms_low": round(1e3 * min(times), 3),
             "ms_high": round(1e3 * max(times), 3), "steps": len(times), "peak_bytes": runner.peak}
    if peak:
        found["mfu"] = round(tokens / median * flops_per_token(g) / peak, 4)
    return found


# ---- A run as a T4 would do it


def t4_config(tiny, device):
    """fp16 with a scaler, fp32 weights, no compile, as many sequences at once as a T4 holds: a whole short run."""
    changes = dict(precision="fp16", device=device.type, out_dir="", max_steps=100, eval_every=100, sample_chars=0,
                   tensorboard=False, log_every=0, bar=False, save_every=0)
    if tiny:
        return TrainConfig.preset_of("quick", **{**changes, "max_steps": 8, "eval_every": 8})
    config = TrainConfig.preset_of("gpt2-char", **changes)
    fits = [b for b in (8, 4, 2, 1) if sum(memory_plan(SHAPES["85m"], b, torch.float16).values()) < T4_BYTES]
    config.batch_size = fits[0]
    return config.check()


def measure_t4(device, tiny, corpus=None):
    """A whole short run in fp16 + GradScaler with the attention kernel that a T4 has, and what it means for a T4."""
    config, start = t4_config(tiny, device), time.perf_counter()
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        result = train(config, corpus)
    steps = [r for r in result.history if "loss" in r]
    late = [r["tok_s"] for r in steps[len(steps) // 5:]]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"seconds": round(time.perf_counter() - start, 1), "steps": len(steps), "first_loss": steps[0]["loss"],
            "last_loss": steps[-1]["loss"], "val_loss": result.progress.val_loss, "skipped": result.progress.skipped,
            "last_scale": steps[-1].get("scale"), "tok_s": round(statistics.median(late)), "peak_bytes": peak,
            "sequences_at_once": config.batch_size, "fits_a_t4": None if peak is None else peak < T4_BYTES,
            "projection": project_t4(SHAPES["85m"], 32, config.batch_size)}


def project_t4(g, sequences, micro):
    """Tokens a second of a T4, by operations and bytes: at the full rate of both, and at the reach seen at 124 M.

    A projection, not a measurement.
    """
    parts = floors(g, CARDS["T4"], sequences, micro)
    tokens, share = sequences * g.block_size, seen_reach("T4", GPT2)
    return {"projection": True, "floors_seconds": {k: round(v, 4) for k, v in parts.items()},
            "tok_s_at_full_rates": round(tokens / sum(parts.values())), "reach": round(share, 3),
            "tok_s": round(tokens / sum(parts.values()) * share),
            "inputs": "65 TFLOP/s and 320 GB/s (vendor), reach from 18.1 k tok/s at 124 M on a T4 (measured by others)"}


# ---- The file, the table, the picture


def blank():
    """The result file before anybody had a card: every row, with what it should bring, and null for what it brought."""
    rows = [{"part": part, "name": row.name, "expect": row.expect, "measured": None}
            for part in SHAPES for row in ladder(part == "124m")]
    return {"about": "One change at a time, ours and transformers' GPT-2 in turns. measured: {card, ours, theirs, "
                     "ratio, date, commit}, null where nobody has run it. Command: python -m bench.gpu_steps on a GPU.",
            "theory": THEORY, "rows": rows,
            "t4": {"measured": None, "projection": project_t4(SHAPES["85m"], 32, t4_config(False, torch.device("cpu"))
                                                              .batch_size)}}


def stamp(device):
    """What every measured row carries: the card, the day, the code."""
    facts = machine()
    return {"card": facts["gpu"] if device.type == "cuda" else facts["cpu"], "torch": facts["torch"], "date": today(),
            **commit()}


def write(out, result):
    write_atomic(out, json.dumps(result, indent=1) + "\n")


def run_parts(parts, device, tiny, out):
    """Measure the rows of the parts, writing the file after each."""
    result = read_json(out) or blank()
    for part in parts:
        if part == "t4":
            result["t4"]["measured"] = {**stamp(device), **measure_t4(device, tiny)}
            write(out, result)
            continue
        for row in ladder(part == "124m", half_of(device)):
            kept = next(r for r in result["rows"] if (r["part"], r["name"]) == (part, row.name))
            kept["measured"] = {**stamp(device), **measure_row(part, row, device, tiny)}
            free(device)
            write(out, result)
            print(f"{part} {row.name}: {said(kept['measured'])}", flush=True)
    return result


def half_of(device):
    """The half precision of the table: bf16 from compute capability 8 on (and in a toy on a CPU)."""
    return "fp16" if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0) else "bf16"


def free(device):
    gc.collect()
    if device.type == "cuda":
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def said(m):
    """One measured row in words."""
    if m is None:
        return "not yet measured"
    words = [f"{name} {m[name]['tok_s']:,} tok/s" for name in ("ours", "theirs") if name in m]
    return ", ".join([*words, *([m["note"]] if m.get("note") else [])])


def table_markdown(result=None):
    """README table: each row's tokens a second, memory and MFU, and transformers beside it."""
    result = result or read_json(RESULT)
    if not result.get("rows"):
        return "Not yet measured."
    names = {"85m": "85.9 M, 65 symbols", "124m": "124 M, BPE"}
    lines = [[names[r["part"]], r["name"], *cells(r["measured"])] for r in result["rows"]]
    cards = sorted({r["measured"]["card"] for r in result["rows"] if r["measured"]})
    p = result["t4"]["projection"]
    head = ["model", "step", "tokens/s", "memory", "MFU", "transformers", "ours / theirs"]
    return "\n\n".join([f"Card: {', '.join(cards) or 'none yet'}.", markdown(head, lines),
                        f"Projection for a T4, 85.9 M in fp16: {p['tok_s'] / 1e3:.0f} k tokens/s (from operations, "
                        f"bytes and the {p['reach']:.0%} of their full rates that others reached on one)."])


def cells(m):
    if m is None:
        return ["not yet measured", "", "", "", ""]
    if "ours" not in m:
        return [m.get("note", "failed"), "", "", "", ""]
    mine, theirs = m["ours"], m.get("theirs")
    memory = f"{mine['peak_bytes'] / 1e9:.1f} GB" if mine["peak_bytes"] else ""
    return [f"{mine['tok_s']:,}", memory, f"{mine['mfu']:.0%}" if "mfu" in mine else "",
            f"{theirs['tok_s']:,}" if theirs else "", f"{m['ratio']:.2f}" if "ratio" in m else ""]


def draw(result):
    """Bars of tokens a second, ours and theirs, a panel a shape; the figure carries its alt text as fig.alt."""
    from lab.plots import ACCENT, GREY, figure
    fig, axes = figure(13, 5.5, columns=2)
    told = []
    for ax, (part, title) in zip(axes, (("85m", "85.9 M, 65 symbols"), ("124m", "124 M, BPE")), strict=True):
        rows = [r for r in result["rows"] if r["part"] == part and "ours" in (r["measured"] or {})]
        for shift, key, color, label in ((-0.2, "ours", ACCENT, "ours"), (0.2, "theirs", GREY, "transformers")):
            speeds = [r["measured"].get(key, {}).get("tok_s", 0) / 1e3 for r in rows]
            ax.barh([i + shift for i in range(len(rows))], speeds, 0.38, color=color, label=label)
        ax.set_yticks(range(len(rows)), [r["name"] for r in rows])
        ax.invert_yaxis()
        ax.set(title=title, xlabel="thousand tokens a second")
        told += [f"{title}: " + ", ".join(f"{r['name']} {r['measured']['ours']['tok_s']:,}" for r in rows)]
    axes[0].legend(loc="lower right", frameon=False)
    card = next((r["measured"]["card"] for r in result["rows"] if r["measured"]), "no card")
    fig.alt = f"Tokens a second on {card}, one change at a time, ours beside transformers. " + ". ".join(told) + "."
    return fig


# ---- The command


def pick(device, tiny):
    """The device asked for, or TrainError in one sentence."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainError(NO_GPU)
    if device == "cpu" and not tiny:
        raise TrainError("The whole table would take days on a CPU: add --tiny, or run it on a GPU.")
    chosen = torch.device(device)
    if device == "cuda" and not matmul_works(chosen):
        raise TrainError(f"This torch has no kernels for {torch.cuda.get_device_name(chosen)}: take another card.")
    return chosen


def main(argv=None):
    parser = OneSentence(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["all", "85m", "124m", "t4"], default="all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy shapes, to test the script")
    parser.add_argument("--out", help="the JSON file to write; a picture goes beside it")
    parser.add_argument("--blank", action="store_true", help="write the table with every row not yet measured")
    try:
        args = parser.parse_args(argv)
        if args.blank:
            write(args.out or RESULT, blank())
            return 0
        device = pick(args.device, args.tiny)
        if args.tiny and not args.out:
            raise TrainError("--tiny measures a toy: name a file with --out, results/ is for real runs.")
        out = Path(args.out or RESULT)
        result = run_parts(["85m", "124m", "t4"] if args.part == "all" else [args.part], device, args.tiny, out)
        if any("ours" in (r["measured"] or {}) for r in result["rows"]):
            fig = draw(result)
            fig.savefig(out.with_suffix(".png"), dpi=100)
            write(out, {**result, "picture": {"file": out.with_suffix(".png").name, "alt": fig.alt}})
        print(table_markdown(result))
        return 0
    except (TrainError, DataError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
