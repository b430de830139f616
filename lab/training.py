"""What gpt2_training.ipynb needs beside lab.plots: its measurements, and its pictures in the same style."""

import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import torch

from data.files import write_atomic
from data.shakespeare import get_batch
from lab.plots import ACCENT, GREY, INK, PALE, SHADES, figure
from lab.project import read_json
from lab.reading import mentions_in_ids

SMALLEST_FP16 = 2.0**-24  # below half of it a number becomes 0

# ---- the text


def part_of(corpus, train, val=None):
    """A corpus with only the first characters of its train and validation text."""
    cut = {"train": corpus.train[:train], "train_text": corpus.train_text[:train], "val": corpus.val[:val],
           "val_text": corpus.val_text[:val], "floor": None}
    return dataclasses.replace(corpus, name=f"{corpus.name}, first {train:,} characters", **cut)


@torch.no_grad()
def random_estimates(model, ids, batches, size, times):
    """`times` estimates of the loss, each the mean of `batches` random batches of `size` windows."""
    T, found = model.config.block_size, []
    model.eval()
    for time in range(times):
        parts = [get_batch(ids, T, size, 1000 + time, step) for step in range(batches)]
        found.append(float(np.mean([model(x, y)[1].item() for x, y in parts])))
    return found


def steepest(rates, losses, width=9):
    """The rate at which the loss, averaged over `width` steps, fell fastest."""
    steps, line = smooth(losses, width)
    fall = np.diff(line)
    return rates[steps[int(np.argmin(fall))] - width // 2]


def mean_before(run, step, width=20):
    """Mean training loss of the `width` steps that end at `step`."""
    return float(np.mean(run.train_losses[max(0, step - width) : step]))


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


# ---- a run that a session may lose


class Samples:
    """A callback for `train`: at each validation it says where the run stands, and keeps a sample.

    They lie in `folder` too, so that a run of long ago still shows what it wrote: `told` is {loss: text}.
    """

    def __init__(self, corpus, folder, letters=70):
        self.corpus, self.path, self.letters = corpus, Path(folder) / "samples.json", letters
        self.told = {float(loss): text for loss, text in read_json(self.path).items()}

    def __call__(self, record, model):
        if "val_loss" not in record:
            return
        device = next(model.parameters()).device
        start = torch.tensor([self.corpus.tokenizer.encode("\n")[:1] or [0]], device=device)
        ids = model.generate(start, self.letters, seed=2)[0, 1:].tolist()
        self.told[record["val_loss"]] = self.corpus.tokenizer.decode(ids)
        write_atomic(self.path, json.dumps(self.told))
        print(f"step {record['step']:>5}   validation {record['val_loss']:.3f}")


# ---- two models, side by side


def a_prompt(corpus):
    """Something to begin with: a speaker of the text if it has any, else its first line."""
    names = re.compile(r"^([^\n:]{2,20}):\n", re.MULTILINE)
    speakers = getattr(corpus, "speakers", None) or names.findall(corpus.train_text)
    return f"{speakers[0]}:\n" if speakers else corpus.val_text.lstrip()[:20]


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


def smooth(values, width):
    width = max(1, min(width, len(values)))
    return np.arange(width - 1, len(values)) + 1, np.convolve(values, np.ones(width) / width, "valid")


def one_batch(losses, uniform):
    """Training loss on a single batch, on a log scale."""
    fig, ax = figure(8, 3.4)
    ax.plot(range(1, len(losses) + 1), losses, color=ACCENT, linewidth=2.5)
    ax.axhline(uniform, color=INK, linestyle=":")
    ax.text(len(losses), uniform, "knows nothing", va="bottom", ha="right")
    ax.set(yscale="log", xlabel="step", ylabel="loss, nats", title="One batch, seen again and again")
    return fig


def rates(lrs, losses, chosen):
    """A range test: loss against a rate that grows at each step."""
    fig, ax = figure(8, 3.8)
    at, line = smooth(losses, 5)
    ax.plot(lrs, losses, color=PALE)
    ax.plot(np.asarray(lrs)[at - 1], line, color=INK, linewidth=2)
    ax.axvline(chosen, color=ACCENT, linestyle="--")
    top = 1.3 * losses[0]  # what flies off above it is not worth the room
    ax.text(chosen, top, f"  {chosen:g}", color=ACCENT, va="top")
    ax.set(xscale="log", xlabel="learning rate at this step", ylabel="loss, nats",
           ylim=(0.85 * min(line), top), title="Too slow, right, too fast")
    return fig


def schedules(runs, lrs):
    """runs: {name: losses}, lrs: {name: rates}. Left the rates, right the smoothed losses."""
    fig, (left, right) = figure(11, 3.8, columns=2)
    styles = [dict(color=GREY), dict(color=INK, linestyle="--"), dict(color=ACCENT, linewidth=2.5)]
    for (name, losses), style in zip(runs.items(), styles, strict=False):
        left.plot(lrs[name], **style)
        right.plot(*smooth(losses, 20), label=name, **style)
    left.set(xlabel="step", ylabel="learning rate", title="Three plans")
    right.set(xlabel="step", ylabel="training loss, nats", title="What came of them")
    right.legend(frameon=False)
    return fig


def ruler(estimates, exact):
    """Ten estimates as dots, the exact loss as a line."""
    fig, ax = figure(8, 2.6)
    ax.scatter(estimates, np.arange(len(estimates)), color=INK, zorder=3)
    ax.axvline(exact, color=ACCENT, linewidth=2.5)
    ax.text(exact, len(estimates) - 0.2, f" exact: {exact:.4f}", color=ACCENT, va="bottom")
    ax.set(yticks=[], xlabel="loss, nats a character", ylim=(-1, len(estimates) + 1),
           title="One model, ten opinions")
    ax.spines["left"].set_visible(False)
    return fig


def gradient_sizes(gradient, scale=1.0):
    """Histogram of |gradient|, log scale; what fp16 cannot hold, before and after multiplying by `scale`."""
    fig, axes = figure(11, 3.6, columns=2, sharey=True)
    size = gradient.abs().flatten().numpy()
    size = size[size > 0]
    bins = np.linspace(-14, 5, 80)
    for ax, factor, title in ((axes[0], 1.0, "As it is"), (axes[1], scale, f"Times {scale:,.0f}")):
        logs = np.log10(size * factor)
        lost = size * factor < SMALLEST_FP16 / 2
        ax.hist(logs[~lost], bins, color=INK)
        ax.hist(logs[lost], bins, color=ACCENT)
        ax.axvline(np.log10(SMALLEST_FP16), color=ACCENT, linestyle="--")
        ax.axvline(np.log10(65504), color=ACCENT, linestyle="--")
        ax.set(title=f"{title}: fp16 loses {lost.mean():.1%}", xlabel="size of a gradient, power of ten")
    axes[0].set_ylabel("how many gradients")
    return fig


def scaler_trace(records):
    """The gradient scale by step, with the steps that were skipped."""
    fig, ax = figure(8, 3.2)
    steps, scales = [r["step"] for r in records], [r["scale"] for r in records]
    ax.step(steps, scales, where="post", color=INK, linewidth=2)
    skipped = [r["step"] for r in records if "skipped" in r]
    ax.plot(skipped, [scales[s - 1] for s in skipped], "x", color=ACCENT, markersize=9, markeredgewidth=2.5,
            label="step skipped")
    ax.set(xlabel="step", ylabel="gradient scale", title="The scaler feels its way down")
    ax.set_yscale("log", base=2)
    if skipped:
        ax.legend(frameon=False)
    return fig


def depth(runs, marks):
    """runs: {name: TrainResult}, marks: {name: loss}. A panel a run: train, validation, its best, marks."""
    fig, axes = figure(12, 3.9, columns=len(runs), sharey=True, squeeze=False)
    for ax, (name, run) in zip(axes[0], runs.items(), strict=True):
        ax.plot(*smooth(run.train_losses, 15), color=INK, linestyle="--")
        steps, losses = zip(*run.val_losses, strict=True)
        ax.plot(steps, losses, color=ACCENT, linewidth=2.5)
        best = int(np.argmin(losses))
        ax.plot(steps[best], losses[best], "*", color=ACCENT, markersize=16)
        ax.annotate(f"{losses[best]:.2f}", (steps[best], losses[best]), (0, -17), textcoords="offset points",
                    ha="center", color=ACCENT)
        for mark in marks.values():
            ax.axhline(mark, color=INK, linestyle=":")
        ax.set(title=name, xlabel="step", ylim=(0, None))
    axes[0, 0].set_ylabel("loss, nats a character")
    left, by_loss = axes[0, 0], sorted(marks.items(), key=lambda item: item[1])
    for (name, mark), side in zip(by_loss, ("top", "bottom"), strict=False):
        left.text(0.98, mark, f"{name} ", va=side, ha="right", transform=left.get_yaxis_transform())
    axes[0, 0].text(0.04, 0.1, "validation", color=ACCENT, transform=axes[0, 0].transAxes)
    axes[0, 0].text(0.04, 0.02, "train (dashed)", transform=axes[0, 0].transAxes)
    return fig


def run_curve(history, mark, title="The run"):
    """Training loss, exact validation, its best point, the 5-gram's mark; history as TrainResult has it."""
    fig, ax = figure(9, 4)
    losses = [r["loss"] for r in history if "loss" in r]
    ax.plot(*smooth(losses, 40), color=INK, linestyle="--", label="train")
    val = [(r["step"], r["val_loss"]) for r in history if "val_loss" in r]
    if val:  # none yet where the run was stopped early
        ax.plot(*zip(*val, strict=True), "o-", color=ACCENT, linewidth=2.5, label="validation, exact")
        ax.plot(*min(val, key=lambda point: point[1]), "*", color=ACCENT, markersize=17)
    ax.axhline(mark, color=INK, linestyle=":")
    ax.text(0.01, mark, f"5-gram {mark:.3f}", va="bottom", transform=ax.get_yaxis_transform())
    seen = [loss for _, loss in val if np.isfinite(loss)]
    top = 1.3 * max([mark, *seen]) if seen else 2 * mark  # the first steps are not worth the room
    ax.set(xlabel="step", ylabel="loss, nats a character", title=title, ylim=(None, top))
    ax.legend(frameon=False)
    return fig


def same_curve(whole, parts, stop):
    """Two runs in one picture: one in a piece as a line, one stopped and resumed as dots on it."""
    fig, ax = figure(8, 3.2)
    ax.plot(range(1, len(whole) + 1), whole, color=INK, linewidth=2, label="in one piece")
    ax.plot(range(1, len(parts) + 1), parts, ".", color=ACCENT, label="stopped and resumed")
    ax.axvline(stop, color=GREY, linestyle="--")
    ax.text(stop, max(whole), " stopped here", va="top")
    ax.set(xlabel="step", ylabel="training loss, nats", title="Dots on a line")
    ax.legend(frameon=False)
    return fig


def kinds(models):
    """models: {name: facts of lab.reading}. A row a model, a square a kind of place: each head's share."""
    names = list(next(iter(models.values()))["kinds"])
    fig, axes = figure(13, 0.6 + 3.0 * len(models), rows=len(models), columns=len(names), squeeze=False)
    for row, (model, facts) in zip(axes, models.items(), strict=True):
        shares = np.array(facts["heads"])  # (n_layer, n_head, kinds)
        for k, ax in enumerate(row):
            ax.imshow(shares[:, :, k], cmap=SHADES, vmin=0, vmax=1, aspect="auto")
            ax.set(xticks=[], yticks=[],
                   xlabel=f"most {shares[:, :, k].max():.0%}, evenly {facts['even'][k]:.0%}")
        row[0].set_ylabel(f"{model}\nlayers, first on top", fontsize=11)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=11)
    fig.supxlabel("a cell is a head; darker: more of its vote", fontsize=11)
    fig.alt = "; ".join(
        f"{model}: largest share on {name} {np.array(facts['heads'])[:, :, k].max():.0%}"
        for model, facts in models.items() for k, name in enumerate(names))
    return fig


def by_position(models, mark):
    """models: {name: facts of lab.reading}. Loss at each place of the window, neighbours together."""
    fig, ax = figure(8.5, 3.8)
    looks = [dict(color=ACCENT, linewidth=2.5), dict(color=INK, linestyle="--")]
    for (name, facts), look in zip(models.items(), looks, strict=False):
        groups = facts["by_position"]
        middles = [(g["from"] + g["to"]) / 2 for g in groups]
        ax.plot(middles, [g["nats"] for g in groups], marker="o", label=name, **look)
    ax.axhline(mark, color=INK, linestyle=":")
    ax.text(1, mark, "5-gram", va="bottom")
    ax.set(xscale="log", xlabel="letters that the model can see", ylabel="loss, nats",
           title="What each letter of the past is worth")
    ax.legend(frameon=False)
    ends = "; ".join(f"{name} {f['by_position'][0]['nats']:.2f} to {f['by_position'][-1]['nats']:.2f}"
                     for name, f in models.items())
    fig.alt = f"Loss by place in the window, from its first letters to its last: {ends}."
    return fig


def mentions(rows, name):
    """rows: {model: nats a letter at mention 1, 2, ...}. Surprise at each mention, after the first letter."""
    fig, ax = figure(9, 3.8)
    width = 0.8 / len(rows)
    for k, ((model, nats), color) in enumerate(zip(rows.items(), (ACCENT, INK, GREY), strict=False)):
        at = np.arange(1, len(nats) + 1)
        ax.bar(at + (k - (len(rows) - 1) / 2) * width, nats, 0.95 * width, color=color, label=model)
    ax.set(xticks=at, xlabel=f"mention of {name}", ylabel="nats a letter",
           title=f"Does {name} become familiar?")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    fig.alt = f"Bars: surprise at mentions of {name}. " + "; ".join(
        f"{model} {nats[0]:.1f} at the first, {nats[-1]:.1f} at the last" for model, nats in rows.items())
    return fig


def twice(models):
    """models: {name: facts of lab.reading}. Nats at each letter of a random string and of its repetition."""
    fig, axes = figure(9, 2.6 * len(models), rows=len(models), sharex=True, squeeze=False)
    for ax, (name, facts) in zip(axes[:, 0], models.items(), strict=True):
        nats, n = facts["twice"]["nats"], facts["twice"]["n"]
        ax.bar(np.arange(2 * n), nats, color=[GREY] * n + [ACCENT] * n)
        ax.axhline(np.log(26), color=INK, linestyle=":")
        ax.set(ylabel="nats", title=name, xlim=(-1, 2 * n))
    axes[-1, 0].set_xlabel("a random string (grey), then again (colour); dotted: a guess among 26 letters")
    halves = {name: np.split(np.array(f["twice"]["nats"]), 2) for name, f in models.items()}
    fig.alt = "Surprise at a random string given twice. " + "; ".join(
        f"{name}: first {a.mean():.1f}, second {b.mean():.1f} nats a letter"
        for name, (a, b) in halves.items())
    return fig
