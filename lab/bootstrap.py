"""Make .venv and put the pinned packages of pyproject.toml in it; `make` calls this before everything else.

It needs nothing but Python. A second call finds the stamp of the first and does nothing. What goes wrong is
said in one sentence.
"""

import errno
import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from data.files import ROOT, say, settings

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
LOG = VENV / "install.log"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"

UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries"
    r"|Connection (refused|reset|aborted)|Temporary failure|Network is unreachable|timed out|IncompleteRead")


class SetupError(Exception):
    """The environment cannot be made; the message is the one sentence for the user."""


def pins():
    """The exact versions of the `dev` extra, torch first."""
    return sorted(settings()["optional-dependencies"]["dev"], key=lambda pin: not pin.startswith("torch=="))


def stamp():
    """What decides whether the environment is still right: the pins, the Python and the place it lies in."""
    text = "\n".join(pins() + [platform.python_version(), platform.machine(), str(VENV)])
    return hashlib.sha256(text.encode()).hexdigest()


def make_environment():
    """Make or renew .venv; SetupError says why it could not be done."""
    if STAMP.is_file() and STAMP.read_text() == stamp() and PYTHON.exists():
        return
    say(f"Making the environment in {VENV} (once; some minutes):")
    if not usable():
        make_venv()
    LOG.write_text("")
    install_torch(pins()[0])
    install("the other packages", pins())
    STAMP.write_text(stamp())


def usable():
    """Whether .venv holds this very version of Python, with pip."""
    if not PYTHON.exists():
        return False
    question = "import pip, platform; print(platform.python_version())"
    done = subprocess.run([str(PYTHON), "-c", question], capture_output=True, text=True)
    return done.stdout.strip() == platform.python_version()


def make_venv():
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "ensurepip is not available" in done.stdout:
        raise SetupError("This Python cannot make environments: install its venv package (Debian: "
                         "python3-venv).")
    if done.returncode:
        raise SetupError(explain(done.stdout, "the environment"))


def install_torch(pin):
    """torch first and alone. Without an NVIDIA driver the small CPU build is tried once, then any."""
    if platform.system() == "Linux" and not has_nvidia():
        once = ("--index-url", CPU_WHEELS, "--timeout", "10", "--retries", "0")
        try:
            return install(f"{pin}, CPU build", [pin], *once)
        except SetupError:
            say("  PyTorch's own index did not deliver; going on with the ordinary one")
    return install(pin, [pin])


def has_nvidia():
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def install(what, packages, *options):
    """pip install, its words in the log; SetupError in one sentence."""
    say(f"  {what}")
    command = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check"]
    pip = subprocess.run([*command, *options, *packages], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, errors="replace")
    with LOG.open("a", encoding="utf-8", errors="replace") as log:
        log.write(pip.stdout)
    if pip.returncode:
        raise SetupError(explain(pip.stdout, what))


def explain(text, what):
    """One sentence for what pip, or venv, printed."""
    if "No space left on device" in text or "Errno 28" in text:
        return f"The disk is full: {what} did not fit in {VENV}; make room, then try again."
    if UNREACHABLE.search(text):
        return ("The package index cannot be reached: check the network, or pip's own settings, then try "
                "again.")
    if missing := re.search(r"No matching distribution found for (\S+)", text):
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return (f"pip finds no {missing[1]} for {here}: check that it reaches an index, "
                "or use Python 3.11 to 3.13.")
    lines = text.splitlines() or ["no reason given"]
    error = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
    return f"Installing {what} failed: {error.replace('ERROR: ', '').strip()} (all of it is in {LOG})."


def main():
    """Make the environment; exit status 0, or 1 with one sentence."""
    try:
        with open(ROOT / "pyproject.toml") as held:  # another `make` that installs is waited for
            fcntl.flock(held, fcntl.LOCK_EX)
            make_environment()
        return 0
    except SetupError as error:
        say(error, sys.stderr)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        say("The disk is full: make room, then try again." if full else error, sys.stderr)
    except KeyboardInterrupt:
        say("Stopped; the next try goes on from here.", sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
