// begin.js: the first file that runs. It starts the model's thread while the browser still reads the page.

const OF_WORKER = ["worker", "gpt2", "fetching", "heads", "ngram", "tokenizer", "kernels", "safetensors",
  "speculate"]; // all at once: not one after the other, as each names the next

/** Made from a blob, a worker lives under this page's security policy; one from an address would not. */
export function new_worker() {
  const addresses = OF_WORKER.map((name) => new URL(`${name}.js`, import.meta.url).href);
  const script = new Blob(addresses.map((address) => `import ${JSON.stringify(address)};`), {
    type: "text/javascript",
  });
  return new Worker(URL.createObjectURL(script), { type: "module" });
}

export const first_worker = new_worker();
