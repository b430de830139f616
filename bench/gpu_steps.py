"""What does each speed-up bring on a GPU? The trainer itself, one setting changed at a time, in one command.

    python -m bench.gpu_steps                          on the card at hand: renews results/gpu_steps.json
    python -m bench.gpu_steps --device cpu --tiny --out FILE     the table on a toy, to test the script

Each row is `train` with the settings of the row before it and one change; steps on the real text, the first ten not
counted. No card could be had yet: until somebody runs this on one, the table says so.
"""

import argparse
import json
import sys

import torch

from bench.common import markdown, spread
from data.files import write_atomic
from data.shakespeare import load_corpus
from gpt2.device import NAMES, choose_precision
from gpt2.errors import TrainError
from gpt2.machine import commit, machine
from gpt2.plan import card_peak, flops_per_token, model_config
from gpt2.settings import TrainConfig
from lab.machine import today
from lab.project import ROOT, read_json
from train_gpt2 import train

RESULT = ROOT / "results" / "gpu_steps.json"
WARM, STEPS = 10, 30
SHAPE = dict(batch_size=8, tokens_per_step=8 * 1024, precision="fp32", optimizer="adamw", max_steps=WARM + STEPS,
             eval_every=10**9, patience=0, sample_chars=0, save_every=0, save_minutes=1e9, log_every=0, bar=False,
             tensorboard=False, freeze_matrices=False)
ROWS = [  # name, what changes against the row before, what it should bring (written before it was measured)
    ("fp32", {}, "the starting point"),
    ("half precision", {"precision": "auto"}, "2 to 3 times: half the bytes, the matmul units' own rate"),
    ("+ compile", {"compile": True}, "1.3 to 1.6 times: elementwise operations melt into one pass"),
    ("+ batch x 4", {"batch_size": 32, "tokens_per_step": 32 * 1024}, "a few percent: launches are shared"),
    ("+ Muon", {"optimizer": "muon"}, "a few percent slower: five more products a matrix"),
]
TINY = dict(n_layer=1, n_head=2, n_embd=16, block_size=32)


def measure(changes, corpus, device, tiny):
    """Tokens a second, its share of the card's peak, and the precision as it was used, of one way to train."""
    config = TrainConfig.preset_of("gpt2-char", **{**SHAPE, **changes, **(TINY if tiny else {}), "device": device})
    times = []
    dtype = choose_precision(config, torch.device(device))[0]
    config.precision = NAMES[dtype]  # what is recorded is what is used
    train(config, corpus, lambda record, model: times.append(record["dt_ms"]) if "dt_ms" in record else None)
    tok_s = spread([1000 * config.tokens_per_step / ms for ms in times[WARM:]])
    peak = card_peak(torch.device(device), dtype)
    mfu = tok_s["median"] * flops_per_token(model_config(config, corpus.tokenizer.vocab_size)) / peak if peak else None
    return {"tok_s": tok_s, "mfu": mfu and round(mfu, 3), "precision": config.precision}


def measure_all(out, device, tiny):
    """Measure all rows, the file written after each: a run that is cut off keeps what it has."""
    corpus, changes, rows = load_corpus(quiet=True), {}, []
    for name, change, expect in ROWS:
        changes |= change
        rows.append({"name": name, "expect": expect, "measured": measure(changes, corpus, device, tiny)})
        facts = {"machine": machine(), "date": today(), **commit(), "tiny": tiny, "settings": SHAPE}
        write_atomic(out, json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    return rows


def table_markdown(path=RESULT):
    """README table: one row a change."""
    saved = read_json(path)
    measured = {row["name"]: row["measured"] for row in saved.get("rows", [])}
    lines = []
    for name, _, expect in ROWS:
        got = measured.get(name)
        shown = [f"{got['tok_s']['median']:,.0f}", f"{got['mfu']:.0%}" if got["mfu"] else "", got["precision"]] \
            if got else ["not yet measured", "", ""]
        lines.append([name, expect, *shown])
    card = saved.get("machine", {}).get("gpu") or "none yet"
    return f"Card: {card}.\n\n" + markdown(["step", "expected", "tokens/s", "MFU", "precision"], lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy model, to test the script")
    parser.add_argument("--out", default=str(RESULT))
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: run this on Colab or Kaggle with a T4, or try it with --device cpu --tiny --out "
              "FILE.", file=sys.stderr)
        return 2
    if args.tiny and args.out == str(RESULT):
        print("A toy's numbers do not belong into results/: name another file with --out.", file=sys.stderr)
        return 2
    try:
        measure_all(args.out, args.device, args.tiny)
    except TrainError as error:
        print(error, file=sys.stderr)
        return 1
    print(table_markdown(args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
