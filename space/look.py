"""How the app draws: text, surprise, guesses and attention as HTML, every character of it escaped.

Pure functions from numbers and strings to HTML; no model, no Gradio. Height always repeats what colour says, and
the number is in a title or in the text, so nothing hangs on seeing a colour.
"""

import html
import math
import unicodedata

NAMES = {" ": "space", "\n": "new line", "\t": "tab"}
GLYPHS = {" ": "␣", "\n": "⏎", "\t": "⇥"}
FULL_SURPRISE = 6.0  # nats drawn at full height: one chance in 400


def safe(text: str) -> str:
    """Escape for HTML, and for the template that Gradio runs over the value of an HTML component."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be sent
    escaped = html.escape(text, quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def shown(char: str) -> str:
    """A character as a sentence can hold it: itself where harmless, else its Unicode name or code point, `U+202E`."""
    if char.isprintable() and char not in "<>&\"'`{}$\\ " and not unicodedata.combining(char):
        return char
    return unicodedata.name(char, "").lower() or f"U+{ord(char):04X}"


def notice_dropped(dropped: list[str], most: int = 12) -> str:
    """One sentence that lists characters the model does not know; empty if there are none."""
    kinds = list(dict.fromkeys(dropped))
    if not kinds:
        return ""
    listed = ", ".join(shown(c) for c in kinds[:most]) + (f" and {len(kinds) - most} more" if len(kinds) > most else "")
    return f"Left out, because the model never saw {'it' if len(kinds) == 1 else 'them'} in training: {listed}."


def name_of(piece: str) -> str:
    """A piece of text as a person would call it: `'e'`, `space`, `new line`."""
    return NAMES.get(piece) or "'" + "".join(GLYPHS.get(c, c) for c in piece) + "'"


def visible(piece: str) -> str:
    """A piece with its white space drawn; a new line also breaks the line."""
    return "".join("⏎\n" if c == "\n" else c for c in piece)


def percent(p: float) -> str:
    """`62%`, `0.4%`, `under 0.1%`: as exact as a reader needs."""
    if p >= 0.995:
        return "over 99%" if p < 1 else "100%"
    return f"{100 * p:.0f}%" if p >= 0.0995 else f"{100 * p:.1f}%" if p >= 0.001 else "under 0.1%"


def nats(loss: float | None) -> str:
    """A loss in words, also where there is none."""
    return "no context, so no guess" if loss is None or not math.isfinite(loss) else f"{loss:.2f} nats"


# ---- the text as it is written


def manuscript(prompt: str, written: str, writing: bool) -> str:
    """The seed text and what the model adds to it; a caret blinks while it writes."""
    caret = '<span class="caret" aria-hidden="true"></span>' if writing else ""
    if not (prompt or written or writing):
        return '<div class="paper empty">The text will appear here. Nothing to say? An empty seed is fine too.</div>'
    return (
        f'<div class="paper" aria-busy="{str(writing).lower()}"><span class="seed">{safe(prompt)}</span>'
        f'<span class="new">{safe(written)}</span>{caret}</div>'
    )


def status_line(facts: list[str], notices: list[str]) -> str:
    """Small print under the text: speed and seed, then notices; read aloud by a screen reader."""
    line = "".join(f"<span>{safe(f)}</span>" for f in facts if f)
    notes = "".join(f'<p class="note">{safe(n)}</p>' for n in notices if n)
    return f'<div class="status" role="status"><div class="facts">{line}</div>{notes}</div>'


def headline(metrics: dict) -> str:
    """The model in two lines, from its measured numbers only: how often it is right, then size and exact loss."""
    loss, of_text = metrics.get("val_loss_char", metrics.get("val_loss")), metrics.get("corpus") or {}
    unit = "letter" if loss == metrics.get("val_loss") else "piece"
    said, parts = "", []
    if metrics.get("accuracy"):
        said = f"It guesses the next {unit} right <b>{metrics['accuracy']:.0%}</b> of the time"
        said += f"; counting five letters: {metrics['ngram_accuracy']:.0%}." if metrics.get("ngram_accuracy") else "."
    if metrics.get("parameters"):
        parts.append(f"{metrics['parameters'] / 1e6:.1f} million parameters")
    if loss is not None:
        text = f"<b>{loss:.3f}</b> nats per character on text it never saw"
        if metrics.get("ngram5_val_loss") is not None:
            text += f" (a table of 5-letter counts: {metrics['ngram5_val_loss']:.3f})"
        parts.append(text)
    if of_text.get("name") == "standin":
        parts.append("trained on a stand-in text, for want of the real one")
    return f'<p class="card">{said}</p><p class="fine">{" · ".join(parts)}</p>'


# ---- look inside


def surprise_text(before: str, pieces: list[str], losses: list, guesses: list, at: int, n_prompt: int,
                  first: int = 0) -> str:  # fmt: skip
    """The text with a bar behind each character, as high as the model was surprised; one character is chosen.

    before: what stands before the places that can be looked at, which are first, first + 1, ...
    pieces: T strings. losses: T floats in nats or None. guesses: T strings, what the model thought likeliest.
    """
    out = [f'<span class="seed">{safe(before)}</span>' if before else ""]
    for i, (piece, loss, guess) in enumerate(zip(pieces, losses, guesses, strict=True), first):
        height = 0 if loss is None else min(1.0, loss / FULL_SURPRISE)
        title = f"{i}: {name_of(piece)}, {nats(loss)}" + (f"; likeliest {name_of(guess)}" if guess else "")
        kinds = {"at": i == at, "seed": i < n_prompt, "begin": i == n_prompt, "end": "\n" in piece}
        kind = " ".join(["ch", *(name for name, is_so in kinds.items() if is_so)])
        mark = ' aria-current="true"' if i == at else ""
        out.append(f'<span class="{kind}" style="--h:{100 * height:.0f}%" data-at="{i}"{mark} title="{safe(title)}">'
                   f"{safe(piece)}</span>")  # fmt: skip
    label = "Text with the model's surprise behind each character; arrow keys move the chosen one"
    return (f'<div class="paper letters" aria-busy="false" tabindex="0" role="group" aria-label="{label}">'
            f'{"".join(out)}</div>')  # fmt: skip


def summary(losses: list, table_losses) -> str:
    """The passage as a whole: mean surprise of the model and of the 5-gram. losses (T), table_losses (T-1) or None."""
    known = [x for x in losses if x is not None]
    if not known:
        return ""
    line = f"Over this passage the model's mean surprise is {sum(known) / len(known):.2f} nats a character"
    if table_losses is not None:
        line += f", the 5-gram's {sum(table_losses) / len(table_losses):.2f}"
    help_line = "The taller the bar behind a letter, the more it came as a surprise. Click one, or use the slider."
    return f'<p class="fine">{help_line} {line}. What the model wrote itself surprises it little.</p>'


def guess_bars(before: str, came: str, rows: list, came_model: float, came_table: float | None) -> str:
    """The likeliest next characters as bars, the 5-gram's bar under the model's.

    rows: (piece, p_model, p_table or None), best first. came: what really stood there.
    """
    tail = "".join(GLYPHS.get(c, c) for c in before[-24:])
    head = f"After <q>{'…' if len(before) > 24 else ''}{safe(tail)}</q> came <b>{safe(name_of(came))}</b>. "
    head += f"The model gave it {percent(came_model)}"
    head += f", the 5-gram {percent(came_table)}." if came_table is not None else "."
    body = "".join(_bar_row(*row, row[0] == came) for row in rows)
    key = '<span>model</span>'
    if came_table is not None:
        key += '<span class="table">5-gram</span>'
    return (
        f'<div class="inside"><h3>What it expected</h3><p>{head}</p><div class="key" aria-hidden="true">{key}</div>'
        f'<table class="bars"><thead><tr><th>next</th><th>chance</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _bar_row(piece: str, p_model: float, p_table: float | None, came: bool) -> str:
    def bar(kind, p):
        width = f'<i class="{kind}" style="--w:{100 * p:.1f}%" aria-hidden="true"></i>'
        return f'<div class="lane">{width}<span>{"" if kind == "model" else "5-gram "}{percent(p)}</span></div>'

    lanes = bar("model", p_model) + (bar("table", p_table) if p_table is not None else "")
    mark = ' <small title="this is what came">◂ came</small>' if came else ""
    glyph = "".join(GLYPHS.get(c, c) for c in piece)
    title = safe(name_of(piece))
    return f'<tr><th scope="row" title="{title}">{safe(glyph)}{mark}</th><td>{lanes}</td></tr>'


def attention_text(pieces: list[str], weights: list[float], layer: int, head: int) -> str:
    """The text that a head looked back over; T pieces, each as high as the attention that it got (T weights)."""
    top = max(weights) or 1.0
    chars = "".join(
        f'<span class="ch look" style="--h:{100 * w / top:.0f}%" title="{safe(name_of(p))}: {percent(w)}">'
        f"{safe(visible(p))}</span>"
        for p, w in zip(pieces, weights, strict=True)
    )
    best = sorted(range(len(weights)), key=lambda i: -weights[i])[:3]
    said = ", ".join(f"{name_of(pieces[i])} {_back(len(pieces) - 1 - i)} ({percent(weights[i])})" for i in best)
    return (
        f'<div class="inside"><h3>Where head {head} of layer {layer} looked</h3><p>Most at {safe(said)}.</p>'
        f'<div class="letters" role="img" aria-label="Attention as bars behind the text">{chars}</div></div>'
    )


def _back(steps: int) -> str:
    return "right here" if steps == 0 else "one back" if steps == 1 else f"{steps} back"


def head_grid(rows, layer: int, head: int, width: int = 32) -> str:
    """Every head as a small curve over the last characters; a click chooses it. rows: (n_layer, n_head, T) lists."""
    cells = []
    for i, layer_rows in enumerate(rows, 1):
        for j, weights in enumerate(layer_rows, 1):
            tail = weights[-width:]
            top = max(tail) or 1.0
            points = " ".join(f"L{k} {12 - 11 * w / top:.1f}" for k, w in enumerate(tail, width - len(tail)))
            here = (i, j) == (layer, head)
            cells.append(
                f'<button type="button" class="mini{" at" if here else ""}" data-layer="{i}" data-head="{j}" '
                f'aria-pressed="{str(here).lower()}" title="layer {i}, head {j}: at most {percent(max(weights))}">'
                f'<svg viewBox="0 0 {width} 13" preserveAspectRatio="none" aria-hidden="true">'
                f'<path d="M{width - len(tail)} 13 {points} L{width - 1} 13 Z"/></svg><span>{i}.{j}</span></button>'
            )
    columns = len(rows[0])
    return (
        f'<div class="heads" style="--n:{columns}" role="group" aria-label="All heads, layer by layer">{"".join(cells)}'
        f"</div><p class='fine'>Each row is a layer, each box a head: how much it looked at each of the last {width} "
        "characters. The right end is the character before the guess.</p>"
    )


def nothing_yet() -> str:
    """What stands in Look inside before there is a text."""
    return '<p class="fine">Write something first. Two characters are enough.</p>'

