"""The report at the end of a notebook; the one form of a measured result, and of a table of such."""

import json
import sys
import time
from pathlib import Path

from data.files import write_atomic
from gpt2.machine import commit, machine


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())


def report(corpus=None):
    """Print all that is known about the machine, the code and the text: a notebook's last, folded cell."""
    facts = {**machine(), **commit(), "date": today()}
    if corpus is not None:
        facts["corpus"] = f"{corpus.name} {corpus.sha256}"
    for name, value in facts.items():
        print(f"{name:>11}  {value}")


def result(config, data=None, **measured):
    """One measured result as a dict: what was asked and what came out, with machine, date, commit, command.

    `config` is a dict of what was asked, `data` the Corpus (or None), `measured` what came out.
    """
    name = Path(sys.argv[0])
    command = f"python -m bench.{name.stem}" if name.parent.name == "bench" else name.name
    return {"machine": machine(), "date": today(), **commit(), "command": " ".join([command, *sys.argv[1:]]),
            "config": config, "corpus": None if data is None else {"name": data.name, "sha256": data.sha256},
            **measured}


def write_json(path, content):
    """Write `content` as JSON, in one piece; folders are made."""
    text = json.dumps(content, indent=1) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


def write_result(path, config, data=None, **measured):
    """Write one measured result as JSON and return it."""
    found = result(config, data, **measured)
    write_json(path, found)
    return found


def markdown(head, rows):
    """Lists of cells -> a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
