// rungs.js: the small models of Build, each from the file of its numbers. Read it beside gpt_dev.ipynb.
//
// The names in a file say how a model is built, as they do in torch: `mix.query` is a head, `mix.heads.0`
// several of them, `mix.wide` an MLP, `mix.0.f` a part with a plus sign, `mix.0` and `mix.1` parts in a row.
// x is a list of T vectors (C). The small GPT has files of another kind: the Space's gpt2.js runs it.

import { GPT } from "./gpt2.js";
import { makeKernels } from "./kernels.js";
import { openSafetensors } from "./safetensors.js";

export const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const plus = (a, b) => a.map((z, i) => z + b[i]);
const gelu = (z) => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3)));

export function softmax(scores) {
  const largest = Math.max(...scores);
  const powers = scores.map((z) => Math.exp(z - largest)), all = sum(powers);
  return powers.map((z) => z / all);
}

export function dot(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

/** The sum of `vectors`, each times its weight. */
export function mixed(weights, vectors) {
  const out = new Float64Array(vectors[0].length);
  weights.forEach((weight, s) => { for (let i = 0; i < out.length; i++) out[i] += weight * vectors[s][i]; });
  return out;
}

export class Rung {
  block_size = 32;

  constructor(tensors, averages) {
    this.tensors = tensors;                                  // { name: { shape, data } }
    this.averages = averages;                                // the mean of the past has no numbers of its own
  }

  static async load(bytes, name) {
    const file = await openSafetensors(new Response(bytes), name), tensors = {};
    const size = (tensor) => tensor.shape.reduce((a, b) => a * b, 1);
    const heap = await makeKernels(4 * sum(file.tensors.map(size)), "plain");
    let end = 0;
    for (const tensor of file.tensors) {
      tensors[tensor.name] = { shape: tensor.shape, data: heap.f32.subarray(end, end + size(tensor)) };
      tensor.address = 4 * end;
      end += size(tensor);
    }
    await file.read((tensor) => tensor.address, heap);
    return new Rung(tensors, name === "mean");
  }

  holds(start) { return Object.keys(this.tensors).some((name) => name.startsWith(start)); }

  row(name, i) {
    const { shape, data } = this.tensors[name];
    return data.subarray(i * shape.at(-1), (i + 1) * shape.at(-1));
  }

  /**
   * ids (T, at most 32) -> logits, T lists of V.
   * look.votes, a list, gets each head's votes, T lists; look.positions false leaves wpe out.
   */
  forward(ids, look = {}) {
    if (this.holds("table.")) return ids.map((id) => [...this.row("table.weight", id)]);
    let x = ids.map((id) => Float64Array.from(this.row("wte.weight", id)));
    if (this.holds("wpe.") && look.positions !== false) {
      x = x.map((z, t) => plus(z, this.row("wpe.weight", t)));
    }
    return this.linear("lm_head", this.part("mix", x, look)).map((logits) => [...logits]);
  }

  part(name, x, look) {                                      // (T, C) -> (T, C)
    if (this.holds(`${name}.query.`)) return this.head(name, x, look);
    if (this.holds(`${name}.heads.`)) return this.heads(name, x, look);
    if (this.holds(`${name}.wide.`)) {
      return this.linear(`${name}.narrow`, this.linear(`${name}.wide`, x).map((hidden) => hidden.map(gelu)));
    }
    if (this.holds(`${name}.f.`)) {
      const read = this.holds(`${name}.norm.`) ? this.norm(`${name}.norm`, x) : x;
      const said = this.part(`${name}.f`, read, look);
      return x.map((z, t) => plus(z, said[t]));
    }
    if (this.holds(`${name}.weight`)) return this.norm(name, x);
    for (let i = 0; this.holds(`${name}.${i}.`); i++) x = this.part(`${name}.${i}`, x, look);
    return this.averages ? x.map((_, t) => mixed(Array(t + 1).fill(1 / (t + 1)), x)) : x;
  }

  head(name, x, look) {                                      // (T, C) -> (T, hs)
    const [q, k, v] = ["query", "key", "value"].map((kind) => this.linear(`${name}.${kind}`, x));
    const scale = Math.sqrt(k[0].length);                    // position t sees itself and what came before
    const votes = q.map((asks, t) => softmax(k.slice(0, t + 1).map((has) => dot(asks, has) / scale)));
    look.votes?.push(votes);
    return votes.map((vote) => mixed(vote, v));
  }

  heads(name, x, look) {
    const said = [];
    for (let h = 0; this.holds(`${name}.heads.${h}.`); h++) {
      said.push(this.head(`${name}.heads.${h}`, x, look));
    }
    const beside = x.map((_, t) => said.flatMap((one) => [...one[t]]));  // (T, C)
    return this.linear(`${name}.proj`, beside);
  }

  linear(name, x) {                                          // (T, in) -> (T, out)
    const out = this.tensors[`${name}.weight`].shape[0], bias = this.tensors[`${name}.bias`]?.data;
    const rows = Array.from({ length: out }, (_, i) => this.row(`${name}.weight`, i));
    return x.map((z) => Float64Array.from(rows, (row, i) => dot(z, row) + (bias ? bias[i] : 0)));
  }

  norm(name, x) {                                            // LayerNorm
    const weight = this.tensors[`${name}.weight`].data, bias = this.tensors[`${name}.bias`].data;
    return x.map((z) => {
      const mean = sum(z) / z.length;
      const usual = Math.sqrt(sum(z.map((one) => (one - mean) ** 2)) / z.length + 1e-5);
      return z.map((one, i) => (one - mean) / usual * weight[i] + bias[i]);
    });
  }
}

/** The small GPT behind the same two names: block_size, and forward(ids, look) for T positions at once. */
export class SmallGPT {
  constructor(gpt) {
    this.gpt = gpt;
    this.block_size = gpt.config.block_size;
  }

  static async load(open) { return new SmallGPT(await GPT.from_pretrained(open)); }

  /** As Rung.forward; look.votes gets all heads of all blocks. Without positions, wpe is 0 meanwhile. */
  forward(ids, look = {}) {
    const { gpt } = this, { n_layer, n_head, n_embd } = gpt.config, heads = n_layer * n_head;
    const wpe = gpt.wpe.data(0, this.block_size * n_embd), kept = wpe.slice();
    const patterns = look.votes ? [] : undefined;            // for each position, every head of every block
    if (look.positions === false) wpe.fill(0);
    gpt.window = [];                                         // the cache was read with other positions
    const logits = ids.map((id, t) => [...gpt.forward([id], t, { patterns })]);
    wpe.set(kept);
    gpt.window = [];
    for (let h = 0; patterns && h < heads; h++) {
      look.votes.push(ids.map((_, t) => [...patterns[t * heads + h]]));
    }
    return logits;
  }
}
