"""data/shakespeare.py: the right text or a clear sentence."""

import hashlib

import pytest
import torch

from data import shakespeare, standin
from data import web as web_module
from data.files import DataError
from tests import texts

GOOD = b"To be the corpus, or not to be.\n" * 3000


@pytest.fixture(scope="module")
def one_server():
    server = texts.Server(GOOD)
    yield server
    server.close()


@pytest.fixture
def web(one_server, tmp_path, monkeypatch):
    """The loopback server, an empty place for the file, and GOOD as the right text."""
    one_server.asked.clear()
    monkeypatch.delenv("GPT2_DATA", raising=False)
    monkeypatch.delenv("GPT2_DATA_URL", raising=False)
    monkeypatch.setattr(shakespeare, "LOCAL_FILE", tmp_path / "input.txt")
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setattr(shakespeare, "SIZE", len(GOOD))
    return one_server


def kept():
    """Whether the right text, and nothing else, lies in its place."""
    path = shakespeare.LOCAL_FILE
    return path.read_bytes() == GOOD and list(path.parent.iterdir()) == [path]


# --- getting the text ---


def test_download_then_file(web, monkeypatch, capsys):
    """Catches a second download of what is there, a file that differs from what came, and no progress."""
    monkeypatch.setenv("GPT2_DATA_URL", web("404", "good"))
    assert shakespeare.find_text() == ("tinyshakespeare", GOOD.decode()) and kept()
    assert "downloading" in capsys.readouterr().err
    assert shakespeare.find_text(quiet=True)[1] == GOOD.decode()
    assert web.asked == ["/404", "/good"] and capsys.readouterr().err == ""


SHORT = {"hang": ("CONNECT_SECONDS", 0.5), "stall": ("READ_SECONDS", 0.6)}  # where nothing more will come


@pytest.mark.parametrize(("kind", "says"), [
    ("wrong", f"expected, {hashlib.sha256(GOOD[::-1]).hexdigest()} found"),
    ("short", f"{len(GOOD)} bytes expected and {len(GOOD) // 2} found"), ("cut", "IncompleteRead"),
    ("stall", "timed out"), ("hang", "no answer in 0.5 s"), ("500", "HTTP 500"), ("404", "HTTP 404"),
    ("endless", f"more than the {2 * len(GOOD)} bytes expected")])
def test_bad_download_says_why(kind, says, web, monkeypatch):
    """Catches a truncated, wrong, endless or stuck download being kept; "checksum error" without the two
    checksums; and writing in place: a good file stays.
    """
    shakespeare.LOCAL_FILE.write_bytes(GOOD)
    if kind in SHORT:
        monkeypatch.setattr(web_module, *SHORT[kind])
    body, (reason,) = shakespeare.download([web(kind)], quiet=True)
    assert body is None and kept() and web(kind) in reason and says in reason


def test_no_network_is_the_standin_within_seconds(web, monkeypatch, capsys):
    """Catches minutes of waiting, a silent switch, and a stand-in that is saved as Shakespeare."""
    monkeypatch.setattr(standin, "make", lambda: "a stand-in")
    monkeypatch.setenv("GPT2_DATA_URL", "http://127.0.0.1:9/input.txt http://nowhere.invalid/ " + web("hang"))
    monkeypatch.setattr(web_module, *SHORT["hang"])
    assert shakespeare.find_text(quiet=True) == ("standin", "a stand-in")
    said = capsys.readouterr().err
    assert all(words in said for words in ("STAND-IN", "no answer in 0.5 s", "127.0.0.1:9", "GPT2_DATA"))
    assert not shakespeare.LOCAL_FILE.exists()
    with pytest.raises(DataError, match="GPT2_DATA") as error:
        shakespeare.find_text(allow_standin=False, quiet=True)
    assert "\n" not in str(error.value)


def test_folder_that_cannot_be_written_still_gives_the_text(web, tmp_path, monkeypatch, capsys):
    """Catches a read-only checkout ending in a traceback, or in the stand-in."""
    monkeypatch.setenv("GPT2_DATA_URL", web("good"))
    monkeypatch.setattr(shakespeare, "LOCAL_FILE", tmp_path / "no such folder" / "input.txt")
    assert shakespeare.find_text(quiet=True)[0] == "tinyshakespeare"
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"other", b"", GOOD.replace(b"\n", b"\r\n"), GOOD])
def test_gpt2_data_is_used_or_refused(content, web, tmp_path, monkeypatch):
    """Catches another text than the one that the reader named: results would carry the wrong corpus."""
    shakespeare.LOCAL_FILE.write_bytes(b"broken" if content == GOOD else GOOD)
    monkeypatch.setenv("GPT2_DATA", str(tmp_path / "mine.txt"))
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    if content == GOOD:
        assert shakespeare.find_text()[1] == GOOD.decode() and web.asked == []
        monkeypatch.delenv("GPT2_DATA")
        with pytest.raises(DataError, match="input.txt.*expected.*found.*delete it"):
            shakespeare.find_text()  # a file cut off by hand is not used, and not overwritten
        return
    with pytest.raises(DataError, match="mine.txt.*GPT2_DATA") as error:
        shakespeare.load_corpus()
    assert "\n" not in str(error.value)


# --- the real text ---


def test_real_corpus(shakespeare):
    """Catches another split or encoding: every number of the project rests on these."""
    c = shakespeare
    assert (c.name, len(c.text), c.tokenizer.vocab_size, c.floor) == ("tinyshakespeare", 1_115_394, 65, None)
    assert c.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert (len(c.train), len(c.val)) == (1_003_854, 111_540) and c.train.dtype == c.val.dtype == torch.int64
    assert c.train_text + c.val_text == c.text
    assert c.tokenizer.decode(c.val) == c.val_text
    assert set(c.tokenizer.chars) == set(standin.SYMBOLS) == set(c.text)
