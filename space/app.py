"""The app: a visitor writes a seed text, the model goes on, and anyone can look inside. For a laptop and a Space.

    python space/app.py --model FOLDER_OR_REPO --port 7860

It needs writer.py, limits.py, look.py and app.css beside it, model_gpt2.py and data/, and finds them in the project as
well as in the flat tree of a Space. Whatever a visitor sends, the answer is text or one sentence.
"""

import argparse
import os
import sys
import threading
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the flat tree of a Space first, then the project

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "200")  # Gradio remembers that many requests, 10,000 if not told
# ruff: noqa: E402, I001
import writer  # first: on ZeroGPU it must import `spaces` before anything imports torch
import gradio as gr

import look
from limits import MAX_TOKENS, MAX_WAITING, Ask, Busy, cores, number
from writer import WINDOW, Draft, read_json, use, view, write

EXAMPLES = ["ROMEO:\n", "To be, or not to be", "KATHARINA:\nWhy, sir, ", "The moon", "Enough, you fool"]


# ---- the endpoint for programs


def generate(prompt: str, max_tokens: float = 100, temperature: float = 0.7, top_n: float | None = None,
             seed: float | None = None) -> dict:  # fmt: skip  (Gradio wants the type of one piece of the stream)
    """Continue a text. Returns {"text", "prompt", "seed", "tokens", "tokens_per_second", "notices"}.

    prompt: the seed text, may be empty; characters the model does not know are left out and listed in notices.
    max_tokens: 1 to 1,000. temperature: 0 (always the likeliest) to 1. top_n: choose among the N likeliest; empty or
    0 means all. seed: a whole number; the same seed gives the same text. Too many visitors: an error that says "Busy".
    """
    ask = Ask.clean(prompt, max_tokens, temperature, top_n, seed)
    try:
        with closing(write(ask)) as drafts:
            for draft in drafts:
                yield {
                    "text": draft.written,
                    "prompt": draft.prompt,
                    "seed": ask.seed,
                    "tokens": len(draft.ids) - draft.n_prompt,
                    "tokens_per_second": round(draft.speed, 1) if draft.seconds else None,
                    "notices": [*draft.notices, *([f"{draft.before} before you."] if draft.before else [])],
                }
    except Busy as e:
        raise gr.Error(str(e), print_exception=False) from None


# ---- the page


WRITING: dict[str, threading.Event] = {}  # session -> set when this visitor presses Stop


def on_generate(prompt, max_tokens, temperature, top_n, seed, request: gr.Request):
    """Stream the page while the text grows: the text, the line under it, and what Look inside will need."""
    ask = Ask.clean(prompt, max_tokens, temperature, top_n, seed)
    stop = WRITING[request.session_hash] = threading.Event()
    try:
        with closing(write(ask)) as drafts:
            for draft in drafts:
                yield page_of(draft, ask, stop.is_set())
                if stop.is_set() and not draft.done:
                    yield page_of(draft, ask, True)
                    break
    except Busy as e:
        yield look.manuscript("", "", False), look.status_line([], [str(e)]), []
    finally:
        WRITING.pop(request.session_hash, None)


def page_of(draft: Draft, ask: Ask, stopped: bool):
    """The paper, the line under it, and the ids: what the page shows of a draft."""
    facts = [f"{draft.before} before you" if draft.before else "", f"{len(draft.ids) - draft.n_prompt} tokens",
             f"{draft.speed:,.0f} tok/s" if draft.seconds else "", f"seed {ask.seed}",
             "stopped" if stopped and not draft.done else ""]  # fmt: skip
    paper = look.manuscript(draft.prompt, draft.written, not (draft.done or stopped))
    cut = max(0, len(draft.ids) - WINDOW)
    return paper, look.status_line(facts, draft.notices), [max(0, draft.n_prompt - cut), *draft.ids[cut:]]


def on_stop(request: gr.Request):
    """Tell this visitor's own generation to end; it then finishes like any other."""
    if request.session_hash in WRITING:
        WRITING[request.session_hash].set()


def end_of_text(sent) -> tuple[int, list[int]]:
    """(how many ids are the seed, the ids): what page_of sent to the browser and got back, perhaps in another shape."""
    numbers = [i for i in sent if type(i) is int] if isinstance(sent, list) else []
    n_prompt, ids = (numbers[0], numbers[1:]) if numbers else (0, [])
    return n_prompt, [i for i in ids[:WINDOW] if 0 <= i < writer.HELD.tokenizer.vocab_size]


def on_look(text, at, layer, head):
    """Look inside at a position (None: where the model began to write); the slider follows the text's length."""
    n_prompt, ids = end_of_text(text)
    words, bars, attention, at = view(ids, n_prompt, at, layer, head)
    return words, bars, attention, gr.Slider(1, max(2, len(ids) - 1), value=at)


# a click or an arrow key on a character, or a click on a head, becomes one event with its numbers
PICK_CHARACTER = """
let want = null, asked = 0;  // quick arrow keys run ahead of the answers: one question at a time, the last one counts
const shown = () => +(element.querySelector('.ch.at')?.dataset.at ?? 0);
const ask = () => { asked = Date.now(); trigger('click', {at: want}); };
const go = at => {
  want = Math.min(Math.max(1, at), element.querySelectorAll('.ch').length - 1);
  if (want !== shown() && Date.now() - asked > 3000) ask(); };
element.addEventListener('click', e => { const c = e.target.closest('.ch'); if (c) go(+c.dataset.at); });
element.addEventListener('keydown', e => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[e.key];
  if (step && shown()) { e.preventDefault(); go((want ?? shown()) + step); } });
watch('value', () => {
  if (asked && want !== null && want !== shown()) ask(); else { want = null; asked = 0; }
  if (element.dataset.keys) element.querySelector('.letters')?.focus({preventScroll: true}); });
element.addEventListener('focusin', () => element.dataset.keys = '1');
element.addEventListener('focusout', e => { if (e.relatedTarget) delete element.dataset.keys; });
"""
PICK_HEAD = """
element.addEventListener('click', e => { const b = e.target.closest('.mini');
  if (b) trigger('click', {layer: +b.dataset.layer, head: +b.dataset.head}); });
"""


def on_slide(text, at, layer, head):
    """Look where the slider stands; it is not moved, its visitor may still be dragging it."""
    return on_look(text, at, layer, head)[:3]


def on_written(text, layer, head):
    """Look at the first character that the model wrote."""
    return on_look(text, None, layer, head)


def on_character(text, layer, head, event: gr.EventData):
    """Look at the character that was clicked."""
    return on_look(text, event._data.get("at"), layer, head)


def on_head(text, at, event: gr.EventData):
    """Look through the head that was clicked; its sliders follow."""
    layer, head = number(event._data.get("layer"), 1), number(event._data.get("head"), 1)
    return *on_look(text, at, layer, head), layer, head


def build_app() -> gr.Blocks:
    """The page and its endpoint; the model must be loaded (see `use`)."""
    with gr.Blocks(title="A GPT-2 from scratch", analytics_enabled=False) as app:
        gr.HTML(f'<h1 class="top">A GPT-2 that learned from one writer</h1>{look.headline(writer.HELD.card)}')
        text = gr.JSON([], visible=False)  # what Look inside needs; it stays in the browser, the server keeps nothing
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                prompt = gr.Textbox(label="Seed text (may be empty)", value="ROMEO:\n", lines=4, max_lines=8,
                                    elem_id="prompt")  # fmt: skip
                gr.Examples([[e] for e in EXAMPLES], [prompt], label="Or begin with", api_visibility="private")
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", elem_id="go", min_width=120)
                    stop = gr.Button("Stop", variant="secondary", elem_id="stop", min_width=120)
            with gr.Column(scale=7, min_width=300):
                paper = gr.HTML(look.manuscript("", "", False), elem_id="paper")
                status = gr.HTML(look.status_line([], []), elem_id="status")
        settings = settings_row()
        gr.HTML('<h2 class="top">Look inside</h2>')
        connect(text, [prompt, *settings], go, stop, paper, status, look_panel())
        gr.api(generate, api_name="generate", concurrency_limit=None)
    return app.queue(max_size=200, default_concurrency_limit=cores())


def settings_row():
    """How to write: (maximum tokens, temperature, top N, seed). The last two are text boxes: empty means something."""
    with gr.Row():
        tokens = gr.Slider(1, MAX_TOKENS, value=100, step=1, label="Tokens at most", elem_id="tokens", buttons=[],
                           min_width=220)  # fmt: skip
        warm = gr.Slider(0, 1, value=0.7, step=0.05, label="Temperature", elem_id="warm", buttons=[],
                         min_width=220)  # fmt: skip
        top_n = gr.Textbox(label="Top N", placeholder="all", max_lines=1, elem_id="top_n", min_width=130)
        seed = gr.Textbox(label="Seed", placeholder="a new one each time", max_lines=1, elem_id="seed", min_width=130)
    return tokens, warm, top_n, seed


def look_panel():
    """What a visitor sees of the inside: (letters, position, bars, attention, layer, head)."""
    config = writer.HELD.model.config
    letters = gr.HTML(look.nothing_yet(), js_on_load=PICK_CHARACTER, elem_id="letters")
    at = gr.Slider(1, WINDOW - 1, value=1, step=1, label="Character to look at", elem_id="at", buttons=[])
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            bars = gr.HTML("", elem_id="bars", apply_default_css=False)
        with gr.Column(min_width=300):
            attention = gr.HTML("", js_on_load=PICK_HEAD, elem_id="attention", apply_default_css=False)
            with gr.Row():
                layer, head = (
                    gr.Slider(1, max(2, most), value=1, step=1, label=name, elem_id=name.lower(), buttons=[],
                              min_width=120)  # fmt: skip
                    for name, most in (("Layer", config.n_layer), ("Head", config.n_head))
                )
    return letters, at, bars, attention, layer, head


def connect(text, asked, go, stop, paper, status, panel):
    """Which touch does what. Nothing here is a public endpoint."""
    letters, at, bars, attention, layer, head = panel
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    inside = [letters, bars, attention, at]
    writing = gr.on([go.click, asked[0].submit], on_generate, asked, [paper, status, text], concurrency_limit=None,
                    trigger_mode="once", **quiet)  # fmt: skip
    writing.then(on_written, [text, layer, head], inside, **quiet)
    stop.click(on_stop, None, None, queue=False, **quiet)
    for slider in (at, layer, head):
        slider.input(on_slide, [text, at, layer, head], inside[:3], trigger_mode="always_last", **quiet)
    letters.click(on_character, [text, layer, head], inside, trigger_mode="multiple", **quiet)
    attention.click(on_head, [text, at], [*inside, layer, head], trigger_mode="multiple", **quiet)


def theme() -> gr.Theme:
    """Fonts that every system has: the page asks no other host for anything."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Base(primary_hue="orange", neutral_hue="stone", **fonts).set(
        body_background_fill="#faf7f1", body_background_fill_dark="#141310", block_background_fill="#fffdf8",
        block_background_fill_dark="#1d1b18", block_border_width="1px", block_radius="10px", button_large_radius="10px",
        button_primary_background_fill="#b4540a", button_primary_background_fill_hover="#963f00",
        button_primary_background_fill_dark="#b4540a", button_primary_text_color="#ffffff", slider_color="#b4540a",
        slider_color_dark="#f0a35e", block_border_color="#d9d2c3", block_border_color_dark="#4a453c",
    )  # fmt: skip


def launch(port: int | None = None, host: str | None = None, **options):
    """Serve the page; returns (the gr.Blocks, its address). Blocks until the end unless prevent_thread_lock=True."""
    settings = {"theme": theme(), "css_paths": HERE / "app.css", "footer_links": ["api"], "ssr_mode": False,
                "quiet": True, "show_error": False, "state_session_capacity": 100,
                "max_threads": 2 * MAX_WAITING}  # fmt: skip
    demo = build_app()
    _, address, _ = demo.launch(server_name=host, server_port=port, **{**settings, **options})
    return demo, address


def default_model() -> tuple[str, str | None]:
    """What `model.json` beside this file names (a Space has one), else the folder `model` beside it."""
    named = read_json(HERE / "model.json")
    return (named["model"], named.get("revision")) if named.get("model") else (str(HERE / "model"), None)


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if the model cannot be used."""
    parser = argparse.ArgumentParser(description="Serve a model of this project as a web page.")
    parser.add_argument("--model", help="a folder, or a repo of the Hub; default: the small model of this project")
    parser.add_argument("--host", help="address to listen on; default: this machine only, and all in a Space")
    parser.add_argument("--port", type=int, help="default: 7860, or the next free one")
    args = parser.parse_args(argv)
    try:
        use(*(args.model, None) if args.model else default_model())
    except ValueError as e:
        print(e, file=sys.stderr)
        return 1
    launch(args.port, args.host or os.environ.get("GRADIO_SERVER_NAME"), quiet=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
