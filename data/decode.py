"""Bytes to text: which encoding a file is in, found by looking, and said.

UTF-8 and the UTF-16 of Windows are certain. Older files say nothing about themselves: they are read as
Western European, or as Russian, where the bytes look like it, and refused in one sentence where not.
"""

import codecs

from data.files import DataError

KINDS = {  # what else a file may be, by its first bytes
    b"PK\x03\x04": "a zip archive or an office document (.docx, .odt, .epub)",
    b"%PDF": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"\xd0\xcf\x11\xe0": "an old office document (.doc)",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
HINT = "if its letters look wrong, save it as UTF-8"
ADVICE = "open it in an editor and save it as plain text in UTF-8"


def decode(body: bytes, where: str) -> tuple[str, str]:
    """(text with plain line ends, what was found, in words). DataError, with `where` in it, for no text."""
    kind = next((kind for start, kind in KINDS.items() if body.startswith(start)), None)
    if kind:
        raise DataError(f"{where} is {kind}, not plain text: save its words as a .txt file in UTF-8")
    try:
        text, found = _guess(body)
    except UnicodeError:
        raise DataError(f"{where} cannot be read as text (its encoding is not one that can be told by "
                        f"looking): {ADVICE}") from None
    if not _readable(text):
        raise DataError(f"{where} holds control characters as only binary files do: {ADVICE}")
    if "\r" in text:
        system = "Windows" if "\r\n" in text else "an old Mac"
        found += f", line ends of {system} made plain"
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff"), found


def _guess(body):
    """UnicodeError if nothing fits."""
    for mark, codec in BOMS:
        if body.startswith(mark):
            text, end = _strict(body[len(mark) :], codec)
            return text, f"{codec.upper()} with a byte-order mark{end}"
    try:
        if b"\0" not in body:  # no text of one byte a letter, and none of UTF-8, has that
            text, end = _strict(body, "utf-8")
            return text, f"UTF-8{end}"
    except UnicodeError:
        return _wide(body) or _damaged(body) or _old(body)
    if wide := _wide(body):
        return wide
    raise UnicodeError


def _strict(body, codec):
    """(text, what to say of its end): a download may break off inside a letter."""
    decoder = codecs.getincrementaldecoder(codec)()
    text = decoder.decode(body)
    return text, ", cut off inside its last letter" if decoder.getstate()[0] else ""


def _wide(body):
    """UTF-16 without its mark: the byte order in which there are spaces or line ends, as in any text."""
    for codec in ("utf-16-le", "utf-16-be"):
        try:
            text, end = _strict(body, codec)
        except UnicodeError:
            continue
        if _readable(text) and (text.count(" ") + text.count("\n")) * 2000 > len(text):
            return text, f"{codec.upper()} without a byte-order mark{end}"
    return None


def _damaged(body):
    """UTF-8 with a few bytes that are none."""
    text = body.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    if sum(c > "\x7f" for c in text) > 20 * bad:
        return text.replace("\ufffd", ""), f"UTF-8 with {bad:,} damaged letters, which were left out"
    return None


def _old(body):
    """One byte a letter: Western where accents are few, Russian where its commonest letters are there."""
    letters = len(body.translate(None, bytes(b for b in range(128) if not chr(b).isalpha())))
    high = len(body.translate(None, bytes(range(128))))
    if high < 0.3 * letters:
        return body.decode("cp1252"), f"Windows-1252 (Latin-1); {HINT}"

    def russian(codec):
        text = body.decode(codec, "replace")
        return sum(text.count(c) for c in "\u043e\u0435\u0430\u0438\u043d\u0442") / high  # o e a i n t

    best = max(("cp1251", "koi8-u", "cp866"), key=russian)
    if russian(best) < 0.36:  # half of a Russian text's letters are these six
        raise UnicodeError
    return body.decode(best), f"{best.upper()} (Cyrillic); {HINT}"


def _readable(text):
    """Whether nearly all of the first 20,000 characters can be printed, as those of a text can."""
    sample = text[:20_000]
    fine = "\n\r\t\x0c\x1b\ufeff\xad\xa0\u3000\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202f"
    return sum(c.isprintable() or c in fine for c in sample) >= 0.98 * len(sample)
