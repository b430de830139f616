"""What was tried to lower the exact loss of a small GPT-2 on a CPU, one change at a time: expected, and came.

    python -m bench.hypotheses                       the table, from results/hypotheses.json
    python -m bench.hypotheses "4 heads" --seed 2    a row of it once more, with its own settings
    python -m bench.hypotheses "low rate" --against "4 heads" --expected higher --change '{"lr": 1e-4}'

The last adds a row: the settings of `against` with the change. The first rows come from the search
itself: the same trainer and settings, one thread. Steps are fixed and time is not looked at, so other
programs may run beside it. One seed a row unless more are listed: two runs that differ in their seed
alone are about 0.01 apart, and a gain below that is not one.
"""

import argparse
import json
import time

from data.files import say
from data.shakespeare import load_corpus
from gpt2.device import NAMES
from gpt2.errors import TrainError
from gpt2.machine import commit, machine
from gpt2.settings import TrainConfig
from lab.machine import result, write_json
from lab.project import ROOT, read_json
from train_gpt2 import evaluate, pick_precision, train

RESULT = ROOT / "results" / "hypotheses.json"
QUIET = dict(log_every=0, bar=False, tensorboard=False, sample_chars=0)


def row_named(name):
    """The first row of this name; SystemExit names those that there are."""
    rows = {row["name"]: row for row in reversed(read_json(RESULT).get("rows", []))}
    if name not in rows:
        raise SystemExit(f"There is no row {name!r}: choose from {', '.join(reversed(rows))}.")
    return rows[name]


def planned(name, against=None, expected="", change="{}"):
    """What a row says before it is run: its name, what it is read beside, what is expected, its settings."""
    if not against:
        return {key: row_named(name)[key] for key in ("name", "against", "expected", "settings")}
    settings = {**row_named(against)["settings"], **json.loads(change)}
    return {"name": name, "against": against, "expected": expected, "settings": settings}


def config_of(settings, seed=1337, precision="fp32"):
    """The preset `cpu` with a row's settings, validated once, at the end."""
    return TrainConfig.preset_of("cpu", **{**settings, **QUIET, "seed": seed, "precision": precision,
                                           "eval_every": settings["max_steps"]})


def measure(row, seed):
    """Run a planned row; returns it with what came."""
    corpus, began = load_corpus(quiet=True), time.perf_counter()
    precision = NAMES[pick_precision("cpu")[0]]  # asked once: what is recorded is what is used
    config = config_of(row["settings"], seed, precision)
    done = train(config, corpus)
    facts = result({}, corpus)
    return {**row, "seed": seed, "val_loss": done.progress.val_loss,
            "train_loss": evaluate(done.model, corpus.train[: len(corpus.val)]),
            "parameters": done.model.num_params(), "tokens": config.max_steps * config.tokens_per_step,
            "precision": precision, "corpus": corpus.sha256, "date": facts["date"], **commit(),
            "command": facts["command"], "seconds": round(time.perf_counter() - began, 1)}


def keep_row(row):
    """Add a row. An older one of that name and seed stays, unless it came from the very same commit."""
    data = read_json(RESULT) or {"about": __doc__.splitlines()[0], "machine": machine(), "rows": []}
    origin = [{key: r.get(key) for key in ("name", "seed", "commit")} for r in (*data["rows"], row)]
    old = [r for r, o in zip(data["rows"], origin, strict=False) if row["dirty"] or o != origin[-1]]
    write_json(RESULT, {**data, "rows": [*old, row]})


def table_markdown(data=None):
    """The table for the README: every row, those that did not help among them."""
    rows = (data or read_json(RESULT)).get("rows", [])
    if not rows:
        return "Not yet measured."
    lines = ["| tried | beside | expected | exact validation | train |", "| --- | --- | --- | --- | --- |"]
    for i, r in enumerate(rows):
        again = f" (again, {r['date']})" if r["name"] in [b["name"] for b in rows[:i]] else ""
        base = [b["val_loss"] for b in rows if b["name"] == r["against"]]
        change = f" ({r['val_loss'] - sum(base) / len(base):+.3f})" if base else ""
        lines.append(f"| {r['name']}{again} | {r['against'] or ''} | {r['expected']} | "
                     f"{r['val_loss']:.3f}{change} | {r['train_loss']:.3f} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.hypotheses", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--against", help="for a new row: the row that it is to be read beside")
    parser.add_argument("--expected", default="", help="for a new row: what it should bring")
    parser.add_argument("--change", default="{}", help="for a new row: settings that differ, as JSON")
    args = parser.parse_args(argv)
    try:
        if args.name:
            row = measure(planned(args.name, args.against, args.expected, args.change), args.seed)
            keep_row(row)
    except (TrainError, json.JSONDecodeError) as error:
        raise SystemExit(str(error)) from None
    say(table_markdown())


if __name__ == "__main__":
    main()
