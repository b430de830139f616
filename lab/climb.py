"""The twelve layers of gpt2_training.ipynb: where runs lie, what the climb needs, what our own run gave.

Our run is results/summit.json, which bench/summit.py wrote.
"""

from pathlib import Path

import numpy as np

from data.files import say
from data.text import load_text
from gpt2.device import choose_precision
from gpt2.plan import flops_per_token, model_config, plan_text
from lab.claims import QUICK
from lab.plots import ACCENT, DOT, GREY, lines
from lab.project import ROOT, read_json

T4, SHARE = 65e12, 0.15  # FLOP/s in fp16 by the data sheet, and what we expect to reach of it


def our_run():
    """results/summit.json."""
    return read_json(ROOT / "results" / "summit.json")


def run_folder(corpus, kind="notebook"):
    """Where a run on this very text lies: another text of the same name has another folder."""
    return f"runs/{kind}-{corpus.name}-{corpus.sha256[:8]}{'-quick' if QUICK else ''}"


def model_of(text):
    """best/ of the largest model that notebook 2 trained on this text; "" where there is none."""
    corpus = load_text(text, quiet=True)
    folders = [Path(run_folder(corpus, kind), "best") for kind in ("twelve", "notebook")]
    found = next((str(folder) for folder in folders if (folder / "config.json").is_file()), "")
    if not found:
        say(f"No model here has learned {corpus.name}: run gpt2_training.ipynb with the same TEXT first.")
    return found


def operations(seeds, twelve, corpus):
    """Operations of the whole climb: the small models', the large one's, its teachers', who read the text."""
    small, large = (flops_per_token(model_config(c, corpus.tokenizer.vocab_size)) for c in (seeds[0], twelve))
    learning = small * sum(c.max_steps * c.tokens_per_step for c in seeds)
    learning += large * twelve.max_steps * twelve.tokens_per_step
    teaching = len(seeds) * small / 3 * 2 * len(corpus.train)  # forward only, in windows that overlap by half
    return learning + teaching


def plan(seeds, twelve, corpus, device):
    """What the climb to twelve layers needs and what to expect of it, as text, before it starts."""
    flop, found, first = operations(seeds, twelve, corpus), our_run(), seeds[0]
    config = model_config(twelve, corpus.tokenizer.vocab_size)
    dtype, _, _ = choose_precision(twelve, device)
    ends = [run["val_loss"] for run in found["runs"] if run["name"].startswith("more-")]
    return "\n".join([
        f"{len(seeds)} small models: {first.max_steps:,} steps of {first.tokens_per_step:,} tokens each",
        f"then one of {twelve.n_layer} layers: {twelve.max_steps} steps of {twelve.tokens_per_step:,} tokens",
        f"expect on Tiny Shakespeare, from our run: {min(ends):.2f} to {max(ends):.2f} for each small one, "
        f"{found['best']['val_loss']:.2f} at the end (exact validation, nats a character)",
        f"projection for a T4, not a measurement: {flop / 1e15:.2f} PFLOP, {flop / (SHARE * T4) / 60:.1f} "
        f"minutes at {SHARE:.0%} of its {T4 / 1e12:.0f} TFLOP/s; small models reach less: perhaps several "
        "times as long", "", "the large one:",
        plan_text(config, twelve.batch_size, dtype, twelve.optimizer, twelve.sequences, device)])


def stages(found):
    """Our own run of twelve layers as rows: (stage, letters read, exact loss in windows of 1,024)."""
    runs = {run["name"]: run for run in found["runs"]}
    rows = [(f"small model {i}, 4 layers x 192", runs[f"seed-{i}"]["tokens"] + runs[f"more-{i}"]["tokens"],
             runs[f"more-{i}"]["val_loss"]) for i in (1, 2, 3, 4)]
    rows += [("the four, their probabilities averaged", None, found["exact"]["mean_probabilities"]),
             ("side by side in one of 12 layers x 768", None, found["exact"]["start"]["val_loss"]),
             ("the same, trained as one", runs["large"]["tokens"], found["best"]["val_loss"])]
    return [(name, f"{n / 1e6:.1f} M" if n else "", f"{loss:.4f}") for name, n, loss in rows]


def picture(found):
    """Training loss of the four small models over what they read, their exact ends, and the large model's."""
    runs, curves = {run["name"]: run for run in found["runs"]}, {}
    for i in (1, 2, 3, 4):
        first, second = runs[f"seed-{i}"], runs[f"more-{i}"]
        read = first["tokens"], first["tokens"] + second["tokens"]
        points = first["curve"] + [[first["tokens"] + n, loss] for n, loss in second["curve"]]
        n, losses = np.array(points).T
        ends = np.array(read) / 1e6, [first["val_loss"], second["val_loss"]], {**DOT, "marker": "o"}
        name = f"_small model {i}" if i > 1 else "the small models"  # one line of the legend for all four
        curves[f"{name}, training loss"] = n / 1e6, losses, {"color": GREY, "linewidth": 1}
        curves[f"{name}, exact validation"] = ends
    best = found["best"]["val_loss"]
    star = {**DOT, "color": ACCENT, "marker": "*", "markersize": 18}
    curves["the twelve layers, exact validation"] = [read[1] / 1e6], [best], star
    fig = lines(curves, size=(9, 4), xlabel="letters read by each small model, millions", ylim=(1.0, 2.2),
                title="Four small models climb, and one large one stands on them")
    fig.axes[0].annotate(f"{best:.3f}", (read[1] / 1e6, best), (10, -4), textcoords="offset points",
                         color=ACCENT)
    return fig


def twelve_layers(corpus):
    """{name: facts of lab.reading} of our own twelve layers; empty for a text that they did not read."""
    facts = read_json(ROOT / "results" / "summit_inner.json")
    return {"12 layers (our run)": facts} if facts and corpus.sha256 == facts["corpus"]["sha256"] else {}
