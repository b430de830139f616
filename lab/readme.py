"""Carry what stands in one place to where it is shown: `make readme`.

The address of the project (pyproject.toml) goes into every badge and set-up cell and into the README's
clone command; the minutes, the ladder and the sample (results/) go into the README, each between its
marks `<!-- name -->`. In a clone whose `origin` lies on the web, that address is first written into
pyproject.toml: a fork's badges open the fork.
"""

import importlib
import re
import sys
from functools import partial

from data.files import address, say, write_atomic
from lab import climb
from lab.machine import markdown
from lab.notebook import badge_addresses, fill_standard_parts, read, write
from lab.project import ROOT, notebooks, project_path, read_json, remote
from lab.setup import minutes

RESULTS = ROOT / "results"
ABOUT = {
    "gpt_dev": ("1 · Build", "count letters, then bigram, attention, block, GPT"),
    "gpt2_training": ("2 · Train", "the 12-layer GPT: mixed precision, resume, overfitting"),
    "gpt2_gradio": ("3 · Ship", "your model and its app on the Hugging Face Hub"),
}


def clone_block():
    """The command that fetches the project, or where its address would have to be set."""
    if not address():
        return "(No address on the web yet: its owner sets one in `pyproject.toml` and types `make readme`.)"
    return f"```\ngit clone {address()}\ncd {address().rsplit('/', 1)[1]}\n```"


def notebooks_block():
    """Table of the notebooks: what, minutes as measured, and badges where the project has an address."""
    head, rows = ["notebook", "what you do", "2 CPU cores", "T4", "open"], []
    for name, (title, what) in ABOUT.items():
        runs = read_json(RESULTS / "minutes.json").get(name, {})
        times = (minutes(runs[key]) if key in runs else "not yet measured" for key in ("CPU", "Tesla T4"))
        places = zip(("Colab", "Kaggle"), badge_addresses(f"{name}.ipynb"), strict=True)
        badges = [f"[![Open in {place}](.github/badges/{place.lower()}.svg)]({at})" for place, at in places]
        rows.append([f"[{title}]({name}.ipynb)", what, *times, " ".join(badges)])
    if not address():
        return markdown(head[:-1], [row[:-1] for row in rows])
    return markdown(head, rows)


def ladder_block(folder=RESULTS):
    """Table of the ladder in a folder's ladder.json."""
    rows = [[rung["name"], f"{rung['val_loss']:.3f}", rung.get("mark") or ""]
            for rung in read_json(folder / "ladder.json")["rungs"]]
    return markdown(["rung", "nats a character", "as good as"], rows)


def sample_block(folder=RESULTS):
    """The honest sample in a folder's sample.txt, as it came out."""
    return f"```\n{(folder / 'sample.txt').read_text(encoding='utf-8').strip()}\n```"


def app_model_block():
    """One sentence about the small model in space/model, from its own metrics.json."""
    facts = read_json(ROOT / "space" / "model" / "metrics.json")
    text = {"tinyshakespeare": "Tiny Shakespeare", "standin": "the stand-in text"}[facts["corpus"]["name"]]
    n = len([t for t in facts["config"].get("teacher", "").split(",") if t])
    taught = f", its targets the mean probabilities of {n} larger models (`python -m bench.distil`)"
    return (f"The small model that the app starts with (`space/model/`): {facts['parameters']:,} parameters, "
            f"trained on {text} in {facts['seconds'] / 60:.1f} minutes on a CPU{taught if n else ''}, exact "
            f"validation loss {facts['val_loss']:.3f} nats a character.")


def page_block():
    """The live page and the way to a copy of it, or how to publish one."""
    space = address("space")
    if not space:
        return ("Nobody has published a page yet: `python -m space.publish space my-gpt2-app out/mine/best` "
                "publishes yours, its address belongs into `pyproject.toml` (`space`), and `make readme` "
                "carries it here.")
    return f"[Try it in your browser]({space}) · [Duplicate this Space]({space}?duplicate=true)"


def runs_block():
    """The runs that the project grew from: what was told, and what this code measured, if anybody ran it."""
    rows, runs = [], read_json(RESULTS / "training_runs.json")["runs"]
    for run in runs:
        got = run["measured"]
        measured = f"{got['val_loss']:.3f} ({got['card']})" if got else "not yet measured"
        rows.append([run["name"], run["told"], measured, run["says"]])
    table = markdown(["run", "what was told", "exact validation, this code", "what it says"], rows)
    commands = "\n".join(run["command"] for run in runs)
    return f"{table}\n\nThe commands, in the same order:\n\n```\n{commands}\n```"


def summit_block():
    """The twelve layers: what each stage reached, from results/summit.json; the first sample, as it came."""
    found = climb.our_run()
    table = markdown(["stage", "letters read", "exact validation, windows of 1,024"], climb.stages(found))
    sample = found["samples"][0]["text"].strip()
    return f"{table}\n\nThe first sample drawn, as it came:\n\n```\n{sample}\n```"


def tab_block():
    """Loss against minutes of a training in the browser, and which counting tables it had passed."""
    run = read_json(RESULTS / "train_in_tab.json")["runs"][0]
    rows = [[f"{seconds / 60:.1f}", f"{step:,}", f"{loss:.4f}", sum(loss < mark for mark in run["marks"])]
            for step, loss, seconds in run["validations"]]
    table = markdown(["minutes", "steps", "exact validation", "letters counted that it beats"], rows)
    c = run["config"]
    return (f"{table}\n\n{c['n_layer']} layers x {c['n_embd']}, {run['parameters']:,} parameters, "
            f"{run['workers']} workers in Chromium on two CPU cores; the same weights score "
            f"{run['val_loss_python']:.4f} in Python.")


def bench_block(module):
    """A table that a script of bench/ makes from its own results."""
    return importlib.import_module(f"bench.{module}").table_markdown()


BLOCKS = {"clone": clone_block, "notebooks": notebooks_block, "ladder": ladder_block, "sample": sample_block,
          "page": page_block, "app-model": app_model_block, "summit": summit_block, "runs": runs_block,
          "tab": tab_block}
BLOCKS |= {mark: partial(bench_block, module) for mark, module in {
    "recipe": "cpu_recipe", "generate": "generate", "cost": "cost",
    "hypotheses": "hypotheses", "how-low": "how_low", "distil": "distil",
    "fp16": "fp16", "speculation": "summit_speed", "first-steps": "first_steps",
    "counting": "marks"}.items()}
PAGES = ("README.md", "bench/README.md", "data/README.md")  # where the blocks stand


def filled(text):
    """README text with every generated block renewed; a mark that is missing is left missing."""
    for name, make in BLOCKS.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marks.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    return text


def stale():
    """(path, repair) of all whose badges, set-up cell or generated blocks do not agree with their source."""
    for page in (ROOT / name for name in PAGES):
        old = page.read_text(encoding="utf-8")
        if (new := filled(old)) != old:
            yield page, partial(write_atomic, page, new)
    for path in notebooks():
        nb = read(path)
        before = [cell.source for cell in nb.cells]
        fill_standard_parts(nb, project_path(path))
        if [cell.source for cell in nb.cells] != before:
            yield path, partial(write, nb, path)


def adopt_remote():
    """Write the address of this clone's `origin` into pyproject.toml, where it has one and another stands."""
    path, here = ROOT / "pyproject.toml", remote()
    if here and here != address():
        text = path.read_text(encoding="utf-8")
        line = re.compile(r"^(# )?repository = .*$", re.MULTILINE)
        write_atomic(path, line.sub(f'repository = "{here}"', text))
        say(f"pyproject.toml: the address is now {here}, this clone's own `origin`")


def main():
    """Rewrite what is stale and name it."""
    adopt_remote()
    for path, repair in list(stale()):
        repair()
        say(f"rewritten: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
