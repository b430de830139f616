"""The app: a visitor writes a beginning, the model goes on, and anyone can look inside.

    python space/app.py --model FOLDER_OR_REPO --port 7860

For a laptop and a Space; app.css, app.js, space/, gpt2/, data/ and model_gpt2.py belong to it.
Whatever a visitor sends, the answer is text or one sentence.
"""

import argparse
import os
import sys
import threading
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a script, it finds the project
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "200")  # requests that Gradio remembers; else 10,000

import gradio as gr
from starlette.middleware import Middleware

from data.files import say
from gpt2.machine import cores
from space import look, writer
from space.folder import read_json
from space.guard import Guard, address_of, is_read
from space.limits import MAX_TOKENS, MAX_WAITING, SENT, Ask, Busy, number, reach_this_machine
from space.writer import WINDOW, Draft, use, view, write

HERE = Path(__file__).resolve().parent
PICK = (HERE / "app.js").read_text(encoding="utf-8")  # what a click on a letter or on a head sends


# ---- the endpoint for programs

def generate(prompt: str, max_tokens: float = 100, temperature: float = 0.7, top_n: float | None = None,
             seed: float | None = None, request: gr.Request = None) -> dict:
    """Continue a text. Returns {"text", "prompt", "seed", "tokens", "tokens_per_second", "notices"}.

    prompt: the beginning, may be empty; characters the model does not know are left out and listed in
    notices. max_tokens: 1 to 1,000. temperature: 0 (always the likeliest) to 1. top_n: choose among the N
    likeliest; empty or 0 means all. seed: a whole number; the same seed gives the same text. Too many
    visitors: an error, "Busy".
    """
    ask = Ask.clean(prompt, max_tokens, temperature, top_n, seed)
    if request and not is_read(request.session_hash):
        raise gr.Error("Nobody reads the answer, so it is not written.", print_exception=False)
    try:
        with closing(write(ask, *who(request))) as drafts:
            for draft in drafts:
                waiting = [f"{draft.before} before you."] if draft.before else []
                yield {"text": draft.written, "prompt": draft.prompt, "seed": ask.seed,
                       "tokens": draft.tokens, "tokens_per_second": round(draft.speed, 1) or None,
                       "notices": [*draft.notices, *waiting]}
    except Busy as error:
        raise gr.Error(str(error), print_exception=False) from None


def who(request: gr.Request | None) -> tuple:
    """(session, address) of a visitor; both None for a call from this very process."""
    return (request.session_hash, address_of(request)) if request else (None, None)


# ---- writing on the page

WRITING: dict[str, threading.Event] = {}  # session -> set when this visitor presses Stop


def on_generate(prompt, max_tokens, temperature, top_n, seed, request: gr.Request):
    """Stream the page while the text grows; see page_of."""
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
    except Busy as error:
        yield look.manuscript(), look.status_line([], [str(error)]), [], gr.Button(interactive=False)
    finally:
        WRITING.pop(request.session_hash, None)


def page_of(draft: Draft, ask: Ask, stopped: bool):
    """The paper, the line under it, the ids that the model saw, and whether Stop can stop."""
    facts = [f"{draft.before} before you" if draft.before else "", f"{draft.tokens} tokens",
             f"{draft.speed:,.0f} tok/s" if draft.seconds else "", f"seed {ask.seed}",
             "stopped" if stopped and not draft.done else ""]
    writing = not (draft.done or stopped)
    cut = max(0, draft.n_prompt - writer.HELD.model.config.block_size)
    return (look.manuscript(draft.prompt, draft.written, writing), look.status_line(facts, draft.notices),
            [draft.n_prompt - cut, *draft.ids[cut:]], gr.Button(interactive=writing))


def on_stop(request: gr.Request):
    """Tell this visitor's own generation to end; it then finishes like any other."""
    if request.session_hash in WRITING:
        WRITING[request.session_hash].set()


# ---- looking inside

def text_of(sent) -> tuple[int, list[int]]:
    """(how many ids are the beginning, the ids): what page_of sent and got back, perhaps in another shape."""
    numbers = [i for i in sent if type(i) is int] if isinstance(sent, list) else []
    most = writer.HELD.model.config.block_size + MAX_TOKENS
    ids = [i for i in numbers[1 : most + 1] if 0 <= i < writer.HELD.tokenizer.vocab_size]
    return min(max(numbers[0], 1), len(ids)) if ids else 1, ids


def on_look(sent, at=None, head=None):
    """Look at a place (None: the most surprising one); the slider follows. head: [layer, head], or None."""
    n_prompt, ids = text_of(sent)
    head = head if isinstance(head, list) and len(head) == 2 else None
    paper, bars, attention, at, low = view(ids, n_prompt, at, head)
    return paper, bars, attention, gr.Slider(low, max(low + 1, len(ids) - 1), value=at)


def on_slide(sent, at, head):
    """Look where the slider stands; it is not moved, its visitor may still be dragging it."""
    return on_look(sent, at, head)[:3]


def on_letter(sent, head, event: gr.EventData):
    """Look at the letter that was clicked."""
    return on_look(sent, event._data.get("at"), head)


def on_head(sent, at, event: gr.EventData):
    """Look through the head that was clicked; it stays chosen."""
    head = [number(event._data.get(name), 1) for name in ("layer", "head")]
    return *on_look(sent, at, head)[:3], head


# ---- the page

def build_app() -> gr.Blocks:
    """The page and its endpoint; the model must be loaded (see `use`)."""
    examples = writer.HELD.card["corpus"]["examples"]
    with gr.Blocks(title="A GPT-2 from scratch", analytics_enabled=False) as app:
        gr.HTML(f'<h1 class="top">A GPT-2 from scratch</h1>{look.headline(writer.HELD.card)}')
        text = gr.JSON([], visible=False)  # what looking inside needs; it stays in the browser, nothing here
        head = gr.JSON(None, visible=False)  # [layer, head] once the visitor has chosen one
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                prompt = gr.Textbox(label="Beginning of the text (may be empty)", value=(examples or [""])[0],
                                    lines=1, max_lines=4, elem_id="prompt")
                if examples:
                    gr.Examples([[e] for e in examples], [prompt], label="Or begin with", elem_id="examples",
                                api_visibility="private")
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", elem_id="go", min_width=120)
                    stop = gr.Button("Stop", elem_id="stop", min_width=120, interactive=False)
                paper = gr.HTML(look.manuscript(), js_on_load=PICK, elem_id="paper")
                status = gr.HTML(look.status_line([], []), elem_id="status")
                at = gr.Slider(1, WINDOW, value=1, step=1, label="Letter to look at", elem_id="at",
                               buttons=[])
                settings = settings_row()
            with gr.Column(scale=5, min_width=320):
                bars = gr.HTML(look.NOTHING, elem_id="bars", apply_default_css=False)
                attention = gr.HTML("", js_on_load=PICK, elem_id="attention", apply_default_css=False)
        inside = (paper, bars, attention, at)
        connect(text, head, [prompt, *settings], go, stop, status, inside)
        gr.api(generate, api_name="generate", concurrency_limit=None)
    open_with_a_text(text, status, *inside)  # outside: what page_of makes is no part of the page
    return app.queue(max_size=200, default_concurrency_limit=cores())


def open_with_a_text(text, status, paper, bars, attention, at):
    """Never an empty page: it shows a finished text of this model, its most surprising letter chosen."""
    if not (draft := writer.opening()):
        return
    _, status.value, text.value, _ = page_of(draft, Ask.clean("", seed=1), False)
    n_prompt, ids = text_of(text.value)
    if len(ids) > 1:
        paper.value, bars.value, attention.value, at.value, at.minimum = view(ids, n_prompt, None)
        at.maximum = len(ids) - 1


def settings_row():
    """How to write: (length, temperature, top N, seed). In the last two, empty means something."""
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row():
            length = gr.Slider(1, MAX_TOKENS, value=300, step=1, label=f"Length (up to {MAX_TOKENS:,})",
                               elem_id="tokens", buttons=[], min_width=220)
            warm = gr.Slider(0, 1, value=0.7, step=0.05, label="Temperature", elem_id="warm", buttons=[],
                             min_width=220, info="0: always the likeliest. 1: the model's own odds.")
        with gr.Row():
            top_n = gr.Textbox(label="Top N", placeholder="all", max_lines=1, elem_id="top_n", min_width=130)
            seed = gr.Textbox(label="Random seed", placeholder="new", max_lines=1, elem_id="seed",
                              min_width=130)
    return length, warm, top_n, seed


def connect(text, head, asked, go, stop, status, inside):
    """Which touch does what. Nothing here is a public endpoint."""
    paper, _, attention, at = inside
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    writing = gr.on([go.click, asked[0].submit], on_generate, asked, [paper, status, text, stop],
                    concurrency_limit=None, trigger_mode="once",
                    js=f"(prompt, ...rest) => [prompt.slice(-{SENT}), ...rest]", **quiet)
    writing.then(on_look, text, inside, **quiet)
    stop.click(on_stop, None, None, queue=False, **quiet)
    at.input(on_slide, [text, at, head], inside[:3], trigger_mode="always_last", **quiet)
    paper.click(on_letter, [text, head], inside, trigger_mode="multiple", **quiet)
    attention.click(on_head, [text, at], [*inside[:3], head], trigger_mode="multiple", **quiet)


def theme() -> gr.Theme:
    """Fonts that every system has: the page asks no other host for anything."""
    colours = {  # light, dark
        "body_background_fill": ("#f6f2e9", "#141210"), "block_background_fill": ("#fffdf8", "#1e1b18"),
        "input_background_fill": ("#f6f2e9", "#141210"), "block_border_color": ("#d9d2c3", "#4a453c"),
        "button_primary_background_fill": ("#a04504", "#a04504"), "slider_color": ("#a04504", "#f0a35e"),
    }
    both = {f"{name}{mode}": colour for name, pair in colours.items()
            for mode, colour in zip(("", "_dark"), pair, strict=True)}
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Base(primary_hue="orange", neutral_hue="stone", **fonts).set(
        **both, block_border_width="1px", block_radius="10px", button_large_radius="10px",
        button_primary_text_color="#ffffff", button_primary_background_fill_hover="#853700")


# ---- serving it

def launch(port: int | None = None, host: str | None = None, **options):
    """Serve the page; returns (the gr.Blocks, its address). Blocks to the end unless
    prevent_thread_lock=True.

    Nothing leaves this machine unless share=True is asked for. ValueError if the port or host cannot be had.
    """
    settings = {"theme": theme(), "css_paths": HERE / "app.css", "footer_links": ["api"], "ssr_mode": False,
                "quiet": True, "show_error": False, "state_session_capacity": 100, "share": False,
                "max_threads": 2 * MAX_WAITING, "max_file_size": "1kb", "enable_monitoring": False,
                "app_kwargs": {"middleware": [Middleware(Guard)]}}
    reach_this_machine()
    demo = build_app()
    try:
        _, address, _ = demo.launch(server_name=host, server_port=port, **{**settings, **options})
    except OSError as error:
        where = f"{host or '127.0.0.1'}, port {port or '7860 to 7959'}"
        raise ValueError(f"The app cannot listen on {where}: it is taken or not to be had here, choose "
                         f"another with --port ({type(error).__name__}).") from None
    return demo, address


def default_model() -> tuple[str, str | None]:
    """What `model.json` beside this file names (a Space has one), else the folder `model` beside it."""
    named = read_json(HERE / "model.json") if (HERE / "model.json").exists() else {}
    return (named["model"], named.get("revision")) if named.get("model") else (str(HERE / "model"), None)


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if the model cannot be used."""
    parser = argparse.ArgumentParser(description="Serve a model of this project as a web page.")
    parser.add_argument("--model", help="a folder, or a repo of the Hub; default: the small model of "
                                        "this project")
    parser.add_argument("--host", help="address to listen on; default: this machine only, and all in a Space")
    parser.add_argument("--port", type=int, help="default: 7860, or the next free one")
    args = parser.parse_args(argv)
    try:
        if args.port is not None and not 0 < args.port < 65536:
            raise ValueError(f"There is no port {args.port}: choose one from 1024 to 65535 with --port.")
        use(*(args.model, None) if args.model else default_model())
        launch(args.port, args.host or os.environ.get("GRADIO_SERVER_NAME"), quiet=False)
    except ValueError as error:
        say(error, sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
