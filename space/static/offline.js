// offline.js: a service worker. It keeps the page's own files, so that it opens without a network too. With a
// network the newest file is always taken. The model's weights are kept by fetching.js.

const SHELF = "gpt2-page";
const FILES = [
  "./",
  "index.html",
  "style.css",
  "begin.js",
  "page.js",
  "shared.js",
  "inside.js",
  "play.js",
  "worker.js",
  "hand.js",
  "fetching.js",
  "yours.js",
  "hub.js",
  "heads.js",
  "gpt2.js",
  "speculate.js",
  "train_store.js",
  "kernels.js",
  "safetensors.js",
  "tokenizer.js",
  "ngram.js",
  "site.json",
  "model/config.json",
  "model/tokenizer.json",
  "model/generation_config.json",
  "model/metrics.json",
  "model/ngram5.npz",
];

self.addEventListener("install", (event) => {
  const keep = async (shelf, file) => shelf.add(file).catch(() => {}); // some of them are optional
  event.waitUntil(caches.open(SHELF).then((shelf) => Promise.all(FILES.map((file) => keep(shelf, file)))));
  self.skipWaiting();
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event,
    { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin || pathname.endsWith(".safetensors")) return;
  event.respondWith(newest(request));
});

async function newest(request) {
  const shelf = await caches.open(SHELF);
  try {
    const response = await fetch(request);
    if (response.ok) shelf.put(request.url.split("?")[0], response.clone());
    return response;
  } catch {
    return (await shelf.match(request, { ignoreSearch: true })) ?? Response.error();
  }
}
