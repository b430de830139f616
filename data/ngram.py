"""Counting: the dumbest models of text that work, and the marks every rung of the ladder is measured by.

An n-gram guesses a symbol from the n-1 before it, by how often each symbol followed them in train. Needs
numpy only. `python -m bench.marks` measures the whole table on Tiny Shakespeare or the stand-in.
"""

import io
import math
import os
import time
import zipfile

import numpy as np

from data.files import write_atomic

LONGEST = 16  # letters
MOST_STRINGS = 4_000_000  # strings of n symbols in a file; Tiny Shakespeare has 0.13 million of five
ARRAYS = {"n", "vocab_size", "head", "steps", "counts"}  # "corpus" may come with them


class NGram:
    """Letter counts of orders 1 to n over `vocab_size` symbols.

    n = 1 and 2 add one to every count (Laplace). From n = 3 on, Witten-Bell: a context that was seen c times,
    with t different letters after it, keeps c/(c+t) for its own counts and gives t/(c+t) to the context one
    letter shorter, down to the even guess (Witten and Bell 1991; Chen and Goodman 1999, section 2.6).
    """

    def __init__(self, n: int, vocab_size: int):
        if not 1 <= n <= LONGEST or not 1 <= vocab_size < 2**31 or vocab_size**n >= 2**63:
            raise ValueError(f"cannot count {n} letters of {vocab_size} symbols: need n from 1 to {LONGEST} "
                             "and vocab_size**n < 2**63")
        self.n, self.vocab_size = int(n), int(vocab_size)
        self.corpus_sha256 = ""  # of the text that was counted, where `save` was told
        self._grams: list[tuple] = []  # per order: sorted codes, counts
        self._contexts: list[tuple] = []  # per order: sorted codes, totals, types

    def fit(self, ids):
        """Count the train split `ids` (1-D: list, array or tensor). Returns self."""
        ids = self._check(ids)
        if len(ids) < self.n:
            raise ValueError(f"a {self.n}-gram needs a text of at least {self.n} symbols, "
                             f"this one has {len(ids)}")
        top = np.unique(_codes(ids, self.n, self.vocab_size), return_counts=True)
        return self._set(top, ids[: self.n - 1])

    def _set(self, top, head: np.ndarray):
        """All orders from the counts of the longest: its suffixes, plus those that begin the text."""
        V, grams = self.vocab_size, [top]
        for k in range(self.n - 1, 0, -1):
            first = _codes(head[:k], k, V)  # the one k-gram that has no letter before it
            codes = np.concatenate([grams[0][0] % V**k, first])
            counts = np.concatenate([grams[0][1], np.ones(len(first), np.int64)])
            codes, where = np.unique(codes, return_inverse=True)
            grams.insert(0, (codes, np.bincount(where, weights=counts).astype(np.int64)))
        self._grams, self._head, self._contexts = grams, head, []
        for codes, counts in grams:
            contexts, start, types = np.unique(codes // V, return_index=True, return_counts=True)
            self._contexts.append((contexts, np.add.reduceat(counts, start), types))
        return self

    # --- what it says ---

    def next_probs(self, context_ids) -> np.ndarray:
        """(V,) probabilities of the next symbol after `context_ids`: any length, also empty; sums to 1."""
        context = self._check(context_ids)
        return self._law(np.arange(self.vocab_size), self._before(context)[-1], len(context))

    def probs(self, ids) -> np.ndarray:
        """(T, V): row t is the law of the symbol after ids[: t + 1], as a model's logits are laid out."""
        ids = self._check(ids)
        seen = np.arange(1, len(ids) + 1)
        return self._law(np.arange(self.vocab_size), self._before(ids)[1:, None], seen[:, None])

    def losses(self, ids) -> np.ndarray:
        """(len - 1,) nats: -log p of every symbol but the first, each given all the n-1 symbols before it."""
        return self._losses(ids, len(ids))

    def loss(self, ids) -> float:
        """Mean nats a symbol over the len - 1 targets of `ids`: exact, the same number every time."""
        return float(self.losses(ids).mean())

    def loss_in_windows(self, ids, block_size: int) -> float:
        """The same mean when every target sees only its own window of `block_size`, as a model does."""
        return float(self._losses(ids, block_size).mean())

    def unseen(self, ids) -> float:
        """Share of the strings of n symbols in `ids` that never occur in train."""
        codes = _codes(self._check(ids), self.n, self.vocab_size)
        return float((_look_up(self._grams[-1], codes)[0] == 0).mean())

    def _losses(self, ids, block_size: int) -> np.ndarray:
        ids = self._check(ids)
        seen = np.arange(len(ids) - 1) % block_size + 1
        return -np.log(self._law(ids[1:], self._before(ids)[1:-1], seen))

    def _before(self, ids: np.ndarray) -> np.ndarray:
        """(len + 1, n-1): the symbols before each place and after the last; 0 where there are none."""
        width = max(self.n - 1, 1)
        padded = np.concatenate([np.zeros(width, np.int64), ids])
        return np.lib.stride_tricks.sliding_window_view(padded, width)

    def _law(self, symbols: np.ndarray, before: np.ndarray, seen) -> np.ndarray:
        """p of `symbols` after `before` (..., n-1), the last `seen` of them real; all three broadcast."""
        if not self._grams:
            raise ValueError("this n-gram has counted nothing yet: call fit(ids) or NGram.load(path)")
        V, context = self.vocab_size, 0
        p = self._base(symbols) + np.zeros(np.shape(seen))
        for k in range(2, self.n + 1):
            context = context + before[..., 1 - k] * V ** (k - 2)
            (count,) = _look_up(self._grams[k - 1], context * V + symbols)
            total, types = _look_up(self._contexts[k - 1], context)
            p = np.where(seen >= k - 1, self._mix(count, total, types, p), p)
        return p

    def _base(self, symbols: np.ndarray) -> np.ndarray:
        """p of each symbol without any context."""
        (count,), (_, total, types) = _look_up(self._grams[0], symbols), self._contexts[0]
        if self.n <= 2:
            return (count + 1) / (total + self.vocab_size)
        return (count + types / self.vocab_size) / (total + types)

    def _mix(self, count, total, types, shorter) -> np.ndarray:
        if self.n == 2:
            return (count + 1) / (total + self.vocab_size)
        return np.where(total > 0, (count + types * shorter) / np.maximum(total + types, 1), shorter)

    def _check(self, ids) -> np.ndarray:
        ids = np.asarray(ids)
        if ids.size == 0:
            return np.zeros(0, np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= self.vocab_size:
            most = self.vocab_size - 1
            raise ValueError(f"ids must be one flat sequence of whole numbers from 0 to {most}")
        return ids.astype(np.int64)

    # --- files ---

    def save(self, path: str | os.PathLike, corpus_sha256: str = "") -> None:
        """Write a small .npz (no pickle): the longest strings as steps between sorted codes, and counts.

        `corpus_sha256` (64 hex digits) says of what text they are. ValueError for more than MOST_STRINGS.
        """
        codes, counts = self._grams[-1]
        if len(codes) > MOST_STRINGS:
            raise ValueError(f"{len(codes):,} strings of {self.n} symbols are too many for a file: "
                             "count fewer letters")
        arrays = {"head": self._head, "steps": np.diff(codes, prepend=0), "counts": counts}
        arrays = {name: values.astype(np.min_scalar_type(int(values.max(initial=0))))  # the narrowest type
                  for name, values in arrays.items()}
        if corpus_sha256 or self.corpus_sha256:
            arrays["corpus"] = np.frombuffer(bytes.fromhex(corpus_sha256 or self.corpus_sha256), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, n=self.n, vocab_size=self.vocab_size, **arrays)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Read what `save` wrote. ValueError in one sentence if the file is missing, damaged or none.

        Safe with a stranger's file: its sizes are read first, and what it says is checked.
        """
        try:
            with zipfile.ZipFile(path) as file:  # its directory alone
                _check_sizes(file.infolist())
            with np.load(path, allow_pickle=False) as data:
                model = cls(int(data["n"]), int(data["vocab_size"]))
                steps, counts, head = (data[name].astype(np.int64) for name in ("steps", "counts", "head"))
                model.corpus_sha256 = data["corpus"].tobytes().hex() if "corpus" in data.files else ""
            _check_counts(model, steps, counts, head)
            return model._set((np.cumsum(steps), counts), model._check(head))
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: make it with NGram.save") from None
        except Exception as error:  # zip, zlib, header and key errors: all mean the same to the reader
            kind = type(error).__name__
            raise ValueError(f"{path} is damaged or no n-gram file ({kind}): make it again") from None


def _codes(ids, k, vocab_size):
    """Every string of k symbols as one whole number in base `vocab_size`; (len - k + 1,)."""
    size = max(len(ids) - k + 1, 0)
    codes = np.zeros(size, np.int64)
    for i in range(k):
        codes = codes * vocab_size + ids[i : i + size]
    return codes


def _look_up(table, codes):
    """The columns of `table` (sorted codes, column, ...) at `codes`, 0 for a code that is not there."""
    keys, *columns = table
    at = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return [np.where(keys[at] == codes, column[at], 0) for column in columns]


def _check_sizes(files):
    """ValueError for other arrays than ours, or more bytes than the largest table of ours would have."""
    sizes = {info.filename.removesuffix(".npy"): info.file_size for info in files}
    ours = len(sizes) == len(files) and ARRAYS <= sizes.keys() <= {*ARRAYS, "corpus"}
    if not ours or max(sizes.values()) > 8 * MOST_STRINGS + 4096:
        raise ValueError


def _check_counts(model, steps, counts, head):
    """ValueError unless these are rising codes of strings of n symbols, each with a count."""
    shapes = steps.ndim == counts.ndim == head.ndim == 1 and 0 < len(steps) == len(counts)
    if not shapes or len(head) != model.n - 1 or counts.min() < 1 or counts.max() >= 2**40:
        raise ValueError
    last = np.cumsum(steps, dtype=np.float64)[-1]
    if steps[0] < 0 or (steps[1:] < 1).any() or last >= model.vocab_size**model.n:
        raise ValueError


# --- the marks ---


def table(train, val, vocab_size: int, longest: int = 8) -> list[dict]:
    """Exact losses in nats, and the share of strings new in val: a row for each n from 0 (the even guess)
    to `longest`.
    """
    even = math.log(vocab_size)
    rows = [{"n": 0, "name": "uniform", "val_loss": even, "train_loss": even, "unseen": 0.0,
             "smoothing": "none"}]
    for n in range(1, longest + 1):
        start = time.perf_counter()
        model = NGram(n, vocab_size).fit(train)
        rows.append({"n": n, "name": {1: "unigram", 2: "bigram"}.get(n, f"{n}-gram"),
                     "val_loss": model.loss(val), "train_loss": model.loss(train),
                     "unseen": model.unseen(val), "smoothing": "add-1" if n < 3 else "Witten-Bell",
                     "seconds": time.perf_counter() - start})
    return rows
