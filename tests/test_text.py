"""data/text.py and data/decode.py: any text in, or one sentence; nothing changed in silence."""

import json

import pytest

from data import shakespeare, text
from data.corpus import corpus_from_text
from data.files import DataError
from data.ngram import NGram, marks
from data.text import load_text
from data.tokenizer import BPETokenizer, load_tokenizer
from gpt2 import accuracy
from model_gpt2 import GPT, GPTConfig
from tests import texts

RUSSIAN = "Он сидел у окна и смотрел на дорогу; потом встал, вышел и не вернулся.\n" * 40
FRENCH = "L'été, près de la forêt, « le cœur » naïf déjeune.\n" * 40


@pytest.fixture
def file(tmp_path):
    def write(content, name="mine.txt"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return tmp_path / name

    return write


# --- the whole way: file -> corpus -> tokenizer -> ids -> marks ---

KINDS = {
    "cyrillic": (texts.cyrillic(), "utf-8", "char"),
    "hebrew": (texts.hebrew(), "utf-8", "char"),
    "han": (texts.han(), "utf-8", "pieces"),
    "verse": (texts.verse(), "utf-8", "char"),
    "log": (texts.log(), "utf-8", "char"),
    "windows": (texts.play().replace("\n", "\r\n"), "utf-16", "char"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_from_file_to_marks(kind, file, tmp_path):
    """Catches a script, a size or an encoding that breaks one station of the way, or comes back changed."""
    content, encoding, tokenizer = KINDS[kind]
    corpus = load_text(file(content.encode(encoding)), quiet=True)
    plain = content.replace("\r\n", "\n")
    assert corpus.text == plain and corpus.tokenizer.kind == tokenizer
    corpus.tokenizer.save(tmp_path / "artifact")
    again = load_tokenizer(tmp_path / "artifact")
    assert again.fingerprint == corpus.tokenizer.fingerprint and again.dropped(corpus.val_text) == []
    assert again.decode(corpus.val) == corpus.val_text
    assert again.encode(corpus.val_text) == corpus.val.tolist()
    reached = marks(corpus, 3)
    assert reached[3] < reached[1] < 9 and all(loss > 0 for loss in reached.values())
    assert corpus.examples and all(1 <= len(e) <= 40 and corpus.tokenizer.encode(e) for e in corpus.examples)


def test_marks_of_pieces_are_nats_a_character(file):
    """Catches nats a piece given as nats a character: a large alphabet would look hard, or easy."""
    corpus = load_text(file(texts.han(20_000)), quiet=True)
    chars = len(corpus.val_text) - len(corpus.tokenizer.decode(corpus.val[:1]))
    total = NGram(3, corpus.tokenizer.vocab_size).fit(corpus.train).losses(corpus.val).sum()
    assert marks(corpus, 3)[3] == pytest.approx(total / chars) and 0.5 < corpus.chars_per_token < 2


def test_pieces_are_learned_from_train_alone(file):
    """Catches a vocabulary that has seen the validation text."""
    corpus = load_text(file(texts.han(20_000) + "\u4e00\u4e8c" * 1500), quiet=True)
    size = max(len(corpus.train_text) // text.PER_PIECE, text.PIECES[0])
    assert corpus.tokenizer.fingerprint == BPETokenizer.train(corpus.train_text, size).fingerprint
    assert corpus.tokenizer.fingerprint != BPETokenizer.train(corpus.text, size).fingerprint


# --- encodings ---


@pytest.mark.parametrize(
    ("content", "codec", "says"),
    [
        (RUSSIAN, "utf-8", "UTF-8"),
        (RUSSIAN, "utf-8-sig", "UTF-8 with a byte-order mark"),
        (RUSSIAN, "utf-16", "UTF-16-LE with a byte-order mark"),
        (RUSSIAN, "utf-16-le", "UTF-16-LE without"),
        (FRENCH, "utf-16-be", "UTF-16-BE without"),
        (texts.han(9000), "utf-16-be", "UTF-16-BE without"),
        (texts.han(9000), "utf-32", "UTF-32-LE with"),
        (FRENCH, "cp1252", "Windows-1252"),
        (FRENCH.replace("\u0153", "oe"), "latin-1", "Windows-1252"),
        (RUSSIAN, "cp1251", "CP1251"),
        (RUSSIAN, "koi8-r", "KOI8-U"),
        (RUSSIAN, "cp866", "CP866"),
        ("caf\u00e9 " + "plain words\n" * 40, "latin-1", "Windows-1252"),
    ],
)
def test_encodings_are_recognised_and_said(content, codec, says, file, capsys):
    """Catches mojibake: a file of Windows read as letters that its reader never wrote, without a word."""
    corpus = load_text(file(content.encode(codec)))
    assert corpus.text == content
    assert says in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_are_made_plain_and_said(end, file):
    """Catches a carriage return as a symbol of the alphabet."""
    corpus = load_text(file(FRENCH.replace("\n", end)), quiet=True)
    assert corpus.text == FRENCH and "line ends of" in corpus.notes[0]


def test_a_few_damaged_letters_are_left_out_and_counted(file):
    """Catches a novel refused for one bad byte, or read as another encoding because of it."""
    body = RUSSIAN.encode("utf-8")
    corpus = load_text(file(body[:101] + b"\xff" + body[101:]), quiet=True)
    assert "damaged" in corpus.notes[0]
    assert len(corpus.text) >= len(RUSSIAN) - 1 and corpus.text[200:] in RUSSIAN
    for cut in (body[:-3], RUSSIAN.encode("utf-16")[:-5], RUSSIAN[:-3].encode("utf-16-le") + b"!"):
        corpus = load_text(file(cut), quiet=True)
        assert corpus.text == RUSSIAN[:-3] and "cut off inside its last letter" in corpus.notes[0]


def test_an_upload_beside_the_clone_is_found(file, tmp_path, monkeypatch):
    """Catches Colab: the upload lies in /content, the set-up cell has moved on to /content/gpt2."""
    file(RUSSIAN)
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path / "gpt2")
    assert load_text("mine.txt", quiet=True).text == RUSSIAN
    with pytest.raises(DataError, match="is not there"):
        load_text("other.txt", quiet=True)


def test_the_reader_can_overrule_the_encoding(file):
    """Catches a guess without appeal."""
    greek = "\u03ba\u03b1\u03b9 \u03c4\u03bf \u03c6\u03c9\u03c2\n" * 50
    path = file(greek.encode("cp1253"))
    with pytest.raises(DataError, match="save it as plain text in UTF-8"):
        load_text(path, quiet=True)
    assert load_text(path, quiet=True, encoding="cp1253").text == greek
    with pytest.raises(DataError, match="no-such"):
        load_text(path, quiet=True, encoding="no-such")


# --- alphabets ---


def test_rare_symbols_are_folded_and_every_one_is_named(file, capsys):
    """Catches symbols that vanish in silence, or a vocabulary that a few emoji have doubled."""
    strange = "".join(map(chr, [*range(0x1F600, 0x1F628), *range(0xC0, 0xFC), 0x1B]))
    body = texts.prose("etaoinshrdlu" + "".join(map(chr, range(0x410, 0x500))), 60_000) + strange
    corpus = load_text(file(body))
    said = capsys.readouterr().out
    assert corpus.tokenizer.vocab_size == len(set(corpus.text)) == text.ALPHABET
    gone = set(body) - set(corpus.text)
    shown = {c: "'\\x1b'" if c == "\x1b" else c for c in gone}
    assert gone and all(f"{c} as " in said or f"{c} left out" in said for c in shown.values())
    assert "\x1b" not in said, "a text cannot steer the console"
    assert any(f"{c} as " in said for c in gone), "an accent has a look-alike"
    assert len(corpus.text) >= len(body) - 300


def test_an_alphabet_that_fits_is_left_alone(shakespeare, file):
    """Catches folding where there is no need: Tiny Shakespeare has symbols that occur once."""
    corpus = load_text(file(shakespeare.text, "other name.txt"), quiet=True)
    assert (corpus.sha256, corpus.name) == (shakespeare.sha256, "tinyshakespeare")
    assert corpus.identity == shakespeare.identity


def test_another_tokenizer_takes_the_whole_text(file):
    """Catches a text folded, or cut into pieces of its own, for a model that reads it in GPT-2's."""
    strange = texts.prose("etaoin", 60_000) + "".join(map(chr, range(0x4E00, 0x4F2C)))
    pieces = BPETokenizer.train("any", 256)
    corpus = load_text(file(strange), quiet=True, tokenizer=pieces)
    assert corpus.text == strange and corpus.tokenizer is pieces and len(corpus.notes) == 1
    assert load_text(file(strange), quiet=True).text != strange


def test_identity_is_text_split_and_vocabulary(file):
    """Catches a run that goes on with another text, or with the same text in other ids."""
    a, b = (load_text(file(body), quiet=True) for body in (texts.verse(), texts.verse()[:-1]))
    c = corpus_from_text(a.text, a.name, BPETokenizer.train(a.train_text, 300))
    assert a.identity == load_text(file(texts.verse(), "b.txt"), quiet=True).identity
    assert len({str(x.identity) for x in (a, b, c)}) == 3
    assert {k for k in a.identity if a.identity[k] != c.identity[k]} == {"vocabulary"}


# --- what is said ---


def test_a_saved_web_page_is_learned_and_said(file):
    """Catches a page saved from a browser whose tags are learned without a word."""
    page = "<!DOCTYPE html>\n<html><p>To be or not to be.</p>\n" + texts.verse()
    assert any("web page" in note and "tags" in note for note in load_text(file(page), quiet=True).notes)
    assert not any("web page" in note for note in load_text(file(texts.verse()), quiet=True).notes)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "one symbol only"),
        (b"ab", "too few"),
        (b"PK\x03\x04rest", "zip archive or an office document"),
        (b"%PDF-1.7 \n...", "PDF"),
        (b"\x89PNG\r\n", "picture"),
        (bytes(range(256)) * 20, "binary|encoding"),
        (b"\0\0\0\1" * 500, "binary|encoding"),
        (bytes(range(1, 32)) * 50, "control characters"),
        ("\u732b\u304c\u3044\u308b\n".encode("shift-jis") * 50, "save it as plain text in UTF-8"),
    ],
)
def test_what_is_no_text_is_one_sentence(content, says, file, capsys):
    """Catches a traceback, or a model trained on the bytes of a picture."""
    with pytest.raises(DataError, match=says) as error:
        load_text(file(content))
    assert "mine.txt" in str(error.value) and "\n" not in str(error.value)
    assert text.main([str(file(content))]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "where",
    ["no.txt", "~nobody.txt", ".", "/dev/zero", "/proc/self/mem", "a\0b", "x" * 5000, "https:/one-slash"],
)
def test_a_path_to_nothing_is_one_sentence(where):
    """Catches reading for ever, or an OSError, for a wrong path."""
    with pytest.raises(DataError, match="check the path|name one text file|name a text file") as error:
        load_text(where, quiet=True)
    assert "\n" not in str(error.value)


def test_an_address(monkeypatch):
    """Catches a 404 page, or a page about the text, learned as if it were the text; and half a book."""
    monkeypatch.setattr(text, "PATIENCE", 2.0)
    server = texts.Server(texts.verse().encode())
    try:
        assert load_text(server("good/my%20book.txt"), quiet=True).name == "my book.txt"
        assert load_text(server("once-broken"), quiet=True).text == texts.verse()
        pasted = server("good/моя книга.txt").replace("http", "HTTP")
        assert load_text(pasted, quiet=True).name == "моя книга.txt"
        wrong = {"404": "HTTP 404", "500": "HTTP 500", "page": "web page", "cut": "IncompleteRead"}
        for kind, says in wrong.items():
            with pytest.raises(DataError, match=says):
                load_text(server(kind), quiet=True)
    finally:
        server.close()
    with pytest.raises(DataError, match="could not be downloaded"):
        load_text(server("good"), quiet=True)


def test_empty_is_tiny_shakespeare(monkeypatch):
    """Catches another text for TEXT = ""."""
    monkeypatch.setattr(shakespeare, "load_corpus", lambda quiet: f"corpus, quiet={quiet}")
    assert load_text("") == load_text(" ") == "corpus, quiet=False"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Bob's play.txt", "Bobs play.txt"),
        ("Война и мир.txt", "Война и мир.txt"),
        ("<b>&\"`$(x)\u202e.txt", "bx.txt"),
        ("standin", "standin.txt"),
        ("***", "text"),
        ("-rf.txt", "rf.txt"),
    ],
)  # fmt: skip
def test_names_are_safe(name, safe, file):
    """Catches a name that breaks a card, a shell or a notebook, or passes for a text with known numbers."""
    corpus = load_text(file(texts.verse(), name), quiet=True)
    assert corpus.name.replace("(", "").replace(")", "") == safe


def test_short_texts_are_told_what_to_expect(file, capsys):
    """Catches a reader of a poem who waits for Shakespeare; and one of a novel who is warned for nothing."""
    load_text(file(texts.verse()[:5000]))
    assert "only 5,000 characters: expect" in capsys.readouterr().out
    load_text(file(texts.verse()))
    assert "only" not in capsys.readouterr().out


def test_symbols_of_the_last_tenth_alone_are_named(file):
    """Catches a validation loss that symbols never learned have raised, without a word."""
    notes = load_text(file(texts.verse() + "@@"), quiet=True).notes
    assert any("last tenth only" in note and "'@'" in note for note in notes)


def test_the_console_never_ends_it(file, monkeypatch, tmp_path):
    """Catches UnicodeEncodeError on a console of Windows, and a pipe that has gone."""
    path = file(texts.cyrillic(30_000), "\u0440\u043e\u043c\u0430\u043d.txt")
    console = open(tmp_path / "console", "w", encoding="cp1252")
    monkeypatch.setattr("sys.stdout", console)
    assert text.main([str(path)]) == 0
    assert b"?????.txt" in (tmp_path / "console").read_bytes()
    console.close()
    assert text.main([str(path)]) == 0


# --- what reads the table of counts ---


def test_accuracy_without_a_table_is_said(file, tmp_path, capsys):
    """Catches "of the 5-gram 0.000000" for a model in pieces, and numbers measured on another text."""
    path = file(texts.han(9000))
    corpus = load_text(path, quiet=True)
    GPT(GPTConfig(16, corpus.tokenizer.vocab_size, 1, 1, 8)).save_pretrained(tmp_path / "m")
    corpus.tokenizer.save(tmp_path / "m")
    (tmp_path / "m" / "metrics.json").write_text(json.dumps({"corpus": corpus.facts()}))
    accuracy.main([str(tmp_path / "m"), "--text", str(path)])
    assert capsys.readouterr().out.splitlines()[-1].endswith(", no table of counts lies beside it")
    with pytest.raises(SystemExit):
        accuracy.main([str(tmp_path / "m"), "--text", str(file(texts.verse(), "other.txt"))])
    assert "was trained on mine.txt, not on other.txt" in capsys.readouterr().err
