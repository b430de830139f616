"""The model card: every number in it is read from metrics.json or counted in the files beside it, none is written here.

`write_card(folder, repo_id)` adds README.md to a model folder. What was not measured, and what the reader did not say
(the text's language, its licence, where it is from), is not mentioned or said to be unknown; it is never invented.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from space.folder import FolderError, examples, is_number, read_json, read_metrics, start_id

CORPORA = {
    "tinyshakespeare": {
        "license": "mit", "language": "en", "dataset": "karpathy/tiny_shakespeare",
        "rights": "MIT. Shakespeare's text is in the public domain.",
        "what": "Tiny Shakespeare: 1.1 million characters of Shakespeare's plays, 65 different symbols; the first 90% "
        "to train on, the last 10% to measure with",
        "caveats": [
            "The split cuts one text in two: the validation tenth is the rest of *The Taming of the Shrew* and a part "
            "of *The Tempest*, a play that training never shows; 40% of its speeches are by speakers that training "
            "never shows.",
            "It knows one digit, `3`: no other occurs in its text.",
        ],
    },
    "standin": {
        "license": "mit", "rights": "MIT.",
        "what": "a stand-in text, drawn from a small random process that the project defines, because the real text "
        "could not be had on the machine; its words mean nothing",
        "caveats": ["It imitates that process and no writer."],
    },
}  # fmt: skip


UNSTATED = "Not stated. Nobody said whether the text that it learned from may be used: ask its publisher first."


def write_card(folder: str | os.PathLike, repo_id: str, project: str | None = None, sample: str | None = None,
               **said: str | None) -> Path:  # fmt: skip
    """Write README.md from the folder's own files; returns its path.

    sample: a text that this model wrote; None lets it write one now (greedy it is not: temperature 0.8, seed 1).
    said: license, language (a code such as "uk"), origin (where the text is from), as the reader states them.
    Raises FolderError in one sentence if a file is missing or damaged.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    text = card(facts, repo_id, project, draw_sample(folder, facts["prompt"]) if sample is None else sample, **said)
    part = folder / "README.md.part"
    part.write_text(text, encoding="utf-8")
    os.replace(part, folder / "README.md")
    return folder / "README.md"


def read_facts(folder: Path) -> dict:
    """What the files say: `metrics`, `shape` (config.json), `file_bytes`, `has_table`, and a `prompt` that fits."""
    from data.tokenizer import load_tokenizer

    for name in ("config.json", "metrics.json"):
        if not (folder / name).exists():
            raise FolderError(
                f"{folder} has no {name}: publish the folder that training wrote (best/), where the numbers are."
            )
    weights, tokenizer = folder / "model.safetensors", load_tokenizer(folder)
    metrics, shape = read_metrics(folder), read_json(folder / "config.json")
    beginnings = [*examples(metrics), tokenizer.decode([start_id(tokenizer, folder)])]
    lengths = {text: len(tokenizer.encode(text)) for text in beginnings}
    prompt = next((text for text, length in lengths.items() if 0 < length < shape["n_positions"]), beginnings[-1])
    return {"metrics": metrics, "shape": shape, "file_bytes": weights.stat().st_size if weights.exists() else None,
            "has_table": (folder / "ngram5.npz").exists(), "prompt": prompt,
            "room": max(1, min(100, shape["n_positions"] - lengths[prompt]))}  # fmt: skip


def draw_sample(folder: Path, prompt: str, length: int = 300) -> str:
    """A text that the model in `folder` writes now: the prompt and what comes after it."""
    import torch

    from data.tokenizer import load_tokenizer
    from model_gpt2 import GPT

    model, tokenizer = GPT.from_pretrained(folder), load_tokenizer(folder)
    ids = model.generate(torch.tensor([tokenizer.encode(prompt)]), length, temperature=0.8, seed=1)
    return tokenizer.decode(ids[0].tolist()).strip("\n")


def card(facts: dict, repo_id: str, project: str | None, sample: str, **said: str | None) -> str:
    """The card's text: front matter, then what it is, what was measured, how it was made, how to use it, its limits."""
    corpus = CORPORA.get(corpus_of(facts).get("name"), {})
    limits = [*corpus.get("caveats", []), *_always(facts)]
    licence = said.get("license")
    rights = f"{plain(licence)}, as its publisher states." if licence else corpus.get("rights", UNSTATED)
    parts = [
        front_matter(facts, repo_id, sample, **said),
        f"# {repo_id.split('/')[-1]}",
        _lead(facts, corpus, said.get("origin")),
        "## Measured\n\n" + table(measured(facts)),
        "## A sample\n\nThe beginning was given, the rest sampled at temperature 0.8 with seed 1 when this card was "
        "written; nothing was chosen.\n\n"
        + "\n".join("    " + line for line in sample.splitlines()),
        "## Use it\n\n" + usage(facts, repo_id, project),
        "## Limits\n\n" + "\n".join(f"* {line}" for line in limits),
        f"## Licence\n\n{rights}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: dict, repo_id: str, sample: str, **said: str | None) -> str:
    """The YAML block that the Hub reads: the exact loss as model-index, the sample as the widget's example."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics, name = facts["metrics"], corpus_of(facts).get("name")
    corpus, loss = CORPORA.get(name, {}), metrics.get("val_loss_char", metrics.get("val_loss"))
    result = loss is not None and EvalResult(
        "text-generation", corpus.get("dataset", "text"), one_line(name or "its own text"), "loss", round(loss, 4),
        dataset_split="validation, the last tenth", metric_name="exact loss, nats per character")  # fmt: skip
    data = ModelCardData(
        license=one_line(said.get("license") or corpus.get("license")),
        language=one_line(said.get("language") or corpus.get("language")),
        library_name="transformers", pipeline_tag="text-generation",
        tags=["gpt2", "character-level" if per_character(metrics) else "bpe", "from-scratch"],
        datasets=[corpus["dataset"]] if "dataset" in corpus else None,
        widget=[{"text": facts["prompt"], "output": {"text": sample}}] if sample else None,
        model_name=repo_id.split("/")[-1], eval_results=[result] if result else None,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---"


def corpus_of(facts: dict) -> dict:
    return facts["metrics"].get("corpus") or {}


def per_character(metrics: dict) -> bool:
    """Whether one token is one character."""
    return metrics.get("val_loss_char", metrics.get("val_loss")) == metrics.get("val_loss")


def one_line(text) -> str | None:
    return " ".join(str(text).split())[:80] if text else None


def plain(value, most: int = 120) -> str:
    """A name from a file, as text that Markdown and HTML take for nothing else: no tags, links, tables or lines."""
    text = " ".join(str(value).split())[:most].encode("utf-8", "replace").decode()
    text = re.sub(r"[^\w .,+()/=:-]|:(?=//)", lambda sign: f"&#{ord(sign[0])};", text)
    return re.sub(r"(?i)www\.|_", lambda found: found[0].replace(".", "&#46;").replace("_", "&#95;"), text)


def _lead(facts: dict, corpus: dict, origin: str | None) -> str:
    shape, count = facts["shape"], facts["metrics"].get("parameters")
    size = f"{count / 1e6:.1f} million parameters, " if count else ""
    text, source = corpus.get("what"), f" It is from {plain(origin, 300)}." if origin else ""
    if not text and corpus_of(facts).get("name"):
        text = f"a text that its publisher calls {plain(corpus_of(facts)['name'])}"
    return (
        f"A GPT-2 trained from scratch: {size}{shape['n_layer']} layers, {shape['n_head']} heads, "
        f"width {shape['n_embd']}, context {shape['n_positions']}. It is in GPT-2's own file format and loads "
        "into `transformers` unchanged." + (f"\n\nIt learned from {text}.{source}" if text else "")
    )


def measured(facts: dict) -> list[tuple[str, str]]:
    """(what, value) for everything that is known."""
    m, shape, corpus = facts["metrics"], facts["shape"], corpus_of(facts)
    machine = {key: plain(value) for key, value in (m.get("machine") or {}).items() if value}
    sha = str(corpus.get("sha256", ""))
    known = [
        ("exact validation loss, the whole split once", _nats(m.get("val_loss_char", m.get("val_loss")))),
        ("the same for a table of 5-letter counts", _nats(m.get("ngram5_val_loss"))),
        ("the lowest that this text allows", _nats(corpus.get("floor"))),
        (f"guesses the next {'letter' if per_character(m) else 'token'} right", _share(m.get("accuracy"))),
        ("the same for a table of 5-letter counts", _share(m.get("ngram_accuracy"))),
        ("loss on the last training batch", _nats(m.get("train_loss")) if per_character(m) else None),
        ("text", corpus.get("name") and f"{plain(corpus['name'])}, SHA-256 "
         + (f"`{sha}`" if re.fullmatch("[0-9a-f]{64}", sha) else "unknown")),
        ("parameters", f"{m['parameters']:,}" if m.get("parameters") else None),
        ("vocabulary", f"{shape.get('n_tokens') or shape['vocab_size']:,} tokens"),
        ("size of the weights", sizes(m.get("parameters"), facts["file_bytes"])),
        ("recipe", recipe(m)),
        ("time", f"{m['seconds'] / 60:.1f} minutes" if m.get("seconds") else None),
        ("machine", ", ".join(machine[k] for k in ("device", "cpu") if machine.get(k)) or None),
        ("versions", machine.get("torch") and f"torch {machine['torch']}, commit {machine.get('commit') or 'unknown'}"),
        ("date", machine.get("date")),
    ]  # fmt: skip
    return [(what, value) for what, value in known if value]


def _nats(loss) -> str | None:
    return f"{loss:.4f} nats per character" if is_number(loss) else None


def _share(value) -> str | None:
    return f"{value:.1%}" if is_number(value) else None


def sizes(parameters: int | None, file_bytes: int | None) -> str | None:
    """The file here, and what the other precision would take."""
    if not parameters or not file_bytes:
        return None
    half = file_bytes < 3 * parameters
    other = f"{parameters * (4 if half else 2) / 1e6:,.1f} MB in {'float32' if half else 'float16'}"
    return f"{file_bytes / 1e6:,.1f} MB in {'float16' if half else 'float32'} ({other})"


def recipe(metrics: dict) -> str | None:
    """Steps, tokens and the main settings of the run."""
    if not metrics.get("step"):
        return None
    config, said = metrics.get("config") or {}, [f"{metrics['step']:,} steps"]
    if metrics.get("tokens"):
        said.append(f"{metrics['tokens'] / 1e6:,.1f} million tokens")
    said += [f"{name} {plain(config[key])}" for key, name in NAMED.items() if config.get(key) is not None]
    return ", ".join([*said, plain(metrics.get("precision") or "")]).rstrip(", ")


NAMED = {"tokens_per_step": "tokens a step:", "optimizer": "optimizer", "muon_lr": "Muon's rate", "lr": "AdamW's rate",
         "weight_decay": "weight decay", "dropout": "dropout", "seed": "seed"}  # fmt: skip


def table(rows: list[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])


def snippet(facts: dict, repo_id: str) -> str:
    """Python that writes with the model in `transformers`, within its context."""
    return (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model="{repo_id}")\n'
        f"prompt = {facts['prompt']!r}\n"
        f"text = write(prompt, max_new_tokens={facts['room']}, do_sample=True)[0][\"generated_text\"]\nprint(text)"
    )


def usage(facts: dict, repo_id: str, project: str | None) -> str:
    """Two ways to load it."""
    own = f"\nWith [the project that made it]({project}):\n" if project else "\nWith the project that made it:\n"
    return (
        f"```python\n{snippet(facts, repo_id)}\n```\n"
        f"{own}\n```python\nfrom model_gpt2 import GPT\n\nmodel = GPT.from_pretrained(\"{repo_id}\")\n```"
    )


def notebook(folder: Path, repo_id: str) -> dict:
    """A notebook of two cells: beside a model, the Hub shows it as buttons for Colab and Kaggle."""
    lines = snippet(read_facts(folder), repo_id).splitlines(keepends=True)
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": [f"# Write with {repo_id}"]}
    code = {"cell_type": "code", "id": "write", "metadata": {}, "execution_count": None, "outputs": [], "source": lines}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [title, code], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def _always(facts: dict) -> list[str]:
    shape = facts["shape"]
    lines = ["It writes what looks like its text. It knows no facts, follows no instructions and answers no questions."]
    if per_character(facts["metrics"]):
        lines.append("It reads characters; what its vocabulary lacks must be left out or replaced before encoding.")
    lines.append(f"It sees {shape['n_positions']} tokens back and nothing before.")
    if facts["has_table"]:
        lines.append("`ngram5.npz` beside the weights holds the 5-letter counts that the loss is compared with.")
    return lines
