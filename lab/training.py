"""What gpt2_training.ipynb needs beside lab.plots: its measurements, and its pictures in the same style."""

import dataclasses
import html

import numpy as np

from lab.plots import ACCENT, DASHED, DOT, FAINT, GREY, INK, SHADES, STRONG, figure, lines, smooth
from lab.reading import mentions_in_ids

SMALLEST_FP16 = 2.0**-24  # below half of it a number becomes 0

# ---- the text


def part_of(corpus, train, val=None):
    """A corpus with only the first characters of its train and validation text."""
    cut = {"train": corpus.train[:train], "train_text": corpus.train_text[:train], "val": corpus.val[:val],
           "val_text": corpus.val_text[:val], "floor": None}
    return dataclasses.replace(corpus, name=f"{corpus.name}, first {train:,} characters", **cut)


# ---- copied text


def matches(text, source, least):
    """(start, end) of what stands in source from each place of text on, where that has `least` letters."""
    end = 0
    for start in range(len(text) - least + 1):
        if text[start : start + least] in source:
            end = max(end, start + least)  # what matched from the place before goes on matching from here
            while end < len(text) and text[start : end + 1] in source:
                end += 1
            yield start, end


def copied(text, source, least=15):
    """(start, end) of the passages of text, `least` letters or longer, that stand in source word for word."""
    spans = []
    for start, end in matches(text, source, least):
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))  # they overlap: underline both as one
        else:
            spans.append((start, end))
    return spans


def memorisation(text, source, least=15):
    """Length of the longest passage of text that stands in source word for word; 0 when below `least`."""
    return max((end - start for start, end in matches(text, source, least)), default=0)


def show_samples(samples, source, least=15):
    """samples: {title: text}. Side by side, what is copied from source underlined."""
    from IPython.display import display
    cells = []
    for title, text in samples.items():
        out, end = [], 0
        for a, b in copied(text, source, least):
            marked = f"<u style='text-decoration-thickness:2px'>{html.escape(text[a:b])}</u>"
            out += [html.escape(text[end:a]), marked]
            end = b
        body = "".join([*out, html.escape(text[end:])])
        style = "vertical-align:top;text-align:left;padding:0 1.2em 0 0"
        cells.append(f"<td style='{style}'><b>{html.escape(title)}</b>"
                     f"<pre style='white-space:pre-wrap;max-width:26em'>{body}</pre></td>")
    plain = "\n\n".join(f"{title}\n{text}" for title, text in samples.items())
    display({"text/html": f"<table><tr>{''.join(cells)}</tr></table>", "text/plain": plain}, raw=True)


def say_validation(record, model):
    """A callback for `train`: at each validation, where the run stands."""
    if "val_loss" in record:
        print(f"step {record['step']:>5}   validation {record['val_loss']:.3f}")


# ---- two models, side by side


def strongest(name, facts):
    """For each kind of place, the head that gives it the largest share, as lines of text."""
    shares, lines = np.array(facts["heads"]), []
    for k, kind in enumerate(facts["kinds"]):
        layer, head = np.unravel_index(shares[:, :, k].argmax(), shares.shape[:2])
        most = f"layer {layer + 1}, head {head + 1}, {shares[layer, head, k]:.0%}"
        lines.append(f"{name}, {kind:<20} most: {most}; "
                     f"all heads {shares[:, :, k].mean():.0%}; evenly {facts['even'][k]:.0%}")
    return lines


def near_and_far(facts):
    """Mean nats where 5 to 8 letters can be seen, and in the second half of the window."""
    def mean(places):
        sizes = [g["to"] - g["from"] + 1 for g in places]
        return float(np.average([g["nats"] for g in places], weights=sizes))

    groups = facts["by_position"]
    return (mean([g for g in groups if 5 <= g["from"] <= 8]),
            mean([g for g in groups if g["from"] > groups[-1]["to"] // 2]))


def mentions_of_table(table, corpus, T):
    """The counted table's nats a letter at the mentions of reading.new_name, the first letter left out."""
    ids, spans = corpus.val.numpy(), mentions_in_ids(corpus)[1]
    return [float(np.mean(table.losses(ids[max(0, end - T) : end])[-max(1, end - begin - 1) :]))
            for begin, end in spans]


# ---- pictures


def one_batch(losses, uniform):
    """Training loss on a single batch, on a log scale."""
    return lines({"_training": (range(1, len(losses) + 1), losses, STRONG)}, {"knows nothing": uniform},
                 title="One batch, seen again and again", yscale="log")


def rates(lrs, losses, chosen):
    """A range test: loss against a rate that grows at each step."""
    at, line = smooth(losses, 5)
    mean = np.asarray(lrs)[at - 1], line, {"color": INK}
    curves = {"_each step": (lrs, losses, FAINT), "_their mean": mean}
    top = 1.3 * losses[0]  # what flies off above it is not worth the room
    fig = lines(curves, title="Too slow, right, too fast", xlabel="learning rate at this step", xscale="log",
                ylim=(0.85 * min(line), top))
    fig.axes[0].axvline(chosen, color=ACCENT, linestyle="--")
    fig.axes[0].text(chosen, top, f"  {chosen:g}", color=ACCENT, va="top")
    return fig


def schedules(runs, lrs):
    """runs: {name: losses}, lrs: {name: rates}. Left the rates, right the smoothed losses."""
    fig, (left, right) = figure(11, 3.8, columns=2)
    for (name, losses), style in zip(runs.items(), ({"color": GREY}, DASHED, STRONG), strict=False):
        left.plot(lrs[name], **style)
        right.plot(*smooth(losses, 20), label=name, **style)
    left.set(xlabel="step", ylabel="learning rate", title="Three plans")
    right.set(xlabel="step", ylabel="training loss, nats", title="What came of them")
    right.legend()
    return fig


def ruler(estimates, exact):
    """Ten estimates as dots, the exact loss as a line."""
    fig, ax = figure(8, 2.6)
    ax.scatter(estimates, np.arange(len(estimates)), color=INK, zorder=3)
    ax.axvline(exact, color=ACCENT, linewidth=2.5)
    ax.text(exact, len(estimates) - 0.2, f" exact: {exact:.4f}", color=ACCENT, va="bottom")
    ax.set(yticks=[], xlabel="loss, nats a character", ylim=(-1, len(estimates) + 1),
           title="One model, ten opinions")
    return fig


def gradient_sizes(gradient, scale=1.0):
    """Histogram of |gradient|, log scale; what fp16 cannot hold, before and after multiplying by `scale`."""
    fig, axes = figure(11, 3.6, columns=2, sharey=True)
    size = gradient.abs().flatten().numpy()
    for ax, factor, title in ((axes[0], 1.0, "As it is"), (axes[1], scale, f"Times {scale:,.0f}")):
        held = size[size > 0] * factor
        lost = held < SMALLEST_FP16 / 2
        ax.hist([np.log10(held[~lost]), np.log10(held[lost])], np.linspace(-14, 5, 80), color=[INK, ACCENT],
                stacked=True)
        for limit in (SMALLEST_FP16, 65504):
            ax.axvline(np.log10(limit), color=ACCENT, linestyle="--")
        ax.set(title=f"{title}: fp16 loses {lost.mean():.1%}", xlabel="size of a gradient, power of ten")
    axes[0].set_ylabel("how many gradients")
    return fig


def scaler_trace(records):
    """The gradient scale by step, with the steps that were skipped."""
    steps, scales = [r["step"] for r in records], [r["scale"] for r in records]
    skipped = [i for i, r in enumerate(records) if "skipped" in r]
    crosses = {**DOT, "color": ACCENT, "marker": "x", "markersize": 9, "markeredgewidth": 2.5}
    fig = lines({"scale": (steps, scales, {"color": INK, "drawstyle": "steps-post"}),
                 "step skipped": ([steps[i] for i in skipped], [scales[i] for i in skipped], crosses)},
                title="The scaler feels its way down", ylabel="gradient scale")
    fig.axes[0].set_yscale("log", base=2)
    return fig


def depth(runs, marks):
    """runs: {name: TrainResult}, marks: {name: loss}. A panel a run: train, validation, its best, marks."""
    fig, axes = figure(12, 3.9, columns=len(runs), sharey=True, squeeze=False)
    for ax, (name, run) in zip(axes[0], runs.items(), strict=True):
        ax.plot(*smooth(run.train_losses, 15), **DASHED, label="train")
        ax.plot(*zip(*run.val_losses, strict=True), **STRONG, label="validation")
        step, best = min(run.val_losses, key=lambda point: point[1])
        ax.plot(step, best, "*", color=ACCENT, markersize=16)
        ax.annotate(f"{best:.2f}", (step, best), (0, -17), textcoords="offset points", ha="center",
                    color=ACCENT)
        for mark in marks.values():
            ax.axhline(mark, color=INK, linestyle=":")
        ax.set(title=name, xlabel="step", ylim=(0, None))
    left = axes[0, 0]
    left.set_ylabel("loss, nats a character")
    left.legend(loc="lower left")
    by_loss = sorted(marks.items(), key=lambda item: item[1])
    for (name, mark), side in zip(by_loss, ("top", "bottom"), strict=False):
        left.text(0.98, mark, f"{name} ", va=side, ha="right", transform=left.get_yaxis_transform())
    return fig


def run_curve(history, mark, title="The run"):
    """Training loss, exact validation, its best point, the 5-gram's mark; history as TrainResult has it."""
    curves = {"train": (*smooth([r["loss"] for r in history if "loss" in r], 40), DASHED)}
    val = [(r["step"], r["val_loss"]) for r in history if "val_loss" in r]
    if val:  # none yet where the run was stopped early
        curves["validation, exact"] = (*zip(*val, strict=True), {**STRONG, "marker": "o"})
    seen = [loss for _, loss in val if np.isfinite(loss)]
    top = 1.3 * max([mark, *seen]) if seen else 2 * mark  # the first steps are not worth the room
    fig = lines(curves, {f"5-gram {mark:.3f}": mark}, title=title, ylim=(None, top))
    if val:
        fig.axes[0].plot(*min(val, key=lambda point: point[1]), "*", color=ACCENT, markersize=17)
    return fig


def same_curve(whole, parts, stop):
    """Two runs in one picture: one in a piece as a line, one stopped and resumed as dots on it."""
    dots = range(1, len(parts) + 1), parts, {**DOT, "color": ACCENT}
    fig = lines({"in one piece": (range(1, len(whole) + 1), whole, {"color": INK}),
                 "stopped and resumed": dots}, title="Dots on a line")
    fig.axes[0].axvline(stop, color=GREY, linestyle="--")
    fig.axes[0].text(stop, max(whole), " stopped here", va="top")
    return fig


def kinds(models):
    """models: {name: facts of lab.reading}. A row a model, a square a kind of place: each head's share."""
    names = list(next(iter(models.values()))["kinds"])
    fig, axes = figure(13, 0.6 + 3.0 * len(models), rows=len(models), columns=len(names), squeeze=False)
    largest = []
    for row, (model, facts) in zip(axes, models.items(), strict=True):
        shares = np.array(facts["heads"])  # (n_layer, n_head, kinds)
        for k, (ax, name) in enumerate(zip(row, names, strict=True)):
            ax.imshow(shares[:, :, k], cmap=SHADES, vmin=0, vmax=1, aspect="auto")
            most = f"{shares[:, :, k].max():.0%}"
            ax.set(xticks=[], yticks=[], xlabel=f"most {most}, evenly {facts['even'][k]:.0%}")
            largest.append(f"{model}: largest share on {name} {most}")
        row[0].set_ylabel(f"{model}\nlayers, first on top", fontsize=11)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=11)
    fig.supxlabel("a cell is a head; darker: more of its vote", fontsize=11)
    fig.alt = "; ".join(largest)
    return fig


def by_position(models, mark):
    """models: {name: facts of lab.reading}. Loss at each place of the window, neighbours together."""
    curves = {}
    for (name, facts), style in zip(models.items(), (STRONG, DASHED), strict=False):
        middles = [(g["from"] + g["to"]) / 2 for g in facts["by_position"]]
        curves[name] = middles, [g["nats"] for g in facts["by_position"]], {**style, "marker": "o"}
    return lines(curves, {"5-gram": mark}, title="What each letter of the past is worth",
                 xlabel="letters that the model can see", xscale="log")


def mentions(rows, name):
    """rows: {model: nats a letter at mention 1, 2, ...}. Surprise at each mention, after the first letter."""
    fig, ax = figure(9, 3.8)
    width = 0.8 / len(rows)
    for k, ((model, nats), color) in enumerate(zip(rows.items(), (ACCENT, INK, GREY), strict=False)):
        at = np.arange(1, len(nats) + 1)
        ax.bar(at + (k - (len(rows) - 1) / 2) * width, nats, 0.95 * width, color=color, label=model)
    ax.set(xticks=at, xlabel=f"mention of {name}", ylabel="nats a letter",
           title=f"Does {name} become familiar?")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    fig.alt = f"Bars: surprise at mentions of {name}. " + "; ".join(
        f"{model} {nats[0]:.1f} at the first, {nats[-1]:.1f} at the last" for model, nats in rows.items())
    return fig


def twice(models):
    """models: {name: facts of lab.reading}. Nats at each letter of a random string and of its repetition."""
    fig, axes = figure(9, 2.6 * len(models), rows=len(models), sharex=True, squeeze=False)
    fig.alt = "Surprise at a random string given twice."
    for ax, (name, facts) in zip(axes[:, 0], models.items(), strict=True):
        nats, n = facts["twice"]["nats"], facts["twice"]["n"]
        ax.bar(np.arange(2 * n), nats, color=[GREY] * n + [ACCENT] * n)
        ax.axhline(np.log(26), color=INK, linestyle=":")
        ax.set(ylabel="nats", title=name, xlim=(-1, 2 * n))
        first, second = np.mean(nats[:n]), np.mean(nats[n:])
        fig.alt += f" {name}: first {first:.1f}, second {second:.1f} nats a letter."
    axes[-1, 0].set_xlabel("a random string (grey), then again (colour); dotted: a guess among 26 letters")
    return fig
