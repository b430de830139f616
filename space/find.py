"""Which model the third notebook ships: the one that the reader names, the newest one trained here, or,
plainly as a rehearsal, the project's own. It is never guessed that somebody else's model is the reader's.
"""

import os
from pathlib import Path

from data.files import say
from space.account import Account, PublishError, without_reader
from space.folder import FolderError, download

OWN = Path(__file__).resolve().parent / "model"
QUESTION = ("Your model: a folder, a folder on Drive, or you/name on the Hub. Empty: rehearse with the "
            "project's own. ")


def choose_model(named: str = "", ask=None) -> tuple[Path, bool]:
    """(model folder, whether it is the reader's own).

    named: a folder, or owner/name on the Hub, also a private one; "" looks for what was trained here,
    then asks the reader, who may answer nothing. A run without a reader is not asked. FolderError for a
    name that leads nowhere.
    """
    if named:
        return fetch(named), True
    if found := trained():
        return found, True
    while answer := (ask or ask_reader)(QUESTION).strip():
        try:
            return fetch(answer), True
        except FolderError as error:
            say(error)
    say("No model of yours: the project's own small one stands in, as a rehearsal. It is not published as "
        "yours.")
    return Path(os.path.relpath(OWN)), False  # short, as it is printed


def trained() -> Path | None:
    """The newest best/ of a run on this machine; small trial runs ("quick", "...-quick") do not count."""
    found = [path for place in ("out", "runs") for path in Path(place).glob("*/best/model.safetensors")
             if path.parts[1].split("-")[-1] != "quick" and not without_reader()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def ask_reader(question: str) -> str:
    """The reader's answer; "" where nobody can be asked."""
    try:
        return "" if without_reader() else input(question)
    except Exception:  # a kernel without a keyboard: each front end has its own kind of error
        return ""


def fetch(named: str) -> Path:
    """The folder of a path (or of its best/), or of a repo on the Hub. FolderError in one sentence."""
    path = Path(os.path.expanduser(named))
    for folder in (path, path / "best"):
        if (folder / "config.json").is_file():
            return folder
    if path.is_dir():
        raise FolderError(f"{path} holds no model: give the folder that training wrote, for instance "
                          "out/mine/best.")
    if str(path).startswith("/content/drive") and not os.path.ismount("/content/drive"):
        raise FolderError("Drive is not mounted: run `from google.colab import drive; "
                          "drive.mount('/content/drive')`.")
    if path.is_absolute() or named.count("/") != 1 or named.startswith("."):
        raise FolderError(f"There is no folder {named}: check the path, or give owner/name of a model on "
                          "the Hub.")
    account = Account(dry_run=True)
    account.announce()
    try:
        return account.ask(f"fetching {named}", download, named, token=account.token or False,
                           endpoint=account.endpoint)
    except PublishError as error:
        raise FolderError(error) from None
