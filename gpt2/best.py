"""What out_dir/best holds: a GPT-2 folder, its tokenizer, what was measured, and letter counts beside it."""

import contextlib
import functools
import json
import shutil
from pathlib import Path

from data.files import write_atomic
from data.ngram import NGram
from data.tokenizer import TokenizerError, load_tokenizer
from gpt2.checkpoint import replace_folder
from gpt2.errors import TrainError
from gpt2.plan import over_windows
from gpt2.weights import read_json
from model_gpt2 import GPT

HELDOUT = 1200  # characters of validation text that a page may use for a guessing game
PUBLIC = ("tinyshakespeare", "standin")  # texts that everybody may read: only these are shown


def write_best(folder, model, corpus, metrics, dtype):
    """Fill an empty folder. metrics: a dict of plain values, for metrics.json."""
    tokenizer = corpus.tokenizer
    model.save_pretrained(folder, dtype=dtype, start_id=tokenizer.start_id)
    tokenizer.save(folder, block_size=model.config.block_size)
    if hasattr(corpus, "train_text") and tokenizer.kind == "char":
        counts, loss = letter_counts(corpus)
        with contextlib.suppress(ValueError):  # of a very long text the counts are too many for a file
            counts.save(Path(folder) / "ngram5.npz", corpus.sha256)
        metrics = {**metrics, "ngram5_val_loss": loss}
    write_atomic(Path(folder) / "metrics.json", json.dumps(metrics, indent=2))


@functools.lru_cache(maxsize=1)  # seconds, and the same for all of a run; keyed by the corpus itself
def letter_counts(corpus):
    """(the 5-gram of a corpus' training text, its exact loss on the validation text)."""
    counts = NGram(5, corpus.tokenizer.vocab_size).fit(corpus.train.numpy())
    return counts, float(counts.loss(corpus.val.numpy()))


def is_whole(folder):
    """Whether weights and measurements of a model folder can be read; the rest comes from the text."""
    with contextlib.suppress(ValueError):
        return bool(read_json(Path(folder) / "metrics.json") and GPT.from_pretrained(folder))
    return False


def fetch_best(source, folder, step):
    """Whether `source` (a copy) has the whole best/ of that step, which then replaces `folder`."""
    if not is_whole(source) or read_json(Path(source) / "metrics.json").get("step") != step:
        return False
    replace_folder(str(folder), lambda new: shutil.copytree(source, new, dirs_exist_ok=True))
    return True


# ---- How often the likeliest next symbol is the one that comes: a number that needs no logarithm


def complete(folder, corpus, device="cpu"):
    """Add such shares, in 0..1, to the metrics.json of a model folder; no folder, nothing to do.

    And a piece of unseen text for the page's guessing game, where the text is public. What comes from the
    text is made again where it is damaged; TrainError for weights or measurements that are.
    """
    path, counts = Path(folder) / "metrics.json", Path(folder) / "ngram5.npz"
    if not path.is_file():
        return
    if not is_whole(folder):
        raise TrainError(f"{folder} is damaged: the same command with --resume auto writes it anew from "
                         "last.pt.")
    metrics, model = read_json(path), GPT.from_pretrained(folder).to(device)
    metrics["accuracy"] = accuracy(model, corpus.val)
    if counts.is_file():
        metrics["ngram_accuracy"] = ngram_accuracy(whole_counts(counts, corpus), corpus.val.numpy())
    try:
        load_tokenizer(folder)
    except TokenizerError:
        corpus.tokenizer.save(folder, model.config.block_size)
    if corpus.name in PUBLIC and hasattr(corpus, "val_text"):
        metrics["heldout"] = corpus.val_text[:HELDOUT].rpartition("\n")[0]
    write_atomic(path, json.dumps(metrics, indent=2))


def whole_counts(path, corpus):
    """The letter counts in a file, counted again where it is damaged."""
    try:
        return NGram.load(path)
    except ValueError:
        counts, _ = letter_counts(corpus)
        counts.save(path, corpus.sha256)
        return counts


def accuracy(model, ids):
    """Share of the targets of ids (N,) whose likeliest guess is right: the windows of `evaluate`."""
    def right(x, y):
        logits = model(x)[0]  # (B, T, V)
        return (logits[..., : model.config.n_tokens].argmax(-1) == y).sum().item()

    return over_windows(model, ids, right) / (len(ids) - 1)


def ngram_accuracy(table, ids, size=20_000):
    """The same for letter counts (data.ngram.NGram), which read across the windows' edges; ids: an array."""
    right, before = 0, table.n - 1
    for start in range(0, len(ids) - 1, size):  # a part at a time: every guess is a row of V numbers
        first = max(0, start - before)  # the letters that the part's first guess looks back on
        guesses = table.probs(ids[first : min(start + size, len(ids) - 1)]).argmax(1)[start - first :]
        right += int((guesses == ids[start + 1 : start + 1 + size]).sum())
    return right / (len(ids) - 1)
