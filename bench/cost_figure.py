"""The picture of bench/cost.py's curves: `python -m bench.cost_figure` draws results/cost.png from cost.json."""

import sys
from pathlib import Path

import numpy as np

from bench.common import value
from bench.cost import MEASURES, RESULT, merge, signed
from lab.plots import ACCENT, GREY, INK, figure
from lab.project import read_json


def draw_curve(ax, curve, unit, color, xlabel):
    """Points, their law, and the held-out point as a ring."""
    *seen, last = curve["points"]
    grid = np.linspace(seen[0]["x"], last["x"], 60)
    ax.plot(grid, value(curve["coefficients"], curve["powers"], grid) * unit, color=color, linewidth=1.5)
    ax.plot([p["x"] for p in seen], [p["median"] * unit for p in seen], "o", color=color, markersize=5)
    ax.plot(last["x"], last["median"] * unit, "o", markerfacecolor="white", markeredgecolor=color, markersize=8)
    ax.set(xlabel=xlabel, ylim=(0, None), xlim=(0, None))
    held = curve["held_out"]
    ax.text(0.97, 0.04, f"held out: {signed(held['error'])}", transform=ax.transAxes, ha="right", fontsize=11)


def draw(result):
    """The picture of results/cost.json: a figure with its alt text as fig.alt."""
    parts = result["parts"]
    fig, axes = figure(14, 10.5, rows=3, columns=4)
    names = {"layers": "layers", "sequences": "sequences a step", "context": "context", "width": "width"}
    for row, (part, unit, color) in enumerate((("time", 1e3, ACCENT), ("memory", 1e-6, INK))):
        for ax, (axis, name) in zip(axes[row], names.items(), strict=True):
            draw_curve(ax, parts[part]["curves"][axis], unit, color, name)
    axes[0][0].set(ylabel="ms a step", title="Time of a training step")
    axes[1][0].set(ylabel="MB", title="Memory of a training step")
    for ax, axis in zip(axes[1], names, strict=True):
        points = parts["memory"]["curves"][axis]["points"]
        ax.plot([p["x"] for p in points], [p["plan"] / 1e6 for p in points], "x", color=GREY, label="memory_plan")
    axes[1][0].legend(loc="upper left", frameon=False)
    for ax, way in zip(axes[2], ("uncached", "cached"), strict=False):
        draw_curve(ax, parts["sampling"]["curves"][way], 1e3, ACCENT, "letters so far")
        ax.set(title="A letter without a cache" if way == "uncached" else "… with a cache", ylabel="ms a letter")
    for ax in axes[2][2:]:
        ax.axis("off")
    fig.alt = alt_text(parts)
    return fig


def alt_text(parts):
    said = [f"{part} against {axis} {signed(curve['held_out']['error'])}" for part in ("time", "memory")
            for axis, curve in parts[part]["curves"].items()]
    faster = parts["sampling"]["cache_is_faster"]
    n = max(faster, key=int)
    return ("Ten small graphs of cost. Training step time and memory, each against layers, sequences, context and "
            "width: points, fitted laws, and a held-out point with the law's error (" + ", ".join(said) + "). A letter "
            f"behind {n} letters costs {faster[n]:.0f} times as much without a cache.")


def draw_file(out):
    result = read_json(out)
    missing = [part for part in MEASURES if part not in result.get("parts", {})]
    if missing:
        raise SystemExit(f"{out} has no {', '.join(missing)} yet: run those parts first.")
    fig = draw(result)
    picture = Path(out).with_suffix(".png")
    fig.savefig(picture, dpi=100)
    merge(out, picture={"file": picture.name, "alt": fig.alt})


if __name__ == "__main__":
    draw_file(sys.argv[1] if len(sys.argv) > 1 else RESULT)
