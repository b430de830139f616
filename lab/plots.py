"""The pictures of the notebooks: the claim as title, one accent colour, text of 11 points or more, alt text.

Each function returns a matplotlib figure with its description as `fig.alt`; `show(fig)` puts both into
the notebook.
"""

import io
import warnings

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Ellipse, FancyArrowPatch, Rectangle

ACCENT, INK, GREY, PALE = "#c2410c", "#1f2937", "#9ca3af", "#e5e7eb"
SHADES = matplotlib.colors.LinearSegmentedColormap.from_list(
    "surprise", ["#ffffff", "#fde4d3", "#f59e62", "#9a3412"])
HERE = {font.name for font in font_manager.fontManager.ttflist}
WIDE = ("Noto Sans Mono CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "MS Gothic")
MONO = ["DejaVu Sans Mono", *(name for name in WIDE if name in HERE)]  # for texts in other scripts
warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # it is drawn as a box
STYLE = {"font.size": 11, "axes.titlesize": 13, "axes.titleweight": "bold", "axes.titlelocation": "left",
         "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "text.color": INK,
         "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "figure.dpi": 100,
         "legend.frameon": False}
matplotlib.rcParams.update(STYLE)
# how a line is drawn
STRONG, DASHED = {"color": ACCENT, "linewidth": 2.5}, {"color": INK, "linestyle": "--"}
FAINT, DOT = {"color": PALE, "linewidth": 1}, {"color": INK, "linestyle": "", "marker": "."}


def figure(width, height, rows=1, columns=1, **options):
    """A figure in the house style and its axes."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **options)


def smooth(values, width):
    """Means of `width` neighbours: (the step at the middle of each, counted from 1; the means)."""
    width = max(1, min(width, len(values)))
    means = np.convolve(values, np.ones(width) / width, "valid")
    return np.arange(len(means)) + width // 2 + 1, means


def lines(curves, marks=None, size=(8.5, 3.8), xlabel="step", ylabel="loss, nats a character", **axes):
    """A figure of curves {name: (xs, ys, style)}, and of marks {text: y} as dotted lines across.

    A name that begins with _ stays out of the legend. The alt text says where each curve begins and ends.
    """
    fig, ax = figure(*size)
    for name, (x, y, style) in curves.items():
        ax.plot(x, y, **style, label=name)
    for text, y in (marks or {}).items():
        ax.axhline(y, color=INK, linestyle=":")
        ax.text(0.01, y, text, va="bottom", transform=ax.get_yaxis_transform())
    ax.set(xlabel=xlabel, ylabel=ylabel, **axes)
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    shown = {name.strip("_"): y for name, (_, y, _) in curves.items() if len(y)}
    ends = [f"{name} from {y[0]:.2f} to {y[-1]:.2f}" for name, y in shown.items()]
    across = [f"dotted: {text}, {y:.3f}" for text, y in (marks or {}).items()]
    fig.alt = f"{axes.get('title') or 'A curve'}. {ylabel} against {xlabel}: {'; '.join(ends + across)}."
    return fig


def show(fig, alt=None, path=None):
    """Show a figure with alt text, by default its own `fig.alt`; keep it as a PNG where `path` is given."""
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
    """rows: dicts with n, train_loss, val_loss, unseen (share of validation's n letters never in train)."""
    n, train, val = ([row[key] for row in rows] for key in ("n", "train_loss", "val_loss"))
    curves = {"train": (n, train, DASHED), "validation": (n, val, {**STRONG, "marker": "o"})}
    fig = lines(curves, size=(9, 4.6), xlabel="letters counted together (n)", ylim=(0, None), xlim=(0.5, 8.7),
                title="Longer tables know train ever better, and validation only up to a point")
    ax, best = fig.axes[0], int(np.argmin(val))
    ax.legend(loc="lower left")
    ax.annotate(f"best: {n[best]} letters, {val[best]:.3f}", (n[best], val[best]),
                (n[best] - 0.2, val[best] + 0.75), arrowprops={"arrowstyle": "->", "color": INK}, ha="center")
    bars = ax.twinx()
    bars.bar(n, [100 * row["unseen"] for row in rows], color=PALE, width=0.55)
    bars.set(ylim=(0, 100), ylabel="% of validation strings never seen in train")
    bars.spines["right"].set_visible(True)
    ax.set_zorder(bars.get_zorder() + 1)  # the lines lie over the bars
    ax.patch.set_visible(False)
    fig.alt += (f" Validation is best at {n[best]} letters, {val[best]:.3f}. Grey bars: the share of "
                f"validation strings never seen in train grows to {rows[-1]['unseen']:.0%}.")
    return fig


def luminance(color):
    """How bright a colour (red, green, blue from 0 to 1) looks, from 0 to 1."""
    red, green, blue = (c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ink_on(color):
    """White or ink, whichever can be read better on `color`."""
    return "white" if luminance(color) < 0.225 else INK


def surprise_strip(text, rows, title="Where the surprise sits"):
    """rows: {name: (len(text),) nats}. A box a letter, darker where the model was more surprised.

    text: a string, or a list of pieces; so too in `arcs`.
    """
    size = max(9.0, 0.3 * len(text) + 1.8), 0.66 * len(rows) + 1.0
    fig, axes = figure(*size, rows=len(rows), squeeze=False)
    top = 8.0
    for ax, (name, nats) in zip(axes[:, 0], rows.items(), strict=True):
        for i, (letter, value) in enumerate(zip(map(visible, text), nats, strict=True)):
            color = SHADES(min(value / top, 1))
            ax.add_patch(Rectangle((i, 0), 1, 1, facecolor=color, edgecolor="white"))
            ax.text(i + 0.5, 0.5, letter, ha="center", va="center", family=MONO, fontsize=14,
                    color=ink_on(color), weight="bold" if value > 3 else "normal")
        ax.set(xlim=(0, len(text)), ylim=(0, 1), xticks=[], yticks=[])
        ax.set_ylabel(f"{name}\n{np.mean(nats):.2f}", rotation=0, ha="right", va="center")
        for side in ax.spines.values():
            side.set_visible(False)
    axes[0, 0].set_title(title)
    fig.supxlabel("white: expected (0 nats)      dark: a surprise (8 nats or more)      bold: over 3",
                  fontsize=11)
    means = ", ".join(f"{name} {np.mean(nats):.2f}" for name, nats in rows.items())
    fig.alt = (f"The line “{''.join(text)}”, a box a letter, shaded by surprise, a row for each model. "
               f"Means in nats: {means}.")
    return fig


# ---- the neural bigram

def counted_learned(counted, learned, chars):
    """Two tables of probabilities (V, V), rows: the letter, columns: the next one; and each against each."""
    fig, axes = figure(15.5, 5.4, columns=3)
    small = [i for i, c in enumerate(chars) if c.islower() or c in " \n"]
    if len(small) < 10:  # a script without small letters
        small = [i for i, c in enumerate(chars) if c.isalpha() or c in " \n"]
    order = small[:30]
    shown = [chars[i] for i in order]
    ticks = range(len(order)), [visible(c).replace(" ", "␣") for c in shown]
    tables = [np.asarray(table)[np.ix_(order, order)] for table in (counted, learned)]
    for ax, title, table in zip(axes, ("Counted", "Learned"), tables, strict=False):
        ax.imshow(table**0.5, cmap=SHADES, vmin=0, vmax=1)  # the root: most shares are small
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(*ticks, family=MONO, fontsize=11)
        ax.set_title(title)
        ax.tick_params(length=0, pad=1)
        row, column = (shown.index(c) if c in shown else 0 for c in "qu")
        if tables[0][row, column] > 0.5:  # where u is the rule after q in this text
            ax.add_patch(Ellipse((column, row), 3, 3, fill=False, edgecolor=INK, linewidth=2))
    axes[0].set_ylabel("the letter")
    axes[1].set_xlabel("the next letter")
    axes[2].plot([0, 1], [0, 1], color=GREY)
    axes[2].plot(tables[0].ravel(), tables[1].ravel(), "o", color=ACCENT, alpha=0.5, markersize=5)
    axes[2].set(xlabel="counted probability", ylabel="learned probability", title="One dot a pair",
                aspect="equal")
    apart = np.abs(tables[0] - tables[1])
    fig.alt = ("Two heat maps, letter by next letter, counted and learned. Right: learned against counted, a "
               "dot a pair, along the diagonal; "
               f"mean distance {apart.mean():.4f}, largest {apart.max():.2f}.")
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
        left.text(T + 2.1, t + 0.5, f"answer: {shown[t + 1]}", va="center", family=MONO, color=ACCENT)
        for s in range(T):
            right.add_patch(Rectangle((s, t), 1, 1, facecolor=PALE if s <= t else "white", edgecolor=GREY))
            right.text(s + 0.5, t + 0.5, "1" if s <= t else "0", ha="center", va="center", fontsize=11)
    left.set(xlim=(0, T + 5.4), ylim=(T, 0), title="What is known at each question")
    right.set(xlim=(0, T), ylim=(T, 0), title="The same triangle, as a mask", aspect="equal")
    for ax in (left, right):
        ax.axis("off")
    fig.alt = (f"Left: the letters of “{text}” as a staircase; at each of {T} questions one more letter is "
               "known and the next is asked for. Right: the same triangle as a table of ones and zeros.")
    return fig


# ---- attention

def arcs(text, patterns, title, threshold=0.1):
    """patterns (nh, T, T): who looks where. A row a head: arcs to earlier letters, a dot for oneself."""
    patterns, T = np.asarray(patterns), len(text)
    heads = len(patterns)
    fig, axes = figure(11, 1.45 * heads + 0.9, rows=heads, squeeze=False)
    for head, (ax, pattern) in enumerate(zip(axes[:, 0], patterns, strict=True)):
        drawn = [(t, s) for t in range(T) for s in range(t) if pattern[t, s] > threshold]
        reach = max((t - s for t, s in drawn), default=1)
        for t, s in drawn:
            ax.add_patch(Arc(((t + s) / 2, 0.3), t - s, 2 * ((t - s) / max(reach, 6)) ** 0.6,
                             theta1=0, theta2=180, color=ACCENT, linewidth=4 * pattern[t, s],
                             alpha=min(1, 0.25 + pattern[t, s])))
        ax.scatter(range(T), [0.16] * T, s=110 * pattern.diagonal(), color=INK, linewidths=0)
        for t in range(T):
            ax.text(t, -0.02, visible(text[t]), ha="center", va="top", family=MONO, fontsize=14)
        ax.set(xlim=(-2, T), ylim=(-0.38, 1.35))
        ax.text(-1, 0.5, f"head {head + 1}", ha="right", va="center")
        ax.axis("off")
    axes[0, 0].set_title(title)
    fig.supxlabel("arc: a vote for an earlier letter      dot: the vote for itself      "
                  "thick, large: a large vote", fontsize=11)
    fig.alt = (f"The line “{''.join(text)}”, {heads} time{'s' if heads > 1 else ''}. Arcs lead from each "
               "letter to the earlier letters that the head looks at, a dot over it is its vote for itself. "
               f"Votes for oneself, on average: {', '.join(f'{p.diagonal().mean():.0%}' for p in patterns)}.")
    return fig


def stream(norms, title="Each block adds to one stream"):
    """norms: {name: gradient norms by block}. Above, the residual stream; below, the norms: all, near 1."""
    fig = Figure(figsize=(11, 6.6), layout="constrained")
    axes = fig.subplot_mosaic([["stream", "stream"], ["all", "near"]], height_ratios=(1, 1.9))
    draw_stream(axes["stream"], title)
    looks = [(ACCENT, "-"), (INK, "-"), (INK, "--"), (INK, ":"), (GREY, "-")]
    blocks = range(1, 1 + len(next(iter(norms.values()))))
    for (name, values), (color, line) in zip(norms.items(), looks, strict=False):
        style = {"color": color, "linestyle": line, "linewidth": 2.5 if color == ACCENT else 1.8}
        axes["all"].plot(blocks, values, **style, label=name)
        if min(values) > 1e-6:
            axes["near"].plot(blocks, values, marker="o", markersize=4, **style)
    axes["all"].set(yscale="log", xlabel="block", ylabel="gradient norm, first step", xticks=blocks,
                    title="All five, by powers of ten")
    axes["near"].set(xlabel="block", ylim=(0, None), xticks=blocks, title="Four of them, close up")
    fig.legend(*axes["all"].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    ends = "; ".join(f"{name} {values[0]:.2g} and {values[-1]:.2g}" for name, values in norms.items())
    fig.alt = ("Above: the residual stream as an arrow, attention and MLP as loops that add to it. Below: "
               f"gradient norms by block. First and last block: {ends}.")
    return fig


def draw_stream(ax, title):
    """The residual stream as an arrow, with the loops of two blocks."""
    ax.add_patch(arrow((0, 0), (10, 0), 4, INK))
    for i, name in enumerate(("attention", "MLP") * 2):
        x = 1 + 2.25 * i
        ax.add_patch(FancyArrowPatch((x, 0.05), (x + 1.35, 0.08), connectionstyle="arc3,rad=-0.9",
                                     arrowstyle="-|>", mutation_scale=16, linewidth=2, color=ACCENT))
        ax.text(x + 0.67, 0.62, name, ha="center", color=ACCENT)
        ax.text(x + 1.42, -0.34, "+", ha="center", fontsize=15, weight="bold")
    ax.text(0, -0.3, "embedding", ha="left")
    ax.text(10.1, 0.16, "output head", ha="right")
    ax.set(xlim=(-0.2, 10.2), ylim=(-0.45, 0.8), title=title)
    ax.axis("off")


# ---- training and sampling

def curve(losses, mark=None, mark_name="", title="", val=None):
    """Training loss by step and its mean over 50; the next mark as a line, the final exact loss as a dot."""
    n, mean = len(losses), smooth(losses, min(50, len(losses) // 5))
    curves = {"_training loss": (range(1, n + 1), losses, FAINT), "_its mean": (*mean, {"color": INK})}
    if val is not None:
        curves["_exact validation"] = [n], [val], {**STRONG, "marker": "o"}
    fig = lines(curves, size=(9, 3.8), ylabel="training loss, nats a character", title=title)
    if val is not None:
        fig.axes[0].annotate(f"validation {val:.3f}", (n, val), (-10, 22), textcoords="offset points",
                             ha="right", arrowprops={"arrowstyle": "->"})
    if mark is not None:
        fig.axes[0].plot([0, 1.02 * n], [mark, mark], "--", color=ACCENT)
        fig.axes[0].text(1.03 * n, mark, f"{mark_name}\n{mark:.3f}", color=ACCENT, va="center")
        fig.alt += f" A dashed line marks {mark:.3f}: {' '.join(mark_name.split())}."
    return fig


def next_letters(panels, chars, title, most=12):
    """panels: {name: (V,) probabilities}. The likeliest next letters, on one scale and in one order."""
    fig, axes = figure(2.6 * len(panels) + 1, 4.2, columns=len(panels), sharey=True, squeeze=False)
    order = np.argsort(-np.asarray(next(iter(panels.values()))))[:most]
    names = [{" ": "space", "\n": "newline"}.get(chars[i], chars[i]) for i in order]
    longest = max(float(np.max(probs)) for probs in panels.values())
    for ax, (name, probs) in zip(axes[0], panels.items(), strict=True):
        values = np.asarray(probs)[order]
        ax.barh(range(len(order)), values, color=[ACCENT if v == values.max() else GREY for v in values])
        for i, v in enumerate(values):
            ax.text(v + 0.02 * longest, i, f"{v:.2f}" if v else "0", va="center")
        ax.set(ylim=(len(order) - 0.5, -0.5), xlim=(0, 1.25 * longest), title=name, xlabel="probability")
    axes[0, 0].set_yticks(range(len(order)), names, family=MONO)
    fig.suptitle(title, fontsize=13, weight="bold", x=0.01, ha="left")
    fig.alt = (f"Bar charts of the likeliest next letters: {', '.join(panels)}. The likeliest is {names[0]} "
               f"in each; the longest bar is {longest:.2f}.")
    return fig


def ladder_picture(ladder, title="From counting letters to a small GPT"):
    """A step a rung, as long as its loss; on it, what the model writes; across, the marks of counting."""
    rungs = ladder.rungs
    fig, ax = figure(12, 0.47 * len(rungs) + 1.5)
    for i, rung in enumerate(rungs):
        last = i == len(rungs) - 1
        ax.barh(i, rung["val_loss"], height=0.82, color=ACCENT if last else "#3f4754")
        ax.text(0.04, i, visible(rung["sample"] or "")[:40], va="center", family=MONO, color="white")
        ax.text(rung["val_loss"] + 0.03, i, f"{rung['val_loss']:.2f}", va="center", weight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    for n, mark in enumerate(ladder.marks, start=1):
        ax.axvline(mark, color=ACCENT, linestyle=":", linewidth=1.3, zorder=0)
        ax.text(mark, -0.75, f"{n}", ha="center", va="bottom", color=ACCENT, weight="bold")
    ax.text(ladder.marks[0] + 0.12, -0.75, "← as good as counting this many letters", va="bottom",
            color=ACCENT)
    ax.set(ylim=(len(rungs) - 0.45, -0.75), xlim=(0, 1.14 * max(rung["val_loss"] for rung in rungs)),
           xlabel="exact validation loss, nats a character")
    ax.set_yticks(range(len(rungs)), [rung["name"] for rung in rungs])
    ax.tick_params(axis="y", length=0)
    ax.set_title(title, pad=24)
    losses = ", ".join(f"{rung['name']} {rung['val_loss']:.2f}" for rung in rungs)
    fig.alt = (f"Bars, one for each of {len(rungs)} models, as long as its validation loss: {losses}. "
               "On each, the first letters that the model wrote.")
    return fig


# ---- the whole model

def stations(config):
    """Where a token passes, in order: rows of (GPT-2's name, what happens, shape after it, parameters).

    `config`: a GPTConfig. A name with `h.i` stands once in each of the n_layer blocks; rows without a
    name hold no parameters. A tied output head counts 0: its table is `wte`.
    """
    V, T, C, nh = config.vocab_size, config.block_size, config.n_embd, config.n_head
    stream, one = f"(B, T, {C})", int(config.bias)
    norm, heads = C + one * C, f"(B, {nh}, T, {C // nh})"
    return [
        ("", "a letter as a number: its id", "(B, T)", 0),
        ("wte", f"what: a row of a table of {V:,}", stream, V * C),
        ("wpe", f"where: a row of {T:,} places, added", stream, T * C),
        ("h.i.ln_1", "LayerNorm, for reading", stream, norm),
        ("h.i.attn.c_attn", "query, key, value", f"(B, T, 3 · {C})", 3 * C * C + one * 3 * C),
        ("", f"cut into {nh} heads of {C // nh}", f"{heads}, 3 times", 0),
        ("", "scores, mask, softmax: votes", f"(B, {nh}, T, T)", 0),
        ("", "votes @ values", heads, 0),
        ("h.i.attn.c_proj", "heads side by side, mixed, added", stream, C * C + one * C),
        ("h.i.ln_2", "LayerNorm, for reading", stream, norm),
        ("h.i.mlp.c_fc", "widen, then GELU", f"(B, T, {4 * C})", 4 * C * C + one * 4 * C),
        ("h.i.mlp.c_proj", "narrow, added", stream, 4 * C * C + one * C),
        ("ln_f", "LayerNorm, the last", stream, norm),
        ("lm_head", "a score for each id" + (" (wte again)" if config.tie_weights else ""),
         f"(B, T, {V:,})", 0 if config.tie_weights else V * C),
        ("", "softmax: probabilities of the next", f"(B, T, {V:,})", 0)]


def arrow(start, end, width, color):
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8 + 3 * width, linewidth=width,
                           color=color, shrinkA=0, shrinkB=0)


def whole_model(config):
    """One token on its way through a GPT of this GPTConfig: names, shapes and parameters of each station."""
    rows, L = stations(config), config.n_layer
    total = sum(count * (L if ".i." in name else 1) for name, _, _, count in rows)
    fig, ax = figure(11, 9)
    ax.add_patch(arrow((1, 0.2), (1, len(rows) - 0.1), 5, INK))
    ax.add_patch(Rectangle((0.35, 3), 10.55, 9, facecolor="#f3f4f6", edgecolor=GREY, zorder=0))
    ax.text(0.1, 7.5, f"block, {L} times", rotation=90, va="center", ha="center", weight="bold")
    for first, last in ((3, 8), (9, 11)):  # read from the stream, add to the stream
        ax.plot([1, 1.95, 1.95], [first + 0.46, first + 0.46, last + 0.46], color=ACCENT, linewidth=2.5)
        ax.add_patch(arrow((1.95, last + 0.46), (1.12, last + 0.46), 2.5, ACCENT))
    ax.add_patch(arrow((1.95, 2.46), (1.12, 2.46), 2.5, ACCENT))
    for i, (name, what, shape, count) in enumerate(rows):
        y = i + 0.46
        ax.text(2.15, y, what, va="center", fontsize=12)
        ax.text(5.85, y, name, va="center", family=MONO, fontsize=11, color=ACCENT)
        ax.text(7.65, y, shape, va="center", family=MONO, fontsize=11)
        ax.text(10.8, y, f"{count:,}" if count else "", va="center", ha="right", fontsize=11)
    for i in (2, 8, 11):
        ax.text(0.72, i + 0.46, "+", fontsize=17, weight="bold", va="center", ha="center")
    for x, head, side in ((2.15, "what happens", "left"), (5.85, "GPT-2's name", "left"),
                          (7.65, "shape", "left"), (10.8, "parameters", "right")):
        ax.text(x, -0.35, head, weight="bold", va="center", ha=side)
    ax.text(10.8, len(rows) + 0.35, f"{total:,} in all", weight="bold", ha="right", va="center")
    ax.set(xlim=(-0.1, 11), ylim=(len(rows) + 0.7, -0.8), title="A GPT-2, from an id to probabilities")
    ax.axis("off")
    way = "; ".join(f"{what} {shape}" for _, what, shape, _ in rows)
    fig.alt = (f"A GPT of {L} blocks, {config.n_head} heads and width {config.n_embd}: {total:,} parameters. "
               f"A thick arrow, the residual stream, runs from the id to the probabilities; attention and "
               f"MLP of each block read from it and add to it. In order: {way}.")
    return fig
