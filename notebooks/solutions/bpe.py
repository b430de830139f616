"""Solutions of the exercises of notebooks/bpe.ipynb. Try them first; then compare."""

from collections import Counter
from itertools import pairwise


# exercise 1
def commonest(ids):
    count = Counter(pairwise(ids))
    most = max(count.values())
    return min(pair for pair in count if count[pair] == most)


# exercise 2
def merge(ids, pair, new):
    out = []
    for i in ids:
        out.append(i)
        if tuple(out[-2:]) == pair:
            out[-2:] = [new]
    return out


# exercise 3
def by_the_rules(ids, merges):
    while known := [pair for pair in pairwise(ids) if pair in merges]:
        oldest = min(known, key=merges.get)
        ids = merge(ids, oldest, merges[oldest])
    return ids


# exercise 4
def nats_a_character(nats_a_piece, lengths):
    return nats_a_piece * (len(lengths) - 1) / sum(lengths[1:])
