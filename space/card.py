"""The model card: every number in it is read from metrics.json or counted in the files beside it.

`write_card(folder, repo_id)` adds README.md to a model folder. What was not measured, and what the reader
did not say (the text's language, its licence, where it is from), is not mentioned or said to be unknown;
it is never invented.
"""

import re
from pathlib import Path

import torch

from data.files import write_atomic
from data.tokenizer import load_tokenizer
from model_gpt2 import GPT
from space.account import HUB
from space.folder import TABLE, exact_loss, is_number, per_letter, read_json, read_metrics, start_id, teachers
from space.picture import draw_card
from space.static_site import first_text

UNSTATED = ("Not stated. Nobody said whether the text that it learned from may be used: ask its publisher "
            "first.")
TEMPLATES = Path(__file__).parent / "templates"
CORPORA = read_json(TEMPLATES / "corpora.json")  # what is known of the texts that the project knows


def write_card(folder, repo_id: str, project: str | None = None, **said: str | None) -> dict:
    """Write README.md, and thumbnail.png, from the folder's own files and a text that the model writes now.

    said: license, language (a code such as "uk"), origin (where the text is from), as the reader states them.
    Returns the facts of read_facts. Raises FolderError in one sentence if a file is missing or damaged.
    """
    folder = Path(folder)
    if first := first_text(folder):
        draw_card(first, repo_id.split("/")[-1], folder / "thumbnail.png")
    facts = read_facts(folder)
    sample = draw_sample(folder, facts["prompt"])
    write_atomic(folder / "README.md", card(facts, repo_id, project, sample, **said))
    return facts


def read_facts(folder: Path) -> dict:
    """What the files say: metrics, shape (config.json), file_bytes, has_table, and a prompt that fits."""
    tokenizer, metrics = load_tokenizer(folder), read_metrics(folder)
    shape = read_json(folder / "config.json")
    beginnings = [*metrics["corpus"]["examples"], tokenizer.decode([start_id(tokenizer, folder)])]
    lengths, most = {text: len(tokenizer.encode(text)) for text in beginnings}, shape["n_positions"]
    prompt = next((text for text, length in lengths.items() if 0 < length < most), beginnings[-1])
    return {"metrics": metrics, "shape": shape, "file_bytes": (folder / "model.safetensors").stat().st_size,
            "has_table": (folder / TABLE).exists(), "picture": (folder / "thumbnail.png").exists(),
            "prompt": prompt, "room": max(1, min(100, most - lengths[prompt]))}


def draw_sample(folder: Path, prompt: str, length: int = 300) -> str:
    """A text that the model in `folder` writes now: the prompt and what comes after it."""
    model, tokenizer = GPT.from_pretrained(folder), load_tokenizer(folder)
    ids = model.generate(torch.tensor([tokenizer.encode(prompt)]), length, temperature=0.8, seed=1)
    return tokenizer.decode(ids[0].tolist()).strip("\n\ufffd")  # a letter's first bytes are no letter


def card(facts: dict, repo_id: str, project: str | None, sample: str, **said: str | None) -> str:
    """The card's text: front matter, what it is, what was measured, how to use it, its limits."""
    metrics = facts["metrics"]
    corpus, parameters = CORPORA.get(metrics["corpus"].get("name"), {}), metrics.get("parameters")
    rights = f"{plain(said['license'])}, as its publisher states." if said.get("license") else None
    return (TEMPLATES / "model_card.md").read_text(encoding="utf-8").format(
        front=front_matter(facts, repo_id, sample, **said), name=repo_id.split("/")[-1], repo_id=repo_id,
        shape=facts["shape"], size=f"{parameters / 1e6:.1f} million parameters, " if parameters else "",
        learned=learned(facts, corpus, said.get("origin")),
        rows="\n".join(f"| {what} | {value} |" for what, value in measured(facts)),
        sample="\n".join("    " + line for line in sample.splitlines()), snippet=snippet(facts, repo_id),
        project=f"[the project that made it]({project})" if project else "the project that made it",
        limits="\n".join(f"* {line}" for line in [*corpus.get("caveats", []), *limits(facts)]),
        rights=rights or corpus.get("rights", UNSTATED))


def front_matter(facts: dict, repo_id: str, sample: str, **said: str | None) -> str:
    """The YAML that the Hub reads: the exact loss as model-index, the sample as the widget's example."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics, name = facts["metrics"], facts["metrics"]["corpus"].get("name")
    corpus, loss = CORPORA.get(name, {}), exact_loss(metrics)
    result = loss is not None and EvalResult(
        "text-generation", corpus.get("dataset", "text"), one_line(name or "its own text"), "loss",
        round(loss, 4), dataset_split="validation, the last tenth",
        metric_name="exact loss, nats per character")
    return ModelCardData(
        license=one_line(said.get("license") or corpus.get("license")),
        language=one_line(said.get("language") or corpus.get("language")),
        library_name="transformers", pipeline_tag="text-generation",
        tags=["gpt2", "character-level" if per_letter(metrics) else "bpe", "from-scratch"],
        datasets=[corpus["dataset"]] if "dataset" in corpus else None,
        widget=[{"text": facts["prompt"], "output": {"text": sample}}],
        thumbnail=f"{HUB}/{repo_id}/resolve/main/thumbnail.png" if facts["picture"] else None,
        model_name=repo_id.split("/")[-1], eval_results=[result] if result else None,
    ).to_yaml()


def one_line(text) -> str | None:
    return " ".join(str(text).split())[:80] if text else None


def plain(value, most: int = 120) -> str:
    """A name from a file, as text that Markdown and HTML take for nothing else: no tags, links, lines."""
    text = " ".join(str(value).split())[:most].encode("utf-8", "replace").decode()
    text = re.sub(r"[^\w .,+()/=:-]|:(?=//)|_", lambda sign: f"&#{ord(sign[0])};", text)
    return re.sub(r"(?i)(www)\.", r"\1&#46;", text)


def learned(facts: dict, corpus: dict, origin: str | None) -> str:
    """The paragraph about the text, or nothing."""
    name = facts["metrics"]["corpus"].get("name")
    text = corpus.get("what") or (f"a text that its publisher calls {plain(name)}" if name else "")
    source = f" It is from {plain(origin, 300)}." if origin else ""
    return f"\n\nIt learned from {text}.{source}" if text else ""


def measured(facts: dict) -> list[tuple[str, str]]:
    """(what, value) for everything that is known."""
    m, shape = facts["metrics"], facts["shape"]
    machine, corpus = {key: plain(value) for key, value in m["machine"].items() if value}, m["corpus"]
    sha, letters = corpus.get("sha256", ""), per_letter(m)
    sha = f"`{sha}`" if re.fullmatch("[0-9a-f]{64}", sha) else "unknown"
    known = [
        ("exact validation loss, the whole split once", nats(exact_loss(m))),
        ("the same for a table of 5-letter counts", nats(m.get("ngram5_val_loss"))),
        ("the lowest that this text allows", nats(corpus.get("floor"))),
        (f"guesses the next {'letter' if letters else 'token'} right", share(m.get("accuracy"))),
        ("the same for a table of 5-letter counts", share(m.get("ngram_accuracy"))),
        ("loss on the last training batch" + ", against its teachers' probabilities" * bool(teachers(m)),
         letters and nats(m.get("train_loss"))),
        ("text", corpus.get("name") and f"{plain(corpus['name'])}, SHA-256 {sha}"),
        ("parameters", m.get("parameters") and f"{m['parameters']:,}"),
        ("vocabulary", f"{shape.get('n_tokens') or shape['vocab_size']:,} tokens"),
        ("size of the weights", m.get("parameters") and sizes(m["parameters"], facts["file_bytes"])),
        ("recipe", m.get("step") and recipe(m)),
        ("time", m.get("seconds") and f"{m['seconds'] / 60:.1f} minutes"),
        ("machine", ", ".join(machine[key] for key in ("device", "cpu") if key in machine)),
        ("versions", machine.get("torch")
         and f"torch {machine['torch']}, commit {machine.get('commit', 'unknown')}"),
        ("date", machine.get("date")),
    ]
    return [(what, value) for what, value in known if value]


def nats(loss) -> str | None:
    return f"{loss:.4f} nats per character" if is_number(loss) else None


def share(value) -> str | None:
    return f"{value:.1%}" if is_number(value) else None


def sizes(parameters: int, file_bytes: int) -> str:
    """The file here, and what the other precision would take."""
    half = file_bytes < 3 * parameters
    here, other, width = ("float16", "float32", 4) if half else ("float32", "float16", 2)
    return f"{file_bytes / 1e6:,.1f} MB in {here} ({parameters * width / 1e6:,.1f} MB in {other})"


def recipe(metrics: dict) -> str:
    """Steps, tokens and the main settings of the run."""
    config, said = metrics["config"], [f"{metrics['step']:,} steps"]
    if metrics.get("tokens"):
        said.append(f"{metrics['tokens'] / 1e6:,.1f} million tokens")
    said += [f"{name} {plain(config[key])}" for key, name in NAMED.items() if config.get(key) is not None]
    if n := teachers(metrics):
        weight = f", weight {plain(config['teacher_weight'])}" if "teacher_weight" in config else ""
        said.append(f"targets from the probabilities of {n} other models{weight}")
    return ", ".join(filter(None, [*said, plain(metrics.get("precision", ""))]))


NAMED = {"tokens_per_step": "tokens a step:", "optimizer": "optimizer", "muon_lr": "Muon's rate",
         "lr": "AdamW's rate", "weight_decay": "weight decay", "dropout": "dropout", "seed": "seed"}


def snippet(facts: dict, repo_id: str) -> str:
    """Python that writes with the model in `transformers`, within its context."""
    return (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model="{repo_id}")\n'
        f"prompt = {facts['prompt']!r}\ntext = write(prompt, max_new_tokens={facts['room']}, "
        "do_sample=True)[0][\"generated_text\"]\nprint(text)"
    )


def notebook(facts: dict, repo_id: str) -> dict:
    """A notebook of two cells: beside a model, the Hub shows it as buttons for Colab and Kaggle."""
    lines = snippet(facts, repo_id).splitlines(keepends=True)
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": [f"# Write with {repo_id}"]}
    code = {"cell_type": "code", "id": "write", "metadata": {}, "execution_count": None, "outputs": [],
            "source": lines}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [title, code], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def limits(facts: dict) -> list[str]:
    lines = [
        "It writes what looks like its text. It knows no facts, follows no instructions and answers no "
        "questions.",
        per_letter(facts["metrics"]) and "It reads characters; what its vocabulary lacks must be left out or "
        "replaced before encoding.",
        f"It sees {facts['shape']['n_positions']} tokens back and nothing before.",
        facts["has_table"] and f"`{TABLE}` beside the weights holds the 5-letter counts that the loss is "
        "compared with.",
    ]
    return [line for line in lines if line]
