// Your line on the strip: what each letter of any line costs each model, in the boxes of the notebook.

import { counts, facts, field, letterBox, make, named, rung, surprises } from "./pictures.js";
import { sum } from "./rungs.js";

export const title = "Your line on the strip";
export const replaces = true;

const COUNTED = { "1 letter": 1, "2 letters": 2, "5 letters": 5 };
const LEARNED = { "bigram": "bigram", "one head": "one_head", "four heads": "four_heads",
  "four blocks": "four_blocks", "small GPT": "small_gpt" };
const LONGEST = 80;                                          // letters of a line

/** Nats of each letter of `line` behind the text `before`, for one model. */
export function numbers(model, tokenizer, before, line) {
  const ids = tokenizer.encode(before || "\n");
  return surprises(model, [...ids, ...tokenizer.encode(line)], ids.length);
}

function row(name, letters, nats) {
  const mean = (sum(nats) / nats.length).toFixed(2);
  const spoken = letters.map((letter, i) => `${named(letter)} ${nats[i].toFixed(1)}`).join(", ");
  const attributes = { role: "img", "aria-label": `${name}, mean ${mean} nats: ${spoken}` };
  return [make("p", {}, `${name} `, make("b", {}, mean)),
    make("div", attributes, ...letters.map((letter, i) => letterBox(letter, nats[i])))];
}

export async function draw(box, part) {
  const { tokenizer, line, before } = await facts();
  const ask = { line, before }, models = part === "counts" ? COUNTED : { ...COUNTED, ...LEARNED };
  const list = make("div", { class: "strip" }), said = make("p", { role: "status" });
  let latest = 0;
  const redraw = async () => {
    const mine = latest += 1, kept = tokenizer.encode(ask.line).slice(0, LONGEST);
    const letters = kept.map((id) => tokenizer.piece(id)), rows = [];
    const lost = tokenizer.dropped(ask.line);
    said.textContent = lost.length ? `The models know no ${lost.join(" ")}: left out.` : "";
    if (!letters.length) return list.replaceChildren();
    for (const [name, which] of Object.entries(models)) {
      const model = await (typeof which === "number" ? counts(which) : rung(which));
      const nats = numbers(model, tokenizer, ask.before, letters.join(""));
      await new Promise((next) => setTimeout(next));         // the page stays awake between two models
      if (mine !== latest) return undefined;
      rows.push(...row(name, letters, nats));
    }
    return list.replaceChildren(...rows);
  };
  const typed = (what) => (text) => { ask[what] = text; redraw(); };
  const legend = "White: expected (0 nats). Dark: a surprise (8 nats or more). The number: the line's mean.";
  box.append(field("Your line", line, LONGEST, typed("line")),
    field("What stands before it", before, 200, typed("before"), 2), said, list,
    make("p", { class: "live-note" }, legend));
  await redraw();
}
