// heads.js: what each attention head does, said in a few words, from where its attention falls on a text.

const ENOUGH = 0.3; // a name needs this share of the head's attention
const OFTEN = 2; // and this many times what an even spread would give

/**
 * kind -> is position j one of its places? t is the last letter that the head sees. More than one may hold.
 */
const KINDS = {
  "the last letter": (ids, t, j) => j === t,
  "the letter before it": (ids, t, j) => j === t - 1,
  "two to four back": (ids, t, j) => j <= t - 2 && j >= t - 4,
  "spaces": (ids, t, j, newline, space) => ids[j] === space,
  "line starts": (ids, t, j, newline) =>
    j < t - 4 && (ids[j] === newline || ids[j - 1] === newline || j === 0),
  "earlier copies of it": (ids, t, j) => j < t && ids[j] === ids[t],
  "what followed those copies": (ids, t, j) => j < t && j > 0 && ids[j - 1] === ids[t],
};

/**
 * [{ name, share }] for each layer * n_head + head. share: the part of its attention that falls on what the
 * name says.
 */
export function name_heads(model, ids, tokenizer) {
  const { n_layer, n_head } = model.config,
    [newline, space] = ["\n", " "].map((c) => tokenizer.encode(c)[0] ?? -1),
    kinds = Object.entries(KINDS);
  const sums = Array.from({ length: n_layer * n_head }, () => kinds.map(() => 0)),
    even = kinds.map(() => 0);
  let n = 0;
  for (let t = 0; t < ids.length; t++) {
    const patterns = [];
    model.forward([ids[t]], t, { patterns });
    if (t < 8) continue; // too little behind it to choose from
    n++;
    const places = kinds.map(([, holds]) =>
      [...Array(t + 1).keys()].filter((j) => holds(ids, t, j, newline, space)),
    );
    places.forEach((js, k) => {
      even[k] += js.length / (t + 1);
    });
    patterns.forEach((pattern, head) =>
      places.forEach((js, k) => {
        for (const j of js) sums[head][k] += pattern[j];
      }),
    );
  }
  return sums.map((row) => {
    const shares = row.map((sum, k) => (n && sum >= OFTEN * even[k] ? sum / n : 0));
    const best = shares.indexOf(Math.max(...shares));
    return shares[best] >= ENOUGH
      ? { name: kinds[best][0], share: shares[best] }
      : { name: "a bit of everything", share: 0 };
  });
}
