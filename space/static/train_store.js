// train_store.js: what training keeps on this device, in the browser's IndexedDB: the text, the run as it
// stands, the model.

const DATABASE = "gpt2-training", SHELF = "kept";

/** Do one thing with the shelf; resolves to its result once it is safely written. */
async function with_shelf(mode, work) {
  const database = await new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(SHELF);
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(SHELF, mode), request = work(transaction.objectStore(SHELF));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally { database.close(); }
}

/** Throws where the browser has no room or forbids it. */
export const keep = (name, value) => with_shelf("readwrite", (shelf) => shelf.put(value, name));

/** null where nothing is kept, or where the browser keeps nothing at all. */
export const kept = (name) =>
  with_shelf("readonly", (shelf) => shelf.get(name)).then((found) => found ?? null, () => null);

export const forget = (name) => with_shelf("readwrite", (shelf) => shelf.delete(name)).catch(() => {});

/** A number that tells texts apart (FNV-1a). It is no lock: anybody can make two texts with the same one. */
export function text_hash(bytes) {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0") + bytes.length;
}
