"""Counting: the dumbest models of text that work, and the marks every rung of the ladder is measured by.

An n-gram guesses a letter from the n-1 before it, by how often each letter followed them in train. Needs numpy only.
`python -m data.ngram` measures the whole table on the corpus and writes results/ngram.json; with --standin, the
stand-in's, to results/ngram_standin.json.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np


class NGram:
    """Letter counts of orders 1 to n over `vocab_size` symbols.

    n = 1 and 2 add one to every count (Laplace). From n = 3 on, Witten-Bell: a context that was seen c times, with t
    different letters after it, keeps c/(c+t) for its own counts and gives t/(c+t) to the context one letter shorter,
    down to the even guess (Witten and Bell 1991; Chen and Goodman 1999, section 2.6).
    """

    def __init__(self, n: int, vocab_size: int):
        if n < 1 or vocab_size < 1 or vocab_size**n >= 2**63:
            raise ValueError(f"cannot count {n} letters of {vocab_size} symbols: need n >= 1 and vocab_size**n < 2**63")
        self.n, self.vocab_size = int(n), int(vocab_size)
        self._grams: list[tuple[np.ndarray, np.ndarray]] = []  # per order: sorted codes, counts
        self._contexts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # per order: codes, totals, types

    def fit(self, ids) -> NGram:
        """Count the train split `ids` (1-D: list, array or tensor). Returns self."""
        ids = self._check(ids)
        if len(ids) < self.n:
            raise ValueError(f"a {self.n}-gram needs a text of at least {self.n} symbols, this one has {len(ids)}")
        top = np.unique(_codes(ids, self.n, self.vocab_size), return_counts=True)
        return self._set(top, ids[: self.n - 1])

    def _set(self, top, head) -> NGram:
        """All orders from the counts of the longest: its suffixes, plus the few strings at the start of the text."""
        V, grams = self.vocab_size, [top]
        for k in range(self.n - 1, 0, -1):
            codes, counts = grams[0][0] % V**k, grams[0][1]
            first = _codes(head[:k], k, V)  # the one k-gram that has no letter before it
            codes, counts = np.concatenate([codes, first]), np.concatenate([counts, np.ones(len(first), np.int64)])
            codes, where = np.unique(codes, return_inverse=True)
            grams.insert(0, (codes, np.bincount(where, weights=counts).astype(np.int64)))
        self._grams, self._head = grams, np.asarray(head, np.int64)
        self._contexts = []
        for codes, counts in grams:
            contexts, start, types = np.unique(codes // V, return_index=True, return_counts=True)
            self._contexts.append((contexts, np.add.reduceat(counts, start), types))
        return self

    def next_probs(self, context_ids) -> np.ndarray:
        """(V,) probabilities of the next symbol after `context_ids`: any length, also empty; sums to 1."""
        context = self._check(list(context_ids)[-(self.n - 1) :] if self.n > 1 else [])
        return self._rows(context[None], np.array([len(context)]))[0]

    def probs(self, ids) -> np.ndarray:
        """(T, V): row t is the law of the symbol after ids[: t + 1], as a model's logits are laid out."""
        ids = self._check(ids)
        width = self.n - 1
        padded = np.concatenate([np.zeros(width, np.int64), ids])
        tails = np.stack([padded[i + 1 : i + 1 + len(ids)] for i in range(width)] or [ids], axis=1)  # (T, n-1)
        return self._rows(tails, np.minimum(np.arange(1, len(ids) + 1), width))

    def losses(self, ids) -> np.ndarray:
        """(len - 1,) nats: -log p of every symbol but the first, each given all the n-1 symbols before it."""
        ids = self._check(ids)
        return self._losses(ids, np.arange(1, len(ids)))

    def loss(self, ids) -> float:
        """Mean nats a symbol over the len - 1 targets of `ids`: exact, the same number every time."""
        return float(self.losses(ids).mean())

    def loss_in_windows(self, ids, block_size: int) -> float:
        """The same mean when every target sees only its own window of `block_size`, as in a model with that context."""
        ids = self._check(ids)
        return float(self._losses(ids, np.arange(len(ids) - 1) % block_size + 1).mean())

    def unseen(self, ids) -> float:
        """Share of the strings of n symbols in `ids` that never occur in train."""
        codes = _codes(self._check(ids), self.n, self.vocab_size)
        return float((_lookup(self._grams[-1][0], codes) < 0).mean())

    def save(self, path: str | os.PathLike) -> None:
        """Write a small .npz (no pickle): the longest strings as steps between sorted codes, and their counts."""
        codes, counts = self._fitted()[-1]
        steps = np.diff(codes, prepend=0)
        arrays = {"head": _small(self._head), "steps": _small(steps), "counts": _small(counts)}
        part = Path(f"{path}.{os.getpid()}.part")
        try:
            with open(part, "wb") as file:
                np.savez_compressed(file, n=self.n, vocab_size=self.vocab_size, **arrays)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> NGram:
        """Read what `save` wrote. ValueError in one sentence if the file is missing, damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as data:
                model = cls(int(data["n"]), int(data["vocab_size"]))
                codes = np.cumsum(data["steps"].astype(np.int64))
                top = codes, data["counts"].astype(np.int64)
                return model._set(top, data["head"].astype(np.int64))
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: make it with NGram.save") from None
        except Exception as error:  # zip, zlib, header and key errors: all mean the same to the reader
            raise ValueError(f"{path} is damaged or no n-gram file ({type(error).__name__}): make it again") from None

    def _fitted(self):
        if not self._grams:
            raise ValueError("this n-gram has counted nothing yet: call fit(ids) or NGram.load(path)")
        return self._grams

    def _check(self, ids) -> np.ndarray:
        ids = np.asarray(ids)
        if ids.size == 0:
            return np.zeros(0, np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"ids must be one flat sequence of whole numbers from 0 to {self.vocab_size - 1}")
        return ids.astype(np.int64)

    def _losses(self, ids: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """-log p of ids[1:], where target t may use its last `seen[t]` symbols."""
        self._fitted()
        p = self._base(ids[1:])
        for k in range(2, self.n + 1):
            use = np.flatnonzero(seen[k - 2 :] >= k - 1)  # among targets that have k-1 symbols before them
            at = use + k - 2
            gram = _codes(ids, k, self.vocab_size)[use]
            count, total, types = self._count(k, gram), *self._context(k, gram // self.vocab_size)
            p[at] = self._mix(count, total, types, p[at])
        return -np.log(p)

    def _rows(self, tails: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(T, V) probabilities after each row of `tails` (T, n-1), of which the last `seen` symbols are real."""
        self._fitted()
        V = self.vocab_size
        p = np.repeat(self._base(np.arange(V))[None], len(tails), axis=0)
        code = np.zeros(len(tails), np.int64)
        for k in range(2, self.n + 1):
            if k - 1 > tails.shape[1]:  # a context shorter than this order
                break
            code = code + tails[:, -(k - 1)] * V ** (k - 2)
            rows = np.flatnonzero(seen >= k - 1)
            keys, values = self._grams[k - 1]
            start, stop = np.searchsorted(keys, code[rows] * V), np.searchsorted(keys, (code[rows] + 1) * V)
            count = np.zeros((len(rows), V))
            row = np.repeat(np.arange(len(rows)), stop - start)
            at = np.arange(len(row)) - np.repeat(np.cumsum(stop - start) - stop, stop - start)
            count[row, keys[at] % V] = values[at]
            total, types = (x[:, None] for x in self._context(k, code[rows]))
            p[rows] = self._mix(count, total, types, p[rows])
        return p

    def _base(self, symbols: np.ndarray) -> np.ndarray:
        """p of each symbol without any context."""
        count, total, types = self._count(1, symbols), *self._contexts[0][1:]
        if self.n <= 2:
            return (count + 1) / (total + self.vocab_size)
        return (count + types / self.vocab_size) / (total + types)

    def _mix(self, count, total, types, shorter):
        if self.n == 2:
            return (count + 1) / (total + self.vocab_size)
        return np.where(total > 0, (count + types * shorter) / np.maximum(total + types, 1), shorter)

    def _count(self, k: int, codes: np.ndarray) -> np.ndarray:
        keys, values = self._grams[k - 1]
        at = _lookup(keys, codes)
        return np.where(at >= 0, values[at], 0)

    def _context(self, k: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keys, totals, types = self._contexts[k - 1]
        at = _lookup(keys, codes)
        return np.where(at >= 0, totals[at], 0), np.where(at >= 0, types[at], 0)


def _codes(ids: np.ndarray, k: int, vocab_size: int) -> np.ndarray:
    """Every string of k symbols as one whole number in base `vocab_size`; (len - k + 1,)."""
    size = max(len(ids) - k + 1, 0)
    codes = np.zeros(size, np.int64)
    for i in range(k):
        codes = codes * vocab_size + ids[i : i + size]
    return codes


def _lookup(keys: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Place of each code in sorted `keys`, -1 where it is not there."""
    at = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return np.where(keys[at] == codes, at, -1)


def _small(values: np.ndarray) -> np.ndarray:
    """The same whole numbers (none negative) in the narrowest type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max()) if len(values) else 0))


def table(train, val, vocab_size: int, longest: int = 8) -> list[dict]:
    """One row for each n from 0 (the even guess) to `longest`: exact losses in nats, share of strings new in val."""
    even = math.log(vocab_size)
    rows = [{"n": 0, "name": "uniform", "val_loss": even, "train_loss": even, "unseen": 0.0, "smoothing": "none"}]
    for n in range(1, longest + 1):
        start = time.perf_counter()
        model = NGram(n, vocab_size).fit(train)
        row = {"n": n, "name": ["", "unigram", "bigram"][n] if n < 3 else f"{n}-gram", "val_loss": model.loss(val)}
        row |= {"train_loss": model.loss(train), "unseen": model.unseen(val)}
        row |= {"smoothing": "add-1" if n < 3 else "Witten-Bell", "seconds": time.perf_counter() - start}
        rows.append(row)
    return rows


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.ngram", description="Measure what counting alone can do.")
    parser.add_argument("--standin", action="store_true", help="measure the stand-in text instead of Tiny Shakespeare")
    args = parser.parse_args(argv)
    # a command stands at the top of the house: what it needs there is imported here, not by the module
    from data import shakespeare, standin
    from lab.machine import write_result

    start = time.perf_counter()
    try:
        text, name = (standin.make(), "standin") if args.standin else (shakespeare.get_text(False), "tinyshakespeare")
    except shakespeare.DataError as error:
        raise SystemExit(str(error)) from None
    corpus = shakespeare.corpus_from_text(text, name)
    rows = table(corpus.train, corpus.val, corpus.tokenizer.vocab_size)
    best = NGram(5, corpus.tokenizer.vocab_size).fit(corpus.train)
    windows = {str(size): best.loss_in_windows(corpus.val, size) for size in (8, 16, 32, 64, 128, 256, 1024)}
    measured = {"unit": "nats/char", "val_targets": len(corpus.val) - 1, "rows": rows, "windows_5gram": windows}
    if args.standin:
        measured["floor"], measured["floor_se"] = standin.floor(text)
    path = Path(__file__).resolve().parents[1] / "results" / ("ngram_standin.json" if args.standin else "ngram.json")
    config = {"longest": 8, "windows": [int(size) for size in windows]}
    write_result(path, config, corpus, **measured, seconds=time.perf_counter() - start)
    for row in rows:
        print(
            f"{row['name']:>8}  val {row['val_loss']:.3f}  train {row['train_loss']:.3f}  unseen {row['unseen']:6.1%}"
        )
    print("5-gram in windows of " + ", ".join(f"{size}: {loss:.3f}" for size, loss in windows.items()))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
