"""The report at the end of a notebook, and the one way to write a measured result. The facts are gpt2.machine's."""

import json
import sys
import time
from pathlib import Path

from data.files import write_atomic
from gpt2.machine import commit, machine


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())


def report(corpus=None):
    """Print all that is known about the machine, the code and the text: the last, folded cell of each notebook."""
    facts = {**machine(), **commit(), "date": today()}
    if corpus is not None:
        facts["corpus"] = f"{corpus.name} {corpus.sha256}"
    for name, value in facts.items():
        print(f"{name:>11}  {value}")


def write_result(path, config, data=None, **measured):
    """Write one measured result as JSON, in one piece, and return it.

    `config` is a dict of what was asked, `data` the Corpus (or None), `measured` what came out, `seconds` among it.
    Machine, date, commit and command are added.
    """
    name = Path(sys.argv[0])
    command = f"python -m bench.{name.stem}" if name.parent.name == "bench" else name.name
    result = {
        "machine": machine(),
        "date": today(),
        **commit(),
        "command": " ".join([command, *sys.argv[1:]]),
        "config": config,
        "corpus": None if data is None else {"name": data.name, "sha256": data.sha256},
        **measured,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(result, indent=1) + "\n")
    return result
