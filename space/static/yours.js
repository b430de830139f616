// yours.js: "Make it yours". The model that the page shows, be it the page's own, a dropped folder or one
// trained in the tab, goes under the visitor's own name on Hugging Face: a model repo, and a page like this.
// Nothing is sent before the button that names what will be there is pressed.

import { $, app, learned_text, make, megabytes } from "./shared.js";
import { HUB, makeSource, optional } from "./fetching.js";
import { SCOPES, look, make_repo, marked, prepare_sign_in, send, sha256, sign_in } from "./hub.js";

const NEEDED = ["config.json", "tokenizer.json", "model.safetensors"];
const OPTIONAL = ["generation_config.json", "metrics.json", "ngram5.npz"];
const HERE_ONLY = ["out_dir", "copy_to", "data", "text", "grow_from"]; // folders of somebody's machine
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?$/;
const LONGEST = 96; // characters of owner/name
const MADE_UP = /--|\.\.|\.git$/; // the Hub takes none of these in a name

let session = null, // { token, name } of who signed in: nowhere but here
  ready = null, // the next sign-in, made before its click
  waiting = new AbortController();

export function set_up_yours() {
  const client = window.huggingface?.variables?.OAUTH_CLIENT_ID;
  const framed = window.parent !== window;
  $("sign_in").hidden = !client || framed;
  $("own_tab").hidden = !client || !framed;
  $("own_tab").querySelector("a").href = location.href;
  $("elsewhere").hidden = Boolean(client);
  if (!client || framed) return;
  make_ready(client);
  $("sign_in").onclick = () => enter(client);
  $("sign_out").onclick = () => show_session(null);
  $("publish").oninput = name_what_comes;
  $("publish").onsubmit = (event) => {
    event.preventDefault();
    if ($("publish_go").ariaDisabled !== "true") publish_both();
  };
}

const home = () => new URL("signed_in.html", location.href.split(/[?#]/)[0]).href;
const make_ready = (client) => prepare_sign_in(client, home()).then((made) => (ready = made));

/** One sentence, or "". */
function say(sentence) {
  $("yours_said").hidden = !sentence;
  $("yours_said").textContent = sentence;
}

async function enter(client) {
  if (!ready) return;
  waiting.abort(new Error("")); // an earlier window that was closed
  waiting = new AbortController();
  const { signal } = waiting;
  const entered = sign_in(ready, signal);
  make_ready(client);
  say("Go on in the other window. If you closed it, press the button again.");
  try {
    show_session(await entered);
  } catch (error) {
    if (!signal.aborted) say(error.message);
  }
}

function show_session(found) {
  session = found;
  say("");
  $("sign_in").hidden = Boolean(session);
  $("publish").hidden = !session;
  $("yours_done").hidden = true;
  if (!session) return;
  $("yours_who").textContent = session.name;
  $("yours_name").focus({ preventScroll: true });
  name_what_comes();
}

const hidden = () => $("publish").elements.seen.value === "private";
const names = () => {
  const name = `${session.name}/${$("yours_name").value.trim()}`;
  return { model: name, space: `${name}-page` };
};

/** The button says what will be there, and who will see it. */
function name_what_comes() {
  const { model, space } = names();
  const whom = hidden() ? "for you alone" : "for everybody";
  $("publish_go").textContent = `Publish ${model} and ${space}, ${whom}`;
}

function name_fault({ space }) {
  const name = $("yours_name").value.trim();
  if (!NAME.test(name) || MADE_UP.test(name))
    return "A name has letters, digits, single - and . and _, and no spaces.";
  return space.length > LONGEST ? `The name is too long: ${LONGEST} characters in all.` : "";
}

// ---------------------------------------------------------------- the press of the button

async function publish_both() {
  const [{ token }, where, secret] = [session, names(), hidden()];
  const shown = { place: app.place, moments: app.site.moments ?? [], title: $("title").textContent };
  const fault = !app.about ? "There is no model here yet: open one first." : name_fault(where);
  if (fault) return say(fault);
  say("");
  $("yours_done").hidden = true;
  $("publish_go").ariaDisabled = true;
  try {
    const [model, space] = [await free(token, "model", where.model, secret),
      await free(token, "space", where.space, secret)]; // both before anything is made
    const files = await collect(shown, where);
    const total = [...files.model.values(), ...files.space.values()].reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    const progress = (bytes) => show_progress((done += bytes), total);
    for (const [kind, standing] of [["model", model], ["space", space]]) {
      if (!standing) await make_repo(token, kind, where[kind], secret);
      await send(token, kind, where[kind], files[kind], standing, progress);
    }
    show_done(where);
  } catch (error) {
    if (error.status === 401) show_session(null);
    say(error.message);
  }
  $("publish_go").ariaDisabled = false;
  $("yours_bar").hidden = true;
}

/** What stands at this name: null, or a repo of ours that may be written over; anything else is refused. */
async function free(token, kind, name, secret) {
  const standing = await look(token, kind, name);
  if (standing && !standing.ours)
    throw new Error(`${name} is there already, and this page did not make it: choose another name.`);
  if (standing && standing.hidden !== secret)
    throw new Error(
      `${name} is there already, and ${standing.hidden ? "private" : "public"}: ` +
        "choose that, or another name.",
    );
  return standing;
}

function show_progress(done, total) {
  $("yours_bar").hidden = false;
  $("yours_progress").value = done / total;
  $("yours_sent").textContent = `${megabytes(done)} of ${megabytes(total)}`;
}

function show_done({ model, space }) {
  const link = (address) => make("a", address, { href: address, target: "_blank", rel: "noopener" });
  $("yours_done").hidden = false;
  $("yours_done").replaceChildren(
    "Your model: ", link(`${HUB}/${model}`), make("br"),
    "Your page: ", link(`${HUB}/spaces/${space}`), ". It opens in a minute or two.",
  );
}

// ---------------------------------------------------------------- what is sent

const text_blob = (text) => new Blob([text]);
const json_blob = (value) => text_blob(`${JSON.stringify(value, null, 1)}\n`);

/** { model, space }: the files of the two repos, Maps of Blob by name. */
async function collect({ place, moments, title }, where) {
  const own = !place.repo && !place.files;
  const site = await page_file("site.json").then((blob) => blob.text()).then(JSON.parse);
  const model = await model_files(place, moments);
  const card = JSON.parse((await model.get("metrics.json")?.text()) ?? "{}");
  const space = await page_files(site, where, own);
  for (const [name, blob] of model) space.set(`model/${name}`, blob);
  const weights = model.get("model.safetensors");
  const of_model = { bytes: weights.size, version: (await sha256(weights)).slice(0, 16), moments };
  const fresh = own ? {} : { title, opening: null, examples: card.corpus?.examples };
  const links = [["the model", `${HUB}/${where.model}`],
    ["make your own copy", `${HUB}/spaces/${where.space}?duplicate=true`],
    ...(site.links ?? []).filter(([text]) => text.startsWith("the notebook"))];
  space.set("site.json", json_blob({ ...site, ...of_model, ...fresh, links }));
  await add_tokenizer_settings(model);
  add_readme(model, card_of(card, where));
  add_readme(space, await page_readme(where, own ? site.title : title, own));
  return { model, space };
}

function add_readme(files, text) {
  files.delete("README.md");
  files.set("README.md", text_blob(marked(text, [...files.keys(), "README.md"].sort())));
}

/** The model's files, and the earlier weights and the draft that it has; what names folders stays here. */
async function model_files(place, moments) {
  const { open } = await makeSource(place, () => new Promise(() => {}));
  const files = new Map();
  const take = async (name) => files.set(name, await (await open(name)).blob());
  for (const name of NEEDED) await take(name);
  for (const name of OPTIONAL) await optional(() => take(name));
  for (const step of moments) await take(`moments/${step}/model.safetensors`);
  const settings = JSON.parse((await files.get("generation_config.json")?.text()) ?? "{}");
  if (settings.draft && !settings.draft.includes("/"))
    for (const name of NEEDED) await take(`${settings.draft}/${name}`);
  if (files.has("metrics.json")) {
    const facts = JSON.parse(await files.get("metrics.json").text());
    for (const name of HERE_ONLY) delete facts.config?.[name];
    files.set("metrics.json", json_blob(facts));
  }
  return files;
}

/** Without this class `transformers` cuts the text in another way than the model learned it. */
async function add_tokenizer_settings(files) {
  const { n_positions } = JSON.parse(await files.get("config.json").text());
  files.set("tokenizer_config.json", json_blob({ tokenizer_class: "PreTrainedTokenizerFast",
    model_max_length: n_positions, clean_up_tokenization_spaces: false }));
}

async function page_file(name) {
  const response = await fetch(name).catch(() => null);
  if (!response?.ok)
    throw new Error(`This page's own ${name} could not be read: reload the page, or duplicate its Space.`);
  return response.blob();
}

/** The page's own files. The Hub writes variables into index.html; the picture shows one model's text. */
async function page_files(site, { space }, own) {
  const files = new Map();
  for (const name of site.files ?? []) files.set(name, await page_file(name));
  if (own && site.opening) files.set("card.png", await page_file("card.png"));
  const picture = `${HUB}/spaces/${space}/resolve/main/card.png`;
  const page = (await files.get("index.html").text())
    .replace(/<script>window\.huggingface=.*?<\/script>/s, "")
    .replace(/content="[^"]*card\.png"/, `content="${own ? picture : ""}"`);
  files.set("index.html", text_blob(page));
  return files;
}

/** The page's README again, with this Space's own values in its front matter (`key: JSON`, one a line). */
async function page_readme({ model, space }, title, own) {
  const readme = await (await page_file("README.md")).text();
  const [, head, body] = /^---\n(.*?)\n---\n(.*)$/s.exec(readme) ?? [];
  if (!head) throw new Error("This page's own README.md has no front matter: duplicate its Space instead.");
  const changed = { title, models: [model], hf_oauth: true, hf_oauth_scopes: SCOPES,
    thumbnail: own ? `${HUB}/spaces/${space}/resolve/main/card.png` : undefined };
  const kept = head.split("\n").filter((line) => !(line.split(":")[0] in changed));
  const said = Object.entries(changed).filter(([, value]) => value !== undefined);
  const lines = [...kept, ...said.map(([key, value]) => `${key}: ${JSON.stringify(value)}`)];
  return `---\n${lines.join("\n")}\n---\n${body}`;
}

/** The model's card: what the files say, and nothing that nobody measured. */
function card_of(card, { model, space }) {
  const { parameters, n_layer, n_head, n_embd, block_size, unit } = app.about,
    loss = card.val_loss_char ?? card.val_loss,
    text = learned_text(card);
  const measured = Number.isFinite(loss)
    ? `Its exact loss on text that it never saw is **${loss.toFixed(3)} nats a character**.`
    : "Its loss was not measured.";
  return `---
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2]
---

# ${model.split("/")[1]}

A GPT-2 trained from scratch${text ? ` on ${text}` : ""}: ${parameters.toLocaleString("en")} parameters,
${n_layer} layers, ${n_head} heads, ${n_embd} wide, context ${block_size} ${unit}s. ${measured}

Write with it in your browser: ${HUB}/spaces/${space}

\`AutoModelForCausalLM.from_pretrained("${model}", dtype=torch.float32)\` opens it.
Its licence is not stated: ask its publisher.
`;
}
