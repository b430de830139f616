"""What was tried to lower the exact loss of a small GPT-2 on a CPU, one change at a time: expected, and came.

    python -m bench.hypotheses --name "4 heads" --seed 2      a row of the table once more
    python -m bench.hypotheses --name "low rate" --against "4 heads" --expected higher --change '{"lr": 1e-4}'

Rows are added to results/hypotheses.json; no name: the table alone. The second adds a new row: the
settings of `against` with the change. The first rows come from the search itself: the same trainer and
settings, one thread. Steps are fixed and time is not looked at, so other programs may run beside it. One
seed a row unless more are listed: two runs that differ in their seed alone are about 0.01 apart, and a
gain below that is not one.
"""

import json

from bench import common
from data.files import DataError, say
from data.shakespeare import load_corpus
from gpt2.device import NAMES
from gpt2.settings import TrainConfig
from lab.machine import result, write_json
from lab.project import read_json
from train_gpt2 import evaluate, pick_precision, train

RESULT = common.RESULTS / "hypotheses.json"


def planned(name, against="", expected="", change="{}"):
    """What a row says before it is run: its name, what it is read beside, what is expected, its settings."""
    rows = {row["name"]: row for row in reversed(read_json(RESULT)["rows"])}
    base = against or name
    if base not in rows:
        raise DataError(f"There is no row {base!r}: choose from {', '.join(reversed(rows))}.")
    if not against:
        return {key: rows[name][key] for key in ("name", "against", "expected", "settings")}
    settings = {**rows[base]["settings"], **json.loads(change)}
    return {"name": name, "against": against, "expected": expected, "settings": settings}


def config_of(settings, seed=1337, precision="fp32"):
    """The preset `cpu` with a row's settings, validated once, at the end."""
    return TrainConfig.preset_of("cpu", **{**settings, **common.QUIET, "seed": seed, "precision": precision,
                                           "eval_every": settings["max_steps"]})


def measure(row, seed):
    """Run a planned row; returns it with what came."""
    corpus = load_corpus(quiet=True)
    precision = NAMES[pick_precision("cpu")[0]]  # asked once: what is recorded is what is used
    config = config_of(row["settings"], seed, precision)
    done = train(config, corpus)
    return {**row, "seed": seed, "val_loss": done.progress.val_loss,
            "train_loss": evaluate(done.model, corpus.train[: len(corpus.val)]),
            "parameters": done.model.num_params(), "tokens": config.max_steps * config.tokens_per_step,
            "precision": precision, **result({}, corpus)}


def keep_row(row):
    """Add a row. An older one of that name and seed stays, unless it came from the very same commit."""
    data = read_json(RESULT)
    origin = [row["name"], row["seed"], row["commit"]]
    old = [r for r in data.get("rows", [])
           if row["dirty"] or [r["name"], r.get("seed"), r.get("commit")] != origin]
    write_json(RESULT, {**data, "rows": [*old, row]})


def table_markdown(data=None):
    """The table for the README: every row, those that did not help among them."""
    rows, lines = (data or read_json(RESULT)).get("rows", []), []
    for i, r in enumerate(rows):
        again = f" (again, {r['date']})" if r["name"] in [b["name"] for b in rows[:i]] else ""
        base = [b["val_loss"] for b in rows if b["name"] == r["against"]]
        change = f" ({r['val_loss'] - sum(base) / len(base):+.3f})" if base else ""
        lines.append([r["name"] + again, r["against"] or "", r["expected"], f"{r['val_loss']:.3f}{change}",
                      f"{r['train_loss']:.3f}"])
    return common.table(["tried", "beside", "expected", "exact validation", "train"], lines)


def main(argv=None):
    args = common.options(__doc__, argv, name="", seed=1337, against="", expected="", change="{}")
    if args.name:
        keep_row(measure(planned(args.name, args.against, args.expected, args.change), args.seed))
    say(table_markdown())


if __name__ == "__main__":
    common.start(main)
