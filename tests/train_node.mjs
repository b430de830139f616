// Run by test_train_js.py: node train_node.mjs FOLDER KERNELS. Reads a JSON job and start.bin; prints JSON.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { evaluate, GPT, lr_at, make_optimizers, optimizer_step } from "../space/static/train.js";
import { model_folder } from "../space/static/train_folder.js";
import { ngram_file } from "../space/static/train_npz.js";
import { corpus_from_text, get_batch, marks } from "../space/static/train_text.js";

const [folder, kernels] = process.argv.slice(2);
const { config, B, steps, law, batches, val, text } = JSON.parse(readFileSync(0));
const bytes = readFileSync(`${folder}/start.bin`);
const start = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const model = new GPT(config, B, { kernels }), optimizers = make_optimizers(model, law);

const size = (shape) => shape.reduce((a, b) => a * b, 1);
let at = 0;
for (const [name, shape] of Object.entries(model.shapes)) {
  model.params[name].set(start.subarray(at, at += size(shape)));
}
const out = { names: Object.keys(model.shapes), grads: {}, losses: [], norms: [], bytes: model.bytes };
for (let step = 0; step < steps; step++) {
  const [x, y] = batches[step].map((ids) => Int32Array.from(ids));
  const { loss, norm } = optimizer_step(model, optimizers, x, y, lr_at(law, step) / law.lr, law.grad_clip);
  out.losses.push(loss);
  out.norms.push(norm);
  if (step > 0) continue;
  for (const [name, shape] of Object.entries(model.shapes)) {
    out.grads[name] = [...model.grads[name].subarray(0, size(shape))];
  }
}
if (val) {
  const turns = evaluate(model, Int32Array.from(val));
  let turn = turns.next();
  while (!turn.done) turn = turns.next();
  out.val_loss = turn.value;
}
const corpus = corpus_from_text(text);
Object.assign(out, { chars: corpus.chars, split: [corpus.train.length, corpus.val.length] });
out.marks = marks(corpus.train, corpus.val, corpus.chars.length);
const row = Int32Array.from({ length: 1000 }, (_, i) => i), windows = { B: 4, config: { block_size: 8 } };
const batch = (step) => get_batch(row, windows, 3, step).map((ids) => [...ids]);
out.epochs = Array.from({ length: 62 }, (_, step) => batch(step));         // two epochs of 124 windows
out.again = batch(5);
out.rates = [0, 3, 5, 12, 19].map((step) => [lr_at(law, step), lr_at(law, step, 30.5)]);
mkdirSync(`${folder}/model`);
const facts = { val_loss: out.val_loss, marks: out.marks, text: "a test's text", steps, minutes: 1 };
const files = model_folder(model, corpus.chars, facts, ngram_file(corpus.train, corpus.chars.length));
for (const [name, body] of Object.entries(files)) writeFileSync(`${folder}/model/${name}`, body);
console.log(JSON.stringify(out));
