// fetching.js: where a model's files come from, and how a long download survives a bad line.
//
// Three places: beside this page (model/), a repo on the Hub (?model=owner/name), or files that the visitor
// dropped. A download that breaks goes on where it stopped; what arrived whole is kept on this device for the
// next visit.

export const HUB = "https://huggingface.co";
const SHELF = "gpt2-models"; // the name of our part of the browser's storage
const SMALL = 30e6; // bytes: a smaller file waits in memory until the first text is there
const LATER = 1500; // milliseconds that the first text has for itself
const SLOW = 2000; // milliseconds that a piece may wait for the storage
const WAIT = 1000; // milliseconds before the one attempt that needs no click

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What a page can do without: null where it is missing, damaged or forbidden. */
export async function optional(read) {
  try {
    return await read();
  } catch {
    return null;
  }
}

/**
 * place: { repo, files, version }: a repo's name, or a Map of File by name, or neither.
 * stalled(sentence) -> a promise that the visitor's Retry fulfils.
 * Returns { open(name) -> Response, again(name, from) -> Response, keeper(name) }.
 */
export async function makeSource({ repo, files, version = "" }, stalled) {
  if (files) return { open: async (name) => dropped(files, name) };
  if (repo) version = (await optional(() => revision(repo))) ?? "";
  const address = (name) =>
    repo ? `${HUB}/${repo}/resolve/main/${name}` : new URL(`model/${name}`, import.meta.url).href;
  const label = (name) => (repo ? `${name} of ${repo}` : `model/${name}`);
  const key = (name) => `${address(name)}?v=${version}`;

  async function ask(name, from = 0) {
    const headers = from ? { Range: `bytes=${from}-` } : {};
    const response = await fetch(address(name), { headers });
    if (response.ok) return response;
    const todo = repo
      ? "check the name, and that the model is public"
      : "put the whole model folder beside this page";
    throw Object.assign(new Error(`${label(name)} is missing (${response.status}): ${todo}.`), {
      final: response.status < 500,
    });
  }

  /** Ask until there is an answer: once more unasked, then at each click on Retry. */
  async function patient(name, from) {
    for (let attempt = 0; ; attempt++) {
      try {
        return await ask(name, from);
      } catch (error) {
        if (error.final) throw error;
        if (attempt === 0) await sleep(WAIT);
        else
          await stalled(
            from
              ? "The connection broke. What came so far is kept."
              : `${label(name)} could not be fetched: check the connection.`,
          );
      }
    }
  }

  return {
    async open(name) {
      const kept =
        version &&
        name.endsWith(".safetensors") &&
        (await optional(async () => (await caches.open(SHELF)).match(key(name))));
      return kept || (name.endsWith(".safetensors") || name === "config.json" ? patient(name, 0) : ask(name));
    },
    again: patient,
    keeper: (name, response) => (version && response.url ? keeper(key(name), response) : null),
  };
}

function dropped(files, name) {
  if (!files.has(name))
    throw new Error(
      `The folder has no ${name}: drop the whole folder that training wrote, for instance out/mine/best.`,
    );
  return new Response(files.get(name));
}

/** The commit that a repo on the Hub stands at. */
async function revision(repo) {
  return (await (await fetch(`${HUB}/api/models/${repo}`)).json()).sha;
}

/** Put a file on the shelf, in place of its earlier versions. */
async function put(key, response) {
  const shelf = await caches.open(SHELF);
  await shelf.put(key, response);
  for (const { url } of await shelf.keys())
    if (url !== key && url.split("?")[0] === key.split("?")[0]) await shelf.delete(url);
}

/**
 * Writes pieces to the browser's storage: a small file's once the first text is there, a large one's as they
 * arrive. It may fail at any time: then nothing is kept, and that is all.
 */
function keeper(key, response) {
  const length = response.headers.get("Content-Length") ?? "";
  return length && Number(length) < SMALL ? keep_later(key, length) : keep_now(key, length);
}

function keep_later(key, length) {
  const pieces = [];
  const write = () => put(key, stored(new Blob(pieces), length));
  return {
    write: async (piece) => pieces.push(piece),
    close: () => setTimeout(() => optional(write), LATER),
    drop() {},
  };
}

function keep_now(key, length) {
  const { readable, writable } = new TransformStream(undefined, { highWaterMark: 64 }),
    writer = writable.getWriter();
  let alive = true;
  const fail = () => {
    if (alive) writer.abort().catch(() => {});
    alive = false;
  };
  writer.closed.catch(fail);
  put(key, stored(readable, length)).catch(fail);
  return {
    async write(piece) {
      if (!alive) return;
      await in_time(writer.ready, SLOW).catch(fail); // a slow disk does not hold up the model
      if (alive) writer.write(piece.slice()).catch(fail);
    },
    close() {
      if (alive) writer.close().catch(fail);
    },
    drop: fail,
  };
}

const stored = (body, length) => new Response(body, { headers: { "Content-Length": length } });

function in_time(promise, milliseconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
