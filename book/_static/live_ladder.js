// The ladder: choose a rung, and it writes. The bars are the exact losses of the models that write here.

import { draw as pick, filter_probs, generator } from "./gpt2.js";
import { choice, facts, field, make, rung } from "./pictures.js";

export const title = "The ladder: choose a rung, and it writes";

const LENGTH = 160, EVEN = { file: null, name: "even guess" };

/** Probabilities (V) of the next letter behind ids. A rung of null is the even guess. */
export function numbers(model, ids, V, temperature = 1) {
  if (!model) return new Float64Array(V).fill(1 / V);
  return filter_probs(model.forward(ids.slice(-model.block_size)).at(-1), temperature);
}

/** How many letters one has to count to be as good: marks fall from 1 letter on. */
const mark = (loss, marks) => {
  const n = marks.filter((one) => loss <= one).length;
  return n ? `as good as counting ${n} letter${n > 1 ? "s" : ""}` : "below every mark";
};

export async function draw(box) {
  const { rungs, marks, tokenizer, chars } = await facts(), V = chars.length;
  const all = [{ ...EVEN, val_loss: Math.log(V) }, ...rungs], ask = { temperature: 1, start: "ROMEO:" };
  const text = make("pre", { tabindex: 0, role: "region", "aria-label": "What the rung writes" });
  const said = make("p", { role: "status" });
  let latest = 0, seed = 0;
  const write = async ({ file, name, val_loss }) => {
    const mine = latest += 1, random = generator(seed += 1), model = file && await rung(file);
    const ids = tokenizer.encode(`\n\n${ask.start}`);
    let told = performance.now();
    said.textContent = `${name}, ${val_loss.toFixed(3)} nats, ${mark(val_loss, marks)}, writes ...`;
    for (let n = 0; n < LENGTH; n++) {
      ids.push(pick(numbers(model, ids, V, ask.temperature), random()));
      if (performance.now() - told < 30) continue;           // the page stays awake
      text.textContent = tokenizer.decode(ids).trimStart();
      await new Promise((next) => setTimeout(next));
      if (mine !== latest) return;
      told = performance.now();
    }
    text.textContent = tokenizer.decode(ids).trimStart();
    said.textContent = `${name}, ${val_loss.toFixed(3)} nats, ${mark(val_loss, marks)}, wrote:`;
  };
  const steps = all.map((one) => {
    const style = `--part: ${100 * one.val_loss / all[0].val_loss}%`;
    const step = make("button", { type: "button", style, "aria-pressed": "false" },
      make("span", {}, one.name), make("span", {}, one.val_loss.toFixed(2)));
    step.addEventListener("click", () => {
      steps.forEach((other) => other.setAttribute("aria-pressed", String(other === step)));
      write(one);
    });
    return step;
  });
  box.append(field("It begins with", ask.start, 30, (text) => { ask.start = text; }),
    choice("Temperature", [["1", "1: its own shares"], ["0.8", "0.8"], ["0.5", "0.5: careful"]],
      (z) => { ask.temperature = Number(z); }),
    make("ol", { class: "rungs" }, ...steps.map((step) => make("li", {}, step))), said, text);
}
