"""A stand-in for Shakespeare: a made-up play of the same size and symbols, whose best possible loss is known.

A small grammar, written here, draws speakers, sentences and invented words. It is built so that the text so far always
says what state the grammar is in. So the exact law of the next character can be computed, and its mean -log p is a
floor: no honest model goes below it, and one that does has seen the future.

What there is to learn, nearest first: spelling; word order; a verb that agrees with its subject across a phrase; a
question that ends in "?"; a speaker's own favourite words; nouns taken up again from lines before; who speaks next.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

SIZE = 1_115_394  # characters, as in Tiny Shakespeare
SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # the same 65
END = "\0"  # in a table of prefixes: the word ends here

# --- words ---

# closed classes: every word stands in one class only, so a word says its class
CLOSED = {
    "DET": "the:30 my:14 thy:12 his:9 your:8 this:8 that:7 our:6 a:14 no:5 some:3 each:2 3:0.12 $3:0.12",
    "THOU": "thou:1",
    "HE": "he:3 she:2 it:2 who:1",
    "WE": "I:6 we:2 you:3 they:2",
    "THEM": "me:5 thee:4 him:4 us:2 them:2 it-self:0.3",
    "AUX": "shall:5 will:5 must:3 may:3 can:2 would:3 could:1 did:2",
    "CONJ": "and:14 but:6 for:4 or:3 yet:3 when:3 if:4 then:3 &:0.15",
    "PREP": "of:12 in:8 with:6 to:7 from:4 upon:2 by:4 o'er:1 'gainst:0.7 like:2",
    "INTJ": "O:6 alas:2 nay:2 lo:1 hark:1 ay:1",
}
ONSETS = "b c d f g h j k l m n p qu r s t v w y z bl br cl cr dr fl gr pl pr sh sl sp st th tr".split()
ONSET_WEIGHTS = [7, 4, 6, 4, 4, 4, 1, 2, 7, 7, 6, 4, 0.6, 7, 6, 6, 3, 4, 0.8, 0.5, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1, 2, 3, 3, 2]
VOWELS, VOWEL_WEIGHTS = "a e i o u ea ai ou".split(), [6, 8, 5, 6, 2, 1.5, 1, 1]
CODAS, CODA_WEIGHTS = ["", *"n r l m t nd rn st th x".split()], [5, 5, 6, 4, 3, 3, 2, 1.5, 2, 1.5, 0.15]
STEMS = {"NOUN": 1100, "VERB": 600, "ADJ": 500, "ADV": 120}
AGREEMENT = {"BARE": "", "S": "s", "EST": "est", "ETH": "eth"}  # after I, a noun, thou, he
FAVOURITES = {"NOUN": 110, "VERB": 70, "ADJ": 60, "ADV": 20}  # how many of each a speaker likes ...
LOYALTY = 0.85  # ... and how often one of these is used
RECALL, MEMORY = 0.35, 6  # how often a noun is one of the last few different ones

# --- word order: where we are -> what may come, with weights ---

ORDER = {
    "SENTENCE": {"WE": 18, "THOU": 8, "HE": 9, "DET": 27, "INTJ": 10, "AUX": 12, "CONJ": 16},
    "CLAUSE": {"WE": 18, "THOU": 9, "HE": 11, "DET": 35, "CONJ": 27},
    "AFTER_CONJ": {"WE": 22, "THOU": 12, "HE": 14, "DET": 52},
    "ASKED": {"WE": 30, "THOU": 17, "HE": 15, "DET": 38},
    "NP": {"ADJ": 38, "NOUN": 62},
    "NP_ADJ": {"ADJ": 10, "NOUN": 90},
    "PREDICATE": {"VERB": 66, "AUX": 20, "ADV": 14},
    "AFTER_SUBJECT": {"VERB": 50, "AUX": 16, "ADV": 9, "PREP": 25},
    "VERB_ONLY": {"VERB": 100},
    "AFTER_AUX": {"VERB": 86, "ADV": 14},
    "OBJECT": {"DET": 56, "THEM": 18, "PREP": 26},
    "AFTER_PREP": {"DET": 82, "THEM": 18},
    "MORE": {"PREP": 100},
}
ENDS = {"OBJECT": 0.14, "MORE": 0.68, "CALLED": 1.0}  # chance that the clause ends here, before what could come
MARKS = {".": {",": 38, ";": 9, ":": 6, ".": 47}, "?": {",": 25, "?": 75}, "!": {",": 30, "!": 70}}


class Bag:
    """Strings with weights, and the weight of each of their prefixes. A word ends in END, other strings end by themselves."""

    def __init__(self, items: dict[str, float]):
        total = sum(items.values())
        self.items = {s: w / total for s, w in items.items() if w > 0}
        self._strings, self._sums = list(self.items), list(accumulate(self.items.values()))
        self.mass: dict[str, float] = {}
        for s, w in self.items.items():
            for i in range(len(s) + 1):
                self.mass[s[:i]] = self.mass.get(s[:i], 0.0) + w

    @classmethod
    def words(cls, items: dict[str, float]) -> Bag:
        return cls({w + END: p for w, p in items.items()})

    def capital(self) -> Bag:
        """The same words as they stand at the start of a line or sentence."""
        if not hasattr(self, "_capital"):
            self._capital = Bag({s[0].upper() + s[1:]: w for s, w in self.items.items()})
        return self._capital

    def draw(self, u: float) -> str:
        return self._strings[min(bisect_right(self._sums, u * self._sums[-1]), len(self._strings) - 1)]


class Grammar:
    """Words, favourites and companions: everything about the play that does not change while it is spoken."""

    def __init__(self, seed: int):
        # only random() is used: it is promised to give the same numbers in every version of Python
        self._rng = random.Random(seed)
        self._taken: set[str] = set()
        closed = {k: {w: float(p) for w, p in (x.rsplit(":", 1) for x in v.split())} for k, v in CLOSED.items()}
        for words in closed.values():
            self._taken.update(w.lower() for w in words)
        self.names = [self._name(chr(65 + i)) for i in range(26)]
        self.kind = {w.lower(): k for k, words in closed.items() for w in words}
        self.bags = {k: Bag.words(words) for k, words in closed.items()}
        stems = {k: [self._stem(k) for _ in range(n)] for k, n in STEMS.items()}
        for kind, words in stems.items():
            self.kind.update({w + s: kind for w in words for s in (AGREEMENT.values() if kind == "VERB" else [""])})
        self.kind.update({n.lower(): "NAME" for n in self.names})
        self._own = {k: [self._taste(words, FAVOURITES[k]) for _ in self.names] for k, words in stems.items()}
        self.friends = [self._pick(list(range(26)), 4, but=i) for i in range(26)]

    def _choose(self, items, weights):
        return items[bisect_right(list(accumulate(weights)), self._rng.random() * sum(weights))]

    def _pick(self, items: list, n: int, but=None) -> list:
        left = [x for x in items if x != but]
        return [left.pop(int(self._rng.random() * len(left))) for _ in range(n)]

    def _syllable(self) -> str:
        return self._choose(ONSETS, ONSET_WEIGHTS) + self._choose(VOWELS, VOWEL_WEIGHTS)

    def _fresh(self, forms) -> bool:
        if any(f in self._taken for f in forms):
            return False
        self._taken.update(forms)
        return True

    def _stem(self, kind: str) -> str:
        """A new invented word of two or three syllables; adverbs end in -ly, verbs leave room for their endings."""
        while True:
            word = self._syllable() + self._syllable() + self._choose(CODAS, CODA_WEIGHTS)
            if self._rng.random() < 0.2:
                word = self._syllable() + word
            word += "ly" if kind == "ADV" else ""
            if kind == "VERB" and word[-1] in "aeiou":
                word += "d"
            if self._fresh([word + s for s in AGREEMENT.values()] if kind == "VERB" else [word]):
                return word

    def _name(self, letter: str) -> str:
        while True:
            name = letter + self._choose(VOWELS, VOWEL_WEIGHTS) + self._syllable() + self._choose(["n", "s", "", "l"], [1, 1, 1, 1])
            if self._fresh([name.lower()]):
                return name

    def _taste(self, words: list[str], n: int) -> dict[str, float]:
        """One speaker's words: the common ones as everybody uses them, and n favourites far more often."""
        weights = {w: (1 - LOYALTY) / (i + 8) for i, w in enumerate(words)}
        scale = sum(weights.values())
        weights = {w: p / scale * (1 - LOYALTY) for w, p in weights.items()}
        liked = self._pick(words, n)
        total = sum(1 / (i + 3) for i in range(n))
        for i, w in enumerate(liked):
            weights[w] += LOYALTY / (i + 3) / total
        return weights

    @lru_cache(maxsize=None)  # noqa: B019 - one grammar lives as long as the process
    def bag(self, kind: str, speaker: int, ending: str) -> Bag:
        if kind in self.bags:
            return self.bags[kind]
        own = self._own[kind][speaker]
        return Bag.words({w + AGREEMENT[ending]: p for w, p in own.items()} if kind == "VERB" else own)

    @lru_cache(maxsize=None)  # noqa: B019
    def whom(self, speaker: int, before: int | None, called: int | None, upper: bool) -> Bag:
        """Who speaks next, or who is called by name: the one called, the one before, a friend."""
        weights = {i: 0.0 for i in range(26)}
        for i in weights:
            weights[i] += 0.15 / 26
        for i in self.friends[speaker]:
            weights[i] += 0.25 / 4
        if called is not None:
            weights[called] += 0.6
        if before is not None:
            weights[before] += 0.4
        weights[speaker] = 0.0
        return Bag({(self.names[i].upper() + ":\n" if upper else self.names[i] + END): w for i, w in weights.items()})


class Player:
    """The state of the grammar; `options` says what may come now, `take` moves on. Every bit of it is in the text."""

    def __init__(self, grammar: Grammar):
        self.g = grammar
        self.speaker = self.before = self.called = None
        self.memory: list[str] = []  # the last few different nouns, newest last
        self.node, self.between = "SPEAKER", False  # between: a word has ended, its space or mark is next
        self.capital, self.line = True, 0  # line: characters in this line so far
        self.mark, self.ending, self.role, self.may_leave = ".", "BARE", "SUBJECT", False

    def options(self) -> list[tuple[float, Bag]]:
        """Weighted bags; the law of what comes now is their mixture."""
        if self.node == "SPEAKER":
            return [(1.0, self._first() if self.speaker is None else self._whom(True))]
        if self.between:
            return [(1.0, _spaces(ENDS.get(self.node, 0.0), self.mark, min(self.line, 60)))]
        mix = self._words()
        if self.may_leave:
            return [(0.4, LEAVE), *((0.6 * w, bag) for w, bag in mix)]
        return mix

    def _words(self) -> list[tuple[float, Bag]]:
        if self.node == "NAMED":
            return [(1.0, self._whom(False))]
        mix, total = [], sum(ORDER[self.node].values())
        for kind, weight in ORDER[self.node].items():
            share, bag = weight / total, self.g.bag(kind, self.speaker, self.ending)
            if kind == "NOUN" and self.memory:
                mix.append((share * RECALL, _recall(tuple(self.memory))))
                share *= 1 - RECALL
            mix.append((share, bag))
        return [(w, bag.capital()) for w, bag in mix] if self.capital else mix

    def _first(self) -> Bag:
        return _first_speaker(tuple(self.g.names))

    def _whom(self, upper: bool) -> Bag:
        return self.g.whom(self.speaker, self.before, self.called if upper else None, upper)

    def take(self, s: str) -> None:
        """Move on past `s`, one whole string of `options` (without END)."""
        self.line = 0 if s.endswith("\n") else self.line + len(s)
        if self.node == "SPEAKER":
            who = self.g.names.index(s[:-2].capitalize())
            self.before, self.speaker, self.called = self.speaker, who, None
            self.node, self.capital = "SENTENCE", True
        elif self.between:
            self._take_space(s)
        elif s == "\n":
            self.node, self.may_leave = "SPEAKER", False
        else:
            self._take_word(s)

    def _take_space(self, s: str) -> None:
        self.between, mark = False, s[0]
        self.capital = s[-1] == "\n" or mark in ".?!"
        if mark in ".?!":
            self.node, self.mark, self.ending, self.role = "SENTENCE", ".", "BARE", "SUBJECT"
            self.may_leave = s[-1] == "\n"
        elif mark in ",;:":
            self.node, self.ending, self.role = "CLAUSE", "BARE", "SUBJECT"

    def _take_word(self, s: str) -> None:
        kind = self.g.kind[s.lower()]
        opens, self.between, self.capital, self.may_leave = self.node == "SENTENCE", True, False, False
        if kind == "NOUN":
            word = s.lower()
            self.memory = [w for w in self.memory if w != word][-(MEMORY - 1) :] + [word]
        if kind == "NAME":
            self.called = self.g.names.index(s.capitalize())
        if kind == "AUX" and opens:
            self.mark, self.node, self.role = "?", "ASKED", "ASKED"
        elif kind == "INTJ":
            self.mark, self.node = "!", "NAMED"
        else:
            self._after(kind)

    def _after(self, kind: str) -> None:
        """Where a word of this kind leads, given the part of the clause that we are in."""
        if kind in ("WE", "THOU", "HE"):
            asked = self.role == "ASKED"
            self.ending = "BARE" if asked else {"WE": "BARE", "THOU": "EST", "HE": "ETH"}[kind]
            self.node = "AFTER_AUX" if asked else "PREDICATE"
        elif kind in ("NOUN", "THEM") and self.role == "OBJECT":
            self.node = "MORE"
        elif kind in ("NOUN", "THEM"):
            asked = self.role == "ASKED"
            self.ending, self.node = ("BARE", "AFTER_AUX") if asked else ("S", "AFTER_SUBJECT")
        elif kind == "AUX":
            self.ending, self.node = "BARE", "AFTER_AUX"
        elif kind == "VERB":
            self.role, self.node = "OBJECT", "OBJECT"
        else:
            follow = {"DET": "NP", "ADJ": "NP_ADJ", "ADV": "VERB_ONLY", "PREP": "AFTER_PREP", "CONJ": "AFTER_CONJ"}
            self.node = {**follow, "NAME": "CALLED"}[kind]


LEAVE = Bag({"\n": 1.0})  # an empty line: the speech is over


@lru_cache(maxsize=None)
def _first_speaker(names: tuple[str, ...]) -> Bag:
    return Bag({n.upper() + ":\n": 1.0 for n in names})


@lru_cache(maxsize=100_000)
def _recall(memory: tuple[str, ...]) -> Bag:
    return Bag.words({w: 1.0 for w in memory})


@lru_cache(maxsize=None)
def _spaces(ends: float, mark: str, line: int) -> Bag:
    """What stands between two words: a space or a line end, after a mark where the clause ends."""
    turn = min(max((line - 26) / 24, 0.0), 1.0) ** 2  # lines break between 27 and 50 characters
    marks, total = MARKS[mark], sum(MARKS[mark].values())
    before = {"": 1 - ends, **{m: ends * w / total for m, w in marks.items()}}
    if ends == 1.0:
        before = {",": 1.0}  # after a name that was called
    items = {}
    for m, w in before.items():
        stop = turn if m not in (".", "?", "!") else max(turn, 0.6)  # a sentence likes to end its line
        items[m + " "], items[m + "\n"] = w * (1 - stop), w * stop
    return Bag(items)


@lru_cache(maxsize=2)
def _grammar(seed: int) -> Grammar:
    return Grammar(seed)


@lru_cache(maxsize=2)
def make(size: int = SIZE, seed: int = 0) -> str:
    """A play of `size` characters, always the same for one seed. Words and cast do not depend on the seed."""
    player, rng, parts, length = Player(_grammar(0)), random.Random(f"play {seed}"), [], 0
    while length < size:
        s = _draw(player.options(), rng).rstrip(END)
        player.take(s)
        parts.append(s)
        length += len(s)
    return "".join(parts)[:size]


def _draw(options: list[tuple[float, Bag]], rng: random.Random) -> str:
    u = rng.random()
    for weight, bag in options:
        if u < weight:
            break
        u -= weight
    return bag.draw(rng.random())


def log_probs(text: str) -> list[float]:
    """Nats (log p, at most 0) of every character of `text` given all before it, under the grammar's own law.

    `text` starts where a play starts. ValueError, with the place, at the first character that cannot follow.
    """
    player, out, i, carry = Player(_grammar(0)), [], 0, 0.0
    while i < len(text):
        s, carry = _read_one(player.options(), text, i, out, carry)
        i += len(s)
        if i < len(text):
            player.take(s)
    return out


def _read_one(options: list[tuple[float, Bag]], text: str, start: int, out: list[float], carry: float):
    """Read one string of `options` at `start`: append its log p to `out`; (the string, log p that its word ends)."""
    s, mass = "", 1.0
    for c in text[start : start + 40]:
        longer = sum(w * bag.mass.get(s + c, 0.0) for w, bag in options)
        if longer == 0.0:
            break
        out.append(math.log(longer / mass) + carry)
        s, mass, carry = s + c, longer, 0.0
        if any(s in bag.items for _, bag in options):
            return s, 0.0
    if start + len(s) == len(text):
        return s, 0.0
    over = sum(w * bag.mass.get(s + END, 0.0) for w, bag in options)
    if over == 0.0:
        raise ValueError(f"not a text of the stand-in's grammar: {text[start + len(s)]!r} cannot stand at {start + len(s)}")
    return s, math.log(over / mass)


@lru_cache(maxsize=2)
def floor(text: str | None = None) -> tuple[float, float]:
    """(floor, standard error), nats/char, over the validation targets: the last tenth of `text` but its first character.

    The error is taken over 100 blocks in a row, since neighbouring characters are not independent.
    """
    text = make() if text is None else text
    surprise = [-p for p in log_probs(text)][int(0.9 * len(text)) + 1 :]
    n = len(surprise) // 100
    blocks = [sum(surprise[i * n : (i + 1) * n]) / n for i in range(100)]
    mean = sum(blocks) / 100
    error = math.sqrt(sum((b - mean) ** 2 for b in blocks) / 99 / 100)
    return sum(surprise) / len(surprise), error
