// hub.js: what the page asks of Hugging Face as the visitor: sign in, look at a repo, make it, send files.
//
// Signing in is OAuth's authorization code with PKCE, the way for a page that can keep no secret. A second
// window asks the Hub and comes back to signed_in.html with a code, which it hands to this window. Only this
// window has the verifier that turns the code into a token. The token stays in memory and goes to the Hub
// alone. The addresses are those of `huggingface_hub` and of `@huggingface/hub`.

import { HUB } from "./fetching.js";

export const SCOPES = ["manage-repos", "write-repos"]; // make a repo, write to it

const MADE = /<!-- made with gpt2-from-scratch: (\[.*?\]) -->/; // as space/bundle.py marks what it made
const OFFLINE =
  "The Hub could not be reached: check the connection and try again; " +
  "files that arrived whole are not sent again.";
const REFUSED = {
  400: (name) => `The Hub did not take what was sent for ${name}: reload the page and try again.`,
  401: () => "Your sign-in has run out: sign in again.",
  402: (name) =>
    `The Hub wants a paid plan for ${name}: ` +
    "see huggingface.co/settings/billing for what your account may hold.",
  403: (name) =>
    `This sign-in may not write to ${name}: sign in again, and allow this page to manage your repos.`,
  409: (name) => `${name} is taken: choose another name.`,
  412: (name) => `${name} was changed at the same moment: try again.`,
  413: (name) => `The model is larger than the Hub takes for ${name}: choose a smaller one.`,
  429: () => "The Hub asks for a pause, there were too many requests: try again in a few minutes.",
};

function refusal(status, name) {
  const other = `The Hub itself has a problem (it answered ${status}): try again in a few minutes.`;
  return Object.assign(new Error(REFUSED[status]?.(name) ?? other), { status });
}

/** A Response that is well, or one sentence. */
async function ask(address, name, { token, ...options } = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(address, { ...options, headers }).catch(() => {
    throw new Error(OFFLINE);
  });
  if (!response.ok) throw refusal(response.status, name);
  return response;
}

const post = (token, path, name, body, type = "application/json") =>
  ask(HUB + path, name, {
    token,
    method: "POST",
    headers: { "Content-Type": type, Accept: type.includes("lfs") ? type : "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  }).then((response) => response.json());

// ---------------------------------------------------------------- signing in

const url64 = (bytes) =>
  base64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => url64(crypto.getRandomValues(new Uint8Array(32)));

/**
 * One sign-in, made ready before the click: a browser opens windows only while it handles one.
 * client: the Space's OAUTH_CLIENT_ID; home: the address of signed_in.html.
 */
export async function prepare_sign_in(client, home) {
  const [verifier, state] = [random(), random()];
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const query = new URLSearchParams({
    client_id: client,
    scope: ["openid", "profile", ...SCOPES].join(" "),
    response_type: "code",
    redirect_uri: home,
    state,
    code_challenge: url64(new Uint8Array(hash)),
    code_challenge_method: "S256",
  });
  return { address: `${HUB}/oauth/authorize?${query}`, client, home, state, verifier };
}

/** Open the window, wait for its code, turn it into { token, name }. Called inside the click. */
export async function sign_in({ address, client, home, state, verifier }, signal) {
  if (!window.open(address, "_blank", "popup,width=620,height=760"))
    throw new Error("The browser did not open a window: allow windows for this page and try again.");
  const answer = await answer_of(state, signal);
  if (!answer.has("code")) throw new Error("You did not sign in, and nothing was changed.");
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    client_id: client,
    code: answer.get("code"),
    redirect_uri: home,
    code_verifier: verifier,
  });
  const form = "application/x-www-form-urlencoded";
  const found = await post(null, "/oauth/token", "your account", `${body}`, form);
  const granted = (found.scope ?? SCOPES.join(" ")).split(" ");
  if (!SCOPES.every((scope) => granted.includes(scope))) throw refusal(403, "your account");
  const token = found.access_token;
  const user = await (await ask(`${HUB}/oauth/userinfo`, "your account", { token })).json();
  return { token, name: user.preferred_username };
}

/** What the Hub said to the sign-in with this `state`; a code that another window asked for is left alone. */
function answer_of(state, signal) {
  return new Promise((resolve, reject) => {
    const channel = new BroadcastChannel("gpt2-sign-in");
    signal.addEventListener("abort", () => {
      channel.close();
      reject(signal.reason);
    });
    channel.onmessage = ({ data }) => {
      const answer = new URLSearchParams(data);
      if (answer.get("state") !== state) return;
      channel.postMessage({ heard: state });
      channel.close();
      resolve(answer);
    };
  });
}

// ---------------------------------------------------------------- repos

const titles = (commits) => commits.map(({ title }) => title);
const files_at = (kind, name) => `${HUB}/${kind === "space" ? "spaces/" : ""}${name}`;

/**
 * { sha, hidden, ours } of a repo, or null where there is none. ours: the files that an earlier publish or
 * the Hub itself put there; null where somebody else did.
 */
export async function look(token, kind, name) {
  const api = `${HUB}/api/${kind}s/${name}`;
  let info;
  try {
    info = await (await ask(api, name, { token })).json();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
  const files = info.siblings.map(({ rfilename }) => rfilename);
  const commits = await (await ask(`${api}/commits/main`, name, { token })).json();
  const untouched = titles(commits).every((title) => title === "initial commit");
  let ours = untouched ? files : null;
  if (!untouched && files.includes("README.md")) {
    const readme = await ask(`${files_at(kind, name)}/resolve/${info.sha}/README.md`, name, { token });
    ours = made_files(await readme.text());
  }
  return { sha: info.sha, hidden: info.private, ours };
}

/** The files that the mark in a README lists, or null. */
function made_files(readme) {
  try {
    return JSON.parse(MADE.exec(readme)?.[1] ?? "null");
  } catch {
    return null;
  }
}

/** A README with the list of all files under it: by this mark the next publish knows what it made. */
export const marked = (readme, names) =>
  `${readme.replace(MADE, "").trimEnd()}\n\n<!-- made with gpt2-from-scratch: ${JSON.stringify(names)} -->\n`;

export function make_repo(token, kind, name, hidden) {
  const [organization, repo] = name.split("/");
  const ask_for = { type: kind, name: repo, organization, private: hidden };
  return post(token, "/api/repos/create", name, kind === "space" ? { ...ask_for, sdk: "static" } : ask_for);
}

// ---------------------------------------------------------------- files

/**
 * Make a repo hold `files` (a Map of Blob by name) in one commit. standing: what look() said, if it was there
 * before: what we once put there and no longer do goes. progress(bytes) is called as bytes arrive.
 */
export async function send(token, kind, name, files, standing, progress) {
  const asked = await Promise.all([...files].map(async ([path, blob]) => ({
    path,
    size: blob.size,
    sample: base64(await bytes_of(blob.slice(0, 512))),
  })));
  const modes = await post(token, `/api/${kind}s/${name}/preupload/main`, name, { files: asked });
  const large = modes.files.filter(({ uploadMode }) => uploadMode === "lfs").map(({ path }) => path);
  const oids = await send_large(token, kind, name, files, large, progress);
  const header = { summary: `The ${kind}, from its own page`, parentCommit: standing?.sha };
  const lines = [{ key: "header", value: header }];
  for (const [path, blob] of files) {
    lines.push(
      oids.has(path)
        ? { key: "lfsFile", value: { path, algo: "sha256", size: blob.size, oid: oids.get(path) } }
        : { key: "file", value: { path, encoding: "base64", content: base64(await bytes_of(blob)) } },
    );
    if (!oids.has(path)) progress(blob.size);
  }
  for (const path of standing?.ours ?? [])
    if (!files.has(path) && path !== ".gitattributes") lines.push({ key: "deletedFile", value: { path } });
  const body = lines.map((line) => JSON.stringify(line)).join("\n");
  return post(token, `/api/${kind}s/${name}/commit/main`, name, body, "application/x-ndjson");
}

/** Large files go to the Hub's store, each under the name of its SHA-256; returns that name by path. */
async function send_large(token, kind, name, files, paths, progress) {
  const oids = new Map();
  for (const path of paths) oids.set(path, await sha256(files.get(path)));
  if (!paths.length) return oids;
  const objects = paths.map((path) => ({ oid: oids.get(path), size: files.get(path).size }));
  const ask_for = { operation: "upload", transfers: ["basic"], hash_algo: "sha_256", objects };
  const address = `/${kind === "space" ? "spaces/" : ""}${name}.git/info/lfs/objects/batch`;
  const answer = await post(token, address, name, ask_for, "application/vnd.git-lfs+json");
  for (const { oid, error, actions } of answer.objects) {
    if (error) throw refusal(error.code, name);
    const file = files.get(paths.find((path) => oids.get(path) === oid));
    if (actions?.upload) await put(actions.upload, file, name, progress);
    else progress(file.size); // it is there already
  }
  return oids;
}

/** XMLHttpRequest, because fetch does not say how far an upload has come. The token does not go there. */
function put({ href, header = {} }, blob, name, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let told = 0;
    request.open("PUT", href);
    for (const [key, value] of Object.entries(header)) request.setRequestHeader(key, value);
    request.upload.onprogress = ({ loaded }) => {
      const arrived = Math.min(loaded, blob.size);
      progress(arrived - told);
      told = arrived;
    };
    request.onerror = () => reject(new Error(OFFLINE));
    request.onload = () => {
      if (request.status >= 300) return reject(refusal(request.status, name));
      progress(blob.size - told);
      resolve();
    };
    request.send(blob);
  });
}

const bytes_of = async (blob) => new Uint8Array(await blob.arrayBuffer());

export async function sha256(blob) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000)
    text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}
