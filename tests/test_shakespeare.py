"""data/shakespeare.py: the right text or a clear sentence, and windows that miss nothing."""

import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from data import shakespeare, standin
from data.shakespeare import (
    DataError,
    batch_starts,
    corpus_from_file,
    corpus_from_text,
    eval_windows,
    get_batch,
    shuffled_batch,
    split,
)
from data.tokenizer import CharTokenizer

TEXT = ("Any text will do for this, as long as it is long enough.\n" * 40)[:1999]
GOOD = b"To be the corpus, or not to be.\n" * 3000


class Server:
    """A server on this machine that answers each path in one way of going right or wrong."""

    def __init__(self):
        outer, self.asked = self, []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.asked.append(self.path)
                self.answer(self.path.strip("/"))

            def answer(self, kind):
                if kind == "hang":
                    return outer.stop.wait(20)
                if kind.isdigit():
                    return self.send_error(int(kind))
                if kind == "once-broken":  # breaks off the first time only
                    kind = "cut" if outer.asked.count(self.path) == 1 else "good"
                self.send_response(200)
                if kind != "short":
                    self.send_header("Content-Length", str(len(GOOD)))
                self.end_headers()
                body = {"wrong": GOOD[::-1], "cut": GOOD[:50_000], "short": GOOD[:50_000], "stall": GOOD[:50_000]}
                self.wfile.write(body.get(kind, GOOD))
                if kind == "endless":
                    for _ in range(100):
                        self.wfile.write(GOOD)
                if kind == "stall":
                    self.wfile.flush()
                    outer.stop.wait(20)

        self.stop = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __call__(self, *kinds):
        return " ".join(f"http://127.0.0.1:{self.http.server_port}/{kind}" for kind in kinds)


@pytest.fixture(scope="module")
def one_server():
    server = Server()
    yield server
    server.stop.set()
    server.http.shutdown()


@pytest.fixture
def web(one_server, tmp_path, monkeypatch):
    """The loopback server, an empty place for the file, GOOD as the right text, and short time-outs."""
    one_server.asked.clear()
    monkeypatch.delenv("GPT2_DATA", raising=False)
    monkeypatch.delenv("GPT2_DATA_URL", raising=False)
    monkeypatch.setattr(shakespeare, "LOCAL_FILE", tmp_path / "input.txt")
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setattr(shakespeare, "SIZE", len(GOOD))
    monkeypatch.setattr(shakespeare, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(shakespeare, "IMPATIENT_SECONDS", 0.2)
    monkeypatch.setattr(shakespeare, "READ_SECONDS", 0.5)
    return one_server


def folder_of(path):
    return sorted(p.name for p in path.parent.iterdir())


# --- getting the text ---


def test_download_then_file(web, monkeypatch, capsys):
    """Catches a second download of what is already there, a file that differs from what came, and no progress."""
    monkeypatch.setenv("GPT2_DATA_URL", web("good"))
    assert shakespeare.find_text() == ("tinyshakespeare", GOOD.decode())
    assert shakespeare.LOCAL_FILE.read_bytes() == GOOD and folder_of(shakespeare.LOCAL_FILE) == ["input.txt"]
    assert "downloading" in capsys.readouterr().err
    assert shakespeare.get_text(quiet=True) == GOOD.decode()
    assert web.asked == ["/good"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("first", ["wrong", "cut", "short", "stall", "hang", "500", "404", "endless"])
def test_next_address_after_a_bad_one(first, web, monkeypatch):
    """Catches a truncated, wrong, endless or stuck download being kept, or ending the search."""
    monkeypatch.setenv("GPT2_DATA_URL", web(first, "good"))
    start = time.monotonic()
    assert shakespeare.get_text(quiet=True) == GOOD.decode()
    assert time.monotonic() - start < 5
    assert shakespeare.LOCAL_FILE.read_bytes() == GOOD and folder_of(shakespeare.LOCAL_FILE) == ["input.txt"]


@pytest.mark.parametrize("kind", ["wrong", "cut", "short", "500"])
def test_bad_download_never_replaces_a_good_file(kind, web):
    """Catches writing in place: whatever comes from the network, the file that was there stays."""
    shakespeare.LOCAL_FILE.write_bytes(GOOD)
    body, reasons = shakespeare.download(web(kind).split(), quiet=True)
    assert body is None and len(reasons) == 1 and kind in reasons[0]
    assert shakespeare.LOCAL_FILE.read_bytes() == GOOD and folder_of(shakespeare.LOCAL_FILE) == ["input.txt"]


def test_tries_again_where_that_can_help(web):
    """Catches a lost connection ending in the stand-in, and patience with a plain "not found"."""
    assert shakespeare.download([web("once-broken")], quiet=True)[0] == GOOD
    assert web.asked == ["/once-broken"] * 2
    web.asked.clear()
    shakespeare.download([web("404")], quiet=True)
    assert web.asked == ["/404"]


def test_reason_says_expected_and_found(web):
    """Catches "checksum error" without the two checksums."""
    _, (reason,) = shakespeare.download([web("wrong")], quiet=True)
    assert hashlib.sha256(GOOD).hexdigest() in reason and hashlib.sha256(GOOD[::-1]).hexdigest() in reason
    _, (reason,) = shakespeare.download([web("short")], quiet=True)
    assert f"{len(GOOD)} bytes expected and 50000 found" in reason


def test_no_network_is_the_standin_within_seconds(web, monkeypatch, capsys):
    """Catches minutes of waiting, a silent switch to another text, and a stand-in that is saved as Shakespeare."""
    monkeypatch.setattr(standin, "make", lambda: "a stand-in")
    monkeypatch.setenv("GPT2_DATA_URL", "http://127.0.0.1:9/input.txt http://nowhere.invalid/ " + web("hang"))
    start = time.monotonic()
    assert shakespeare.find_text(quiet=True) == ("standin", "a stand-in")
    assert time.monotonic() - start < 4
    said = capsys.readouterr().err
    assert "STAND-IN" in said and "127.0.0.1:9" in said and "GPT2_DATA" in said
    assert not shakespeare.LOCAL_FILE.exists()
    with pytest.raises(DataError, match="GPT2_DATA") as error:
        shakespeare.get_text(allow_standin=False, quiet=True)
    assert "\n" not in str(error.value)


def test_name_look_up_that_hangs_is_left_behind(web, monkeypatch):
    """Catches waiting for the system's resolver, which has no time-out in urllib: half a minute an address."""
    monkeypatch.setattr(shakespeare.urllib.request, "urlopen", lambda *_, **__: time.sleep(8))
    start = time.monotonic()
    body, reasons = shakespeare.download(quiet=True)
    assert body is None and len(reasons) == len(shakespeare.ADDRESSES) >= 2
    assert time.monotonic() - start < 2


def test_folder_that_cannot_be_written_still_gives_the_text(web, monkeypatch, capsys):
    """Catches a read-only checkout ending in a traceback, or in the stand-in."""
    monkeypatch.setenv("GPT2_DATA_URL", web("good"))
    monkeypatch.setattr(shakespeare, "LOCAL_FILE", shakespeare.LOCAL_FILE.parent / "no such folder" / "input.txt")
    assert shakespeare.find_text(quiet=True)[0] == "tinyshakespeare"
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["absent", "folder", "wrong", "empty", "crlf"])
def test_gpt2_data_is_used_or_refused(kind, web, tmp_path, monkeypatch):
    """Catches falling through to another text when the reader named one: results would carry the wrong corpus."""
    shakespeare.LOCAL_FILE.write_bytes(GOOD)
    named = tmp_path / "mine.txt"
    if kind == "folder":
        named.mkdir()
    elif kind != "absent":
        named.write_bytes({"wrong": b"other", "empty": b"", "crlf": GOOD.replace(b"\n", b"\r\n")}[kind])
    monkeypatch.setenv("GPT2_DATA", str(named))
    with pytest.raises(DataError, match="mine.txt.*GPT2_DATA") as error:
        shakespeare.load_corpus()
    assert "\n" not in str(error.value)


def test_gpt2_data_comes_first(web, tmp_path, monkeypatch):
    """Catches the order of places being turned round."""
    (tmp_path / "mine.txt").write_bytes(GOOD)
    shakespeare.LOCAL_FILE.write_bytes(b"broken")
    monkeypatch.setenv("GPT2_DATA", str(tmp_path / "mine.txt"))
    assert shakespeare.get_text() == GOOD.decode() and web.asked == []


def test_damaged_local_file_is_named_with_its_mend(web):
    """Catches a file cut off by hand being used, or overwritten without a word."""
    shakespeare.LOCAL_FILE.write_bytes(GOOD[:-1])
    with pytest.raises(DataError, match="input.txt.*expected.*found.*delete it"):
        shakespeare.get_text()


def test_addresses_are_the_canonical_one_and_mirrors():
    """Catches a lost mirror: three addresses at three hosts, encrypted."""
    assert "karpathy/char-rnn" in shakespeare.ADDRESSES[0]
    hosts = {address.split("/")[2] for address in shakespeare.ADDRESSES}
    assert len(hosts) == len(shakespeare.ADDRESSES) >= 2
    assert all(address.startswith("https://") for address in shakespeare.ADDRESSES)


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


def test_standin_corpus_knows_its_floor(monkeypatch, web):
    """Catches a stand-in that comes without its floor: the leak detector would be off."""
    monkeypatch.setenv("GPT2_DATA_URL", "http://127.0.0.1:9/")
    c = shakespeare.load_corpus(quiet=True)
    assert c.name == "standin" and len(c.val) == 111_540 and c.tokenizer.vocab_size == 65
    assert c.floor == standin.floor()[0] and 0 < c.floor_se < 0.01


# --- a reader's own text ---


def test_own_file(tmp_path):
    """Catches a byte-order mark or Windows line ends becoming symbols, and the file's name getting lost."""
    path = tmp_path / "poem.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    c = corpus_from_file(path, block_size=8)
    assert c.text == TEXT and c.name == "poem.txt" and c.floor is None
    assert c.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert (len(c.train_text), len(c.val_text)) == (1799, 200)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"caf\xe9 " * 100, "not UTF-8 text .byte 3"),
        (b"", "0 characters"),
        (b"a short text", "12 characters.*smaller context"),
    ],
)
def test_bad_own_file_is_one_sentence(content, says, tmp_path):
    """Catches UnicodeDecodeError, or a crash in the first batch, where a sentence with the file's name belongs."""
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        corpus_from_file(path, block_size=32)
    assert "mine.txt" in str(error.value) and "\n" not in str(error.value)


def test_symbols_that_the_vocabulary_lacks():
    """Catches fine-tuning on a text whose foreign symbols are dropped in silence."""
    with pytest.raises(DataError, match=r"mine has 2 symbols.*'\\xe9'.*'\\u20ac'"):
        corpus_from_text(TEXT + "\u00e9\u20ac", "mine", CharTokenizer.from_text(TEXT))
    assert corpus_from_text(TEXT, "mine", CharTokenizer.from_text(TEXT + "xyz")).tokenizer.vocab_size > len(set(TEXT))
    with pytest.raises(DataError, match="surrogate|symbols"):
        corpus_from_text(TEXT + "\ud800", "mine")


@pytest.mark.parametrize("block_size", [1, 8, 100, 1024])
def test_shortest_text_is_long_enough(block_size):
    """Catches an error that asks for n characters and then refuses n."""
    with pytest.raises(DataError) as error:
        corpus_from_text("ab", "tiny", block_size=block_size)
    need = int(str(error.value).split("use a text of ")[1].split()[0])
    c = corpus_from_text("ab" * need, "enough", block_size=block_size)
    c = corpus_from_text(c.text[:need], "enough", block_size=block_size)
    get_batch(c.train, block_size, 4, 0, 0)
    list(eval_windows(c.val, block_size))


# --- windows ---


def test_split_is_nine_tenths():
    """Catches round() for int(), and a gap or overlap between the parts."""
    for n in (0, 1, 19, 1_115_394):
        a, b = split(range(n))
        assert a == range(int(0.9 * n)) and b == range(int(0.9 * n), n)


def test_batch_is_a_pure_function_of_seed_and_step():
    """Catches hidden state: a resumed run, or a second process, would see other data."""
    ids = torch.arange(1000)
    x, y = get_batch(ids, 8, 4, seed=3, step=7)
    torch.manual_seed(0)
    np.random.seed(0)
    get_batch(ids, 8, 4, seed=3, step=8)
    again = get_batch(ids, 8, 4, seed=3, step=7)
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert torch.equal(y, x + 1) and x.shape == y.shape == (4, 8) and x.dtype == torch.int64
    assert x[:, 0].tolist() == [195, 732, 216, 542], "the draw itself changed: earlier results would not come again"
    larger = get_batch(ids, 8, 16, seed=3, step=7)
    assert torch.equal(larger[0][:4], x), "a slice of a larger batch"


def test_seeds_and_steps_give_other_batches():
    """Catches streams that overlap: step t of one seed must not be step t + 1 of another."""
    pairs = [(seed, step) for seed in range(8) for step in range(64)]
    starts = [tuple(batch_starts(10**6, 1, 8, *pair).tolist()) for pair in pairs]
    flat = [s for batch in starts for s in batch]
    assert len(set(starts)) == 512
    assert len(set(flat)) > 4060, "4,096 draws of a million: about 8 pairs by chance"


def test_every_legal_start_is_drawn_and_no_other():
    """Catches the last window lost to an exclusive bound, and one past the end. False alarm: under 1e-20."""
    ids, block = torch.arange(20), 8
    seen = [0] * 20
    for step in range(200):
        x, y = get_batch(ids, block, 8, 0, step)
        for s in x[:, 0].tolist():
            seen[s] += 1
        assert y.max() <= 19
    assert [s for s, n in enumerate(seen) if n] == list(range(12))
    expected = 1600 / 12
    chi2 = sum((n - expected) ** 2 / expected for n in seen[:12])
    assert chi2 < 45, "even over all starts; 45 for 11 degrees of freedom is p < 1e-5"


def test_batch_from_an_array_on_disk(tmp_path):
    """Catches token shards (uint16, memory-mapped) being refused, or overflowing."""
    np.save(tmp_path / "ids.npy", np.arange(50_000, 50_200, dtype=np.uint16))
    x, y = get_batch(np.load(tmp_path / "ids.npy", mmap_mode="r"), 8, 4, 0, 0)
    assert x.dtype == torch.int64 and torch.equal(y, x + 1) and x.min() >= 50_000


def test_bad_batch_requests_are_clear():
    """Catches numpy's own words for a text shorter than one window."""
    assert get_batch(torch.arange(9), 8, 2, 0, 0)[1][:, -1].tolist() == [8, 8], "exactly one window fits"
    with pytest.raises(DataError, match="8 symbols.*need 9"):
        get_batch(torch.arange(8), 8, 2, 0, 0)
    with pytest.raises(DataError, match="seed and step"):
        get_batch(torch.arange(90), 8, 2, -1, 0)


CASES = [(2, 8, 1), (9, 8, 4), (10, 8, 4), (100, 7, 3), (113, 8, 64), (8, 1, 2)]


@pytest.mark.parametrize(("length", "block", "batch"), CASES)
def test_eval_windows_score_every_target_once(length, block, batch):
    """Catches a lost tail, a doubled edge, or a first target without context: the loss would not be exact."""
    ids = torch.arange(length)
    targets, inputs = [], []
    for x, y in eval_windows(ids, block, batch):
        assert x.shape == y.shape and x.ndim == 2 and x.shape[0] <= batch and x.shape[1] <= block
        assert torch.equal(y, x + 1)
        inputs += x.flatten().tolist()
        targets += y.flatten().tolist()
    assert targets == list(range(1, length)) and inputs == list(range(length - 1))
    with pytest.raises(DataError, match="nothing to predict"):
        list(eval_windows(ids[:1], block, batch))


# --- what data/README.md says about the split ---


def speeches(text):
    """The speaker of each speech: the first line of a block, where it ends in a colon."""
    return [block.split("\n")[0][:-1] for block in text.split("\n\n") if block.split("\n")[0].endswith(":")]


def test_readme_tells_the_truth_about_the_split(shakespeare):
    """Catches a caveat that is folklore: each figure of data/README.md is measured here."""
    c, readme = shakespeare, (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    known, spoken = set(speeches(c.train_text)), speeches(c.val_text)
    strangers = [name for name in spoken if name not in known]
    said = f"{len(spoken)} speeches by {len(set(spoken))} speakers. {len(set(strangers))} of these never speak"
    assert said in " ".join(readme.split())
    assert f"{len(strangers)} speeches: {len(strangers) / len(spoken):.0%}" in " ".join(readme.split())
    for name, _ in Counter(strangers).most_common(5):
        assert name in readme
    shrew = c.val_text.index("Master:\nBoatswain!")  # where The Tempest begins
    assert f"{shrew:,}" in readme and f"{len(c.val) - shrew:,}" in readme
    assert sorted(set(c.text) - set(c.val_text)) == ["$", "&", "3", "X"] and set(c.train_text) == set(c.text)
    assert [s for s in c.tokenizer.chars if s.isdigit()] == ["3"]
    assert shared(c, 50) == 0 and round(shared(c, 20), 3) == 0.002


def shared(c, width):
    """Share of validation's strings of `width` characters that occur in train, by a 64-bit rolling hash."""

    def hashes(ids):
        size, out = len(ids) - width + 1, 0
        for i in range(width):
            out = out * np.uint64(6364136223846793005) + ids[i : i + size]
        return out

    train, val = (part.numpy().astype(np.uint64) for part in (c.train, c.val))
    return np.isin(hashes(val), hashes(train)).mean()


def test_readme_table_is_from_results():
    """Catches a table that was edited by hand, or left behind by a new measurement."""
    root = Path(__file__).parents[1]
    readme = (root / "data" / "README.md").read_text(encoding="utf-8").replace("**", "")
    saved = json.loads((root / "results" / "ngram.json").read_text(encoding="utf-8"))
    for title, key in (("validation", "val_loss"), ("training", "train_loss")):
        assert f"| {title} | " + " | ".join(f"{row[key]:.3f}" for row in saved["rows"]) + " |" in readme
    unseen = " | ".join(["0%", *(f"{row['unseen']:.1%}" for row in saved["rows"][1:])])
    assert f"| strings never seen | {unseen} |" in readme
    in_windows = [f"{saved['windows_5gram'][size]:.3f}" for size in ("8", "32", "64", "128")]
    assert f"{', '.join(in_windows[:3])} and {in_windows[3]}" in " ".join(readme.split())


def test_readme_knows_the_standin():
    """Catches figures of an earlier grammar."""
    root = Path(__file__).parents[1]
    readme = " ".join((root / "data" / "README.md").read_text(encoding="utf-8").split())
    saved = json.loads((root / "results" / "ngram_standin.json").read_text(encoding="utf-8"))
    assert f"{saved['floor']:.3f} nats a character on validation (standard error {saved['floor_se']:.3f};" in readme
    marks = [f"{row['val_loss']:.3f}" for row in saved["rows"][2:7]]
    assert f"{', '.join(marks[:4])} and {marks[4]} with 2 to 6 letters" in readme


@pytest.mark.parametrize("length", [1000, 1005, 1009])
def test_an_epoch_shows_each_window_once(length):
    """A window that comes twice in an epoch, a target beyond the text, or a tenth of the text that never comes."""
    ids = torch.arange(length)
    windows = (length - 10) // 10
    x, y = shuffled_batch(ids, 10, windows, seed=3, step=0)  # a whole epoch in one batch
    seen = x.flatten().tolist()
    assert len(seen) == len(set(seen)) == 10 * windows > length - 20
    assert torch.equal(y, x + 1) and y.max() < length


def test_epochs_differ_and_batches_do_not_depend_on_their_size():
    """One order for all epochs, an order that ignores the seed, or a step that forgets where it stands in the epoch."""
    ids = torch.arange(1000)
    first, second = (shuffled_batch(ids, 10, 99, 3, step)[0] for step in (0, 1))
    assert not torch.equal(first, second) and not torch.equal(first, shuffled_batch(ids, 10, 99, 4, 0)[0])
    parts = [shuffled_batch(ids, 10, 33, 3, step)[0] for step in range(6)]
    assert torch.equal(torch.cat(parts), torch.cat((first, second)))


def test_a_text_of_one_window_can_be_shuffled():
    """Division by nothing where the text is hardly longer than the context."""
    x, y = shuffled_batch(torch.arange(12), 10, 4, 0, 7)
    assert x.shape == y.shape == (4, 10)
