"""Put a model and its app on the Hugging Face Hub, with the Hub's own client; also a command.

    python -m space.publish model out/cpu/best you/my-gpt2 --dry-run
    python -m space.publish space you/my-gpt2-app you/my-gpt2 --target static

The exact folder is built first (bundle.py); --dry-run stops there and shows it. A repo that this project
did not make is not touched unless --replace says so; one that it made ends equal to the folder. What is
private stays private. A second run without a change makes no commit. What goes wrong is one sentence
(PublishError, account.py).
"""

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from data.files import address, say
from space.account import HUB, Account, PublishError
from space.bundle import (
    TARGETS,
    build_model_folder,
    build_space_folder,
    show_tree,
)
from space.folder import check_name, download
from space.ours import files_in, made_files

PATIENCE = 15 * 60  # seconds that a Space may take to build
NO_SECRET = ("{model} is private, and a Space on {target} cannot read it without a secret: make a token with "
             f"the right to read at {HUB}/settings/tokens and give it as read_token (SPACE_READ_TOKEN for "
             "the command), or choose target='static', which carries the model itself.")
BROKEN = {"BUILD_ERROR", "CONFIG_ERROR", "RUNTIME_ERROR", "NO_APP_FILE", "STOPPED", "PAUSED", "DELETING"}


@dataclass
class Published:
    """What came of it. `commit` is None after a dry run; `changed` is False if the Hub had it all already."""

    kind: str
    repo_id: str
    private: bool = False
    address: str = ""
    commit: str | None = None
    changed: bool = False
    answer: str = ""  # what the live app wrote when it was called
    duplicate: str = ""  # the address with which anyone makes his own copy


@dataclass
class Standing:
    """A repo as it stands on the Hub before we touch it."""

    sha: str
    private: bool
    sdk: str | None
    files: list[str]
    ours: list[str] | None  # what an earlier publish or the Hub put there; None: somebody else made it


def publish_model(folder, repo_id: str, *, dry_run: bool = False, token: str | None = None,
                  endpoint: str | None = None, private: bool | None = None, replace: bool = False, out=None,
                  **said: str | None) -> Published:
    """Publish a model folder (training's best/) as a model repo; returns where it is. Raises PublishError.

    private: True hides the repo, False shows it, None keeps what it is (a new one is public). replace:
    take over a repo that this project did not make. out: build there and leave it. said: license,
    language, origin of the text, for the card; see card.write_card.
    """
    account = Account(token, endpoint, dry_run)
    done = Published("model", account.full_name(repo_id))
    standing = None if dry_run else look(account, done, replace)
    with workplace(out) as place:
        built = wrap(build_model_folder, folder, place, done.repo_id, **said)
        if dry_run:
            say(f"This would be the model {done.repo_id}:\n{show_tree(built)}")
            return done
        done.private = standing.private if private is None and standing else bool(private)
        make(account, done, standing)
        send(account, done, built, replace)
    say(f"Your model: {done.address}")
    if not done.private and (page := address("space")):
        say(f"Anyone writes with it at {page}?model={done.repo_id}")
    return done


def publish_space(repo_id: str, model_repo_id: str, target: str = "static", *, wait: bool = True,
                  dry_run: bool = False, token: str | None = None, endpoint: str | None = None,
                  private: bool | None = None, replace: bool = False, read_token: str | None = None, out=None,
                  poll: float = 5.0) -> Published:
    """Publish a page that lets anyone write with a model; returns where it is. Raises PublishError.

    model_repo_id: a model on the Hub, or a model folder on this machine, which then travels in the Space.
    target: "static" (free for all), "zero-a10g" or "cpu-basic"; wait: until it runs, then call it once.
    private: None means as private as the model, False shows a private model's weights. replace: take over
    a Space that this project did not make, or change its kind. read_token: what a Gradio Space reads a
    private model with.
    """
    if target not in TARGETS:
        raise PublishError(f"There is no target {target!r}: choose one of {', '.join(TARGETS)}.")
    wrap(check_name, model_repo_id)
    account, sdk = Account(token, endpoint, dry_run), TARGETS[target].sdk
    done = Published("space", account.full_name(repo_id))
    standing = None if dry_run else look(account, done, replace, sdk)
    model = "" if Path(model_repo_id).is_dir() else model_repo_id
    model = account.full_name(model) if model and "/" not in model else model
    with workplace(out) as place:
        files, revision, hidden = find_model(account, model, model_repo_id, sdk, dry_run)
        done.private = visibility(done.repo_id, model, hidden, private, standing)
        if hidden and sdk == "gradio" and standing is None and not read_token:
            raise PublishError(NO_SECRET.format(model=model, target=target))
        built = wrap(build_space_folder, done.repo_id, model, place, target, revision, files)
        if dry_run:
            say(f"This would be the Space {done.repo_id} on {target} "
                f"({TARGETS[target].price}):\n{show_tree(built)}")
            return done
        make(account, done, standing, target, read_token if hidden else None)
        send(account, done, built, replace)
    done.duplicate = f"{account.endpoint}/spaces/{done.repo_id}?duplicate=true"
    if wait:
        wait_until_running(account, done, poll)
        done.answer = call_once(account, done, sdk)
        say(f"It answers: {done.answer}" if done.answer else "It runs. It is private, so it was not called.")
    say(f"Your app: {done.address}\nAnyone's own copy, with one click: {done.duplicate}")
    return done


def workplace(out=None):
    """A folder to build in: the one that is asked for, which stays, or a temporary one."""
    return contextlib.nullcontext(Path(out)) if out else tempfile.TemporaryDirectory()


def wrap(build, *args, **kwargs) -> Path:
    """Call a builder; the ValueErrors of our own modules are sentences already."""
    try:
        return build(*args, **kwargs)
    except ValueError as error:
        raise PublishError(str(error)) from None
    except OSError as error:
        raise PublishError(f"A file could not be read or written ({error}): check the folder and the free "
                           "space.") from None


# ---- before anything is sent

def look(account: Account, done: Published, replace: bool, sdk: str | None = None) -> Standing | None:
    """The repo as it stands, or None if there is none; PublishError if it is not ours to change."""
    standing = stand(account, done)
    if standing is None or replace:
        return standing
    if standing.ours is None:
        raise PublishError(f"{done.repo_id} is there already, and this project did not make it: choose "
                           "another name, or say replace=True (--replace) to lose what is in it.")
    if sdk and standing.sdk not in (None, sdk):
        raise PublishError(f"The Space {done.repo_id} is of the kind {standing.sdk}: choose another name, "
                           f"or say replace=True (--replace) to make it one of the kind {sdk}.")
    return standing


def stand(account: Account, done: Published) -> Standing | None:
    """Ask the Hub what the repo holds, and who put it there."""
    def ask(call, **more):
        return account.ask(f"looking at {done.repo_id}", call, repo_id=done.repo_id, repo_type=done.kind,
                           **more)

    if not ask(account.api.repo_exists):
        return None
    info = ask(account.api.repo_info)
    files, ours = [file.rfilename for file in info.siblings], None
    if "README.md" in files:
        readme = ask(account.api.hf_hub_download, filename="README.md", revision=info.sha)
        ours = made_files(Path(readme).read_text(encoding="utf-8", errors="replace"))
    if ours is None:  # what the Hub itself puts into a new repo is nobody's work
        titles = [commit.title for commit in ask(account.api.list_repo_commits)]
        ours = files if titles == ["initial commit"] or set(files) <= {".gitattributes"} else None
    return Standing(info.sha, bool(info.private), getattr(info, "sdk", None), files, ours)


def visibility(name: str, model: str, hidden: bool, private: bool | None, standing: Standing | None) -> bool:
    """Whether the Space is to be private: as said, else as it is, never more open than its model."""
    if private is not None:
        if hidden and not private:
            say(f"Note: {model} is private, and the Space {name} shows it to everyone, as you said.")
        return private
    if hidden and standing and not standing.private:
        raise PublishError(f"{model} is private and the Space {name} is public: say private=True to hide "
                           "the Space, or private=False to show the model in it to everyone.")
    if hidden and not standing:
        say(f"Note: {model} is private, so the Space is private too (private=False shows it to everyone).")
    return standing.private if standing else hidden


def find_model(account: Account, model: str, given: str, sdk: str, dry_run: bool):
    """(folder with the model's files or None, its revision on the Hub or None, whether it is private)."""
    if not model:
        return Path(given), None, False
    if dry_run and sdk != "static":
        return None, None, False  # it names its model, nothing more
    info = account.ask(f"looking for the model {model}", account.api.model_info, model)
    if sdk != "static":
        return None, info.sha, bool(info.private)
    files = account.ask(f"fetching the model {model}", download, model, info.sha, endpoint=account.endpoint,
                        token=account.token or False)
    return files, info.sha, bool(info.private)


# ---- sending

def make(account: Account, done: Published, standing: Standing | None, target=None, secret=None) -> None:
    """Make the repo unless it is there, private from the start; a Space gets hardware and secret."""
    api, name, spec = account.api, done.repo_id, TARGETS.get(target)
    if standing is None:
        secrets = [{"key": "HF_TOKEN", "value": secret}] if secret else None
        extra = {"space_sdk": spec.sdk, "space_hardware": spec.hardware} if spec else {}
        account.ask(f"making the {done.kind} {name}", api.create_repo, name, repo_type=done.kind,
                    private=done.private or None, space_secrets=secrets, target=target, **extra)
        return
    if standing.private != done.private:
        seen = "private" if done.private else "public"
        say(f"The {done.kind} {name} becomes {seen}.")
        account.ask(f"making {name} {seen}", api.update_repo_settings, name, private=done.private,
                    repo_type=done.kind)
    if secret:
        account.ask(f"giving {name} its secret", api.add_space_secret, name, "HF_TOKEN", secret)
    if spec and spec.hardware:
        runtime = account.ask(f"looking at the Space {name}", api.get_space_runtime, name)
        if spec.hardware not in (runtime.hardware, runtime.requested_hardware):
            account.ask(f"choosing the hardware of {name}", api.request_space_hardware, name, spec.hardware,
                        target=target)


def send(account: Account, done: Published, folder: Path, replace: bool) -> None:
    """One commit that makes the repo equal to the folder, unless it is; fills in address, commit, changed.

    Not upload_folder: it may send several commits, and what it deletes is said by pattern, not by name.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    now, names = stand(account, done), files_in(folder)
    others = [name for name in now.files if name not in (*names, ".gitattributes")]
    stale = others if replace else [name for name in others if name in now.ours]
    if left := [name for name in others if name not in stale]:
        say(f"Left as they are, for this project did not make them: {', '.join(left)} (replace=True "
            "removes them).")
    size = sum((folder / name).stat().st_size for name in names)
    say(f"Sending {size / 1e6:,.1f} MB to {done.repo_id} ...")
    steps = [CommitOperationAdd(name, folder / name) for name in names]
    steps += [CommitOperationDelete(name, is_folder=False) for name in stale]
    sent = account.ask(f"uploading to {done.repo_id}", account.api.create_commit, done.repo_id, steps,
                       commit_message=f"The {done.kind}, from gpt2_gradio.ipynb", repo_type=done.kind,
                       parent_commit=now.sha)
    done.commit, done.changed = sent.oid, sent.oid != now.sha
    done.address = f"{account.endpoint}/{'spaces/' if done.kind == 'space' else ''}{done.repo_id}"
    if not done.changed:
        say("Nothing has changed since the last time: no commit.")


# ---- is it alive?

def wait_until_running(account: Account, done: Published, poll: float) -> None:
    """Follow the build; PublishError with the end of the log if it fails, or if it takes too long."""
    stage, began = None, time.monotonic()
    while (seconds := time.monotonic() - began) < PATIENCE:
        runtime = account.ask(f"waiting for {done.repo_id}", account.api.get_space_runtime, done.repo_id)
        if runtime.stage != stage:
            stage = runtime.stage
            say(f"  {seconds:5.0f} s  {stage}")
        if stage in BROKEN:
            raise PublishError(f"The Space does not run (stage {stage}). The end of its "
                               f"log:\n{log_end(account, done)}")
        if stage == "RUNNING" and runtime.raw.get("sha") in (None, done.commit):
            return
        time.sleep(poll)
    raise PublishError(f"The Space is still {stage} after {PATIENCE // 60} minutes: look at {done.address} "
                       "later.")


def log_end(account: Account, done: Published) -> str:
    """The last 15 lines of the build log, or of the app's own if the build left none."""
    for build in (True, False):
        log = account.ask("fetching the log", account.api.fetch_space_logs, done.repo_id, build=build)
        if lines := account.ask("fetching the log", "".join, log).strip().splitlines():
            return "\n".join(f"  {line}" for line in lines[-15:]).replace(account.token, "[token]")
    return "  (the log is empty)"


def call_once(account: Account, done: Published, sdk: str) -> str:
    """Use the live app as a visitor would: a Gradio app's API, a static page's files; "" if it is private.

    No token goes along: whoever runs the app's machine could keep it.
    """
    if done.private:
        return ""
    info = account.ask(f"looking for the address of {done.repo_id}", account.api.space_info, done.repo_id)
    call = call_static if sdk == "static" else call_gradio
    return account.ask(f"calling the app at {info.host}", call, info.host.rstrip("/"))


def call_gradio(host: str) -> str:
    from gradio_client import Client

    with contextlib.closing(Client(host, verbose=False, token=False, analytics_enabled=False)) as client:
        said = client.predict(prompt="", max_tokens=40, api_name="/generate")
    return repr(said["prompt"] + said["text"])


def call_static(host: str) -> str:
    page, config = (urllib.request.urlopen(f"{host}/{name}", timeout=30).read().decode("utf-8")
                    for name in ("index.html", "model/config.json"))
    title, shape = re.search(r"<title>(.*?)</title>", page), json.loads(config)
    layers = f"{shape['n_layer']} layers, width {shape['n_embd']}"
    return f"the page {title[1] if title else ''!r} with a model of {layers}"


# ---- the command

def arguments(argv=None):
    parser = argparse.ArgumentParser("python -m space.publish", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="publish a model folder")
    model.add_argument("folder", help="what training wrote: OUT_DIR/best")
    for name, what in (("license", "of the text, such as cc0-1.0"), ("origin", "where the text is from"),
                       ("language", "of the text, a code such as uk")):
        model.add_argument(f"--{name}", help=f"for the card: {what}; what is not said is not invented")
    space = commands.add_parser("space", help="publish the app for a model")
    about = "; ".join(f"{name}: {spec.price}" for name, spec in TARGETS.items())
    space.add_argument("--target", default="static", choices=list(TARGETS), help=about)
    space.add_argument("--no-wait", dest="wait", action="store_false", help="do not wait until it runs")
    for command in (model, space):
        command.add_argument("repo", help="owner/name, or a name under your own account")
        command.add_argument("--dry-run", action="store_true", help="build the folder, show it, send nothing")
        command.add_argument("--out", help="build in this folder and leave it there")
        command.add_argument("--replace", action="store_true", help="take over a repo that is not ours")
        seen = command.add_mutually_exclusive_group()
        seen.add_argument("--private", action="store_true", default=None, help="only you see it")
        seen.add_argument("--public", dest="private", action="store_false", help="all see it")
    space.add_argument("model", help="the model's repo, or a model folder that shall travel in the Space")
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """The command. Returns 1 after one sentence if something is wrong."""
    options = vars(arguments(argv))
    command, repo = options.pop("command"), options.pop("repo")
    try:
        if command == "model":
            publish_model(options.pop("folder"), repo, **options)
        else:
            secret = os.environ.get("SPACE_READ_TOKEN")
            publish_space(repo, options.pop("model"), read_token=secret, **options)
    except PublishError as error:
        say(error, sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("Stopped. Run it again to go on: files that arrived whole are not sent again.", sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
