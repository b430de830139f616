"""data/tokenizer.py: any text in, the same text out, and the same ids in other people's libraries."""

import json
import os
import random
import subprocess
import sys
import unicodedata

import pytest
import torch
from conftest import ROOT

from data.tokenizer import STAND_FOR, BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer

SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LINES = "KING:\nO, what's  this -- a 'gentle' breeze?\n\n\n Nay; 3 & $!\n"


@pytest.fixture(scope="module")
def tok():
    return CharTokenizer.from_text(SYMBOLS)


# --- characters ---


def test_round_trip_is_exact(tok):
    """Catches a vocabulary in hash order, and spaces or line ends that are merged, stripped or changed."""
    assert tok.chars == sorted(SYMBOLS) and tok.vocab_size == 65
    assert tok.decode(tok.encode(LINES)) == LINES and tok.dropped(LINES) == []
    assert tok.encode(tok.decode(range(65))) == list(range(65))
    assert tok.encode("") == [] and tok.decode([]) == "" and tok.dropped("") == []


def test_encode_takes_any_unicode(tok):
    """Catches any exception on user input, and a loss that is not reported."""
    rng = random.Random(0)
    pools = [(0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x2000, 0x2070), (0xD800, 0xE000), (0, 0x110000)]
    for _ in range(50):
        text = "".join(chr(rng.randrange(*rng.choice(pools))) for _ in range(200))
        ids = tok.encode(text)
        assert set(tok.dropped(text)) <= set(text) and tok.encode(tok.decode(ids)) == ids
    for c in map(chr, range(0x3000)):  # each is kept or reported, but for accents and what stands for nothing
        silent = tok.encode(c) or STAND_FOR.get(c) == ("",) or unicodedata.category(c) == "Mn"
        assert tok.dropped(c) == ([] if silent else [c]), ascii(c)
    assert tok.dropped("\u00e92 + 2 = 4\U0001f600\r\n\u2026\u201d") == ["2", "+", "=", "4", "\U0001f600"]
    assert tok.dropped("\u00bd") == ["\u00bd"], "half of a half is nonsense: all of it goes"


@pytest.mark.parametrize(("given", "kept"), [
    ("\u2018tis \u2019twas\u2019", "'tis 'twas'"), ("\u201cHark\u201d", "'Hark'"),
    ("wait\u2014now \u2013 so\u2026", "wait--now - so..."),
    ("one\r\ntwo\rthree\tfour\u00a0five", "one\ntwo\nthree four five"),
    ("caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m na\u00efve", "cafe cafe Angstrom naive"),
    ("\u00c6sir stra\u00dfe \u0152uvre \ufb01n", "Aesir strasse Oeuvre fin"), ("\ufeffKING\u200b", "KING"),
    ("\uff2b\uff49\uff4e\uff47", "King"), ("(4) \U0001f600 \u0416", "  ")])
def test_what_stands_for_what(tok, given, kept):
    """Catches a mapping that got lost: a visitor's phone types these."""
    assert tok.decode(tok.encode(given)) == kept


def test_what_the_vocabulary_has_is_never_replaced():
    """Catches a mapping that overrules the vocabulary, and line ends lost where it has none."""
    own = CharTokenizer.from_text("a\r\n\u2019'\t")
    text = "a\r\na\t\u2019"
    assert own.decode(own.encode(text)) == text and own.dropped(text) == []
    flat = CharTokenizer.from_text("ab ")
    assert flat.decode(flat.encode("a\r\nb\n")) == "a b "


def test_decode_takes_what_models_give(tok):
    """Catches tensors being refused, two rows taken for one text, a negative id read from the end."""
    ids = tok.encode("hello")
    assert tok.decode(torch.tensor(ids)) == tok.decode(iter(ids)) == "hello"
    assert tok.decode(torch.tensor(ids[0])) == "h"
    for wrong in (torch.tensor([ids]), [1.5], ["1"]):
        with pytest.raises(ValueError, match="flat"):
            tok.decode(wrong)
    for bad in (65, -1):
        with pytest.raises(ValueError, match=f"id {bad} .*0 to 64"):
            tok.decode([1, bad])


@pytest.mark.parametrize(("alphabet", "starts"), [
    (SYMBOLS, "\n"), ("\tab cd", " "), ("\t.!ab", "."), ("\t1ab", "a"), ("一二", "一"), ("12", "1")])
def test_an_empty_prompt_has_a_start(alphabet, starts):
    """Catches id 0 for every vocabulary: a TAB or a digit before the first word."""
    own = CharTokenizer.from_text(alphabet)
    assert own.decode([own.start_id]) == starts


# --- files ---


def test_interrupted_save_keeps_the_old_file(tok, tmp_path, monkeypatch):
    """Catches writing in place: a full disk costs the file that was there, a reader gets half of each."""
    tok.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    with open(tmp_path / "tokenizer.json", "rb") as reader:
        CharTokenizer.from_text("other").save(tmp_path)
        assert reader.read() == before
    tok.save(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        CharTokenizer.from_text("other").save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before and len(list(tmp_path.iterdir())) == 2


MODEL = b'{"model": {"type": "BPE", "vocab": {%s}, "merges": [%s]}}'


@pytest.mark.parametrize(("content", "says"), [
    (None, "is missing"), (b"", "damaged"), (b'{"model": {"type": "BPE", "voc', "damaged"),
    (b"\xff\xfe", "damaged"), (b"[]", "damaged"), (b'{"model": ' + b"[" * 100_000, "damaged"),
    (b'{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "WordPiece"),
    (MODEL % (b'"a": "0"', b""), "another project"), (MODEL % (b"", b""), "damaged"),
    (MODEL % (b'"ab": 0', b""), "not a character-level"),
    (MODEL % (b'"a": 0, "b": 2', b""), "ids are not 0 to 1"),
    (MODEL % (b'"a": 0, "b": 7', b'"a b"'), "ids are not 0 to 1"),
    (MODEL % (b'"": 0, "b": 1', b'"a b"'), "ids are not"),
    (MODEL % (b'"a": 0, "\xc2\x80": 1', b'"a b"'), "spells no byte"),
    (MODEL % (b'"a": 0, "b": 1', b'"a b"'), "byte 0 has no id")])
def test_bad_file_is_one_sentence(content, says, tmp_path):
    """Catches a traceback, or wrong ids in silence, for a file missing, cut off, or another's."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=says) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


# --- pieces: GPT-2's and a text's own ---

STRANGE = [LINES, "trailing   ", "", "\r\n\r\n\x00\x7f\u00a0", "<|endoftext|> is not special",
           "It's  what we'll   do,\n\n\tthen 1234 \u00e9t\u00e9 \u4e2d\u6587 "
           "\U0001f600\U0001f468\u200d\U0001f469"]


@pytest.fixture(scope="module")
def bpe(gpt2_vocabulary):
    return BPETokenizer()


@pytest.fixture(params=["char", "gpt2", "own"])
def anyone(request, tok):
    """Each of the three kinds, and texts that it takes unchanged."""
    if request.param == "char":
        return tok, [LINES, "  two  spaces \n\n\n", SYMBOLS, ""]
    if request.param == "own":
        return BPETokenizer.train(LINES * 3, 300), STRANGE
    bpe, rng = request.getfixturevalue("bpe"), random.Random(0)
    pieces = [bpe.decode([rng.randrange(50256)]).replace("\ufffd", "?") for _ in range(3000)]
    return bpe, [*STRANGE, "".join(pieces), *pieces[:500]]  # every region of the vocabulary


def test_saved_ids_are_the_same_elsewhere(anyone, tmp_path):
    """Catches a tokenizer.json that our loader, tokenizers or transformers reads with other ids: merges in
    wrong order, spaces that decoding adds, a pre-tokenizer that transformers 5 forces on model_type gpt2.
    """
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    ours, some = anyone
    ours.save(tmp_path, block_size=256)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": ours.vocab_size}))
    again, auto = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert (tmp_path / "tokenizer.json").stat().st_mode & 0o044 == 0o044, "a web server can read it"
    assert theirs.get_vocab_size() == ours.vocab_size and auto.model_max_length == 256
    assert again.fingerprint == ours.fingerprint and again.kind == ours.kind
    for text in some:
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids == again.encode(text), ascii(text)
        assert text == theirs.decode(ids) == ours.decode(ids), ascii(text)
    for text in some[:6]:
        assert auto(text)["input_ids"] == ours.encode(text) and auto.decode(ours.encode(text)) == text
    if ours.kind == "char":
        assert theirs.encode("a\u00e9\U0001f600b").ids == ours.encode("ab")


def test_bpe_is_total(bpe):
    """Catches a special token smuggled in by the text, surrogates that raise, padding ids that decode, and
    tiktoken's PanicException at a million spaces, which is no Exception and ends a build after hours.
    """
    assert bpe.vocab_size == 50257 and 50256 not in bpe.encode("<|endoftext|>")
    assert bpe.decode(bpe.encode("a\ud800")).startswith("a") and bpe.dropped("a\ud800") == ["\ud800"]
    with pytest.raises(ValueError, match="id 50257"):
        bpe.decode([50257])
    text = "before" + " " * 1_000_000 + "after"
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_a_missing_package_is_one_sentence(package, monkeypatch):
    """Catches ModuleNotFoundError for a package that only pieces need."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TokenizerError, match=f"pip install {package}"):
        BPETokenizer.train(LINES) if package == "tokenizers" else BPETokenizer()


def test_bpe_offline_is_one_sentence(tmp_path):
    """Catches a page of requests' traceback where the BPE files are absent and nothing can be downloaded."""
    code = "from data.tokenizer import *\ntry: BPETokenizer()\nexcept TokenizerError as e: print(e)"
    env = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "internet" in done.stdout and "TIKTOKEN_CACHE_DIR" in done.stdout and done.stdout.count("\n") == 1
