// The dials: temperature, top-k, top-p on the next letter of the small GPT, and on ten texts that it writes.

import { filter_probs } from "./gpt2.js";
import { bars, button, facts, field, make, named, percent, rung, slider, visible } from "./pictures.js";

export const title = "Turn the dials";
export const replaces = true;

const PROMPT = "ROMEO:\nO, she doth teach the ", SHOWN = 12, TEXTS = 10, LENGTH = 40;
const EVEN = { temperature: 1, top_k: 0, top_p: 1 };

/** Probabilities (V) of the letter after `ids` under these dials, as gpt2/sampling.py has them. */
export function numbers(model, ids, { temperature, top_k, top_p }) {
  const logits = model.forward(ids.slice(-model.block_size)).at(-1);
  if (temperature > 0) return filter_probs(logits, temperature, top_k, top_p);
  return logits.map((z) => Number(z === Math.max(...logits)));  // towards 0 the likeliest letter takes all
}

/** n ids that follow. The same seed gives the same text here; torch would draw another. */
function goOn(model, ids, n, dials, seed) {
  const written = [];
  for (const step of model.gpt.stream(ids, n, { ...dials, seed })) if ("id" in step) written.push(step.id);
  return written;
}

export async function draw(box) {
  const { tokenizer, chars } = await facts(), model = await rung("small_gpt"), dials = { ...EVEN };
  const shown = make("div"), texts = make("ol", { class: "texts" });
  let prompt = PROMPT, seed = 1, pause;
  const write = () => {
    const ids = tokenizer.encode(prompt);
    if (!ids.length) return;
    texts.replaceChildren(...Array.from({ length: TEXTS }, (_, i) => {
      const text = tokenizer.decode(goOn(model, ids, LENGTH, dials, 1000 * seed + i));
      return make("li", {}, make("code", {}, text.replaceAll("\n", "\u23CE")));
    }));
  };
  const redraw = () => {
    const ids = tokenizer.encode(prompt);
    if (!ids.length) return;
    const plain = numbers(model, ids, EVEN), probs = numbers(model, ids, dials);
    const order = [...plain.keys()].sort((a, b) => plain[b] - plain[a]).slice(0, SHOWN);
    const rows = order.map((id) => [named(chars[id]), probs[id], percent(probs[id])]);
    const rest = Math.max(0, 1 - order.reduce((sum, id) => sum + probs[id], 0));
    const left = probs.filter((p) => p > 0).length, letters = `${left} letter${left > 1 ? "s" : ""}`;
    const caption = `After \u201C${visible(prompt.slice(-24))}\u201D: ${letters} to draw from`;
    shown.replaceChildren(bars(caption, [...rows, ["all others", rest, percent(rest)]]));
    clearTimeout(pause);
    pause = setTimeout(write, 200);                          // ten texts cost more than twelve bars
  };
  const turn = (name) => (value) => { dials[name] = value; redraw(); };
  box.append(
    field("The text so far", prompt, 120, (text) => { prompt = text; redraw(); }, 2),
    slider("Temperature", 0, 2, 0.1, 1, turn("temperature")),
    slider("Top-k (0: all)", 0, 20, 1, 0, turn("top_k")),
    slider("Top-p", 0.05, 1, 0.05, 1, turn("top_p")),
    shown, button("Ten other texts", () => { seed += 1; write(); }), texts);
  redraw();
}
