"""What the measurements share: a process of their own, turns, the spread of what came, laws."""

import json
import statistics
import subprocess
import sys
import time

import numpy as np


def seconds(work):
    """Seconds that one call of `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_process(module, *arguments):
    """What `python -m module --child ARGUMENTS` prints on its last line, from JSON; one sentence if it died.

    The arguments travel as one JSON list.
    """
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


# ---- fits


def design(x, powers):
    return np.stack([np.asarray(x, float) ** p for p in powers], axis=1)


def fit(x, y, powers):
    """Coefficients of sum c_p x^p with the least squared *relative* error: small points count as much."""
    y = np.asarray(y, float)
    coefficients, *_ = np.linalg.lstsq(design(x, powers) / y[:, None], np.ones_like(y), rcond=None)
    return [float(c) for c in coefficients]


def value(coefficients, powers, x):
    """The law at x: a number for a number, an array for several."""
    y = design(np.atleast_1d(x), powers) @ np.asarray(coefficients)
    return y if np.ndim(x) else float(y[0])


def judge(points, held, powers, tolerance):
    """Fit a law to points {x: y}, then ask it for the one point `held` (x, y) that it has not seen."""
    x, y = list(points), list(points.values())
    coefficients = fit(x, y, powers)
    worst = max(abs(value(coefficients, powers, a) / b - 1) for a, b in points.items())
    predicted = value(coefficients, powers, held[0])
    error = predicted / held[1] - 1
    return {"powers": list(powers), "coefficients": coefficients, "largest_error": round(worst, 4),
            "held_out": {"x": held[0], "measured": held[1], "predicted": predicted, "error": round(error, 4),
                         "tolerance": tolerance, "holds": abs(error) <= tolerance}}
