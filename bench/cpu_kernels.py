"""Why does a model in bf16 on a CPU not take torch's own attention and GELU? The parts alone, then the whole step.

    python -m bench.cpu_kernels        writes results/cpu_kernels.json, in about a minute

Parts: forward and backward of one layer's attention and activation, each against the other way, in turns, in fp32 and
bf16. Step: the preset `cpu` with torch's kernels, with ours, and with ours and freed memory kept; each turn is a fresh
process, since malloc's habits last as long as one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

import model_gpt2
import train_gpt2
from bench.common import in_turns, seconds, spread
from data.shakespeare import load_corpus
from gpt2 import device
from gpt2.settings import TrainConfig
from lab.machine import write_result
from lab.project import ROOT

STEPS = {"torch's kernels": [], "ours": ["ours"], "ours, freed memory kept": ["ours", "keep"]}


def actions(kind, B=16, T=128, nh=5, hs=32):
    """{name: forward and backward of one way to compute it} in one type, for the shapes of the preset `cpu`."""
    q, k, v = (torch.randn(B, nh, T, hs).to(kind).requires_grad_() for _ in range(3))
    x = torch.randn(B * T, 4 * nh * hs).to(kind).requires_grad_()
    ways = {"attention, torch's": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            "attention, written out": lambda: model_gpt2.attention_by_hand(q, k, v)[0],
            "GELU, tanh": lambda: F.gelu(x, approximate="tanh"), "GELU, erf": lambda: F.gelu(x)}
    return {name: lambda way=way: way().sum().backward() for name, way in ways.items()}


def parts(rounds):
    out = {}
    for kind in (torch.float32, torch.bfloat16):
        ways = {name: lambda act=act: 1000 * seconds(act) for name, act in actions(kind).items()}
        in_turns(ways, 3)  # warm
        out |= {f"{name}, {str(kind)[6:]}": spread(taken) for name, taken in in_turns(ways, rounds).items()}
    return out


def worker(flags, steps):
    """Median milliseconds of a step of the preset `cpu`; prints it."""
    if "ours" not in flags:
        torchs = F.scaled_dot_product_attention
        model_gpt2.attention_by_hand = lambda q, k, v, dropout: (torchs(q, k, v, is_causal=True), None)
    if "keep" not in flags:
        train_gpt2.keep_freed_memory = lambda: None
    config = TrainConfig.preset_of("cpu", precision="bf16", max_steps=10**6, eval_every=10**9, sample_chars=0,
                                   log_every=0, bar=False, tensorboard=False)
    times = []
    train_gpt2.train(config, load_corpus(quiet=True),
                     lambda record, model: times.append(record["dt_ms"]) or len(times) >= steps + 10)
    print(statistics.median(times[10:]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="steps of a turn")
    parser.add_argument("--out", default=str(ROOT / "results" / "cpu_kernels.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker is not None:
        return worker(json.loads(args.worker), args.steps)
    if not device.cpu_has_bf16():
        raise SystemExit("This CPU has no bf16 units: nothing here would be bf16's own speed, so nothing was measured.")
    began, alone, step = time.perf_counter(), parts(10 * args.turns), {name: [] for name in STEPS}
    for _ in range(args.turns):
        for name, flags in STEPS.items():
            command = [sys.executable, "-m", "bench.cpu_kernels", "--steps", str(args.steps)]
            command += ["--worker", json.dumps(flags)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            step[name].append(float(done.stdout.split()[-1]))
    config = {"preset": "cpu", "turns": args.turns, "steps": args.steps}
    result = write_result(args.out, config, load_corpus(quiet=True), seconds=round(time.perf_counter() - began, 1),
                          parts=alone, step={name: spread(taken) for name, taken in step.items()})
    print(table_markdown(result))


def table_markdown(result=None):
    path = ROOT / "results" / "cpu_kernels.json"
    if result is None and not path.exists():
        return "Not yet measured."
    result = result or json.loads(path.read_text())
    rows = {**{f"{name} (one layer, forward and backward)": r for name, r in result["parts"].items()},
            **{f"**a whole step, {name}**": r for name, r in result["step"].items()}}
    return "\n".join(["| what | ms, median | range |", "| --- | --- | --- |"] + [
        f"| {name} | {r['median']:.2f} | {r['low']:.2f} to {r['high']:.2f} |" for name, r in rows.items()])


if __name__ == "__main__":
    main()
