"""Speculative sampling from the 12-layer GPT-2: letters a second and a pass, what the small model is worth.

    python -m bench.summit_speed LARGE DRAFT [DRAFT ...]    folders of models; results/summit_speed.json

Plain int8 and each way of speculating take turns, --repeats times; every figure is a median. The text
begins with a newline and is drawn at temperature 1 from the large model's whole distribution, which
speculating does not change.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from data.files import say
from data.shakespeare import load_corpus
from gpt2.speculative import Tally, speculate
from lab.machine import markdown, write_result
from lab.project import ROOT, read_json
from model_gpt2 import GPT

RESULT = ROOT / "results" / "summit_speed.json"


def plain(model, start, n, seed):
    return list(model.stream(start, n, seed=seed)), None


def speculating(draft, ahead):
    def write(model, start, n, seed):
        tally = Tally()
        return list(speculate(model, draft, start, n, seed=seed, ahead=ahead, tally=tally)), tally

    return write


def measure(model, ways, n, repeats):
    """name -> a row: medians over the repeats of letters a second, a pass, and the share that was kept."""
    start, rows = torch.zeros(1, 1, dtype=torch.long), {name: [] for name in ways}
    for write in ways.values():
        write(model, start, 16, 0)
    for seed in range(repeats):
        for name, write in ways.items():
            began = time.perf_counter()
            _, tally = write(model, start, n, seed)
            rows[name].append((n / (time.perf_counter() - began), tally))
    return [row(name, taken) for name, taken in rows.items()]


def row(name, taken):
    speeds = [speed for speed, _ in taken]
    out = {"way": name, "letters_s": statistics.median(speeds), "range": [min(speeds), max(speeds)]}
    if taken[0][1]:
        out["letters_a_pass"] = statistics.median(t.ids_a_pass for _, t in taken)
        out["kept"] = statistics.median(t.acceptance for _, t in taken)
    return out


def table_markdown():
    """Letters a second, a way a row; what a training step of the same model reaches of the machine's peak."""
    data, step = read_json(RESULT), read_json(ROOT / "results" / "summit_step.json")
    rows = [[r["way"], f"{r['letters_s']:.0f} ({r['range'][0]:.0f} to {r['range'][1]:.0f})",
             f"{r['letters_a_pass']:.2f}" if "kept" in r else "1", f"{r['kept']:.0%}" if "kept" in r else ""]
            for r in data["rows"]]
    table = markdown(["way", "letters a second (range)", "letters a pass", "proposals kept"], rows)
    return (f"{table}\n\nA training step of {step['config']['tokens_per_step']:,} letters (Muon, bf16) takes "
            f"{step['step_s']:.1f} s: {step['share_of_peak']:.0%} of the {step['peak_gflops']:.0f} GFLOP/s "
            "that large bf16 products reach on the same two cores.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("large", type=Path)
    parser.add_argument("drafts", type=Path, nargs="+")
    parser.add_argument("--letters", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ahead", type=int, nargs="+", default=[2, 4, 6])
    args = parser.parse_args()
    model, ways = GPT.from_pretrained(args.large).for_inference("int8"), {"int8, one letter a pass": plain}
    for folder in args.drafts:
        draft = GPT.from_pretrained(folder).for_inference("int8")
        shape = f"{draft.config.n_layer} x {draft.config.n_embd}"
        ways |= {f"int8, {shape} proposes {k}": speculating(draft, k) for k in args.ahead}
    began = time.time()
    rows = measure(model, ways, args.letters, args.repeats)
    config = {"letters": args.letters, "repeats": args.repeats, "threads": torch.get_num_threads(),
              "parameters": sum(p.numel() for p in GPT.from_pretrained(args.large).parameters())}
    write_result(RESULT, config, load_corpus(quiet=True),
                 seconds=round(time.time() - began, 1), rows=rows)
    for r in rows:
        say({k: round(v, 2) if isinstance(v, float) else v for k, v in r.items()})


if __name__ == "__main__":
    main()
