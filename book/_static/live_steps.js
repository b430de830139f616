// Step by step of training: the table of the bigram at saved steps, beside the counted one that it comes to.

import { counts, facts, make, named, percent, rung, shade, slider, visible } from "./pictures.js";
import { softmax } from "./rungs.js";

export const title = "Watch the table being learned";

const SIZE = 11;                                             // a cell, in the canvas's pixels

/** [step, table (V, V) of probabilities] for each saved step of the bigram's file, in order. */
export function saved({ tensors }, V) {
  const names = Object.keys(tensors).filter((name) => name.startsWith("step"));
  return names.map((name) => Number(name.slice(4))).sort((a, b) => a - b).map((step) => {
    const { data } = tensors[`step${step}`];
    return [step, Array.from({ length: V }, (_, i) => softmax([...data.subarray(i * V, (i + 1) * V)]))];
  });
}

/** The counted table (V, V), and the mean distance of `learned` from it, over the pairs of the text. */
export function numbers(pairs, learned) {
  const V = pairs.vocab_size, counted = Array.from({ length: V }, (_, id) => pairs.next_probs([id]));
  const grams = pairs.grams[1], all = grams.counts.reduce((a, b) => a + b, 0);
  const apart = grams.codes.reduce((sum, code, i) => {
    const row = Math.floor(code / V), column = code % V;
    return sum + grams.counts[i] / all * Math.abs(learned[row][column] - counted[row][column]);
  }, 0);
  return { counted, apart };
}

/** Paint the root of each probability, for most are small: the darker, the likelier. */
function paint(canvas, table, order) {
  const pen = canvas.getContext("2d");
  order.forEach((row, y) => order.forEach((column, x) => {
    pen.fillStyle = shade(Math.sqrt(table[row][column]));
    pen.fillRect((x + 1) * SIZE, (y + 1) * SIZE, SIZE, SIZE);
  }));
}

/** An empty map with a letter at each row and column. */
function heatMap(order, chars, name) {
  const side = SIZE * (order.length + 1);
  const canvas = make("canvas", { width: side, height: side, role: "img", "aria-label": name });
  const pen = canvas.getContext("2d");
  pen.fillStyle = shade(0);
  pen.fillRect(0, 0, side, side);
  pen.fillStyle = "#1f2937";
  pen.font = `${SIZE}px monospace`;
  order.forEach((id, i) => {
    pen.fillText(visible(chars[id]), 2, (i + 2) * SIZE - 2);
    pen.fillText(visible(chars[id]), (i + 1) * SIZE + 2, SIZE - 2);
  });
  return make("figure", {}, make("figcaption", {}, name), canvas);
}

export async function draw(box) {
  const { chars } = await facts(), pairs = await counts(2), steps = saved(await rung("bigram"), chars.length);
  const order = [...chars.keys()].filter((id) => /[a-z \n]/.test(chars[id]));
  const [learned, counted] = ["Learned so far", "Counted"].map((name) => heatMap(order, chars, name));
  const said = make("p", { role: "status" }), [q, u, t] = ["q", "u", "t"].map((c) => chars.indexOf(c));
  const redraw = (i) => {
    const [step, table] = steps[i], found = numbers(pairs, table);
    paint(learned.querySelector("canvas"), table, order);
    paint(counted.querySelector("canvas"), found.counted, order);
    at.querySelector("output").textContent = step;
    const after = named(chars[table[t].indexOf(Math.max(...table[t]))]);
    said.textContent = `After ${step} steps: u after q has ${percent(table[q][u])} `
      + `(counted ${percent(found.counted[q][u])}); likeliest after t: ${after}. `
      + `Mean distance from the counted table: ${found.apart.toFixed(4)}.`;
  };
  const at = slider("Step", 0, steps.length - 1, 1, 0, redraw);
  box.append(at, said, make("div", { class: "maps" }, learned, counted));
  redraw(0);
}
