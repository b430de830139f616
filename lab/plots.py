"""The pictures of the notebooks: the claim as title, one accent colour, text of 11 points or more, alt text.

Each function returns a matplotlib figure with its description as `fig.alt`; `show(fig)` puts both into the notebook.
"""

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Ellipse, FancyArrowPatch, Rectangle

ACCENT, INK, GREY, PALE = "#c2410c", "#1f2937", "#9ca3af", "#e5e7eb"
SHADES = matplotlib.colors.LinearSegmentedColormap.from_list("surprise", ["#ffffff", "#fde4d3", "#f59e62", "#9a3412"])
MONO = "DejaVu Sans Mono"
STYLE = {"font.size": 11, "axes.titlesize": 13, "axes.titleweight": "bold", "axes.titlelocation": "left",
         "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "text.color": INK,
         "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "figure.dpi": 100}
matplotlib.rcParams.update(STYLE)


def figure(width, height, rows=1, columns=1, **options):
    """A figure in the house style and its axes."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **options)


def show(fig, alt=None, path=None):
    """Show a figure with alt text, by default its own `fig.alt`; keep it as a PNG file where `path` is given."""
    from IPython.display import display
    alt = alt or fig.alt
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=100)
    if path is not None:
        fig.savefig(path, dpi=100)
    display({"image/png": png.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def visible(text):
    """A line for a picture: the newline drawn as a sign."""
    return text.replace("\n", "⏎")


# ---- counting

def the_u(rows):
    """rows: dicts with n, train_loss, val_loss, unseen (share of validation strings of n letters never in train)."""
    fig, ax = figure(9, 4.6)
    n = [row["n"] for row in rows]
    bars = ax.twinx()
    bars.bar(n, [100 * row["unseen"] for row in rows], color=PALE, width=0.55)
    bars.set(ylim=(0, 100), ylabel="% of validation strings never seen in train")
    bars.spines["right"].set_visible(True)
    ax.set_zorder(bars.get_zorder() + 1)
    ax.patch.set_visible(False)
    train, val = ([row[key] for row in rows] for key in ("train_loss", "val_loss"))
    ax.plot(n, train, "o--", color=INK, label="train")
    ax.plot(n, val, "o-", color=ACCENT, linewidth=2.5, label="validation")
    best = int(np.argmin(val))
    ax.annotate(f"best: {n[best]} letters, {val[best]:.3f}", (n[best], val[best]), (n[best] - 0.2, val[best] + 0.75),
                arrowprops={"arrowstyle": "->", "color": INK}, ha="center")
    ax.text(n[-1] + 0.12, train[-1], "train", va="center")
    ax.text(n[-1] + 0.12, val[-1] + 0.06, "validation", va="bottom", ha="right", color=ACCENT)
    ax.set(xlabel="letters counted together (n)", ylabel="loss, nats a character", ylim=(0, None), xlim=(0.5, 8.7),
           title="Longer tables know train ever better, and validation only up to a point")
    fig.alt = (f"Loss against n, 1 to {n[-1]} letters. Training loss falls all the way to {train[-1]:.2f}. Validation "
               f"loss falls to {val[best]:.3f} at {n[best]} letters, then rises to {val[-1]:.2f}. Grey bars: the share "
               f"of validation strings never seen in train grows from 0% to {rows[-1]['unseen']:.0%}.")
    return fig


def surprise_strip(text, rows, title="Where the surprise sits"):
    """rows: {name: (len(text),) nats}. One line of text, a box a letter, darker where the model was more surprised."""
    fig, axes = figure(max(9.0, 0.26 * len(text) + 1.8), 0.62 * len(rows) + 1.0, rows=len(rows), squeeze=False)
    top = 8.0
    for ax, (name, nats) in zip(axes[:, 0], rows.items(), strict=True):
        for i, (letter, value) in enumerate(zip(visible(text), nats, strict=True)):
            ax.add_patch(Rectangle((i, 0), 1, 1, facecolor=SHADES(min(value / top, 1)), edgecolor="white"))
            ax.text(i + 0.5, 0.5, letter, ha="center", va="center", family=MONO, fontsize=12,
                    color="white" if value > 0.62 * top else INK, weight="bold" if value > 3 else "normal")
        ax.set(xlim=(0, len(text)), ylim=(0, 1), xticks=[], yticks=[])
        ax.set_ylabel(f"{name}\n{np.mean(nats):.2f}", rotation=0, ha="right", va="center")
        for side in ax.spines.values():
            side.set_visible(False)
    axes[0, 0].set_title(title)
    fig.supxlabel("white: expected (0 nats)      dark: a surprise (8 nats or more)      bold: over 3 nats", fontsize=11)
    means = ", ".join(f"{name} {np.mean(nats):.2f}" for name, nats in rows.items())
    fig.alt = f"The line “{text}”, a box a letter, shaded by surprise, a row for each model. Means in nats: {means}."
    return fig


# ---- the neural bigram

def counted_learned(counted, learned, chars, circle="qu"):
    """Two tables of probabilities (V, V), rows: the letter, columns: the next one; and how far apart they are."""
    fig, axes = figure(15.5, 5.6, columns=3)
    order = [i for i, c in enumerate(chars) if c.islower() or c in " \n"]
    marks = [visible(chars[i]) if chars[i] != " " else "␣" for i in order]
    pick = np.ix_(order, order)
    difference = np.abs(np.asarray(learned) - np.asarray(counted))[pick]
    pictures = (("Counted", np.asarray(counted)[pick]), ("Learned", np.asarray(learned)[pick]),
                ("The difference, same scale", difference))
    for ax, (title, table) in zip(axes, pictures, strict=True):
        ax.imshow(table, cmap=SHADES, vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_xticks(range(len(order)), marks, family=MONO, fontsize=11)
        ax.set_yticks(range(len(order)), marks, family=MONO, fontsize=11)
        ax.tick_params(length=0, pad=1)
        first, second = (order.index(chars.index(c)) for c in circle)
        ax.add_patch(Ellipse((second, first), 3, 3, fill=False, edgecolor=INK, linewidth=2))
    axes[0].set_ylabel("the letter")
    fig.supxlabel("the next letter", fontsize=11)
    fig.alt = (f"Three heat maps, letter by next letter: counted, learned, and the difference, at most "
               f"{difference.max():.2f}. "
               f"The cell of {circle[0]} followed by {circle[1]} is circled.")
    return fig


def staircase(text):
    """One window, T questions: what is known at each of them, and the same triangle as a mask."""
    T = len(text) - 1
    fig, (left, right) = figure(11, 0.42 * T + 1.2, columns=2, width_ratios=(1.35, 1))
    shown = visible(text)
    for t in range(T):
        for s in range(t + 1):
            left.text(s + 0.5, t + 0.5, shown[s], ha="center", va="center", family=MONO, fontsize=13)
            left.add_patch(Rectangle((s, t), 1, 1, facecolor=PALE, edgecolor="white"))
        left.text(t + 1.5, t + 0.5, "?", ha="center", va="center", family=MONO, fontsize=13, color=GREY)
        left.text(T + 2.1, t + 0.5, f"answer: {shown[t + 1]}", va="center", family=MONO, fontsize=11, color=ACCENT)
        for s in range(T):
            right.add_patch(Rectangle((s, t), 1, 1, facecolor=PALE if s <= t else "white", edgecolor=GREY))
            right.text(s + 0.5, t + 0.5, "1" if s <= t else "0", ha="center", va="center", fontsize=11)
    left.set(xlim=(0, T + 5.4), ylim=(T, 0), title="What is known at each question")
    right.set(xlim=(0, T), ylim=(T, 0), title="The same triangle, as a mask", aspect="equal")
    for ax in (left, right):
        ax.axis("off")
    fig.alt = (f"Left: the letters of “{text}” as a staircase; at each of {T} questions one more letter is known "
               "and the next is asked for. Right: the same triangle as a table of ones and zeros.")
    return fig


# ---- attention

def arcs(text, patterns, title, threshold=0.12):
    """patterns (nh, T, T): who looks where. One row a head, an arc from each letter back to where it looks."""
    patterns, heads, T = np.asarray(patterns), len(patterns), len(text)
    t, s = np.nonzero((np.tril(patterns, -1) > threshold).any(axis=0))
    reach = max(t - s, default=1)  # the longest arc sets the height
    fig, axes = figure(11, (0.9 + 0.22 * reach**0.6) * heads + 0.5, rows=heads, squeeze=False)
    for head, (ax, pattern) in enumerate(zip(axes[:, 0], patterns, strict=True)):
        for t in range(T):
            for s in range(t):
                if pattern[t, s] > threshold:
                    ax.add_patch(Arc(((t + s) / 2, 0.25), t - s, 1.2 * (t - s) ** 0.6, theta1=0, theta2=180,
                                     color=ACCENT, linewidth=3 * pattern[t, s], alpha=min(1, 0.25 + pattern[t, s])))
            ax.text(t, -0.05, visible(text[t]), ha="center", va="top", family=MONO, fontsize=12)
        ax.set(xlim=(-1, T), ylim=(-0.9, 0.35 + 0.6 * reach**0.6))
        ax.text(-1.2, 1, f"head {head + 1}", ha="right", va="center")
        ax.axis("off")
    axes[0, 0].set_title(title)
    fig.alt = (f"The line “{text}”, {heads} time{'s' if heads > 1 else ''}, with arcs from each letter back to the "
               "letters that the head looks at; thicker means a larger vote.")
    return fig


def stream(norms, title="Each block adds to one stream; take a part away and the gradient shows it"):
    """norms: {name: gradient norms by block}. Above, the residual stream with its loops; below, the norms."""
    fig, (top, ax) = figure(10, 6, rows=2, height_ratios=(1, 1.6))
    top.add_patch(FancyArrowPatch((0, 0), (10, 0), arrowstyle="-|>", mutation_scale=22, linewidth=4, color=INK))
    for i, name in enumerate(("attention", "MLP") * 2):
        x = 1 + 2.25 * i
        top.add_patch(FancyArrowPatch((x, 0.05), (x + 1.35, 0.08), connectionstyle="arc3,rad=-0.9",
                                      arrowstyle="-|>", mutation_scale=16, linewidth=2, color=ACCENT))
        top.text(x + 0.67, 0.62, name, ha="center", color=ACCENT)
        top.text(x + 1.42, -0.34, "+", ha="center", fontsize=15, weight="bold")
    top.text(0, -0.3, "embedding", ha="left")
    top.text(10, -0.3, "head", ha="right")
    top.set(xlim=(-0.2, 10.2), ylim=(-0.45, 0.8), title=title)
    top.axis("off")
    looks = [(ACCENT, "-"), (INK, "-"), (INK, "--"), (INK, ":"), (GREY, "-")]
    for (name, values), (color, line) in zip(norms.items(), looks, strict=False):
        style = {"color": color, "linestyle": line, "linewidth": 2.5 if color == ACCENT else 1.5}
        ax.plot(range(1, len(values) + 1), values, marker="o", label=name, **style)
    ax.set(yscale="log", xlabel="block", ylabel="gradient norm at the first step", xticks=range(1, len(values) + 1))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ends = "; ".join(f"{name} {values[0]:.2g} and {values[-1]:.2g}" for name, values in norms.items())
    fig.alt = ("Above: the residual stream as an arrow, attention and MLP as loops that add to it. Below: gradient "
               f"norms by block. First and last block: {ends}.")
    return fig


# ---- training and sampling

def curve(losses, mark=None, mark_name="", title="", val=None):
    """Training loss by step, smoothed over 50 steps, with the next mark as a line and the final exact loss as a dot."""
    fig, ax = figure(9, 3.8)
    losses = np.asarray(losses)
    ax.plot(losses, color=PALE, linewidth=1)
    width = max(1, min(50, len(losses) // 5))
    ax.plot(np.arange(width - 1, len(losses)), np.convolve(losses, np.ones(width) / width, "valid"), color=INK)
    if mark is not None:
        ax.plot([0, 1.02 * len(losses)], [mark, mark], "--", color=ACCENT)
        ax.text(1.03 * len(losses), mark, f"{mark_name}\n{mark:.3f}", color=ACCENT, va="center")
    if val is not None:
        ax.plot([len(losses)], [val], "o", color=ACCENT)
        ax.annotate(f"validation {val:.3f}", (len(losses), val), (-10, 22), textcoords="offset points", ha="right",
                    arrowprops={"arrowstyle": "->"})
    ax.set(xlabel="step", ylabel="training loss, nats a character", title=title)
    fig.alt = f"Training loss by step, from {losses[0]:.2f} to about {losses[-width:].mean():.2f}."
    fig.alt += f" A dashed line marks {mark:.3f}: {mark_name}." if mark is not None else ""
    return fig


def next_letters(panels, chars, title, most=12):
    """panels: {name: (V,) probabilities}. The likeliest next letters, side by side, on one scale and in one order."""
    fig, axes = figure(2.6 * len(panels) + 1, 4.2, columns=len(panels), sharey=True, squeeze=False)
    order = np.argsort(-np.asarray(next(iter(panels.values()))))[:most]
    names = [{" ": "space", "\n": "newline"}.get(chars[i], chars[i]) for i in order]
    for ax, (name, probs) in zip(axes[0], panels.items(), strict=True):
        values = np.asarray(probs)[order]
        ax.barh(range(len(order)), values, color=[ACCENT if v == values.max() else GREY for v in values])
        for i, v in enumerate(values):
            ax.text(v + 0.01, i, f"{v:.2f}" if v else "0", va="center")
        ax.set(ylim=(len(order) - 0.5, -0.5), xlim=(0, 1.18), title=name, xlabel="probability")
    axes[0, 0].set_yticks(range(len(order)), names, family=MONO)
    fig.suptitle(title, fontsize=13, weight="bold", x=0.01, ha="left")
    fig.alt = f"Bar charts of the likeliest next letters: {', '.join(panels)}. The likeliest is {names[0]} in each."
    return fig


def ladder_picture(ladder, title="From counting letters to a small GPT"):
    """A step a rung, as long as its loss; on it, what the model writes; across, the marks of counting."""
    rungs = ladder.rungs
    fig, ax = figure(12, 0.47 * len(rungs) + 1.5)
    for i, rung in enumerate(rungs):
        last = i == len(rungs) - 1
        ax.barh(i, rung["val_loss"], height=0.82, color=ACCENT if last else "#3f4754")
        ax.text(0.04, i, visible(rung["sample"] or "")[:40], va="center", family=MONO, fontsize=11, color="white")
        ax.text(rung["val_loss"] + 0.03, i, f"{rung['val_loss']:.2f}", va="center", weight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    for n, mark in enumerate(ladder.marks, start=1):
        ax.axvline(mark, color=ACCENT, linestyle=":", linewidth=1.3, zorder=0)
        ax.text(mark, -0.75, f"{n}", ha="center", va="bottom", color=ACCENT, weight="bold")
    ax.text(ladder.marks[0] + 0.12, -0.75, "← as good as counting this many letters", va="bottom", color=ACCENT)
    ax.set(ylim=(len(rungs) - 0.45, -0.75), xlim=(0, 4.75), xlabel="exact validation loss, nats a character")
    ax.set_yticks(range(len(rungs)), [rung["name"] for rung in rungs])
    ax.tick_params(axis="y", length=0)
    ax.set_title(title, pad=24)
    fig.alt = (f"Bars, one for each of {len(rungs)} models, as long as its validation loss: " + ", ".join(
        f"{rung['name']} {rung['val_loss']:.2f}" for rung in rungs) + ". On each, forty letters that the model wrote.")
    return fig
