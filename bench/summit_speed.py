"""Speculative sampling from the 12-layer GPT-2: letters a second and a pass, what the small model is worth.

    python -m bench.summit_speed --large FOLDER --drafts FOLDER [FOLDER ...]    results/summit_speed.json

Plain int8 and each way of speculating take turns, --repeats times; every figure is a median. The text
begins with a newline and is drawn at temperature 1 from the large model's whole distribution, which
speculating does not change.
"""

import statistics
import time
from functools import partial
from itertools import count

import torch

from bench import common
from data.files import say
from data.shakespeare import load_corpus
from gpt2.speculative import Tally, speculate
from lab.project import ROOT, read_json
from model_gpt2 import GPT

RESULT = common.RESULTS / "summit_speed.json"


def plain(model, start, n, seed):
    return list(model.stream(start, n, seed=seed)), None


def speculating(draft, ahead):
    def write(model, start, n, seed):
        tally = Tally()
        return list(speculate(model, draft, start, n, seed=seed, ahead=ahead, tally=tally)), tally

    return write


def timed(model, write, n, seeds):
    """(letters a second, tally) of one text of n letters."""
    start, began = torch.zeros(1, 1, dtype=torch.long), time.perf_counter()
    _, tally = write(model, start, n, next(seeds))
    return n / (time.perf_counter() - began), tally


def measure(model, ways, n, repeats):
    """A row a way: medians over the repeats of letters a second, a pass, and the share that was kept."""
    for write in ways.values():
        timed(model, write, 16, count())
    taken = common.in_turns({name: partial(timed, model, write, n, count()) for name, write in ways.items()},
                            repeats)
    return {"rows": [row(*item) for item in taken.items()]}


def row(name, taken):
    speeds = [speed for speed, _ in taken]
    out = {"way": name, "letters_s": statistics.median(speeds), "range": [min(speeds), max(speeds)]}
    if taken[0][1]:
        out["letters_a_pass"] = statistics.median(t.ids_a_pass for _, t in taken)
        out["kept"] = statistics.median(t.acceptance for _, t in taken)
    return out


def table_markdown():
    """Letters a second, a way a row; what a training step of the same model reaches of the machine's peak."""
    data, step = read_json(RESULT), read_json(common.RESULTS / "summit_step.json")
    rows = [[r["way"], f"{r['letters_s']:.0f} ({r['range'][0]:.0f} to {r['range'][1]:.0f})",
             f"{r['letters_a_pass']:.2f}" if "kept" in r else "1", f"{r['kept']:.0%}" if "kept" in r else ""]
            for r in data["rows"]]
    table = common.table(["way", "letters a second (range)", "letters a pass", "proposals kept"], rows)
    return (f"{table}\n\nA training step of {step['config']['tokens_per_step']:,} letters (Muon, bf16) takes "
            f"{step['step_s']:.1f} s: {step['share_of_peak']:.0%} of the {step['peak_gflops']:.0f} GFLOP/s "
            "that large bf16 products reach on the same two cores.")


def main(argv=None):
    own = str(ROOT / "space" / "model")
    args = common.options(__doc__, argv, large="out/summit/large/best", drafts=[own], letters=300, repeats=3,
                          ahead=[6, 8, 10])
    whole = GPT.from_pretrained(args.large)
    model, ways = whole.for_inference("int8"), {"int8, one letter a pass": plain}
    for folder in args.drafts:
        draft = GPT.from_pretrained(folder).for_inference("int8")
        shape = f"{draft.config.n_layer} x {draft.config.n_embd}"
        ways |= {f"int8, {shape} proposes {k}": speculating(draft, k) for k in args.ahead}
    config = {"letters": args.letters, "repeats": args.repeats, "threads": torch.get_num_threads(),
              "parameters": whole.num_params()}
    common.timed_result(RESULT, config, load_corpus(quiet=True),
                        lambda: measure(model, ways, args.letters, args.repeats))
    say(table_markdown())


if __name__ == "__main__":
    common.start(main)
