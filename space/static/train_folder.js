// train_folder.js: a model that train.js made, as the files of a model folder, the same that gpt2/weights.py
// and data/tokenizer.py write: `transformers`, GPT.from_pretrained and gpt2.js open it.

/**
 * { name: Uint8Array or text } of a model whose ids stand for `chars` (a list of single characters). facts: what
 * metrics.json says; table: the bytes of ngram5.npz, if there are any.
 */
export function model_folder(model, chars, facts = {}, table = null) {
  const { vocab_size, block_size, n_layer, n_head, n_embd } = model.config;
  const config = { model_type: "gpt2", activation_function: "gelu_new", layer_norm_epsilon: 1e-5,
    n_inner: null, scale_attn_weights: true, scale_attn_by_inverse_layer_idx: false, n_positions: block_size,
    vocab_size, n_layer, n_head, n_embd,
    embd_pdrop: 0, attn_pdrop: 0, resid_pdrop: 0, tie_word_embeddings: true, bias: true, n_tokens: vocab_size,
    bos_token_id: null, eos_token_id: null, dtype: "float32", architectures: ["GPT2LMHeadModel"] };
  const newline = Math.max(0, chars.indexOf("\n"));
  return {
    "config.json": pretty(config),
    "generation_config.json": pretty({ bos_token_id: newline, eos_token_id: null, do_sample: true }),
    "tokenizer.json": pretty(tokenizer(chars)),
    "tokenizer_config.json": pretty({ tokenizer_class: "PreTrainedTokenizerFast",
      model_max_length: block_size, clean_up_tokenization_spaces: false }),
    "model.safetensors": safetensors(model),
    "metrics.json": pretty(facts),
    "README.md": card(model, facts),
    ...(table && { "ngram5.npz": table }),
  };
}

export const num_params = ({ shapes }) =>
  Object.values(shapes).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b), 0);

const pretty = (value) => JSON.stringify(value, null, 1);

function tokenizer(chars) {
  const vocab = Object.fromEntries(chars.map((c, id) => [c, id]));
  return { version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null,
    pre_tokenizer: null, post_processor: null, decoder: { type: "Fuse" },
    model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null,
      end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab,
      merges: [] } };
}

/** Eight bytes of length, a JSON header with each tensor's place, the tensors (without wte's padding). */
function safetensors(model) {
  const header = { __metadata__: { format: "pt" } }, tensors = [];
  let end = 0;
  for (const [name, shape] of Object.entries(model.shapes)) {
    const tensor = model.params[name].subarray(0, shape.reduce((a, b) => a * b, 1));
    header[name] = { dtype: "F32", shape, data_offsets: [end, end += 4 * tensor.length] };
    tensors.push(tensor);
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - new TextEncoder().encode(text).length % 8) % 8);
  const head = new TextEncoder().encode(text), file = new Uint8Array(8 + head.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(head.length), true);
  file.set(head, 8);
  let at = 8 + head.length;
  for (const tensor of tensors) {
    file.set(new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength), at);
    at += tensor.byteLength;
  }
  return file;
}

function card(model, { val_loss, minutes, steps, text, marks } = {}) {
  const { vocab_size, block_size, n_layer, n_head, n_embd } = model.config;
  const shape = `${n_layer} layers, ${n_head} heads, ${n_embd} wide, context ${block_size}`;
  const time = minutes ? `, ${steps} steps in ${minutes.toFixed(1)} minutes` : "";
  const passed = marks && Number.isFinite(val_loss) ? marks.filter((mark) => val_loss < mark).length : 0;
  const letters = `${passed} letter${passed > 1 ? "s" : ""}`;
  const table = passed ? `; a table that counts ${letters} has ${marks[passed - 1].toFixed(3)}` : "";
  const loss = Number.isFinite(val_loss) ? "Exact loss on the last tenth of the text, which it never saw: "
    + `**${val_loss.toFixed(3)} nats a character**${table}.` : "Its loss was not measured.";
  return `---
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2, character-level]
---

# A small GPT-2, trained in a browser

${num_params(model).toLocaleString("en")} parameters: ${shape}, ${vocab_size} symbols, one for each character.

Trained on ${text ?? "a text of its owner's"} in a web page${time}.
${loss}

\`AutoModelForCausalLM.from_pretrained(folder)\` opens it. It writes in the manner of its text.
`;
}
