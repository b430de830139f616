"""What all tests share: no network, one thread a worker, the real text only where the settings name it."""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SLOW = os.environ.get("SLOW") == "1"  # also the repetitions whose kind a faster test holds
pytest_plugins = ["pages"]  # the fixtures of the static page

# before anything imports torch: two workers on two cores, one thread each
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

# No test reaches the network, not even through a notebook's kernel: every client, and every process started
# from here, is sent to a port where nobody listens. What runs on this machine itself stays reachable.
for name in ("http_proxy", "https_proxy", "all_proxy"):
    for spelling in (name, name.upper()):
        os.environ.pop(spelling, None)
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[name] = "http://127.0.0.1:9"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"

def missing_text():
    """Why the tests that need the real text cannot run here, or "" when they can."""
    named = os.environ.get("GPT2_DATA")
    if named and not Path(named).is_file():
        return f"GPT2_DATA names {named}, which is not there"
    if not named and not (ROOT / "data" / "input.txt").is_file():
        return "needs the real text: set GPT2_DATA to tinyshakespeare's input.txt (the tests do not download)"
    return ""


def missing_vocabulary():
    """Why the tests that need GPT-2's own BPE files cannot run here, or "" when they can."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if folder and Path(folder).is_dir() and any(Path(folder).iterdir()):
        return ""
    return "needs GPT-2's BPE files: set TIKTOKEN_CACHE_DIR to a folder where tiktoken has kept them"


NO_TEXT, NO_VOCABULARY = missing_text(), missing_vocabulary()
if NO_TEXT:
    os.environ.pop("GPT2_DATA", None)  # a path to nothing would be an error; the stand-in is wanted


def pytest_collection_modifyitems(items):
    """The longest first: nobody waits for a notebook at the end."""
    items.sort(key=lambda item: "runs_in_quick_mode" not in item.name)


@pytest.fixture(autouse=True)
def same_numbers():
    """Never red by luck: a test draws the same numbers alone, in the whole suite and in any order."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):  # only where it is in use: it reads OMP_NUM_THREADS once
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy to run in: a test must not replace what the reader has under build/ and runs/."""
    left_out = (".git", ".venv", "build", "out", "runs", "__pycache__", ".*_cache", "input.txt")
    folder = tmp_path_factory.mktemp("project") / "copy"
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))


@pytest.fixture(scope="session")
def shakespeare():
    """The real corpus; the test is skipped, with the reason, where it is not at hand."""
    if NO_TEXT:
        pytest.skip(NO_TEXT)
    from data.shakespeare import load_corpus

    return load_corpus(allow_standin=False, quiet=True)


@pytest.fixture(scope="session")
def gpt2_vocabulary():
    """The folder with GPT-2's BPE files; the test is skipped, with the reason, where it is not at hand."""
    if NO_VOCABULARY:
        pytest.skip(NO_VOCABULARY)
    return Path(os.environ["TIKTOKEN_CACHE_DIR"])
