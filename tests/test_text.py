"""data/text.py and data/decode.py: any text in, or one sentence; nothing changed in silence."""

import pytest

from data import shakespeare, text
from data.corpus import corpus_from_text
from data.files import DataError, say
from data.ngram import NGram
from data.text import load_text
from data.tokenizer import BPETokenizer, load_tokenizer
from tests import texts

RUSSIAN = "Он сидел у окна и смотрел на дорогу; потом встал, вышел и не вернулся.\n" * 40
FRENCH = "L'été, près de la forêt, « le cœur » naïf déjeune.\n" * 40


@pytest.fixture
def load(tmp_path):
    """A function: content -> its Corpus, by way of a file."""
    def through_a_file(content, name="mine.txt", quiet=True, **settings):
        body = content if isinstance(content, bytes) else content.encode("utf-8")
        (tmp_path / name).write_bytes(body)
        return load_text(tmp_path / name, quiet=quiet, **settings)

    return through_a_file


# --- the whole way: file -> corpus -> tokenizer -> ids -> counts ---


@pytest.mark.parametrize(("content", "encoding", "tokenizer"), [
    (texts.cyrillic(60_000), "utf-8", "char"), (texts.hebrew(30_000), "utf-8", "char"),
    (texts.han(60_000), "utf-8", "pieces"), (texts.verse(), "utf-8", "char"), (texts.log(), "utf-8", "char"),
    (texts.play().replace("\n", "\r\n"), "utf-16", "char")])
def test_any_text_from_file_to_counts(content, encoding, tokenizer, load, tmp_path):
    """Catches a script, a size or an encoding that breaks one station of the way, or comes back changed."""
    corpus = load(content.encode(encoding))
    assert corpus.text == content.replace("\r\n", "\n") and corpus.tokenizer.kind == tokenizer
    corpus.tokenizer.save(tmp_path / "artifact")
    again = load_tokenizer(tmp_path / "artifact")
    assert again.fingerprint == corpus.tokenizer.fingerprint and again.dropped(corpus.val_text) == []
    assert again.decode(corpus.val) == corpus.val_text
    assert again.encode(corpus.val_text) == corpus.val.tolist()
    reached = [NGram(n, again.vocab_size).fit(corpus.train).loss(corpus.val) for n in (1, 3)]
    assert 0 < reached[1] < reached[0] < 9
    assert corpus.examples and all(1 <= len(e) <= 40 and corpus.tokenizer.encode(e) for e in corpus.examples)


def test_pieces_learn_from_train_alone_and_are_marked_by_the_character(load):
    """Catches a vocabulary that has seen the validation text, and nats a piece given as nats a character."""
    corpus = load(texts.han(20_000) + "\u4e00\u4e8c" * 1500)
    size = max(len(corpus.train_text) // text.PER_PIECE, text.PIECES[0])
    assert corpus.tokenizer.fingerprint == BPETokenizer.train(corpus.train_text, size).fingerprint
    assert corpus.tokenizer.fingerprint != BPETokenizer.train(corpus.text, size).fingerprint
    chars = len(corpus.val_text) - len(corpus.tokenizer.decode(corpus.val[:1]))
    assert corpus.chars_per_token == pytest.approx(chars / (len(corpus.val) - 1)) and chars >= len(corpus.val)


# --- encodings ---


@pytest.mark.parametrize(("content", "codec", "says"), [
    (RUSSIAN, "utf-8-sig", "UTF-8 with a byte-order mark"), (RUSSIAN, "utf-16-le", "UTF-16-LE without"),
    (texts.han(9000), "utf-16-be", "UTF-16-BE without"), (texts.han(9000), "utf-32", "UTF-32-LE with"),
    (FRENCH, "cp1252", "Windows-1252"), ("caf\u00e9 " + "plain words\n" * 40, "latin-1", "Windows-1252"),
    (RUSSIAN, "cp1251", "CP1251"), (RUSSIAN, "koi8-r", "KOI8-U"), (RUSSIAN, "cp866", "CP866"),
    (FRENCH.replace("\n", "\r\n"), "utf-8", "line ends of Windows"),
    (FRENCH.replace("\n", "\r"), "utf-8", "line ends of an old Mac")])
def test_encodings_are_recognised_and_said(content, codec, says, load, capsys):
    """Catches mojibake: a file of Windows read as letters that its reader never wrote, without a word."""
    corpus = load(content.encode(codec), quiet=False)
    assert corpus.text == content.replace("\r\n", "\n").replace("\r", "\n")
    assert says in capsys.readouterr().out.splitlines()[0]


def test_a_few_damaged_letters_are_left_out_and_counted(load):
    """Catches a novel refused for one bad byte, or read as another encoding because of it."""
    body = RUSSIAN.encode("utf-8")
    corpus = load(body[:101] + b"\xff" + body[101:])
    assert "damaged" in corpus.notes[0]
    assert len(corpus.text) >= len(RUSSIAN) - 1 and corpus.text[200:] in RUSSIAN
    for cut in (body[:-3], RUSSIAN.encode("utf-16")[:-5], RUSSIAN[:-3].encode("utf-16-le") + b"!"):
        corpus = load(cut)
        assert corpus.text == RUSSIAN[:-3] and "cut off inside its last letter" in corpus.notes[0]


def test_an_upload_beside_the_clone_is_found(load, tmp_path, monkeypatch):
    """Catches Colab: the upload lies in /content, the set-up cell has moved on to /content/gpt2."""
    load(RUSSIAN)
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path / "gpt2")
    assert load_text("mine.txt", quiet=True).text == RUSSIAN
    with pytest.raises(DataError, match="is not there"):
        load_text("other.txt", quiet=True)


# --- alphabets ---


def test_rare_symbols_are_folded_and_every_one_is_named(load, capsys):
    """Catches symbols that vanish in silence, or a vocabulary that a few emoji have doubled."""
    strange = "".join(map(chr, [*range(0x1F600, 0x1F628), *range(0xC0, 0xFC), 0x1B]))
    body = texts.prose("etaoinshrdlu" + "".join(map(chr, range(0x410, 0x500))), 60_000) + strange
    corpus = load(body, quiet=False)
    said = capsys.readouterr().out
    assert corpus.tokenizer.vocab_size == len(set(corpus.text)) == text.ALPHABET
    gone = set(body) - set(corpus.text)
    shown = {c: "'\\x1b'" if c == "\x1b" else c for c in gone}
    assert gone and all(f"{c} as " in said or f"{c} left out" in said for c in shown.values())
    assert "\x1b" not in said, "a text cannot steer the console"
    assert any(f"{c} as " in said for c in gone), "an accent has a look-alike"
    assert len(corpus.text) >= len(body) - 300
    pieces = BPETokenizer.train("any", 256)  # a model that reads in pieces takes all of it
    whole = load(body, tokenizer=pieces)
    assert whole.text == body and whole.tokenizer is pieces and len(whole.notes) == 1


def test_an_alphabet_that_fits_is_left_alone(shakespeare, load):
    """Catches folding where there is no need: Tiny Shakespeare has symbols that occur once."""
    corpus = load(shakespeare.text, "other name.txt")
    assert (corpus.sha256, corpus.name) == (shakespeare.sha256, "tinyshakespeare")
    assert corpus.identity == shakespeare.identity


def test_identity_is_text_split_and_vocabulary(load):
    """Catches a run that goes on with another text, or with the same text in other ids."""
    a, b, same = (load(body, name) for body, name in
                  ((texts.verse(), "a"), (texts.verse()[:-1], "b"), (texts.verse(), "c")))
    c = corpus_from_text(a.text, a.name, BPETokenizer.train(a.train_text, 300))
    assert a.identity == same.identity and len({str(x.identity) for x in (a, b, c)}) == 3
    assert {k for k in a.identity if a.identity[k] != c.identity[k]} == {"vocabulary"}


# --- what is said ---


@pytest.mark.parametrize(("content", "note"), [
    ("<!DOCTYPE html>\n<html><p>To be or not to be.</p>\n" + texts.verse(), "web page: its tags"),
    (texts.verse()[:5000], "only 5,000 characters: expect"),
    (texts.verse() + "@@", "1 symbol stands in the last tenth only, so no model can learn it: '@'")])
def test_what_a_reader_should_know_is_said_and_nothing_else(content, note, load, capsys):
    """Catches tags learned, a poem awaited as a novel, symbols never learned; false alarms."""
    load(content, quiet=False)
    assert note in capsys.readouterr().out
    load(texts.verse(), quiet=False)
    assert note[:12] not in capsys.readouterr().out


@pytest.mark.parametrize(("content", "says"), [
    (b"", "is empty"), (b" \n\n ", "only spaces"), (b"a" * 30, "one symbol only"), (b"ab", "too few"),
    (b"PK\x03\x04rest", "zip archive or an office document"), (b"%PDF-1.7 \n...", "PDF"),
    (b"\x89PNG\r\n", "picture"), (bytes(range(256)) * 20, "binary|encoding"),
    (b"\0\0\0\1" * 500, "binary|encoding"), (bytes(range(1, 32)) * 50, "control characters"),
    ("\u03ba\u03b1\u03b9 \u03c4\u03bf \u03c6\u03c9\u03c2\n".encode("cp1253") * 50,
     "save it as plain text in UTF-8"),
    ("\u732b\u304c\u3044\u308b\n".encode("shift-jis") * 50, "save it as plain text in UTF-8")])
def test_what_is_no_text_is_one_sentence(content, says, load):
    """Catches a traceback, or a model trained on the bytes of a picture."""
    with pytest.raises(DataError, match=says) as error:
        load(content)
    assert "mine.txt" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["no.txt", "~nobody.txt", ".", "/dev/zero", "/proc/self/mem", "a\0b",
                                   "x" * 5000, "https:/one-slash"])
def test_a_path_to_nothing_is_one_sentence(where):
    """Catches reading for ever, or an OSError, for a wrong path."""
    with pytest.raises(DataError, match="check the path|name one text file|name a text file") as error:
        load_text(where, quiet=True)
    assert "\n" not in str(error.value)


def test_an_address():
    """Catches a 404 page, or a page about the text, learned as if it were the text; and half a book."""
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


@pytest.mark.parametrize(("name", "safe"), [
    ("Bob's play.txt", "Bobs play.txt"), ("Война и мир.txt", "Война и мир.txt"), ("***", "text"),
    ("<b>&\"`$(x)\u202e.txt", "b(x).txt"), ("standin", "standin.txt"), ("-rf.txt", "rf.txt")])
def test_names_are_safe(name, safe, load):
    """Catches a name that breaks a card, a shell or a notebook, or passes for a text with known numbers."""
    assert load(texts.verse(), name).name == safe


def test_what_is_said_never_ends_it(tmp_path):
    """Catches UnicodeEncodeError on a console of Windows, and a stream that has gone."""
    with open(tmp_path / "console", "w", encoding="cp1252") as console:
        say("\u0440\u043e\u043c\u0430\u043d, caf\u00e9", console)
    say("on", console)
    assert (tmp_path / "console").read_text("cp1252") == "?????, caf\u00e9\n"
