// The table: what counts of 5 letters know after a few letters, and how each asks the one that is shorter.

import { bars, counts, facts, field, make, named, percent, visible } from "./pictures.js";

export const title = "Ask the table";

const START = "aptista", SHOWN = 8;

/**
 * What each order knows after `ids`, the longest first: { context, count, total, types, own, probs }.
 * own: the share that it keeps for its own counts, c / (c + t); probs (V): its mix with the shorter ones.
 */
export function numbers(table, ids) {
  const V = table.vocab_size, orders = [];
  let probs = new Float64Array(V).fill(1 / V);
  for (let k = 1; k <= Math.min(table.n, ids.length + 1); k++) {
    const context = ids.slice(ids.length - k + 1), code = context.reduce((c, id) => c * V + id, 0);
    const { count, total, types } = table.row(k, code), shorter = probs;
    if (total) probs = count.map((c, i) => (c + types * shorter[i]) / (total + types));
    orders.unshift({ context, count, total, types, own: total ? total / (total + types) : 0, probs });
  }
  return orders;
}

const many = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

/** What one order says of itself. */
function sentence({ context, count, total, types, own }, tokenizer) {
  const what = context.length ? `\u201C${visible(tokenizer.decode(context))}\u201D` : "No letter at all";
  const shorter = context.length ? "the string that is one letter shorter" : "the even guess";
  if (!total) return `${what}: never seen in train. It asks ${shorter} for everything.`;
  const top = [...count.keys()].filter((id) => count[id]).sort((a, b) => count[b] - count[a]).slice(0, 4);
  const most = top.map((id) => `${named(tokenizer.piece(id))} ${count[id].toLocaleString("en")}`).join(", ");
  return `${what}: seen ${many(total, "time")}, ${many(types, "different letter")} after it (${most}). `
    + `It keeps ${percent(own)} for its own counts and asks ${shorter} for ${percent(1 - own)}.`;
}

export async function draw(box) {
  const { tokenizer, chars } = await facts(), table = await counts(5);
  const list = make("ol"), shown = make("div");
  const redraw = (text) => {
    const orders = numbers(table, tokenizer.encode(text)), { probs } = orders[0];
    list.replaceChildren(...orders.map((order) => make("li", {}, sentence(order, tokenizer))));
    const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a]).slice(0, SHOWN);
    const rows = order.map((id) => [named(chars[id]), probs[id], percent(probs[id])]);
    shown.replaceChildren(bars("All of them mixed: what comes next", rows));
  };
  box.append(field("A few letters", START, 20, redraw), list, shown);
  redraw(START);
}
