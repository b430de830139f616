// tokenizer.js: text to ids and back, with the ids that data/tokenizer.py gives. Read it beside that file.

// what to try, in order, for a character that the vocabulary lacks; NFKD and accent stripping come after
// these
const STAND_FOR = new Map(
  Object.entries({
    "\u2018": ["'"],
    "\u2019": ["'"],
    "\u201a": ["'", ","],
    "\u201b": ["'"],
    "\u2032": ["'"],
    "`": ["'"],
    "\u00b4": ["'"],
    "\u02bc": ["'"],
    "\u2039": ["'"],
    "\u203a": ["'"],
    "\u201c": ['"', "'"],
    "\u201d": ['"', "'"],
    "\u201e": ['"', "'"],
    "\u201f": ['"', "'"],
    "\u00ab": ['"', "'"],
    "\u00bb": ['"', "'"],
    "\u2033": ['"', "'"],
    '"': ["'"],
    "\u2010": ["-"],
    "\u2011": ["-"],
    "\u2012": ["-"],
    "\u2013": ["-"],
    "\u2212": ["-"],
    "\u2014": ["--", "-"],
    "\u2015": ["--", "-"],
    "\u2026": ["...", "."],
    "\r": ["\n", " "],
    "\x85": ["\n", " "],
    "\u2028": ["\n", " "],
    "\u2029": ["\n", " "],
    "\x0b": ["\n", " "],
    "\x0c": ["\n", " "],
    "\n": [" "],
    "\t": [" "],
    "\u200b": [""],
    "\ufeff": [""],
    "\u00ad": [""],
    "\u00df": ["ss"],
    "\u1e9e": ["SS"],
    "\u00e6": ["ae"],
    "\u00c6": ["Ae", "AE"],
    "\u0153": ["oe"],
    "\u0152": ["Oe", "OE"],
    "\u00f8": ["o"],
    "\u00d8": ["O"],
    "\u0142": ["l"],
    "\u0141": ["L"],
    "\u0111": ["d"],
    "\u0110": ["D"],
    "\u00fe": ["th"],
    "\u00de": ["Th"],
    "\u00f0": ["d"],
    "\u00d0": ["D"],
    "\u0131": ["i"],
    "\u017f": ["s"],
    "\u00bf": ["?"],
    "\u00a1": ["!"],
  }),
);

/**
 * One id for each character. encode is total: what it can map it maps, the rest it leaves out and `dropped`
 * names.
 */
export class CharTokenizer {
  constructor(vocab) {
    // { character: id }
    this.ids = new Map(Object.entries(vocab));
    this.chars = [];
    for (const [c, id] of this.ids) this.chars[id] = c;
    this.vocab_size = this.ids.size;
    if (Object.keys(this.chars).length !== this.vocab_size || this.chars.length !== this.vocab_size) {
      throw new Error("tokenizer.json is damaged: its ids do not count up from 0. Save it again.");
    }
  }

  encode(text) {
    return [...this.line_ends(text)].flatMap((c) => [...(this.keep(c) ?? "")].map((k) => this.ids.get(k)));
  }

  decode(ids) {
    return ids.map((id) => this.chars[id]).join("");
  }

  /** The text of one id behind the ids before it; for characters these do not matter. */
  piece(id) {
    return this.chars[id];
  }

  dropped(text) {
    return [...new Set(this.line_ends(text))].filter((c) => this.keep(c) === null);
  }

  line_ends(text) {
    return this.ids.has("\r") ? text : text.replaceAll("\r\n", "\n");
  }

  /** What stands for c: a string over the vocabulary, "" for a bare accent, null if nothing does. */
  keep(c) {
    if (this.ids.has(c)) return c;
    for (const other of STAND_FOR.get(c) ?? []) if ([...other].every((k) => this.ids.has(k))) return other;
    if (/^\p{Mn}$/u.test(c)) return "";
    const parts = c.normalize("NFKD");
    if (parts === c) return null;
    const kept = [...parts].map((p) => this.keep(p));
    return kept.includes(null) ? null : kept.join("") || null;
  }
}

// GPT-2's way of cutting text before merging: OpenAI's pattern, as tiktoken (MIT licence) states it
const GPT2_PATTERN = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+$|\s+(?!\S)|\s/gu;

/** GPT-2's byte-pair encoding: bytes are merged in the order in which training merged them. */
export class BPETokenizer {
  constructor(vocab, merges) {
    this.ids = new Map(Object.entries(vocab));
    this.pieces = [];
    for (const [piece, id] of this.ids) this.pieces[id] = piece;
    this.vocab_size = this.pieces.length;
    this.ranks = new Map(merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
    this.name_of = byte_names();
    this.byte_of = new Map(this.name_of.map((c, byte) => [c, byte]));
  }

  encode(text) {
    const bytes = new TextEncoder();
    return (text.match(GPT2_PATTERN) ?? []).flatMap((word) =>
      this.merge([...bytes.encode(word)].map((byte) => this.name_of[byte])).map((piece) =>
        this.ids.get(piece),
      ),
    );
  }

  merge(parts) {
    for (;;) {
      const ranks = parts.slice(1).map((part, i) => this.ranks.get(`${parts[i]} ${part}`) ?? Infinity);
      const best = Math.min(...ranks),
        i = ranks.indexOf(best);
      if (!Number.isFinite(best)) return parts;
      parts.splice(i, 2, parts[i] + parts[i + 1]);
    }
  }

  decode(ids) {
    const bytes = ids.flatMap((id) => [...(this.pieces[id] ?? "")].map((c) => this.byte_of.get(c) ?? 63));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
  }

  /** The text of one id: a piece may be half a character, which shows as U+FFFD. */
  piece(id) {
    return this.decode([id]);
  }

  dropped() {
    return [];
  } // bytes spell everything
}

/** GPT-2's printable stand-in for each byte: itself where it prints, else a letter from 256 on. */
function byte_names() {
  const prints = (b) => (b >= 33 && b < 127) || (b >= 161 && b < 173) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(prints(b) ? b : next++));
}

/** The content of tokenizer.json -> one of the two kinds. Throws one sentence for any other. */
export function load_tokenizer(json) {
  const model = json?.model;
  if (model?.type !== "BPE" || typeof model.vocab !== "object") {
    throw new Error(
      `tokenizer.json holds a ${model?.type ?? "foreign"} tokenizer: ` +
        "this page reads single characters and GPT-2's BPE.",
    );
  }
  if (model.merges?.length) {
    if (json.pre_tokenizer?.type !== "ByteLevel") {
      throw new Error(
        "tokenizer.json merges pieces in another way than GPT-2: " +
          "this page reads single characters and GPT-2's BPE.",
      );
    }
    return new BPETokenizer(model.vocab, model.merges);
  }
  return new CharTokenizer(model.vocab);
}
