"""The app: a visitor writes a seed text, the model goes on, and anyone can look inside. For a laptop and a Space.

    python space/app.py --model FOLDER_OR_REPO --port 7860

It needs app.css beside it, the folders space/ and data/ and model_gpt2.py, in the project as in a Space. Whatever a
visitor sends, the answer is text or one sentence.
"""

import argparse
import os
import sys
import threading
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a script, it finds the project it lies in
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "200")  # Gradio remembers that many requests, 10,000 if not told

import gradio as gr
from starlette.middleware import Middleware

from space import look, writer
from space.folder import examples, read_json
from space.guard import Guard, address_of, is_read
from space.limits import MAX_TOKENS, MAX_WAITING, SENT, Ask, Busy, cores, number, reach_this_machine
from space.writer import WINDOW, Draft, use, view, write

HERE = Path(__file__).resolve().parent


# ---- the endpoint for programs


def generate(prompt: str, max_tokens: float = 100, temperature: float = 0.7, top_n: float | None = None,
             seed: float | None = None, request: gr.Request = None) -> dict:  # fmt: skip  (of one piece of the stream)
    """Continue a text. Returns {"text", "prompt", "seed", "tokens", "tokens_per_second", "notices"}.

    prompt: the seed text, may be empty; characters the model does not know are left out and listed in notices.
    max_tokens: 1 to 1,000. temperature: 0 (always the likeliest) to 1. top_n: choose among the N likeliest; empty or
    0 means all. seed: a whole number; the same seed gives the same text. Too many visitors: an error that says "Busy".
    """
    ask = Ask.clean(prompt, max_tokens, temperature, top_n, seed)
    if request and not is_read(request.session_hash):
        raise gr.Error("Nobody reads the answer, so it is not written.", print_exception=False)
    try:
        with closing(write(ask, *who(request))) as drafts:
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


def who(request: gr.Request | None) -> tuple:
    """(session, address) of a visitor; both None for a call from this very process."""
    return (request.session_hash, address_of(request)) if request else (None, None)


# ---- the page


WRITING: dict[str, threading.Event] = {}  # session -> set when this visitor presses Stop


def on_generate(prompt, max_tokens, temperature, top_n, seed, request: gr.Request):
    """Stream the page while the text grows: text, line under it, what Look inside will need, whether Stop can stop."""
    ask = Ask.clean(prompt, max_tokens, temperature, top_n, seed)
    if not is_read(request.session_hash):
        return
    stop = WRITING[request.session_hash] = threading.Event()
    try:
        with closing(write(ask, *who(request))) as drafts:
            for draft in drafts:
                yield page_of(draft, ask, stop.is_set())
                if stop.is_set() and not draft.done:
                    yield page_of(draft, ask, True)
                    break
    except Busy as e:
        yield look.manuscript("", "", False), look.status_line([], [str(e)]), [], gr.Button(interactive=False)
    finally:
        WRITING.pop(request.session_hash, None)


def page_of(draft: Draft, ask: Ask, stopped: bool):
    """The paper, the line under it, the ids that the model saw, and the Stop button: what the page shows of a draft."""
    facts = [f"{draft.before} before you" if draft.before else "", f"{len(draft.ids) - draft.n_prompt} tokens",
             f"{draft.speed:,.0f} tok/s" if draft.seconds else "", f"seed {ask.seed}",
             "stopped" if stopped and not draft.done else ""]  # fmt: skip
    writing = not (draft.done or stopped)
    cut = max(0, draft.n_prompt - writer.HELD.model.config.block_size)
    return (look.manuscript(draft.prompt, draft.written, writing), look.status_line(facts, draft.notices),
            [draft.n_prompt - cut, *draft.ids[cut:]], gr.Button(interactive=writing))  # fmt: skip


def on_stop(request: gr.Request):
    """Tell this visitor's own generation to end; it then finishes like any other."""
    if request.session_hash in WRITING:
        WRITING[request.session_hash].set()


def text_of(sent) -> tuple[int, list[int]]:
    """(how many ids are the seed, the ids): what page_of sent to the browser and got back, perhaps in another shape."""
    numbers = [i for i in sent if type(i) is int] if isinstance(sent, list) else []
    most = writer.HELD.model.config.block_size + MAX_TOKENS
    ids = [i for i in numbers[1 : most + 1] if 0 <= i < writer.HELD.tokenizer.vocab_size]
    return min(max(numbers[0], 1), len(ids)) if ids else 1, ids


def on_look(text, at, layer, head):
    """Look inside at a place (None: the most surprising one); the slider follows the text's length."""
    n_prompt, ids = text_of(text)
    paper, bars, attention, at, low = view(ids, n_prompt, at, layer, head)
    return paper, bars, attention, gr.Slider(low, max(low + 1, len(ids) - 1), value=at)


# a click or an arrow key on a character, or a click on a head, becomes one event with its numbers
PICK_CHARACTER = """
let want = null, asked = 0;  // quick arrow keys run ahead of the answers: one question at a time, the last one counts
const shown = () => +(element.querySelector('.ch.at')?.dataset.at ?? 0);
const end = which => +(([...element.querySelectorAll('.ch')].at(which)?.dataset.at) ?? 0);
const ask = () => { asked = Date.now(); trigger('click', {at: want}); };
const go = at => {
  want = Math.min(Math.max(1, end(0), at), end(-1));
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
    """Look at what surprised the model most of what it wrote."""
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
    begin_with = examples(writer.HELD.card)
    with gr.Blocks(title="A GPT-2 from scratch", analytics_enabled=False) as app:
        gr.HTML(f'<h1 class="top">A GPT-2 that learned from one writer</h1>{look.headline(writer.HELD.card)}')
        text = gr.JSON([], visible=False)  # what Look inside needs; it stays in the browser, the server keeps nothing
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                prompt = gr.Textbox(label="Seed text (may be empty)", value=(begin_with or [""])[0], lines=2,
                                    max_lines=6, elem_id="prompt")  # fmt: skip
                if begin_with:
                    gr.Examples([[e] for e in begin_with], [prompt], label="Or begin with", api_visibility="private")
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", elem_id="go", min_width=120)
                    stop = gr.Button("Stop", variant="secondary", elem_id="stop", min_width=120, interactive=False)
                paper = gr.HTML(look.manuscript("", "", False), js_on_load=PICK_CHARACTER, elem_id="paper")
                status = gr.HTML(look.status_line([], []), elem_id="status")
                at = gr.Slider(1, WINDOW, value=1, step=1, label="Character to look at", elem_id="at", buttons=[])
                settings = settings_row()
            with gr.Column(scale=5, min_width=320):
                bars, attention, layer, head = look_panel()
        connect(text, [prompt, *settings], go, stop, status, (paper, bars, attention, at), (layer, head))
        gr.api(generate, api_name="generate", concurrency_limit=None)
    open_with_a_text(text, status, paper, bars, attention, at)  # outside: what page_of makes is no part of the page
    return app.queue(max_size=200, default_concurrency_limit=cores())


def open_with_a_text(text, status, paper, bars, attention, at):
    """Never an empty page: it shows a finished text of this model, its most surprising letter chosen."""
    if not (draft := writer.opening()):
        return
    _, status.value, text.value, _ = page_of(draft, Ask.clean("", seed=1), False)
    n_prompt, ids = text_of(text.value)
    if len(ids) > 1:
        paper.value, bars.value, attention.value, at.value, at.minimum = view(ids, n_prompt, None, 1, 1)
        at.maximum = len(ids) - 1


def settings_row():
    """How to write: (maximum tokens, temperature, top N, seed). The last two are text boxes: empty means something."""
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row():
            tokens = gr.Slider(1, MAX_TOKENS, value=200, step=1, label=f"Tokens at most (up to {MAX_TOKENS:,})",
                               elem_id="tokens", buttons=[], min_width=220)  # fmt: skip
            warm = gr.Slider(0, 1, value=0.7, step=0.05, label="Temperature", elem_id="warm", buttons=[],
                             min_width=220)  # fmt: skip
        with gr.Row():
            top_n = gr.Textbox(label="Top N", placeholder="all", max_lines=1, elem_id="top_n", min_width=130)
            seed = gr.Textbox(label="Seed", placeholder="a new one each time", max_lines=1, elem_id="seed",
                              min_width=130)  # fmt: skip
    return tokens, warm, top_n, seed


def look_panel():
    """What a visitor sees of the inside: (bars, attention, layer, head)."""
    config = writer.HELD.model.config
    bars = gr.HTML(look.nothing_yet(), elem_id="bars", apply_default_css=False)
    attention = gr.HTML("", js_on_load=PICK_HEAD, elem_id="attention", apply_default_css=False)
    with gr.Row():
        layer, head = (
            gr.Slider(1, max(2, most), value=1, step=1, label=name, elem_id=name.lower(), buttons=[], min_width=120)
            for name, most in (("Layer", config.n_layer), ("Head", config.n_head))
        )
    return bars, attention, layer, head


def connect(text, asked, go, stop, status, inside, heads):
    """Which touch does what. Nothing here is a public endpoint."""
    paper, bars, attention, at = inside
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    writing = gr.on([go.click, asked[0].submit], on_generate, asked, [paper, status, text, stop],
                    concurrency_limit=None, trigger_mode="once",
                    js=f"(prompt, ...rest) => [prompt.slice(-{SENT}), ...rest]", **quiet)  # fmt: skip
    writing.then(on_written, [text, *heads], inside, **quiet)
    stop.click(on_stop, None, None, queue=False, **quiet)
    for slider in (at, *heads):
        slider.input(on_slide, [text, at, *heads], inside[:3], trigger_mode="always_last", **quiet)
    paper.click(on_character, [text, *heads], inside, trigger_mode="multiple", **quiet)
    attention.click(on_head, [text, at], [*inside, *heads], trigger_mode="multiple", **quiet)


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
    """Serve the page; returns (the gr.Blocks, its address). Blocks until the end unless prevent_thread_lock=True.

    Nothing leaves this machine unless share=True is asked for. ValueError if the port or the host cannot be had.
    """
    settings = {"theme": theme(), "css_paths": HERE / "app.css", "footer_links": ["api"], "ssr_mode": False,
                "quiet": True, "show_error": False, "state_session_capacity": 100, "share": False,
                "max_threads": 2 * MAX_WAITING, "max_file_size": "1kb", "enable_monitoring": False,
                "app_kwargs": {"middleware": [Middleware(Guard)]}}  # fmt: skip
    reach_this_machine()
    demo = build_app()
    try:
        _, address, _ = demo.launch(server_name=host, server_port=port, **{**settings, **options})
    except OSError as error:
        where = f"{host or '127.0.0.1'}, port {port or '7860 to 7959'}"
        raise ValueError(f"The app cannot listen on {where}: it is taken or not to be had here, choose another with "
                         f"--port ({type(error).__name__}).") from None  # fmt: skip
    return demo, address


def default_model() -> tuple[str, str | None]:
    """What `model.json` beside this file names (a Space has one), else the folder `model` beside it."""
    named = read_json(HERE / "model.json") if (HERE / "model.json").exists() else {}
    return (named["model"], named.get("revision")) if named.get("model") else (str(HERE / "model"), None)


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if the model cannot be used."""
    parser = argparse.ArgumentParser(description="Serve a model of this project as a web page.")
    parser.add_argument("--model", help="a folder, or a repo of the Hub; default: the small model of this project")
    parser.add_argument("--host", help="address to listen on; default: this machine only, and all in a Space")
    parser.add_argument("--port", type=int, help="default: 7860, or the next free one")
    args = parser.parse_args(argv)
    try:
        if args.port is not None and not 0 < args.port < 65536:
            raise ValueError(f"There is no port {args.port}: choose one from 1024 to 65535 with --port.")
        use(*(args.model, None) if args.model else default_model())
        launch(args.port, args.host or os.environ.get("GRADIO_SERVER_NAME"), quiet=False)
    except ValueError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
