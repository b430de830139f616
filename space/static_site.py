"""A page that runs the model in the visitor's browser: a folder of plain files for any web server or a static Space.

    python -m space.static_site MODEL_FOLDER --out DIR --serve 8000

The page is space/static/, copied as it is; the model lies beside it under model/. Nothing is compiled or downloaded.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from space.folder import TABLE, FolderError, copy, examples, read_json, read_metrics, source
from space.opening import opening
from space.picture import draw_card

PAGE = Path(__file__).resolve().parent / "static"
PAGE_FILES = sorted(path.name for path in PAGE.iterdir() if path.suffix in (".html", ".css", ".js"))
NEEDED = ["config.json", "tokenizer.json", "model.safetensors"]
OPTIONAL = ["generation_config.json", "metrics.json", TABLE]
CARD = "card.png"  # what a link to the page shows in a chat
MOMENTS_BELOW = 16_000_000  # bytes: more than that is not looked at for a minute's play
HALF_ABOVE = 20_000_000  # bytes: a larger model is published in float16, half the download
ISOLATED = {  # only a page that is isolated from other sites may train with several workers (train_team.js)
    "cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "cross-origin",
}  # fmt: skip
FRONT_MATTER = {
    "title": "A GPT-2 in your browser", "emoji": "✒️", "colorFrom": "yellow", "colorTo": "red", "sdk": "static",
    "app_file": "index.html", "pinned": False,
    "short_description": "A GPT-2 trained from scratch, run by your browser", "custom_headers": ISOLATED,
}  # fmt: skip


class SiteError(FolderError):
    """A model folder or a target that cannot be used; the text says which and what to do."""


def build_static(model_folder, out_folder, links: dict[str, str] | None = None, title: str = FRONT_MATTER["title"],
                 model_repo: str | None = None, license: str | None = None, address: str = "") -> Path:  # fmt: skip
    """Write the page with its model into `out_folder`; returns it as a Path. Existing files of the page are replaced.

    model_folder: what `save_pretrained` wrote, with tokenizer.json and, if they exist, metrics.json and ngram5.npz.
    A model.safetensors above 20 MB is written in float16. links: text -> address, shown under the page.
    model_repo: "owner/name" of the model on the Hub, and license: for the README's front matter. address: where the
    page's files will lie, with a slash at its end: a chat that shows a link's picture asks for it in full. Raises
    FolderError in one sentence.
    """
    model_folder, out = Path(model_folder), Path(out_folder)
    _check(model_folder, out)
    (out / "model").mkdir(parents=True, exist_ok=True)
    for name in PAGE_FILES:
        copy(PAGE, name, out / name)
    for name in [*NEEDED, *OPTIONAL]:
        if os.path.lexists(model_folder / name):
            copy(model_folder, name, out / "model" / name)
            if name.endswith(".json"):
                read_json(out / "model" / name)
        else:  # left by another model that lay here before
            (out / "model" / name).unlink(missing_ok=True)
    moments = _copy_moments((model_folder, model_folder.parent), out / "model" / "moments")
    _copy_draft(model_folder / "draft", out / "model" / "draft")
    if (weights := source(model_folder, "model.safetensors")).stat().st_size > HALF_ABOVE:
        write_half(weights, out / "model" / "model.safetensors")
    weights = (out / "model" / "model.safetensors").read_bytes()
    site = {"title": title, "bytes": len(weights), "version": hashlib.sha256(weights).hexdigest()[:16],
            "opening": _opening(out / "model"), "examples": examples(read_metrics(out / "model")),
            "moments": moments, "links": [*map(list, (links or {}).items())]}  # fmt: skip
    if site["opening"]:
        draw_card(site["opening"], title, out / CARD)
        page = (PAGE / "index.html").read_text(encoding="utf-8")
        _write(out / "index.html", page.replace(f'content="{CARD}"', f'content="{address}{CARD}"'))
    _write(out / "site.json", json.dumps(site, ensure_ascii=False, indent=1))
    _write(out / "README.md", readme(title, model_repo, license, thumbnail=f"{address}{CARD}" if address else None))
    return out


def _copy_draft(draft: Path, out: Path) -> None:
    """The small model that proposes letters, where generation_config.json names one that lies inside the folder."""
    if not draft.is_dir():
        shutil.rmtree(out, ignore_errors=True)
        return
    out.mkdir(exist_ok=True)
    for name in NEEDED:
        copy(draft, name, out / name)
    write_half(out / "model.safetensors", out / "model.safetensors")


def _copy_moments(runs: tuple[Path, ...], out: Path) -> list[int]:
    """The weights that --keep-steps kept, for the page's time machine; returns their steps. None if they are large."""
    shutil.rmtree(out, ignore_errors=True)
    folders = next((found for run in runs if (found := sorted((run / "moments").glob("[0-9]*")))), [])
    files = {int(folder.name): folder for folder in folders if (folder / "model.safetensors").is_file()}
    if sum(source(folder, "model.safetensors").stat().st_size for folder in files.values()) > MOMENTS_BELOW:
        return []
    for step, folder in files.items():
        (out / str(step)).mkdir(parents=True)
        copy(folder, "model.safetensors", out / str(step) / "model.safetensors")
    return sorted(files)


def _opening(folder: Path) -> dict | None:
    """The text that the page opens with; None where this model cannot write one here: then the page tries on load."""
    try:
        heldout = read_json(folder / "metrics.json").get("heldout", "") if (folder / "metrics.json").exists() else ""
        return opening(folder, heldout)
    except (ValueError, RuntimeError, KeyError, OSError):
        return None


def front_matter(fields: dict) -> str:
    """The block that the Hub reads at the top of a README. Values are JSON, which is YAML too; empty ones go."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value is not None]
    return "---\n" + "\n".join(lines) + "\n---\n"


def readme(title: str, model_repo: str | None = None, license: str | None = None, thumbnail: str | None = None) -> str:
    """The Space's README: front matter that makes it static, and how to run the same folder at home."""
    fields = {**FRONT_MATTER, "title": title, "license": license, "models": [model_repo] if model_repo else None,
              "thumbnail": thumbnail}  # fmt: skip
    return (
        f"{front_matter(fields)}\n# {title}\n\n"
        "A GPT-2 that was trained from scratch. It runs in the visitor's browser: no server computes "
        "anything, and nothing that is typed leaves the device.\n\n"
        "Run it at home: `python -m http.server` in this folder, then open the address it prints.\n"
    )


def write_half(weights: Path, target: Path) -> None:
    """Copy a safetensors file with its float32 tensors in float16. Numbers that do not fit raise SiteError."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    tensors = {}
    try:
        with safe_open(weights, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name)
                with np.errstate(over="ignore"):  # the next line says it better
                    tensors[name] = tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
                if not np.isfinite(tensors[name]).all():
                    raise SiteError(
                        f"{weights} holds numbers in {name} that float16 cannot: train again with weight decay."
                    )
    except SiteError:
        raise
    except Exception as error:  # safetensors has its own kinds for a damaged or foreign file
        raise SiteError(f"{weights} is damaged or cut off ({error}): save the model again.") from None
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata={"format": "pt"})
        part.chmod(0o644)  # safetensors leaves 0600, which a web server cannot read
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _check(model_folder: Path, out: Path) -> None:
    missing = [name for name in NEEDED if not (model_folder / name).is_file()]
    if missing:
        raise SiteError(f"{model_folder} has no {' and no '.join(missing)}: give a folder that save_pretrained wrote, "
                        "with the tokenizer saved beside it.")  # fmt: skip
    if out.resolve() in (model_folder.resolve(), PAGE) or (out.exists() and not out.is_dir()):
        raise SiteError(f"{out} cannot be the target: name another folder.")


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


# ---- the local preview


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder. The type of a script is stated: some systems would call it plain text, which no browser runs."""

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
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise SiteError(f"port {port} cannot be used ({error}): choose another with --serve.") from None


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if something is wrong."""
    parser = argparse.ArgumentParser(description="Build the page that runs a model in the browser, and look at it.")
    parser.add_argument(
        "model", nargs="?", default=str(PAGE.parent / "model"), help="a model folder; default: the project's own"
    )
    parser.add_argument("--out", help="where to write the page; default: a temporary folder, with --serve")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve it on this machine; 0: any free port")
    args = parser.parse_args(argv)
    if args.out is None and args.serve is None:
        parser.error("say what to do: --out DIR, --serve PORT or both")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            out = build_static(args.model, args.out or scratch)
            if args.out:
                print(f"The page is in {out}.")
            if args.serve is not None:
                server = make_server(out, args.serve)
                print(f"Open http://127.0.0.1:{server.server_port} (Ctrl+C ends it).", flush=True)
                server.serve_forever()
    except KeyboardInterrupt:
        print()
    except (FolderError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
