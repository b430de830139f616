"""Put a model and its app on the Hugging Face Hub, with the Hub's own client; also a command.

    python -m space.publish model out/best you/my-gpt2 --dry-run
    python -m space.publish space you/my-gpt2-app you/my-gpt2 --target static

The exact folder is built first (bundle.py); --dry-run stops there and shows it. A second run without a change makes no
commit. What goes wrong is one sentence (PublishError, account.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from space.account import Account, PublishError, check_name, explain
from space.bundle import (
    MODEL_FILES,
    TABLE,
    TARGETS,
    build_model_folder,
    build_space_folder,
    project_address,
    show_tree,
)

HISTORY_LIMIT = 1_000_000_000  # bytes of a static Space with its history; reported, not documented
PATIENCE = 15 * 60  # seconds that a Space may take to build
BROKEN = {"BUILD_ERROR", "CONFIG_ERROR", "RUNTIME_ERROR", "NO_APP_FILE", "STOPPED", "PAUSED", "DELETING"}


@dataclass
class Published:
    """What came of it. `commit` is None after a dry run; `changed` is False if the Hub had it all already."""

    kind: str
    repo_id: str
    folder: Path
    address: str = ""
    commit: str | None = None
    changed: bool = False
    answer: str = ""  # what the live app wrote when it was called
    duplicate: str = ""  # the address with which anyone makes his own copy


def publish_model(folder, repo_id: str, *, dry_run: bool = False, token: str | None = None, endpoint: str | None = None,
                  dtype: str = "auto", private: bool = False, out=None, say=print) -> Published:  # fmt: skip
    """Publish a model folder (training's best/) as a model repo; returns where it is. Raises PublishError."""
    account = None if dry_run else Account(token, endpoint)
    name = account.full_name(repo_id) if account else repo_id
    check_name(name if "/" in name else f"you/{name}")
    with workplace(out) as place:
        built = wrap(build_model_folder, folder, place, name, dtype, project_address())
        done = Published("model", name, place)
        if dry_run:
            say(f"This would be the model {name}:\n{show_tree(built)}")
            return done
        create(account, name, "model", private=private)
        send(account, done, built, say)
    say(f"Your model: {done.address}")
    return done


def publish_space(repo_id: str, model_repo_id: str, target: str = "static", *, wait: bool = True, dry_run: bool = False,
                  token: str | None = None, endpoint: str | None = None, private: bool = False, out=None, say=print,
                  poll: float = 5.0) -> Published:  # fmt: skip
    """Publish a page that lets anyone write with a model; returns where it is. Raises PublishError.

    model_repo_id: a model on the Hub, or a model folder on this machine, which then travels in the Space.
    target: "static" (free for all), "zero-a10g" or "cpu-basic"; wait: until it runs, then call it once.
    """
    if target not in TARGETS:
        raise PublishError(f"There is no target {target!r}: choose one of {', '.join(TARGETS)}.")
    local = Path(model_repo_id).is_dir()
    account = None if dry_run else Account(token, endpoint)
    name = account.full_name(repo_id) if account else repo_id
    check_name(name if "/" in name else f"you/{name}")
    model = "" if local else account.full_name(model_repo_id) if account and "/" not in model_repo_id else model_repo_id
    with workplace(out) as place:
        files, revision = find_model(model, model_repo_id, target, account, endpoint)
        built = wrap(build_space_folder, name, model, place, target, revision, files)
        done = Published("space", name, place)
        if dry_run:
            say(f"This would be the Space {name} on {target} ({TARGETS[target].price}):\n{show_tree(built)}")
            return done
        create(account, name, "space", target, private)
        send(account, done, built, say)
        done.duplicate = f"{account.endpoint}/spaces/{name}?duplicate=true"
        if wait:
            wait_until_running(account, done, say, poll)
            done.answer = call_once(account, done, target)
            say(f"It answers: {done.answer}")
        warn_of_history(account, done, target, say)
    say(f"Your app: {done.address}\nAnyone's own copy, with one click: {done.duplicate}")
    return done


class workplace:
    """A folder to build in: the one that is asked for, which stays, or a temporary one."""

    def __init__(self, out=None):
        self.out = out

    def __enter__(self) -> Path:
        self.temporary = None if self.out else tempfile.TemporaryDirectory()
        return Path(self.out or self.temporary.name)

    def __exit__(self, *_):
        if self.temporary:
            self.temporary.cleanup()


def wrap(build, *args):
    """Call a builder; the ValueErrors of our own modules are sentences already."""
    try:
        return build(*args)
    except PublishError:
        raise
    except ValueError as e:
        raise PublishError(str(e)) from None
    except OSError as e:
        raise PublishError(f"A file could not be read or written ({e}): check the folder and the free space.") from None


def find_model(model: str, given: str, target: str, account: Account | None, endpoint: str | None):
    """(folder with the model's files or None, its revision on the Hub or None)."""
    if not model:
        return Path(given), None
    if TARGETS[target].sdk != "static" and account is None:
        return None, None  # a dry run asks nobody
    from huggingface_hub import HfApi, snapshot_download

    api = account.api if account else HfApi(endpoint=endpoint)
    ask = account.ask if account else lambda doing, call, *a, **k: _plain(doing, call, *a, **k)
    revision = ask(f"looking for the model {model}", api.model_info, model).sha
    if TARGETS[target].sdk != "static":
        return None, revision
    files = ask(f"fetching the model {model}", snapshot_download, model, revision=revision, endpoint=api.endpoint,
                token=api.token, allow_patterns=[*MODEL_FILES, TABLE])  # fmt: skip
    return Path(files), revision


def _plain(doing, call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        raise PublishError(explain(error, doing)) from None


def create(account: Account, name: str, kind: str, target: str | None = None, private: bool = False) -> None:
    """Make the repo unless it is there; a Space gets its kind and its hardware."""
    extra = {}
    if kind == "space":
        spec = TARGETS[target]
        extra = {"space_sdk": spec.sdk, **({"space_hardware": spec.hardware} if spec.hardware else {})}
    account.ask(f"making the {kind} {name}", account.api.create_repo, name, repo_type=kind, private=private or None,
                exist_ok=True, target=target, **extra)  # fmt: skip
    if kind == "space" and TARGETS[target].hardware:
        runtime = account.ask(f"looking at the Space {name}", account.api.get_space_runtime, name)
        if TARGETS[target].hardware not in (runtime.hardware, runtime.requested_hardware):
            account.ask(f"choosing the hardware of {name}", account.api.request_space_hardware, name,
                        TARGETS[target].hardware, target=target)  # fmt: skip


def send(account: Account, done: Published, folder: Path, say) -> None:
    """Upload the folder as one commit, unless the Hub has it all already; fills in address, commit, changed."""
    info = account.api.model_info if done.kind == "model" else account.api.space_info
    before = account.ask(f"looking at {done.repo_id}", info, done.repo_id).sha
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    say(f"Sending {size / 1e6:,.1f} MB to {done.repo_id} ...")
    sent = account.ask(f"uploading to {done.repo_id}", account.api.upload_folder, repo_id=done.repo_id,
                       folder_path=folder, repo_type=done.kind,
                       commit_message=f"The {done.kind}, from gpt2_gradio.ipynb")  # fmt: skip
    done.commit, done.changed = sent.oid, sent.oid != before
    done.address = f"{account.endpoint}/{'spaces/' if done.kind == 'space' else ''}{done.repo_id}"
    if not done.changed:
        say("Nothing has changed since the last time: no commit.")


def wait_until_running(account: Account, done: Published, say, poll: float) -> None:
    """Follow the build; PublishError with the end of the log if it fails, or if it takes too long."""
    stage, began = None, time.monotonic()
    while time.monotonic() - began < PATIENCE:
        runtime = account.ask(f"waiting for {done.repo_id}", account.api.get_space_runtime, done.repo_id)
        if runtime.stage != stage:
            stage = runtime.stage
            say(f"  {time.monotonic() - began:5.0f} s  {stage}")
        if stage in BROKEN:
            raise PublishError(f"The Space does not run (stage {stage}). The end of its log:\n{log_end(account, done)}")
        if stage == "RUNNING" and runtime.raw.get("sha") in (None, done.commit):
            return
        time.sleep(poll)
    raise PublishError(f"The Space is still {stage} after {PATIENCE // 60} minutes: look at {done.address} later.")


def log_end(account: Account, done: Published, lines: int = 15) -> str:
    """The last lines of the build log, or of the app's own if the build left none."""
    if not hasattr(account.api, "fetch_space_logs"):
        return f"  (see {done.address}?logs=build)"
    for build in (True, False):
        log = account.ask("fetching the log", lambda b=build: list(account.api.fetch_space_logs(done.repo_id, build=b)))
        if said := "".join(log).strip().splitlines():
            return "\n".join("  " + line.replace(account.token, "[token]") for line in said[-lines:])
    return "  (the log is empty)"


def call_once(account: Account, done: Published, target: str) -> str:
    """Use the live app as a visitor would: the API of a Gradio app, the files of a static page."""
    host = account.ask(f"looking for the address of {done.repo_id}", account.api.space_info, done.repo_id).host
    call = _call_static if target == "static" else _call_gradio
    return account.ask(f"calling the app at {host}", call, host.rstrip("/"))


def _call_gradio(host: str) -> str:
    from gradio_client import Client

    client = Client(host, verbose=False)
    try:
        said = client.predict(prompt="ROMEO:\n", max_tokens=40, api_name="/generate")
    finally:
        client.close()
    return repr(said["prompt"] + said["text"])


def _call_static(host: str) -> str:
    with urllib.request.urlopen(f"{host}/index.html", timeout=30) as page:
        title = re.search(r"<title>(.*?)</title>", page.read().decode("utf-8"), re.S)
    with urllib.request.urlopen(f"{host}/model/config.json", timeout=30) as config:
        shape = json.load(config)
    layers = f"{shape['n_layer']} layers, width {shape['n_embd']}"
    return f"the page {(title[1] if title else '').strip()!r} with a model of {layers}"


def warn_of_history(account: Account, done: Published, target: str, say) -> None:
    """A static Space may hold about 1 GB with its history; every new model adds to it."""
    if target != "static":
        return
    try:
        used = getattr(account.api.space_info(done.repo_id, expand=["usedStorage"]), "used_storage", None) or 0
    except Exception:  # a courtesy: an older client or Hub does not know the field
        return
    if used > 0.8 * HISTORY_LIMIT:
        say(f"Note: this Space holds {used / 1e9:.2f} GB with its history, of about 1 GB that a static Space gets: "
            "delete it and make it again before it is full.")  # fmt: skip


# ---- the command


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if something is wrong."""
    parser = argparse.ArgumentParser("python -m space.publish", description="Publish a model and its app on the Hub.")
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="publish a model folder")
    model.add_argument("folder", help="what training wrote: OUT_DIR/best")
    model.add_argument("repo", help="owner/name, or a name under your own account")
    model.add_argument("--dtype", default="auto", choices=["auto", "float32", "float16"],
                       help="auto: float16 above 20 MB")  # fmt: skip
    space = commands.add_parser("space", help="publish the app for a model")
    space.add_argument("repo", help="owner/name, or a name under your own account")
    space.add_argument("model", help="the model's repo, or a model folder that shall travel in the Space")
    about = "; ".join(f"{name}: {spec.price}" for name, spec in TARGETS.items())
    space.add_argument("--target", default="static", choices=list(TARGETS), help=about)
    space.add_argument("--no-wait", action="store_true", help="do not wait until it runs")
    for command in (model, space):
        command.add_argument("--dry-run", action="store_true", help="build the folder, show it, send nothing")
        command.add_argument("--out", help="build in this folder and leave it there")
        command.add_argument("--private", action="store_true", help="only you see it")
    args = parser.parse_args(argv)
    common = {"dry_run": args.dry_run, "out": args.out, "private": args.private}
    try:
        if args.command == "model":
            publish_model(args.folder, args.repo, dtype=args.dtype, **common)
        else:
            publish_space(args.repo, args.model, args.target, wait=not args.no_wait, **common)
    except PublishError as e:
        print(e, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run it again to go on: what was uploaded is not uploaded twice.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
