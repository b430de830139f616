"""What out_dir/best holds: a GPT-2 folder, its tokenizer, what was measured, and letter counts beside it."""

import contextlib
import functools
import json
from pathlib import Path

from data.files import write_atomic
from data.ngram import NGram


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
