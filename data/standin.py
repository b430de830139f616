"""A stand-in for Shakespeare: a made-up play of the same size and symbols, whose best possible loss is known.

A small grammar, written here, draws speakers, sentences and invented words. It is built so that the text so
far always says what state the grammar is in. So the exact law of the next character can be computed, and its
mean -log p is a floor: no honest model goes below it, and one that does has seen the future.

What there is to learn, nearest first: spelling; word order; a verb that agrees with its subject across a
phrase; a question that ends in "?"; a speaker's own favourite words; nouns taken up again from lines before;
who speaks next.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from functools import cache, cached_property, lru_cache
from itertools import accumulate

SIZE = 1_115_394  # characters, as in Tiny Shakespeare
SHA256 = "b4f5a574a6aabbb45c643223bff972c069e671f7eb7625fb740af30bea114f06"  # of make(), on every machine
SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # the same 65
END = "\0"  # in a table of prefixes: the word ends here

# --- words ---

# closed classes: every word stands in one class only, so a word says its class
CLOSED = {
    "DET": "the:20 a:14 my:14 thy:12 his:9 your:8 this:8 that:7 our:6 no:5 some:3 each:3 such:3 all:3 "
    "their:3 any:2 "
    "its:2 what:2 more:2 3:0.12 $3:0.12",
    "THOU": "thou:1",
    "HE": "he:3 she:2 it:2 who:1",
    "WE": "I:6 we:2 you:3 they:2",
    "THEM": "me:5 thee:4 him:4 us:2 them:2 it-self:0.3",
    "AUX": "shall:5 will:5 must:3 may:3 can:2 would:3 could:1 did:2 might:2 should:2 dare:1 need:1",
    "CONJ": "and:14 but:6 for:4 if:4 or:3 yet:3 when:3 then:3 so:3 as:3 though:2 while:2 where:2 "
    "because:1 &:0.15",
    "PREP": "of:12 in:8 to:7 with:6 from:4 by:4 upon:3 at:3 like:2 under:2 near:2 past:1 through:1 "
    "till:1 before:1 "
    "after:1 against:1 among:1 behind:1 o'er:1 'gainst:0.7 except:0.5",
    "INTJ": "O:6 alas:2 nay:2 lo:1 hark:1 ay:1 rejoice:1",
}
# sounds of the invented words, with weights
ONSETS = (
    "b:7 d:7 g:5 h:4 l:8 m:8 qu:0.8 r:8 s:7 v:4 w:5 y:0.8 z:0.5 bl:2 cl:2 cr:2 dr:2 fl:2 gl:2 "
    "gr:2 pl:3 pr:3 sk:2 st:4 "
    "th:4 tr:3"
)
VOWELS = "a:6 e:8 i:5 o:6 u:2 ea:1.5 ai:1 ou:1"
CODAS = ":4 n:5 r:6 l:4 nd:3 rn:2 st:2 th:2 lt:1.5 ft:1 mb:1"
SYLLABLES = "1:60 2:38 3:2"
STEMS = {"NOUN": 2500, "VERB": 1200, "ADJ": 1200, "ADV": 200}
AGREEMENT = {"BARE": "", "S": "s", "EST": "st", "ETH": "th"}  # after I, a noun, thou, he
FAVOURITES = {"NOUN": 400, "VERB": 250, "ADJ": 250, "ADV": 50}  # how many of each a speaker likes ...
LOYALTY = 0.75  # ... and how often one of these is used
NEAR, FAR = 20, 100  # the larger, the more evenly the favourites, or everybody's words, are used
RECALL, MEMORY = 0.2, 6  # how often a noun is one of the last few different ones

# --- word order: where we are -> what may come, with weights ---

ORDER = {
    "SENTENCE": {
        "WE": 10,
        "THOU": 6,
        "HE": 7,
        "DET": 22,
        "NOUN": 12,
        "ADJ": 11,
        "INTJ": 10,
        "AUX": 12,
        "CONJ": 10,
    },
    "CLAUSE": {"WE": 12, "THOU": 7, "HE": 9, "DET": 25, "NOUN": 14, "ADJ": 12, "CONJ": 21},
    "AFTER_CONJ": {"WE": 22, "THOU": 12, "HE": 14, "DET": 52},
    "ASKED": {"WE": 30, "THOU": 17, "HE": 15, "DET": 38},
    "NP": {"ADJ": 50, "NOUN": 50},
    "NP_ADJ": {"ADJ": 20, "NOUN": 80},
    "PREDICATE": {"VERB": 66, "AUX": 20, "ADV": 14},
    "AFTER_SUBJECT": {"VERB": 50, "AUX": 16, "ADV": 9, "PREP": 25},
    "VERB_ONLY": {"VERB": 100},
    "AFTER_AUX": {"VERB": 86, "ADV": 14},
    "OBJECT": {"DET": 36, "NOUN": 20, "ADJ": 18, "THEM": 10, "PREP": 16},
    "AFTER_PREP": {"DET": 52, "NOUN": 20, "ADJ": 18, "THEM": 10},
    "MORE": {"PREP": 100},
}
ENDS = {
    "OBJECT": 0.2,
    "MORE": 0.58,
    "CALLED": 1.0,
}  # chance that the clause ends here, before what could come
MARKS = {".": {",": 38, ";": 9, ":": 6, ".": 47}, "?": {",": 25, "?": 75}, "!": {",": 30, "!": 70}}


@cache
def _table(text: str) -> dict[str, float]:
    """A table written as "word:weight word:weight"."""
    return {word: float(weight) for word, weight in (item.rsplit(":", 1) for item in text.split())}


class Bag:
    """Strings with weights. A word closes with END, other strings are complete as they stand; none
    begins another.
    """

    def __init__(self, items: dict[str, float]):
        total = sum(items.values())
        self.items = {s: w / total for s, w in items.items() if w > 0}

    @classmethod
    def words(cls, items: dict[str, float]) -> Bag:
        return cls({w + END: p for w, p in items.items()})

    @cached_property
    def capital(self) -> Bag:
        """The same words as they stand at the start of a line or sentence."""
        return Bag({s[0].upper() + s[1:]: w for s, w in self.items.items()})

    @cached_property
    def mass(self) -> dict[str, float]:
        """The weight of everything that begins with a prefix, for each prefix."""
        mass: dict[str, float] = {}
        for s, w in self.items.items():
            for i in range(len(s) + 1):
                mass[s[:i]] = mass.get(s[:i], 0.0) + w
        return mass

    @cached_property
    def _ladder(self) -> tuple[list[str], list[float]]:
        return list(self.items), list(accumulate(self.items.values()))

    def draw(self, u: float) -> str:
        """The string at height `u`, 0 <= u < 1, when all are stacked by weight."""
        strings, sums = self._ladder
        return strings[min(bisect_right(sums, u), len(strings) - 1)]


class Grammar:
    """Words, favourites and companions: everything about the play that does not change while it is spoken."""

    def __init__(self, seed: int):
        # only random() is used: it is promised to give the same numbers in every version of Python
        self._rng = random.Random(seed)
        self._taken: set[str] = set()
        closed = {k: _table(v) for k, v in CLOSED.items()}
        for words in closed.values():
            self._taken.update(w.lower() for w in words)
        self.names = [self._name(chr(65 + i)) for i in range(26)]
        self.kind = {w.lower(): k for k, words in closed.items() for w in words}
        self.bags = {k: Bag.words(words) for k, words in closed.items()}
        stems = {k: [self._stem(k) for _ in range(n)] for k, n in STEMS.items()}
        for kind, words in stems.items():
            self.kind.update(
                {w + s: kind for w in words for s in (AGREEMENT.values() if kind == "VERB" else [""])}
            )
        self.kind.update({n.lower(): "NAME" for n in self.names})
        self._common = {k: {w: 1 / (i + FAR) for i, w in enumerate(words)} for k, words in stems.items()}
        self._own = {k: [self._taste(words, FAVOURITES[k]) for _ in self.names] for k, words in stems.items()}
        self.friends = [self._pick(list(range(26)), 4, but=i) for i in range(26)]
        # the same few hundred questions come again and again
        self.bag, self.mix, self.whom = cache(self._bag), cache(self._mix), cache(self._whom)

    def _choose(self, table: str) -> str:
        items = _table(table)
        return list(items)[
            bisect_right(list(accumulate(items.values())), self._rng.random() * sum(items.values()))
        ]

    def _pick(self, items: list, n: int, but=None) -> list:
        left = [x for x in items if x != but]
        return [left.pop(int(self._rng.random() * len(left))) for _ in range(n)]

    def _syllable(self) -> str:
        return self._choose(ONSETS) + self._choose(VOWELS)

    def _fresh(self, forms) -> bool:
        if any(f in self._taken for f in forms):
            return False
        self._taken.update(forms)
        return True

    def _stem(self, kind: str) -> str:
        """A new invented word of two or three syllables; adverbs end in -ly, verbs leave room for
        their endings.
        """
        while True:
            word = "".join(self._syllable() for _ in range(int(self._choose(SYLLABLES)))) + self._choose(
                CODAS
            )
            word += "ly" if kind == "ADV" else ""
            if kind == "VERB" and word[-1] in "aeiou":
                word += "d"
            if len(word) < 3 or (kind == "VERB" and word[-1] in "th"):  # no "gristth"
                continue
            if self._fresh([word + s for s in AGREEMENT.values()] if kind == "VERB" else [word]):
                return word

    def _name(self, letter: str) -> str:
        while True:
            name = letter + self._choose(VOWELS) + self._syllable() + self._choose("n:1 s:1 :1 l:1")
            if self._fresh([name.lower()]):
                return name

    def _taste(self, words: list[str], n: int) -> dict[str, float]:
        """One speaker's n favourites, the first of them the dearest."""
        return {w: 1 / (i + NEAR) for i, w in enumerate(self._pick(words, n))}

    def _bag(self, kind: str, speaker: int | None, ending: str) -> Bag:
        """The words of a kind: everybody's (`speaker` None) or one speaker's favourites."""
        if kind in self.bags:
            return self.bags[kind]
        words = self._common[kind] if speaker is None else self._own[kind][speaker]
        return Bag.words({w + AGREEMENT[ending]: p for w, p in words.items()} if kind == "VERB" else words)

    def _mix(self, node: str, speaker: int, ending: str, capital: bool, recalls: bool):
        """(weight of a noun from memory, [(weight, bag)] of all other words) at a place in the sentence."""
        mix, recall, total = [], 0.0, sum(ORDER[node].values())
        for kind, weight in ORDER[node].items():
            share, end = weight / total, ending if kind == "VERB" else ""
            if kind == "NOUN" and recalls:
                recall = share * RECALL
                share -= recall
            if kind in STEMS:
                mix.append((share * LOYALTY, self.bag(kind, speaker, end)))
                share *= 1 - LOYALTY
            mix.append((share, self.bag(kind, None, end)))
        return recall, [(w, bag.capital) for w, bag in mix] if capital else mix

    def _whom(self, speaker: int, before: int | None, called: int | None, upper: bool) -> Bag:
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
        return Bag(
            {(self.names[i].upper() + ":\n" if upper else self.names[i] + END): w for i, w in weights.items()}
        )


class Player:
    """The state of the grammar; `options` says what may come now, `take` moves on. Every bit of it
    is in the text.
    """

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
        mix = self.g.mix(self.node, self.speaker, self.ending, self.capital, bool(self.memory))
        if mix[0]:
            recall = _recall(tuple(self.memory))
            return [(mix[0], recall.capital if self.capital else recall), *mix[1]]
        return mix[1]

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
            follow = {
                "DET": "NP",
                "ADJ": "NP_ADJ",
                "ADV": "VERB_ONLY",
                "PREP": "AFTER_PREP",
                "CONJ": "AFTER_CONJ",
            }
            self.node = {**follow, "NAME": "CALLED"}[kind]


WORD = re.compile(r"[A-Za-z0-9'$&-]*")
LEAVE = Bag({"\n": 1.0})  # an empty line: the speech is over


@cache
def _first_speaker(names: tuple[str, ...]) -> Bag:
    return Bag({n.upper() + ":\n": 1.0 for n in names})


@lru_cache(maxsize=64)
def _recall(memory: tuple[str, ...]) -> Bag:
    return Bag.words({w: 1.0 for w in memory})


@cache
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
    u, i = rng.random(), 0
    while i < len(options) - 1 and u >= options[i][0]:
        u -= options[i][0]
        i += 1
    return options[i][1].draw(rng.random())


def log_probs(text: str, start: int = 0) -> list[float]:
    """log p (nats, at most 0) of every character of `text` from `start` on, given all before it.

    `text` begins where a play begins. ValueError, with the place, at a character that cannot follow.
    """
    player, out, i, closing = Player(_grammar(0)), [], 0, 0.0
    while i < len(text):
        s = _one_string(text, i, player)
        if i + len(s) > start - 40:  # what comes long before `start` is followed, not scored
            last = i + len(s) == len(text)
            steps, after = _score(player.options(), s, i, last)
            steps[0] += closing  # that the last word ended there is part of the next character's surprise
            out += steps
            closing = after
        i += len(s)
        if i < len(text):
            _take(player, s, i)
    return out[len(out) - (len(text) - start) :] if start < len(text) else []


def _one_string(text: str, i: int, player: Player) -> str:
    """The next string of `text` at `i`: a speaker's line, what stands between two words, or a word."""
    if player.node == "SPEAKER":
        return text[i : text.find("\n", i) + 1 or len(text)]
    if player.between:
        return text[i : i + (1 if text[i] in " \n" else 2)]
    return WORD.match(text, i)[0] or text[i]


def _score(options: list[tuple[float, Bag]], s: str, place: int, last: bool) -> tuple[list[float], float]:
    """(log p of each character of `s`, log p that it ends there, 0 for strings that are complete as
    they stand).
    """
    out, before, alive = [], 1.0, [(w, bag.mass) for w, bag in options]
    for i in range(1, len(s) + 1):
        head = s[:i]
        alive = [(w, mass) for w, mass in alive if head in mass]
        now = sum([w * mass[head] for w, mass in alive])
        if not now:
            raise ValueError(
                f"not the stand-in's grammar: {s[i - 1]!r} at {place + i - 1} cannot stand there"
            )
        out.append(math.log(now / before))
        before = now
    if any(s in bag.items for _, bag in options):
        return out, 0.0
    over = sum([w * mass.get(s + END, 0.0) for w, mass in alive])
    if not over and not last:
        raise ValueError(f"not the stand-in's grammar: {s!r} cannot end at {place + len(s)}")
    return out, math.log(over / before) if over else 0.0


def _take(player: Player, s: str, place: int) -> None:
    try:
        player.take(s)
    except (KeyError, ValueError):
        raise ValueError(f"not the stand-in's grammar: {s!r} before {place} is none of its words") from None


@lru_cache(maxsize=2)
def floor(text: str | None = None) -> tuple[float, float]:
    """(floor, standard error) in nats/char over the validation targets: the last tenth but its first.

    A model that sees only the past is expected above the floor, whatever it has learnt: the gap is how much
    its law differs from the true one. The error is taken over 100 blocks in a row, since neighbours are not
    independent.
    """
    text = make() if text is None else text
    surprise = [-p for p in log_probs(text, int(0.9 * len(text)) + 1)]
    n = len(surprise) // 100
    blocks = [sum(surprise[i * n : (i + 1) * n]) / n for i in range(100)]
    mean = sum(blocks) / 100
    error = math.sqrt(sum((b - mean) ** 2 for b in blocks) / 99 / 100)
    return sum(surprise) / len(surprise), error
