// What the book does beyond showing its pages: bets before answers, words explained, minutes, what was read,
// live pictures. Everything stays in this browser. Without JavaScript the pages are whole.
"use strict";

const article = document.querySelector("article");
const page = location.pathname;

function recall(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

function remember(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ }
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// ---- bets: "Predict. ... (a) ..., (b) ..., (c) ...": choose, then the text goes on

function isBet(paragraph) {
  return paragraph.querySelector("em:first-child")?.textContent.startsWith("Predict");
}

function lettersOf(text) {
  return [...text.matchAll(/\(([a-e])\)/g)].map((found) => found[1]);
}

// the answer is the first letter in brackets that the text after the bet names
function answerTo(paragraph, paragraphs) {
  for (const later of paragraphs.slice(paragraphs.indexOf(paragraph) + 1)) {
    if (isBet(later)) return null;
    const letters = lettersOf(later.textContent);
    if (letters.length) return letters[0];
  }
  return null;
}

function placeBets() {
  const paragraphs = [...article.querySelectorAll("p")];
  const tally = { placed: 0, right: 0 };
  const line = make("p", "tally");
  const judge = (box, letter, answer) => {
    show(box);
    if (letter === "-") return;
    for (const button of box.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.textContent === `(${letter})`);
    }
    if (!answer) return;
    tally.placed += 1;
    tally.right += letter === answer;
    line.textContent = `You foresaw ${tally.right} of ${tally.placed} on this page.`;
  };
  let number = 0;
  for (const paragraph of paragraphs.filter(isBet)) {
    const letters = lettersOf(paragraph.textContent);
    if (letters.length < 2 || new Set(letters).size < letters.length) continue;
    const key = `bet ${page} ${number += 1}`;
    const answer = answerTo(paragraph, paragraphs);
    const box = make("div", "bet");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Your bet");
    const choose = (letter) => {
      if (box.classList.contains("placed")) return;
      remember(key, letter);
      judge(box, letter, answer);
    };
    for (const letter of letters) {
      const button = make("button", "", `(${letter})`);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => choose(letter));
      box.append(button);
    }
    const skip = make("button", "", "read on without a bet");
    skip.type = "button";
    skip.addEventListener("click", () => { choose("-"); skip.remove(); });
    box.append(skip);
    paragraph.after(box);
    const before = recall(key);
    if (before) { judge(box, before, answer); skip.remove(); }
    box.addEventListener("click", () => { if (box.classList.contains("placed")) skip.remove(); });
  }
  if (number) article.append(line);
  openTarget();
  addEventListener("hashchange", openTarget);
}

// a link into the text after a bet that is not placed yet leads there all the same, and so does a search
function openTarget() {
  const boxes = [...article.querySelectorAll(".bet:not(.placed)")];
  if (document.referrer.includes("search.html")) boxes.forEach(show);
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  boxes.filter((box) => box.compareDocumentPosition(target) & Node.DOCUMENT_POSITION_FOLLOWING).forEach(show);
  target.scrollIntoView();
}

function show(box) {
  box.classList.add("placed");
  dispatchEvent(new Event("resize")); // the theme looks again which boxes scroll, for the keyboard
}

// ---- words of the glossary: the first of each in a section is explained on hover, focus and tap

function explainTerms() {
  const known = Object.entries(window.TERMS ?? {});
  const terms = new Map(known.map(([term, meaning]) => [term.toLowerCase(), meaning]));
  if (!terms.size || /glossary/.test(page)) return;
  const words = [...terms.keys()].sort((a, b) => b.length - a.length)
    .map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`(?<![\\w-])(${words.join("|")})s?(?![\\w-])`, "gi");
  for (const section of article.querySelectorAll("section")) {
    const seen = new Set();
    const texts = document.createTreeWalker(section, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest("section") === section && node.parentElement.closest("p, li")
      && !node.parentElement.closest("a, code, pre, button, summary, .cell_output") ? NodeFilter.FILTER_ACCEPT
        : NodeFilter.FILTER_SKIP);
    const nodes = [];
    while (texts.nextNode()) nodes.push(texts.currentNode);
    for (const node of nodes) markTerms(node, pattern, terms, seen);
  }
}

function markTerms(node, pattern, terms, seen) {
  const parts = [];
  let end = 0;
  for (const found of node.data.matchAll(pattern)) {
    const term = found[1].toLowerCase();
    if (seen.has(term)) continue;
    seen.add(term);
    const button = make("span", "term", found[0]);           // a <button> would not flow with its line
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.addEventListener("mouseenter", () => showTerm(button, terms.get(term)));
    button.addEventListener("focus", () => showTerm(button, terms.get(term)));
    button.addEventListener("click", () => showTerm(button, terms.get(term)));
    button.addEventListener("mouseleave", hideTerm);
    button.addEventListener("blur", hideTerm);
    parts.push(node.data.slice(end, found.index), button);
    end = found.index + found[0].length;
  }
  if (parts.length) node.replaceWith(...parts, node.data.slice(end));
}

function showTerm(button, meaning) {
  hideTerm();
  const box = make("div", "", meaning);
  box.id = "term-box";
  box.setAttribute("role", "tooltip");
  document.body.append(box);
  const at = button.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 16)) + scrollX}px`;
  box.style.top = `${at.bottom + 6 + scrollY}px`;
  button.setAttribute("aria-describedby", "term-box");
}

function hideTerm() {
  document.getElementById("term-box")?.remove();
}

// ---- minutes to here, what was read, and where to go on

function tellMinutes() {
  const words = (element) => element.textContent.split(/\s+/).length;
  let before = 0;
  for (const element of article.querySelectorAll("h2, section > p, li")) {
    if (element.tagName !== "H2") { before += words(element); continue; }
    const minutes = Math.round(before / 200);
    const told = `about ${minutes} minute${minutes > 1 ? "s" : ""} of reading to here`;
    if (minutes) element.after(make("p", "minutes", told));
  }
}

function keepPlace() {
  const read = recall("read") ?? {};
  const mark = () => {
    for (const link of document.querySelectorAll(".bd-links a.internal")) {
      const share = read[link.pathname]?.most;
      if (share > 0.02) link.dataset.read = share > 0.95 ? "✓" : `${Math.round(100 * share)}%`;
    }
  };
  const place = read[page]?.now ?? 0;
  if (place > 0.05 && place < 0.95 && !location.hash) {
    const button = make("button", "go-on", `Go on where you were (${Math.round(100 * place)}%)`);
    button.type = "button";
    button.addEventListener("click", () => scrollTo(0, place * document.documentElement.scrollHeight));
    article.querySelector("h1")?.after(button);
  }
  let waiting = null;
  addEventListener("scroll", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const height = document.documentElement.scrollHeight;
      const most = Math.max(read[page]?.most ?? 0, (scrollY + innerHeight) / height);
      read[page] = { now: scrollY / height, most };
      remember("read", read);
      mark();
    }, 300);
  }, { passive: true });
  mark();
}

// ---- wide tables can be scrolled by the keyboard; the contents at the left are a landmark

function openUp() {
  for (const table of document.querySelectorAll(".bd-content table")) {
    const wide = table.scrollWidth > table.clientWidth;
    table.toggleAttribute("tabindex", wide);
    if (wide) table.tabIndex = 0;
  }
  const contents = document.querySelector(".bd-sidebar-primary");
  contents?.setAttribute("role", "navigation");
  contents?.setAttribute("aria-label", "The book");
}

// ---- live pictures: their script comes only where the page has a place for one

const here = document.currentScript.src.replace(/[^/]*$/, "");

function startLive() {
  if (!document.querySelector("[data-live]")) return;
  const script = make("script", "");
  script.src = `${here}live.js`;
  script.onload = () => LIVE.pictures.start(here);
  document.head.append(script);
}

if (article) {
  startLive();
  tellMinutes();
  placeBets();
  explainTerms();
  keepPlace();
  openUp();
  addEventListener("resize", openUp);  // a phone that is turned
}
// from a file, a browser lets no page fetch another: the search then shows its hits without their text
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTerm(); });
