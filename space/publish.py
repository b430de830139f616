"""Put a model and its app on the Hugging Face Hub, with the Hub's own client; also a command.

    python -m space.publish model out/best you/my-gpt2 --dry-run
    python -m space.publish space you/my-gpt2-app you/my-gpt2 --target static

The exact folder is built first (bundle.py); --dry-run stops there and shows it. A repo that this project did not
make is not touched unless --replace says so; one that it made ends equal to the folder. What is private stays private.
A second run without a change makes no commit. What goes wrong is one sentence (PublishError, account.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.files import say as show
from space.account import HUB, Account, PublishError, check_name, explain
from space.bundle import (
    NEEDED,
    TABLE,
    TARGETS,
    build_model_folder,
    build_space_folder,
    files_in,
    made_files,
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
    private: bool = False
    answer: str = ""  # what the live app wrote when it was called
    duplicate: str = ""  # the address with which anyone makes his own copy


@dataclass
class Standing:
    """A repo as it stands on the Hub before we touch it."""

    sha: str
    private: bool
    sdk: str | None
    files: list[str]
    ours: list[str] | None  # what an earlier publish, or the Hub itself, put there; None: somebody else made it


def publish_model(folder, repo_id: str, *, dry_run: bool = False, token: str | None = None, endpoint: str | None = None,
                  dtype: str = "auto", private: bool | None = None, replace: bool = False, out=None, say=show,
                  **said: str | None) -> Published:  # fmt: skip
    """Publish a model folder (training's best/) as a model repo; returns where it is. Raises PublishError.

    private: True hides the repo, False shows it, None keeps what it is (a new one is public). replace: take over a repo
    that this project did not make. said: license, language, origin of the text, for the card; see card.write_card.
    """
    account, name = sign_in(repo_id, dry_run, token, endpoint, say)
    standing = look(account, "model", name, replace) if account else None
    with workplace(out) as place:
        built = wrap(build_model_folder, folder, place, name, dtype, project_address(), **said)
        done = Published("model", name, place)
        if dry_run:
            say(f"This would be the model {name}:\n{show_tree(built)}")
            return done
        done.private = standing.private if private is None and standing else bool(private)
        make(account, done, standing, say)
        send(account, done, built, replace, say)
    say(f"Your model: {done.address}")
    return done


def publish_space(repo_id: str, model_repo_id: str, target: str = "static", *, wait: bool = True, dry_run: bool = False,
                  token: str | None = None, endpoint: str | None = None, private: bool | None = None,
                  replace: bool = False, read_token: str | None = None, out=None, say=show,
                  poll: float = 5.0) -> Published:  # fmt: skip
    """Publish a page that lets anyone write with a model; returns where it is. Raises PublishError.

    model_repo_id: a model on the Hub, or a model folder on this machine, which then travels in the Space.
    target: "static" (free for all), "zero-a10g" or "cpu-basic"; wait: until it runs, then call it once.
    private: None means as private as the model, False shows a private model's weights. replace: take over a Space that
    this project did not make, or change its kind. read_token: what a Gradio Space reads a private model with.
    """
    if target not in TARGETS:
        raise PublishError(f"There is no target {target!r}: choose one of {', '.join(TARGETS)}.")
    local = Path(model_repo_id).is_dir()
    account, name = sign_in(repo_id, dry_run, token, endpoint, say)
    standing = look(account, "space", name, replace, TARGETS[target].sdk) if account else None
    model = "" if local else account.full_name(model_repo_id) if account and "/" not in model_repo_id else model_repo_id
    with workplace(out) as place:
        files, revision, hidden = find_model(model, model_repo_id, target, account, endpoint)
        done = Published("space", name, place, private=visibility(name, model, hidden, private, standing, say))
        if hidden and TARGETS[target].sdk != "static" and standing is None and not read_token and account:
            raise PublishError(
                f"{model} is private, and a Space on {target} cannot read it without a secret: make a token with the "
                f"right to read at {HUB}/settings/tokens and give it as read_token (SPACE_READ_TOKEN for the command), "
                "or choose target='static', which carries the model itself."
            )
        built = wrap(build_space_folder, name, model, place, target, revision, files)
        if dry_run:
            say(f"This would be the Space {name} on {target} ({TARGETS[target].price}):\n{show_tree(built)}")
            return done
        make(account, done, standing, say, target, read_token if hidden else None)
        send(account, done, built, replace, say)
        done.duplicate = f"{account.endpoint}/spaces/{name}?duplicate=true"
        if wait:
            wait_until_running(account, done, say, poll)
            done.answer = call_once(account, done, target)
            say(f"It answers: {done.answer}" if done.answer else "It runs. It is private, so it was not called.")
        warn_of_history(account, done, target, say)
    say(f"Your app: {done.address}\nAnyone's own copy, with one click: {done.duplicate}")
    return done


def sign_in(repo_id: str, dry_run: bool, token, endpoint, say) -> tuple[Account | None, str]:
    """(the account, None for a dry run; the checked name)."""
    account = None if dry_run else Account(token, endpoint, say)
    name = account.full_name(repo_id) if account else repo_id
    check_name(name if "/" in name else f"you/{name}")
    return account, name


@contextmanager
def workplace(out=None):
    """A folder to build in: the one that is asked for, which stays, or a temporary one."""
    if out:
        yield Path(out)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def wrap(build, *args, **kwargs):
    """Call a builder; the ValueErrors of our own modules are sentences already."""
    try:
        return build(*args, **kwargs)
    except PublishError:
        raise
    except ValueError as e:
        raise PublishError(str(e)) from None
    except OSError as e:
        raise PublishError(f"A file could not be read or written ({e}): check the folder and the free space.") from None


# ---- before anything is sent


def look(account: Account, kind: str, name: str, replace: bool, sdk: str | None = None) -> Standing | None:
    """The repo as it stands, or None if there is none; PublishError if it is not ours to change."""
    standing = stand(account, kind, name)
    if standing is None or replace:
        return standing
    if standing.ours is None:
        raise PublishError(f"{name} is there already, and this project did not make it: choose another name, or say "
                           "replace=True (--replace) to lose what is in it.")  # fmt: skip
    if sdk and standing.sdk not in (None, sdk):
        raise PublishError(f"The Space {name} is of the kind {standing.sdk}: choose another name, or say replace=True "
                           f"(--replace) to make it one of the kind {sdk}.")  # fmt: skip
    return standing


def stand(account: Account, kind: str, name: str) -> Standing | None:
    """Ask the Hub what the repo holds, and who put it there."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = account.api.repo_info(name, repo_type=kind)
    except RepositoryNotFoundError:
        return None
    except Exception as error:
        raise PublishError(explain(error, f"looking at {name}", account.where)) from None
    files = [file.rfilename for file in info.siblings]
    ours = files if set(files) <= {".gitattributes"} else None
    if ours is None and "README.md" in files:
        readme = account.ask(f"looking at {name}", account.api.hf_hub_download, name, "README.md", repo_type=kind,
                             revision=info.sha)  # fmt: skip
        ours = made_files(Path(readme).read_text(encoding="utf-8", errors="replace"))
    if ours is None:  # what the Hub itself puts into a new Space is nobody's work
        commits = account.ask(f"looking at {name}", account.api.list_repo_commits, name, repo_type=kind)
        ours = files if [commit.title for commit in commits] == ["initial commit"] else None
    return Standing(info.sha, bool(info.private), getattr(info, "sdk", None), files, ours)


def visibility(name: str, model: str, hidden: bool, private: bool | None, standing: Standing | None, say) -> bool:
    """Whether the Space is to be private: as the reader says, else as it is, and never more open than its model."""
    if private is not None:
        if hidden and not private:
            say(f"Note: {model} is private, and the Space {name} shows it to everyone, as you said.")
        return private
    if hidden and standing and not standing.private:
        raise PublishError(f"{model} is private and the Space {name} is public: say private=True to hide the Space, or "
                           "private=False to show the model in it to everyone.")  # fmt: skip
    if hidden and not standing:
        say(f"Note: {model} is private, so the Space is private too (private=False shows it to everyone).")
    return standing.private if standing else hidden


def find_model(model: str, given: str, target: str, account: Account | None, endpoint: str | None):
    """(folder with the model's files or None, its revision on the Hub or None, whether it is private)."""
    if not model:
        return Path(given), None, False
    static = TARGETS[target].sdk == "static"
    if not static and account is None:
        return None, None, False  # a dry run asks nobody
    from huggingface_hub import HfApi, snapshot_download

    api = account.api if account else HfApi(endpoint=endpoint)

    def ask(doing, call, *args, **kwargs):
        try:
            return call(*args, **kwargs)
        except Exception as error:
            raise PublishError(explain(error, doing, account and account.where)) from None

    info = ask(f"looking for the model {model}", api.model_info, model)
    files = static and ask(f"fetching the model {model}", snapshot_download, model, revision=info.sha,
                           endpoint=api.endpoint, token=api.token,
                           allow_patterns=[*NEEDED, TABLE, "README.md"])  # fmt: skip
    return Path(files) if static else None, info.sha, bool(info.private)


# ---- sending


def make(account: Account, done: Published, standing: Standing | None, say, target=None, secret=None) -> None:
    """Make the repo unless it is there, private before anything is in it; a Space gets its hardware and its secret."""
    name, kind, spec = done.repo_id, done.kind, TARGETS.get(target)
    secrets = [{"key": "HF_TOKEN", "value": secret}] if secret else None
    if standing is None:
        extra = {"space_sdk": spec.sdk, "space_hardware": spec.hardware, "space_secrets": secrets} if spec else {}
        account.ask(f"making the {kind} {name}", account.api.create_repo, name, repo_type=kind,
                    private=done.private or None, target=target, **extra)  # fmt: skip
    elif standing.private != done.private:
        say(f"The {kind} {name} becomes {'private' if done.private else 'public'}.")
        account.ask(f"making {name} {'private' if done.private else 'public'}", account.api.update_repo_settings, name,
                    private=done.private, repo_type=kind)  # fmt: skip
    if standing and secret:
        account.ask(f"giving {name} its secret", account.api.add_space_secret, name, "HF_TOKEN", secret)
    if standing and spec and spec.hardware:
        runtime = account.ask(f"looking at the Space {name}", account.api.get_space_runtime, name)
        if spec.hardware not in (runtime.hardware, runtime.requested_hardware):
            account.ask(f"choosing the hardware of {name}", account.api.request_space_hardware, name, spec.hardware,
                        target=target)  # fmt: skip


def send(account: Account, done: Published, folder: Path, replace: bool, say) -> None:
    """One commit that makes the repo equal to the folder, unless it is; fills in address, commit, changed."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    now, names = stand(account, done.kind, done.repo_id), files_in(folder)
    others = [name for name in now.files if name not in (*names, ".gitattributes")]
    stale = others if replace else [name for name in others if name in now.ours]
    if left := [name for name in others if name not in stale]:
        say(f"Left as they are, for this project did not make them: {', '.join(left)} (replace=True removes them).")
    size = sum((folder / name).stat().st_size for name in names)
    say(f"Sending {size / 1e6:,.1f} MB to {done.repo_id} ...")
    steps = [CommitOperationAdd(name, folder / name) for name in names]
    steps += [CommitOperationDelete(name, is_folder=False) for name in stale]
    sent = account.ask(f"uploading to {done.repo_id}", account.api.create_commit, done.repo_id, steps,
                       commit_message=f"The {done.kind}, from gpt2_gradio.ipynb", repo_type=done.kind,
                       parent_commit=now.sha)  # fmt: skip
    done.commit, done.changed = sent.oid, sent.oid != now.sha
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
    for build in (True, False):
        log = account.ask("fetching the log", lambda b=build: list(account.api.fetch_space_logs(done.repo_id, build=b)))
        if said := "".join(log).strip().splitlines():
            return "\n".join("  " + line.replace(account.token, "[token]") for line in said[-lines:])
    return "  (the log is empty)"


def call_once(account: Account, done: Published, target: str) -> str:
    """Use the live app as a visitor would: the API of a Gradio app, the files of a static page; "" if it is private.

    No token goes along: whoever runs the app's machine could keep it.
    """
    if done.private:
        return ""
    host = account.ask(f"looking for the address of {done.repo_id}", account.api.space_info, done.repo_id).host
    call = _call_static if target == "static" else _call_gradio
    return account.ask(f"calling the app at {host}", call, host.rstrip("/"))


def _call_gradio(host: str) -> str:
    from gradio_client import Client

    client = Client(host, verbose=False, token=False, analytics_enabled=False)
    try:
        said = client.predict(prompt="", max_tokens=40, api_name="/generate")
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
    for name, what in (("license", "of the text, such as cc0-1.0"), ("language", "of the text, as a code such as uk"),
                       ("origin", "where the text is from")):  # fmt: skip
        model.add_argument(f"--{name}", help=f"for the card: {what}; what is not said is not invented")
    space = commands.add_parser("space", help="publish the app for a model")
    space.add_argument("repo", help="owner/name, or a name under your own account")
    space.add_argument("model", help="the model's repo, or a model folder that shall travel in the Space")
    about = "; ".join(f"{name}: {spec.price}" for name, spec in TARGETS.items())
    space.add_argument("--target", default="static", choices=list(TARGETS), help=about)
    space.add_argument("--no-wait", action="store_true", help="do not wait until it runs")
    for command in (model, space):
        command.add_argument("--dry-run", action="store_true", help="build the folder, show it, send nothing")
        command.add_argument("--out", help="build in this folder and leave it there")
        command.add_argument("--replace", action="store_true", help="take over a repo that this project did not make")
        seen = command.add_mutually_exclusive_group()
        seen.add_argument("--private", action="store_true", default=None, help="only you see it")
        seen.add_argument("--public", dest="private", action="store_false", help="all see it, also a private model's")
    args = parser.parse_args(argv)
    common = {"dry_run": args.dry_run, "out": args.out, "private": args.private, "replace": args.replace}
    try:
        if args.command == "model":
            said = {"license": args.license, "language": args.language, "origin": args.origin}
            publish_model(args.folder, args.repo, dtype=args.dtype, **said, **common)
        else:
            secret = os.environ.get("SPACE_READ_TOKEN")
            publish_space(args.repo, args.model, args.target, wait=not args.no_wait, read_token=secret, **common)
    except PublishError as e:
        show(e, sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run it again to go on: files that arrived whole are not sent again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
