"""data/tokenizer.py: any text in, the same text out, and the same ids in other people's libraries."""

import json
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from data.tokenizer import STAND_FOR, BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer

SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LINES = "KING:\nO, what's  this -- a 'gentle' breeze?\n\n\n Nay; 3 & $!\n"


@pytest.fixture
def tok():
    return CharTokenizer.from_text(SYMBOLS)


def any_text(rng, length=200):
    """Random characters from all of Unicode, lone surrogates and combining marks among them."""
    pools = [(0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x2000, 0x2070), (0xD800, 0xE000), (0, 0x110000)]
    return "".join(chr(rng.randrange(*rng.choice(pools))) for _ in range(length))


# --- characters ---


def test_round_trip_is_exact(tok):
    """Catches a vocabulary in hash order, and spaces or line ends that are merged, stripped or changed."""
    assert tok.chars == sorted(SYMBOLS) and tok.vocab_size == 65
    ids = tok.encode(LINES)
    assert tok.decode(ids) == LINES and len(ids) == len(LINES)
    assert tok.encode(tok.decode(list(range(65)))) == list(range(65))
    assert tok.encode("") == [] and tok.decode([]) == "" and tok.dropped("") == []


def test_encode_takes_any_unicode(tok):
    """Catches any exception on user input, and a loss that is not reported. False pass: a rare
    letter above U+3000.
    """
    rng = random.Random(0)
    for _ in range(50):
        text = any_text(rng)
        ids = tok.encode(text)
        assert all(0 <= i < 65 for i in ids)
        assert set(tok.dropped(text)) <= set(text)
        assert tok.encode(tok.decode(ids)) == ids
    for c in map(
        chr, range(0x3000)
    ):  # each alone: what is not reported must have left something, or be an accent
        if not tok.encode(c) and c not in tok.dropped(c):
            assert STAND_FOR.get(c) == [""] or unicodedata.category(c) == "Mn", ascii(c)
        if tok.encode(c):
            assert tok.dropped(c) == [], ascii(c)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("\u2018tis \u2019twas\u2019", "'tis 'twas'"),
        ("\u201cHark\u201d", "'Hark'"),
        ("wait\u2014now \u2013 so\u2026", "wait--now - so..."),
        ("one\r\ntwo\rthree\tfour\u00a0five", "one\ntwo\nthree four five"),
        ("caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m na\u00efve", "cafe cafe Angstrom naive"),
        ("\u00c6sir stra\u00dfe \u0152uvre \ufb01n", "Aesir strasse Oeuvre fin"),
        ("\ufeffKING\u200b", "KING"),
        ("\uff2b\uff49\uff4e\uff47", "King"),
        ("\u00e92", "e"),
        ("(4) \U0001f600 \u0416", "  "),
    ],
)
def test_what_stands_for_what(tok, given, kept):
    """Catches a mapping that got lost: a visitor's phone types these, and a prompt must not lose
    its quotes.
    """
    assert tok.decode(tok.encode(given)) == kept


def test_dropped_names_what_is_lost_once_and_in_order(tok):
    """Catches silence about lost characters, and complaints about those that were mapped."""
    assert tok.dropped("\u00e92 + 2 = 4\U0001f600\r\n\u2026\u201d") == ["2", "+", "=", "4", "\U0001f600"]
    assert tok.dropped(LINES) == []
    assert tok.dropped("\u00bd") == ["\u00bd"], "half of a half is nonsense: all of it goes"
    assert tok.dropped("\ud800") == ["\ud800"] and tok.encode("\ud800") == []


def test_line_end_stays_where_the_vocabulary_has_it():
    """Catches a mapping that overrules the vocabulary: what is in it is never replaced."""
    own = CharTokenizer.from_text("a\r\n\u2019'\t")
    text = "a\r\na\t\u2019"
    assert own.decode(own.encode(text)) == text and own.dropped(text) == []
    flat = CharTokenizer.from_text("ab ")
    assert flat.decode(flat.encode("a\r\nb\n")) == "a b "


@pytest.mark.parametrize("bad", [65, -1, 10**9])
def test_decode_names_the_bad_id(tok, bad):
    """Catches a wrong character for a negative id (Python counts from the end), and an IndexError
    without the id.
    """
    with pytest.raises(ValueError, match=f"id {bad} .*0 to 64"):
        tok.decode([1, bad])


def test_decode_takes_what_models_give(tok):
    """Catches arrays and tensors being refused, and two rows or fractions being taken for one text."""
    torch = pytest.importorskip("torch")
    ids = tok.encode("hello")
    assert tok.decode(torch.tensor(ids)) == tok.decode(iter(ids)) == "hello"
    assert tok.decode(torch.tensor(ids[0])) == "h"
    for wrong in (torch.tensor([ids]), [1.5], ["1"]):
        with pytest.raises(ValueError, match="flat"):
            tok.decode(wrong)


@pytest.mark.parametrize(
    ("alphabet", "starts"),
    [
        (SYMBOLS, "\n"),
        ("\tab cd", " "),
        ("\t.!ab", "."),
        ("\t1ab", "a"),
        ("\u4e00\u4e8c", "\u4e00"),
        ("12", "1"),
    ],
)
def test_an_empty_prompt_has_a_start(alphabet, starts):
    """Catches id 0 for every vocabulary: a TAB or a digit before the first word."""
    own = CharTokenizer.from_text(alphabet)
    assert own.decode([own.start_id]) == starts


def test_fingerprints_tell_vocabularies_apart(tok):
    """Catches a run that goes on with other ids for the same text."""
    assert (
        tok.fingerprint
        == CharTokenizer.from_text(SYMBOLS).fingerprint
        != CharTokenizer(tok.chars[::-1]).fingerprint
    )
    a, b = (BPETokenizer.train(LINES * n, 270) for n in (3, 4))
    assert (
        a.fingerprint != BPETokenizer.train(LINES * 3, 260).fingerprint
        and a.vocab_size == b.vocab_size == 270
    )


# --- files ---


def test_save_and_load(tok, tmp_path):
    """Catches ids that move between saving and loading, files left behind, and a mode that a web
    server cannot read.
    """
    tok.save(tmp_path / "new" / "folder", block_size=64)
    folder = tmp_path / "new" / "folder"
    assert CharTokenizer.load(folder) == tok == load_tokenizer(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 64
    assert (folder / "tokenizer.json").stat().st_mode & 0o044 == 0o044


def test_saved_ids_in_tokenizers(tok, tmp_path):
    """Catches a tokenizer.json that the real library reads with other ids, or whose decoding adds
    or drops spaces.
    """
    tokenizers = pytest.importorskip("tokenizers")
    tok.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (LINES, "  two  spaces \n\n\n", SYMBOLS, ""):
        ids = theirs.encode(text).ids
        assert ids == tok.encode(text)
        assert theirs.decode(ids) == text
    assert theirs.get_vocab_size() == 65
    assert theirs.encode("a\u00e9\U0001f600b").ids == tok.encode("ab"), "unknown characters must not raise"


def test_saved_ids_in_transformers(tok, tmp_path):
    """Catches transformers 5 forcing its own pre-tokenizer on model_type gpt2, which gives wrong
    ids in silence.
    """
    transformers = pytest.importorskip("transformers")
    tok.save(tmp_path, block_size=256)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 65}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (LINES, " a , b . \n", SYMBOLS):
        ids = theirs(text)["input_ids"]
        assert ids == tok.encode(text)
        assert theirs.decode(ids) == text
    assert theirs.model_max_length == 256


def test_interrupted_save_keeps_the_old_file(tok, tmp_path, monkeypatch):
    """Catches writing in place: a disk that fills up must not cost the file that was there."""
    tok.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        CharTokenizer.from_text("other").save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing"),
        (b"", "damaged"),
        (b'{"model": {"type": "BPE", "voc', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b'{"model": ' + b"[" * 100_000, "damaged"),
        (
            b'{"model": {"type": "BPE", "vocab": {"a": 0, "\xc2\x80": 1}, "merges": ["a b"]}}',
            "spells no byte",
        ),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 7}, "merges": ["a b"]}}', "ids are not 0 to 1"),
        (b'{"model": {"type": "BPE", "vocab": {"": 0, "b": 1}, "merges": ["a b"]}}', "ids are not"),
        (b'{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "WordPiece"),
        (b'{"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}', "another project"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 2}, "merges": []}}', "ids are not 0 to 1"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "damaged"),
        (b'{"model": {"type": "BPE", "vocab": {"ab": 0}, "merges": []}}', "not a character-level"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}', "byte 0 has no id"),
    ],
)
def test_bad_file_is_one_sentence(content, says, tmp_path):
    """Catches a traceback, or wrong ids in silence, for a file that is missing, cut off, or of
    another project.
    """
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=says) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_stands_alone_without_torch(tmp_path):
    """Catches an import that a Space's tree does not have."""
    (tmp_path / "data").mkdir()
    for name in ("__init__.py", "files.py", "tokenizer.py", "ngram.py"):
        (tmp_path / "data" / name).write_bytes((Path(__file__).parents[1] / "data" / name).read_bytes())
    code = "import sys, data.tokenizer, data.ngram; sys.exit(any(m in sys.modules for m in ('torch', 'lab')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0


# --- GPT-2's pieces ---

STRANGE = [
    LINES,
    "It's  what we'll   do,\n\n\tthen 1234 \u00e9t\u00e9 \u4e2d\u6587 \U0001f600\U0001f468\u200d\U0001f469",
    "<|endoftext|> is not special",
    "trailing   ",
    "",
    "\r\n\r\n\x00\x7f\u00a0",
]


@pytest.fixture(scope="module")
def bpe(gpt2_vocabulary):
    pytest.importorskip("tiktoken")
    return BPETokenizer()


@pytest.fixture(scope="module")
def bpe_folder(bpe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    bpe.save(folder)
    return folder


def test_bpe_is_total_and_exact(bpe):
    """Catches a special token smuggled in by the text, lone surrogates that raise, and padding ids
    that decode.
    """
    assert bpe.vocab_size == 50257
    for text in STRANGE:
        assert bpe.decode(bpe.encode(text)) == text and bpe.dropped(text) == []
    assert 50256 not in bpe.encode("<|endoftext|>")
    assert bpe.decode(bpe.encode("a\ud800")).startswith("a") and bpe.dropped("a\ud800") == ["\ud800"]
    with pytest.raises(ValueError, match="id 50257"):
        bpe.decode([50257])


@pytest.mark.parametrize("run", [" ", "\n", "\u3000"])
def test_a_million_spaces(run, bpe):
    """Catches tiktoken's PanicException, which is no Exception and ends a build of shards after hours."""
    text = "before" + run * 1_000_000 + "after"
    assert bpe.decode(bpe.encode(text)) == text
    assert bpe.encode("before" + run * 100 + "after") == bpe._enc.encode_ordinary(
        "before" + run * 100 + "after"
    )


def test_bpe_ids_in_tokenizers_and_transformers(bpe, bpe_folder):
    """Catches merges in the wrong order: common words survive that, rare ones get other ids."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    theirs = tokenizers.Tokenizer.from_file(str(bpe_folder / "tokenizer.json"))
    rng = random.Random(0)
    pieces = [bpe.decode([rng.randrange(50256)]) for _ in range(3000)]  # every region of the vocabulary
    for text in [*STRANGE, "".join(pieces), *pieces[:500]]:
        if "\ufffd" in text:
            text = text.replace("\ufffd", "?")
        assert theirs.encode(text).ids == bpe.encode(text), ascii(text)
        assert theirs.decode(bpe.encode(text)) == text
    auto = transformers.AutoTokenizer.from_pretrained(bpe_folder)
    assert auto(LINES)["input_ids"] == bpe.encode(LINES)
    assert auto.decode(bpe.encode(LINES)) == LINES


def test_bpe_loads_from_its_folder_without_a_download(bpe, bpe_folder, monkeypatch):
    """Catches a model folder that needs the internet although everything lies in it."""
    import tiktoken

    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: pytest.fail("asked for a download"))
    again = load_tokenizer(bpe_folder)
    assert isinstance(again, BPETokenizer) and again.vocab_size == 50257
    for text in STRANGE:
        assert again.encode(text) == bpe.encode(text)


def test_bpe_offline_is_one_sentence(tmp_path):
    """Catches a page of requests' traceback where the BPE files are absent and nothing can be downloaded."""
    pytest.importorskip("tiktoken")
    code = "from data.tokenizer import *\ntry: BPETokenizer()\nexcept TokenizerError as e: print(e)"
    env = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "internet" in done.stdout and "TIKTOKEN_CACHE_DIR" in done.stdout and done.stdout.count("\n") == 1
