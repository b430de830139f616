"""A page that runs the model in the visitor's browser: plain files for any web server or a static Space.

    python -m space.static_site MODEL_FOLDER --out DIR --serve 8000

The page is space/static/, copied as it is; the model lies beside it under model/. Nothing is compiled.
"""

import argparse
import contextlib
import functools
import hashlib
import http.server
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from data import standin
from data.files import say, write_atomic
from data.text import load_text
from data.tokenizer import load_tokenizer
from gpt2.weights import read_shapes
from model_gpt2 import GPT
from space.folder import (
    DRAFT,
    MOMENTS,
    TABLE,
    FolderError,
    check_name,
    copy,
    read_json,
    read_metrics,
    source,
    start_id,
)
from space.opening import opening
from space.ours import mark, prepare
from space.picture import draw_card

PAGE = Path(__file__).resolve().parent / "static"
PAGE_FILES = sorted(path.name for path in PAGE.iterdir() if path.suffix in (".html", ".css", ".js"))
WEIGHTS, SETTINGS = "model.safetensors", "generation_config.json"
NEEDED = ["config.json", "tokenizer.json", WEIGHTS]
OPTIONAL = [SETTINGS, "metrics.json", TABLE]
CARD = "card.png"  # what a link to the page shows in a chat
MOMENTS_BELOW = 16_000_000  # bytes: more than that is not looked at for a minute's play
HALF_ABOVE = 20_000_000  # bytes: a larger model is published in float16, half the download
ISOLATED = {  # only a page that is isolated from other sites may train with several workers (train_team.js)
    "cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "cross-origin",
}
TITLE = "A GPT-2 in your browser"
README = PAGE.parent / "templates" / "page_readme.md"


class SiteError(FolderError):
    """A model folder or a target that cannot be used; the text says which and what to do."""


def build_static(model_folder, out_folder, links: dict[str, str] | None = None, model_repo: str | None = None,
                 license: str | None = None, address: str = "", text: str | None = None) -> Path:
    """Write the page with its model into `out_folder`, over an earlier build; returns it as a Path.

    model_folder: what `save_pretrained` wrote, with tokenizer.json and, if they exist, metrics.json and
    ngram5.npz. links: text -> address, shown under the page. model_repo: "owner/name" of the model on the
    Hub, and license: for the README's front matter. address: where the page's files will lie, with a slash at
    its end: a chat that shows a link's picture asks for it in full. text: a file that train.html offers to
    learn from, for everybody to read; without one, the stand-in. Raises FolderError in one sentence.
    """
    folder, out = Path(model_folder), Path(out_folder)
    check_places(folder, out)
    for name in PAGE_FILES:
        copy(PAGE, name, out / name)
    if text:
        write_atomic(out / "input.txt", load_text(text).text)
    write_atomic(out / "standin.txt", standin.make())
    moments = copy_model(folder, out / "model", [*NEEDED, *OPTIONAL])
    weights = (out / "model" / WEIGHTS).read_bytes()
    site = {"title": TITLE, "bytes": len(weights), "version": hashlib.sha256(weights).hexdigest()[:16],
            "opening": first_text(out / "model"), "moments": moments,
            "examples": read_metrics(out / "model")["corpus"]["examples"],
            "links": [list(pair) for pair in (links or {}).items()],
            "files": [*PAGE_FILES, "standin.txt", *(["input.txt"] if text else [])]}  # for "Make it yours"
    if site["opening"]:
        draw_card(site["opening"], TITLE, out / CARD)
        page = (PAGE / "index.html").read_text(encoding="utf-8")
        write_atomic(out / "index.html", page.replace(f'content="{CARD}"', f'content="{address}{CARD}"'))
    write_atomic(out / "site.json", json.dumps(site, ensure_ascii=False, indent=1))
    front = front_matter({"title": TITLE, "license": license, "models": [model_repo] if model_repo else None,
                          "custom_headers": ISOLATED, "thumbnail": f"{address}{CARD}" if address else None})
    write_atomic(out / "README.md", README.read_text(encoding="utf-8").replace("{front}\n", front))
    return out


def check_places(folder: Path, out: Path) -> None:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        meant = f"{folder / 'best'}" if (folder / "best").is_dir() else "a folder that save_pretrained wrote"
        raise SiteError(f"{folder} has no {' and no '.join(missing)}: give {meant}, with the tokenizer saved "
                        "beside it.")
    over = folder.resolve() in (out.resolve(), (out / "model").resolve())  # the model would be lost
    if over or out.resolve() == PAGE or (out.exists() and not out.is_dir()):
        raise SiteError(f"{out} cannot be the target: name another folder.")


def copy_model(folder: Path, out: Path, names: list[str]) -> list[int]:
    """Copy `names` of a model, its draft and the moments of its training, over an earlier build in `out`.

    A large model and a draft are written in float16. Returns the moments' steps.
    """
    for name in ("draft", "moments"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in names:
        (out / name).unlink(missing_ok=True)
        if os.path.lexists(folder / name):
            copy(folder, name, out / name)
        if name.endswith(".json") and (out / name).exists():
            read_json(out / name)
    if (out / WEIGHTS).stat().st_size > HALF_ABOVE:
        halve(out)
    if (folder / "draft").is_dir():
        for name in DRAFT:
            copy(folder, name, out / name)
        halve(out / "draft")
        own = read_json(out / SETTINGS) if (out / SETTINGS).exists() else {}
        write_atomic(out / SETTINGS, json.dumps({**own, "draft": "draft"}))  # where the page looks for it
    moments = kept_moments(folder)
    for step, path in moments.items():
        copy(path.parent, path.name, out / "moments" / str(step) / WEIGHTS)
    return list(moments)


def kept_moments(folder: Path) -> dict[int, Path]:
    """Step -> file with the weights of that step, in the model's folder or beside it; none if too large.

    Raises SiteError for weights that are not this model's at another time.
    """
    for run in (folder, folder.parent):
        names = [path.relative_to(run) for path in run.glob(MOMENTS) if path.parent.name.isdecimal()]
        if names:
            break
    found = {int(name.parts[1]): source(run, name) for name in names}
    if sum(path.stat().st_size for path in found.values()) > MOMENTS_BELOW:
        return {}
    own = read_shapes([folder / WEIGHTS]) if found else None
    for step, path in found.items():
        if not fits(path, own):
            raise SiteError(f"{run / 'moments' / str(step)} is not this model at an earlier step: delete "
                            "that folder.")
    return dict(sorted(found.items()))


def fits(path: Path, shapes: dict) -> bool:
    """Whether a file of weights has these shapes."""
    with contextlib.suppress(ValueError):
        return read_shapes([path]) == shapes
    return False


def halve(folder: Path) -> None:
    """Write a model anew in float16. Numbers that do not fit raise SiteError."""
    model, largest = GPT.from_pretrained(folder), torch.finfo(torch.float16).max
    for name, parameter in model.named_parameters():
        if parameter.abs().max() > largest:
            raise SiteError(f"{folder / WEIGHTS} holds numbers in {name} that float16 cannot: "
                            "train again with weight decay.")
    model.save_pretrained(folder, dtype=torch.float16, start_id=start_id(load_tokenizer(folder), folder))


def first_text(folder: Path) -> dict | None:
    """What the page opens with; None where this model cannot write one here: then the page tries on load."""
    try:
        told = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
        return opening(folder, told.get("heldout"))
    except (ValueError, RuntimeError, KeyError, OSError):
        return None


def front_matter(fields: dict) -> str:
    """Lines for the block that the Hub reads atop a README. Values are JSON, so YAML too; empty ones go."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items()
                   if value is not None)


# ---- the local preview

class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder. A script's type is stated: no browser runs plain text, as some would call it."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}

    def log_message(self, *args):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "no-cache")  # a rebuilt page shows at the next reload
        for name, value in ISOLATED.items():  # as on the Hub
            self.send_header(name, value)
        super().end_headers()


def make_server(folder, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of `folder` on this machine only; port 0 takes a free one. SiteError if the port is taken."""
    try:
        handler = functools.partial(Handler, directory=str(folder))
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise SiteError(f"port {port} cannot be used ({error}): choose another with --serve.") from None


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=str(PAGE.parent / "model"), help="a model folder")
    parser.add_argument("--out", help="where to write the page; default: a temporary folder, with --serve")
    parser.add_argument("--text", metavar="FILE", help="a text that train.html offers to learn from")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve it here; 0: any free port")
    args = parser.parse_args(argv)
    if args.out is None and args.serve is None:
        parser.error("say what to do: --out DIR, --serve PORT or both")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            check_name(args.model)
            out = build_static(args.model, scratch, text=args.text)
            if args.out:
                out = prepare(Path(args.out), Path(args.model))
                shutil.copytree(scratch, out, dirs_exist_ok=True)
                mark(out)
                say(f"The page is in {out}.")
            if args.serve is not None:
                server = make_server(out, args.serve)
                say(f"Open http://127.0.0.1:{server.server_port} (Ctrl+C ends it).")
                server.serve_forever()
    except KeyboardInterrupt:
        say("")
    except (ValueError, OSError) as error:
        say(error, sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
