"""What the measurements share: options, a process of their own, turns, the spread of what came, tables."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from data.files import DataError, say
from data.tokenizer import TokenizerError
from gpt2.errors import TrainError
from lab.machine import markdown, write_result
from lab.project import ROOT

RESULTS = ROOT / "results"
QUIET = dict(log_every=0, bar=False, tensorboard=False, sample_chars=0)  # settings of a run


def options(doc, argv=None, **flags):
    """The command line of a script: {name: default}; a list takes several words, False is a switch."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in flags.items():
        how = {"action": "store_true"} if default is False else {"default": default, "type": type(default)}
        if isinstance(default, list):
            how |= {"nargs": "+", "type": type(default[0])}
        parser.add_argument(f"--{name}", **how)
    return parser.parse_args(argv)


def start(main, child=None):
    """Run a script's main, or its child for `in_process`; what a reader can mend is one sentence."""
    if sys.argv[1:2] == ["--child"]:
        return say(json.dumps(child(*json.loads(sys.argv[2]))))
    try:
        main()
    except (DataError, TokenizerError, TrainError, json.JSONDecodeError) as error:
        raise SystemExit(str(error)) from None


def timed_result(path, config, corpus, measure, **more):
    """What measure() returns, a dict, written to `path` with its seconds, machine, date and commit."""
    began = time.perf_counter()
    found = measure()
    return write_result(path, config, corpus, seconds=round(time.perf_counter() - began, 1), **more, **found)


def table(head, rows):
    return markdown(head, rows) if rows else "Not yet measured."


def seconds(work):
    """Seconds that one call of `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_process(module, *arguments):
    """What `python -m MODULE --child ARGUMENTS` says on its last line; one sentence if it died."""
    command = [sys.executable, "-m", module, "--child", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message; perhaps memory ran out"])[-1]
        raise SystemExit(f"The process of {module} {json.dumps(arguments)} ended early: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(measures, rounds):
    """{name: function that returns a number} -> {name: [number of each round]}, all names once a round.

    Whatever else the machine does disturbs all of them alike.
    """
    samples = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            samples[name].append(measure())
    return samples


def spread(samples):
    """{"median", "low", "high", "n"} of several measurements: the whole range, rounded to 6 digits."""
    ends = {"median": statistics.median(samples), "low": min(samples), "high": max(samples)}
    return {**{name: float(f"{x:.6g}") for name, x in ends.items()}, "n": len(samples)}


def status_mb(name, pid="self"):
    """A line of /proc/PID/status in MB: VmRSS is the memory of now, VmHWM the most so far. Linux."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", text)[1]) * 1024 / 1e6


def forget_peak():
    """From here on, this process's VmHWM counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
