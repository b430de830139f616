"""How the app draws: text, surprise, guesses and attention as HTML, every character of it escaped.

Pure functions from numbers and strings to HTML; no model, no Gradio. Height always repeats what colour
says, and the number is in a title or in the text, so nothing hangs on seeing a colour.
"""

import html
import unicodedata

from space.folder import exact_loss, per_letter, teachers

NAMES = {" ": "space", "\n": "new line", "\t": "tab"}
GLYPHS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
KNOWN = {"tinyshakespeare": "Shakespeare", "standin": "a made-up text"}
IN_WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()
FULL_SURPRISE = 6.0  # nats drawn at full height: one chance in 400
NOTHING = '<p class="fine">Write something first. Two letters are enough.</p>'
TABLE_KEY = "a 5-gram: a table of which letter followed which 4 letters. No network, only counting."


def safe(text: str) -> str:
    """Escape for HTML, and for the template that Gradio runs over the value of an HTML component."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be sent
    escaped = html.escape(text, quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def shown(char: str) -> str:
    """A character as a sentence can hold it: itself where harmless, else its Unicode name or code point."""
    if char.isprintable() and char not in "<>&\"'`{}$\\ " and not unicodedata.combining(char):
        return char
    return unicodedata.name(char, "").lower() or f"U+{ord(char):04X}"


def notice_dropped(dropped: list[str], most: int = 12) -> str:
    """One sentence that lists characters the model does not know; empty if there are none."""
    kinds = list(dict.fromkeys(dropped))
    if not kinds:
        return ""
    more = f" and {len(kinds) - most} more" if len(kinds) > most else ""
    listed = ", ".join(shown(c) for c in kinds[:most]) + more
    them = "it" if len(kinds) == 1 else "them"
    return f"Left out, because the model never saw {them} in training: {listed}."


def name_of(piece: str) -> str:
    """A piece of text as a person would call it: ‘e’, space, new line."""
    glyphs = piece.translate(GLYPHS)
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in piece):
        glyphs = f"\u2068{glyphs}\u2069"  # read from the right, it must not turn the sentence around it
    return NAMES.get(piece) or f"‘{glyphs}’"


def percent(p: float) -> str:
    """`62%`, `0.4%`, `under 0.1%`: as exact as a reader needs."""
    if p >= 0.995:
        return "over 99%"
    return f"{100 * p:.0f}%" if p >= 0.0995 else f"{100 * p:.1f}%" if p >= 0.001 else "under 0.1%"


# ---- the model in two lines

def headline(metrics: dict) -> str:
    """From measured numbers only: what it learned and how often it is right, then size and exact loss."""
    unit, loss = "letter" if per_letter(metrics) else "piece", exact_loss(metrics)
    text, facts = f"{learned(metrics)}, {unit} by {unit}.", ""
    if metrics.get("accuracy"):
        text += f" It guesses the next {unit} right <b>{metrics['accuracy']:.1%}</b> of the time"
        counts = metrics.get("ngram_accuracy")
        text += f"; counting five letters: <b>{counts:.1%}</b>." if counts else "."
    if metrics.get("parameters"):
        facts = f"{metrics['parameters'] / 1e6:.2f} million parameters."
    if loss is not None:
        facts += f" Its average surprise on text that it never saw is {loss:.3f} nats a character"
        counts = metrics.get("ngram5_val_loss")
        facts += f"; the table's is {counts:.3f}." if counts is not None else "."
    return f'<p class="card">{text}</p><p class="fine">{facts}</p>'


def learned(metrics: dict) -> str:
    """`Learned Shakespeare in five minutes`, as far as it was written down."""
    name, seconds = (metrics.get("corpus") or {}).get("name"), metrics.get("seconds") or 0
    text = f"Learned {safe(KNOWN.get(name, name or 'to write'))}"
    if seconds > 0:
        size, unit = (1, "second") if seconds < 90 else (60, "minute") if seconds < 5400 else (3600, "hour")
        text += f" in {counted(round(seconds / size), unit)}"
    n = teachers(metrics)
    return text + (f" from what {counted(n, 'other model')} would guess" if n else "")


def counted(n: int, what: str) -> str:
    """`five minutes`, `one minute`, `40 minutes`."""
    return f"{IN_WORDS[n] if n < len(IN_WORDS) else n} {what}{'s' * (n != 1)}"


# ---- the text

def manuscript(prompt: str = "", written: str = "", writing: bool = False) -> str:
    """The beginning and what the model adds to it; a caret blinks while it writes."""
    if not (prompt or written or writing):
        return '<div class="paper empty">The text will appear here. An empty beginning is fine too.</div>'
    caret = '<span class="caret" aria-hidden="true"></span>' if writing else ""
    return (f'<div class="paper" aria-busy="{str(writing).lower()}"><span class="seed">{safe(prompt)}</span>'
            f'<span class="new">{safe(written)}</span>{caret}</div>')


def status_line(facts: list[str], notices: list[str]) -> str:
    """Small print under the text: speed and seed, then notices; read aloud by a screen reader."""
    line = "".join(f"<span>{safe(f)}</span>" for f in facts if f)
    notes = "".join(f'<p class="note">{safe(n)}</p>' for n in notices if n)
    return f'<div class="status" role="status"><div class="facts">{line}</div>{notes}</div>'


def letters(before: str, pieces: list[str], losses: list, guesses: list, at: int, n_prompt: int,
            first: int = 0, seen: dict | None = None) -> str:
    """The text with a bar behind each piece, as high as the model was surprised; one piece is chosen.

    before: what stands before the places that can be looked at, which are first, first + 1, ...
    pieces: T strings. losses: T floats in nats or None. guesses: T strings, what the model thought likeliest.
    seen: place -> share of a head's attention; these pieces are framed.
    """
    out, seen = [f'<span class="seed">{safe(before)}</span>' if before else ""], seen or {}
    for i, (piece, loss, guess) in enumerate(zip(pieces, losses, guesses, strict=True), first):
        height = 0 if loss is None else min(1.0, loss / FULL_SURPRISE)
        said = f"{loss:.2f} nats; likeliest {name_of(guess)}" if loss is not None else "the first: no guess"
        looked = f"; looked at: {percent(seen[i])}" if i in seen else ""
        kinds = {"ch": True, "at": i == at, "seen": i in seen, "seed": i < n_prompt, "end": "\n" in piece,
                 "part": not piece}
        kind = " ".join(name for name, is_so in kinds.items() if is_so)
        mark = ' aria-current="true"' if i == at else ""
        out.append(f'<span class="{kind}" style="--h:{100 * height:.0f}%" data-at="{i}"{mark} '
                   f'title="{safe(f"{i}: {name_of(piece)}, {said}{looked}")}">{safe(piece)}</span>')
    label = "Text with the model's surprise behind each letter; arrow keys move the chosen one"
    return (f'<div class="paper letters" aria-busy="false" tabindex="0" role="group" aria-label="{label}">'
            f'{"".join(out)}</div>')


def summary(losses: list, table_losses, unit: str) -> str:
    """The passage as a whole: mean surprise of model and table. losses (T), table_losses (T-1) or None."""
    known = [loss for loss in losses if loss is not None]
    line = f"Mean surprise: {sum(known) / max(1, len(known)):.2f} nats a {unit}"
    if table_losses is not None:
        line += f"; the table's: {sum(table_losses) / len(table_losses):.2f}"
    return (f'<p class="fine">The taller the bar behind a {unit}, the less the model expected it. Click one, '
            f"or use the arrow keys. {line}. What the model wrote itself surprises it little.</p>")


# ---- the panel beside it

def guess_bars(before: str, rows: list) -> str:
    """The likeliest next pieces as bars, the table's bar under the model's.

    rows: (piece, p_model, p_table or None, whether it really stood there), best first.
    """
    came, came_model, came_table, _ = next(row for row in rows if row[3])
    tail = ("…" if len(before) > 24 else "") + before[-24:].translate(GLYPHS)
    head = f"After <q>{safe(tail)}</q> came <b>{safe(name_of(came))}</b>. "
    head += f"The model gave it {percent(came_model)}"
    key = "<span>the model</span>"
    if came_table is not None:
        head += f", the table of counts {percent(came_table)}"
        key += f'<span class="table">{TABLE_KEY}</span>'
    body = "".join(bar_row(*row) for row in rows)
    return (f'<div class="inside"><h3>Its guess</h3><p>{head}.</p><table class="bars"><thead><tr>'
            f'<th>next</th><th>chance</th></tr></thead><tbody>{body}</tbody></table>'
            f'<div class="key">{key}</div></div>')


def bar_row(piece: str, p_model: float, p_table: float | None, came: bool) -> str:
    lanes = "".join(f'<div class="lane"><i class="{kind}" style="--w:{100 * p:.1f}%" aria-hidden="true"></i>'
                    f"<span>{word}{percent(p)}</span></div>"
                    for kind, word, p in (("model", "", p_model), ("table", "table ", p_table))
                    if p is not None)
    mark = " <small>came</small>" if came else ""
    return f'<tr><th scope="row">{safe(name_of(piece))}{mark}</th><td>{lanes}</td></tr>'


def attention(pieces: list[str], weights: list[float], layer: int, head: int, maps: list,
              width: int = 32) -> str:
    """Where one head looked, in words, and every head as a small curve; a click chooses it.

    pieces: T + 1 strings, the last one was guessed. weights: T shares. maps: (n_layer, n_head, T) lists.
    """
    best = sorted(range(len(weights)), key=lambda i: -weights[i])[:3]
    said = "; ".join(f"{name_of(pieces[i])}{back(len(weights) - i)} ({percent(weights[i])})" for i in best)
    boxes = "".join(head_box(i, j, row[-width:], width, (i, j) == (layer, head))
                    for i, heads in enumerate(maps, 1) for j, row in enumerate(heads, 1))
    return (f'<div class="inside"><h3>Where it looked</h3><p>To guess {safe(name_of(pieces[-1]))}, head '
            f"{head} of layer {layer} looked most at {safe(said)}. The text shows these places in frames.</p>"
            f'<div class="heads" style="--n:{len(maps[0])}" role="group" '
            f'aria-label="All heads, layer by layer">{boxes}</div><p class="fine">A <b>head</b> looks back '
            "at some letters and fetches what they know. One small picture a head, one row a layer; right is "
            "the last letter before the guess. Click one.</p></div>")


def back(steps: int) -> str:
    return " just before" if steps == 1 else f", {steps} back"


def head_box(layer: int, head: int, tail: list[float], width: int, chosen: bool) -> str:
    top, start = max(tail) or 1.0, width - len(tail)
    points = " ".join(f"L{k} {12 - 11 * w / top:.1f}" for k, w in enumerate(tail, start))
    return (f'<button type="button" class="mini{" at" if chosen else ""}" data-layer="{layer}" '
            f'data-head="{head}" aria-pressed="{str(chosen).lower()}" '
            f'aria-label="layer {layer}, head {head}"><svg viewBox="0 0 {width} 13" '
            f'preserveAspectRatio="none" aria-hidden="true"><path d="M{start} 13 {points} '
            f'L{width - 1} 13 Z"/></svg><span>{layer}.{head}</span></button>')
