"""Windows and batches of ids: a pure function of (seed, step), and an exact walk through validation.

`ids` is a 1-D tensor, a numpy array (memory-mapped ones too) or anything that has a length and gives a
tensor for a slice, such as `data.shards.IdsOnDisk`.
"""

from functools import lru_cache

import numpy as np
import torch

from data.files import DataError


def get_batch(ids, block_size: int, batch_size: int, seed: int, step: int):
    """(x, y), both (B, T) int64: windows of `ids` and the same windows one symbol later.

    A pure function of (seed, step): no state, so a resumed run sees the same data. Starts are drawn
    evenly from every legal one, 0 to len - block_size - 1, where the last target is the last symbol.
    DataError if `ids` is too short.
    """
    return cut(ids, batch_starts(len(ids), block_size, batch_size, seed, step), block_size)


def shuffled_batch(ids, block_size: int, batch_size: int, seed: int, step: int):
    """Like get_batch, in epochs: windows side by side, each once an epoch, in a fresh order and from a
    fresh offset. Also a pure function of (seed, step).

    An epoch leaves out less than two windows, others each time.
    """
    windows = (len(ids) - block_size) // block_size  # so that every offset below block_size fits
    if windows < 1:  # too short for epochs; get_batch says so if it is too short for all
        return get_batch(ids, block_size, batch_size, seed, step)
    place = step * batch_size + np.arange(batch_size)
    starts = [_epoch_starts(windows, block_size, seed, int(n // windows))[n % windows] for n in place]
    return cut(ids, np.array(starts), block_size)


@lru_cache(maxsize=2)
def _epoch_starts(windows, block_size, seed, epoch):
    # another counter than batch_starts'
    raw = np.random.Philox(key=seed, counter=[0, epoch, 1, 0]).random_raw(windows + 1)
    return int(raw[0] % block_size) + block_size * np.argsort(raw[1:], kind="stable")


def batch_starts(length: int, block_size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """(B,) int64 starts of the batch of (seed, step) in a text of `length` symbols."""
    legal = length - block_size  # how many starts leave room for a window and its last target
    if legal < 1:
        raise DataError(f"the text has {length} symbols, one window of {block_size} and its target need "
                        f"{block_size + 1}: use a longer text or a smaller context")
    if seed < 0 or step < 0:
        raise DataError(f"seed and step must be 0 or more, not {seed} and {step}")
    # counter-based, and its raw numbers are promised to stay the same in every version of numpy
    random = np.random.Philox(key=seed, counter=[0, step, 0, 0]).random_raw(batch_size)
    return (random % np.uint64(legal)).astype(np.int64)


def cut(ids, starts: np.ndarray, block_size: int):
    """(x, y), both (B, T) int64: the windows of `ids` at `starts` (B,), and the same one symbol later.

    Rows of numbers instead of ids, (N, V), give (B, T, V).
    """
    if isinstance(ids, torch.Tensor):
        window = ids[torch.from_numpy(starts[:, None] + np.arange(block_size + 1))]  # (B, T + 1)
    else:
        rows = [np.asarray(ids[int(s) : int(s) + block_size + 1], np.int64) for s in starts]
        window = torch.from_numpy(np.stack(rows))
    window = window if window.is_floating_point() else window.to(torch.int64)
    return window[:, :-1].contiguous(), window[:, 1:].contiguous()  # (B, T) each


def eval_windows(ids, block_size: int, batch_size: int = 1):
    """Yield (x, y), (B, T) each, that cover all len - 1 targets of `ids` once, in order, without overlap.

    B is `batch_size` (less in the last full batch) and T is `block_size`; what is left over comes last
    as one shorter window of B = 1. DataError if `ids` has no target.
    """
    targets = len(ids) - 1
    if targets < 1:
        raise DataError(f"a text of {len(ids)} symbols has nothing to predict: use a longer one")
    stop = targets // block_size * block_size  # where the last full window ends
    for start in range(0, stop, batch_size * block_size):
        piece = ids[start : min(start + batch_size * block_size, stop) + 1]
        yield piece[:-1].view(-1, block_size), piece[1:].view(-1, block_size)
    if stop < targets:
        piece = ids[stop:]
        yield piece[None, :-1], piece[None, 1:]
