"""The model card: every number in it is read from metrics.json or counted in the files beside it, none is written here.

`write_card(folder, repo_id)` adds README.md to a model folder. What was not measured is not mentioned.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

CORPORA = {
    "tinyshakespeare": {
        "rights": "Shakespeare's text is in the public domain.",
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
        "what": "a stand-in text, drawn from a small random process that the project defines, because the real text "
        "could not be had on the machine; its words mean nothing",
        "caveats": ["It imitates that process and no writer."],
    },
}


def write_card(folder: str | os.PathLike, repo_id: str, project: str | None = None, sample: str | None = None) -> Path:
    """Write README.md from the folder's own files; returns its path.

    sample: a text that this model wrote; None lets it write one now (greedy it is not: temperature 0.8, seed 1).
    Raises ValueError in one sentence if a file is missing or damaged.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    text = card(facts, repo_id, project, sample if sample is not None else draw_sample(folder))
    part = folder / "README.md.part"
    part.write_text(text, encoding="utf-8")
    os.replace(part, folder / "README.md")
    return folder / "README.md"


def read_facts(folder: Path) -> dict:
    """metrics.json with what the files say: `shape` (config.json), `file_bytes`, `dtype`, `has_table`."""
    facts = {}
    for key, name in (("metrics", "metrics.json"), ("shape", "config.json")):
        try:
            facts[key] = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"{folder} has no {name}: publish the folder that training wrote (best/), where the numbers are."
            ) from None
        except ValueError as e:
            raise ValueError(f"{folder / name} is damaged ({e}): let the training write it again.") from None
    weights = folder / "model.safetensors"
    facts["file_bytes"] = weights.stat().st_size if weights.exists() else None
    facts["has_table"] = (folder / "ngram5.npz").exists()
    return facts


def draw_sample(folder: Path, length: int = 300) -> str:
    """A text that the model in `folder` writes now, from an empty seed."""
    import torch

    from data.tokenizer import load_tokenizer
    from model_gpt2 import GPT

    model, tokenizer = GPT.from_pretrained(folder), load_tokenizer(folder)
    start = tokenizer.encode("\n")[:1] or [0]
    ids = model.generate(torch.tensor([start]), length, temperature=0.8, seed=1)
    return tokenizer.decode(ids[0, 1:].tolist()).strip()


def card(facts: dict, repo_id: str, project: str | None, sample: str) -> str:
    """The card's text: front matter, then what it is, what was measured, how it was made, how to use it, its limits."""
    corpus = CORPORA.get((facts["metrics"].get("corpus") or {}).get("name"), {})
    limits = [*corpus.get("caveats", []), *_always(facts)]
    parts = [
        front_matter(facts["metrics"], corpus),
        f"# {repo_id.split('/')[-1]}",
        _lead(facts, corpus),
        "## Measured\n\n" + table(measured(facts)),
        "## A sample\n\nSampled at temperature 0.8 with seed 1 when this card was written; nothing was chosen.\n\n"
        + "\n".join("    " + line for line in sample.splitlines()),
        "## Use it\n\n" + usage(repo_id, project),
        "## Limits\n\n" + "\n".join(f"* {line}" for line in limits),
        "## Licence\n\nMIT." + (f" {corpus['rights']}" if corpus.get("rights") else ""),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(metrics: dict, corpus: dict) -> str:
    """The YAML block that the Hub reads. Values are JSON, which is YAML too."""
    fields = {
        "license": "mit",
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gpt2", "character-level" if per_character(metrics) else "bpe", "from-scratch"],
    }
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields.items()) + "\n---"


def per_character(metrics: dict) -> bool:
    """Whether one token is one character."""
    return metrics.get("val_loss_char", metrics.get("val_loss")) == metrics.get("val_loss")


def _lead(facts: dict, corpus: dict) -> str:
    shape, count = facts["shape"], facts["metrics"].get("parameters")
    size = f"{count / 1e6:.1f} million parameters, " if count else ""
    return (
        f"A GPT-2 trained from scratch: {size}{shape['n_layer']} layers, {shape['n_head']} heads, "
        f"width {shape['n_embd']}, context {shape['n_positions']}. It is in GPT-2's own file format and loads "
        "into `transformers` unchanged."
        + (f"\n\nIt learned from {corpus['what']}." if corpus else "")
    )


def measured(facts: dict) -> list[tuple[str, str]]:
    """(what, value) for everything that is known."""
    m, shape = facts["metrics"], facts["shape"]
    config, machine, corpus = m.get("config") or {}, m.get("machine") or {}, m.get("corpus") or {}
    known = [
        ("exact validation loss, the whole split once", _nats(m.get("val_loss_char", m.get("val_loss")))),
        ("the same for a table of 5-letter counts", _nats(m.get("ngram5_val_loss"))),
        ("the lowest that this text allows", _nats(corpus.get("floor"))),
        ("loss on the last training batch", _nats(m.get("train_loss")) if per_character(m) else None),
        ("text", corpus.get("name") and f"{corpus['name']}, SHA-256 `{corpus.get('sha256', 'unknown')}`"),
        ("parameters", f"{m['parameters']:,}" if m.get("parameters") else None),
        ("vocabulary", f"{shape.get('n_tokens') or shape['vocab_size']:,} tokens"),
        ("size of the weights", sizes(m.get("parameters"), facts["file_bytes"])),
        ("recipe", recipe(m, config)),
        ("time", f"{m['seconds'] / 60:.1f} minutes" if m.get("seconds") else None),
        ("machine", ", ".join(str(machine[k]) for k in ("device", "cpu") if machine.get(k)) or None),
        ("versions", machine.get("torch") and f"torch {machine['torch']}, commit {machine.get('commit') or 'unknown'}"),
        ("date", machine.get("date")),
    ]
    return [(what, value) for what, value in known if value]


def _nats(loss) -> str | None:
    return f"{loss:.4f} nats per character" if isinstance(loss, (int, float)) else None


def sizes(parameters: int | None, file_bytes: int | None) -> str | None:
    """The file here, and what the other precision would take."""
    if not parameters or not file_bytes:
        return None
    half = file_bytes < 3 * parameters
    other = f"{parameters * (4 if half else 2) / 1e6:,.1f} MB in {'float32' if half else 'float16'}"
    return f"{file_bytes / 1e6:,.1f} MB in {'float16' if half else 'float32'} ({other})"


def recipe(metrics: dict, config: dict) -> str | None:
    """Steps, tokens and the main settings of the run."""
    if not metrics.get("step"):
        return None
    said = [f"{metrics['step']:,} steps"]
    if metrics.get("tokens"):
        said.append(f"{metrics['tokens'] / 1e6:,.1f} million tokens")
    said += [f"{name} {config[key]}" for key, name in NAMED.items() if config.get(key) is not None]
    return ", ".join([*said, metrics.get("precision") or ""]).rstrip(", ")


NAMED = {"tokens_per_step": "tokens a step:", "optimizer": "optimizer", "muon_lr": "Muon's rate", "lr": "AdamW's rate",
         "weight_decay": "weight decay", "dropout": "dropout", "seed": "seed"}  # fmt: skip


def table(rows: list[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])


def usage(repo_id: str, project: str | None) -> str:
    """Two ways to load it."""
    own = f"\nWith [the project that made it]({project}):\n" if project else "\nWith the project that made it:\n"
    return (
        "```python\nfrom transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model="{repo_id}")\n'
        'print(write("ROMEO:", max_new_tokens=100, do_sample=True)[0]["generated_text"])\n```\n'
        f"{own}\n```python\nfrom model_gpt2 import GPT\n\nmodel = GPT.from_pretrained(\"{repo_id}\")\n```"
    )


def _always(facts: dict) -> list[str]:
    shape = facts["shape"]
    lines = ["It writes what looks like its text. It knows no facts, follows no instructions and answers no questions."]
    if per_character(facts["metrics"]):
        lines.append("It reads characters; what its vocabulary lacks must be left out or replaced before encoding.")
    lines.append(f"It sees {shape['n_positions']} tokens back and nothing before.")
    if facts["has_table"]:
        lines.append("`ngram5.npz` beside the weights holds the 5-letter counts that the loss is compared with.")
    return lines
