// speculate.js: a small model proposes several ids, the large one checks them all in one pass. Read it beside
// gpt2/speculative.py: the same steps.
//
// Fetching a large model's weights from memory takes most of the time of a step, and a pass over four ids
// fetches them once, as a pass over one does. A proposal x, drawn from the small model's law q, is kept with
// probability min(1, p(x) / q(x)), p being the large model's; the first that is refused is replaced by a draw
// from max(p - q, 0), scaled to sum 1. The text then has exactly the large model's law, whatever the small
// one proposes (Leviathan et al. 2023, Chen et al. 2023); a better small model only makes it faster.

/**
 * Yields { id, window, logits } as GPT.stream does: logits are the large model's.
 * law(logits) -> probabilities; pick(probabilities) -> id; ahead: ids that are proposed at once.
 */
export function* speculate(large, small, window, max_new_tokens, { law, pick, ahead }) {
  const asked = Reader(small), block_size = large.config.block_size;
  let left = max_new_tokens;
  while (left > 0) {
    window = large.fit(window);
    const n = Math.min(ahead, left - 1, block_size - window.length);
    const { proposed, q } = yield* propose(asked, window, n, law, pick);
    const logits = yield* check(large, [...window, ...proposed], n + 1);
    for (const { id, at } of verdict(proposed, q, logits.map(law), pick)) {
      yield { id, window: window.length, logits: logits[at] };
      window = [...window, id];
      left--;
    }
  }
}

/**
 * A model reading a text that grows at its end and may be taken back: its window moves on only where it must.
 */
function Reader(model) {
  const { block_size } = model.config;
  let start = 0;
  return function* read(ids) {
    // fresh: the large one's window moved on
    const full = ids.length - start > block_size, fresh = ids.length <= start;
    if (full || fresh) start = Math.max(0, ids.length - Math.max(1, block_size >> 1));
    return yield* model.read(ids.slice(start));
  };
}

/** n ids drawn from the small model one after the other, and the law q of each. */
function* propose(read, window, n, law, pick) {
  const proposed = [], q = [];
  while (proposed.length < n) {
    q.push(law(yield* read([...window, ...proposed])));
    proposed.push(pick(q.at(-1)));
  }
  return { proposed, q };
}

/** The large model's logits after each of the last n of `ids`. */
function* check(large, ids, n) {
  const logits = [];
  yield* large.read(ids, { from: ids.length - n, each: (row) => logits.push(row.slice()) });
  return logits.slice(-n);
}

/**
 * [{ id, at }]: the proposals that are kept, and one id more: the correction, or the next one if all were
 * kept.
 */
function verdict(proposed, q, p, pick) {
  const kept = [];
  for (const [at, id] of proposed.entries()) {
    const keep = Math.min(1, p[at][id] / q[at][id]);
    if (pick([keep, 1 - keep]) === 1) {
      const rest = p[at].map((x, i) => Math.max(0, x - q[at][i])), sum = rest.reduce((a, b) => a + b, 0);
      return [...kept, { id: pick(sum > 0 ? rest.map((x) => x / sum) : p[at]), at }];
    }
    kept.push({ id, at });
  }
  return [...kept, { id: pick(p.at(-1)), at: proposed.length }];
}
