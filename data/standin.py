"""A stand-in for Shakespeare: a made-up play of the same size and symbols, whose best possible loss is known.

A small grammar, written here, draws speakers, sentences and invented words. It is built so that the text so
far always says what state the grammar is in. So the exact law of the next character can be computed, and its
mean -log p is a floor: no honest model goes below it, and one that does has seen the future.

What there is to learn, nearest first: spelling; word order; a verb that agrees with its subject across a
phrase; a question that ends in "?"; a speaker's own favourite words; nouns taken up again from lines before;
who speaks next.
"""

import math
import random
import re
from bisect import bisect_right
from functools import cache, cached_property, lru_cache
from itertools import accumulate
from statistics import stdev
from string import ascii_uppercase

SIZE = 1_115_394  # characters, as in Tiny Shakespeare
SHA256 = "b4f5a574a6aabbb45c643223bff972c069e671f7eb7625fb740af30bea114f06"  # of make(), on every machine
SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # the same 65
END = "\0"  # in a table of prefixes: the word ends here

# --- words, each with its weight ---

CLOSED = {  # every word stands in one class only, so a word says its class
    "DET": "the:20 a:14 my:14 thy:12 his:9 your:8 this:8 that:7 our:6 no:5 some:3 each:3 such:3 all:3 "
    "their:3 any:2 its:2 what:2 more:2 3:0.12 $3:0.12",
    "THOU": "thou:1",
    "HE": "he:3 she:2 it:2 who:1",
    "WE": "I:6 we:2 you:3 they:2",
    "THEM": "me:5 thee:4 him:4 us:2 them:2 it-self:0.3",
    "AUX": "shall:5 will:5 must:3 may:3 can:2 would:3 could:1 did:2 might:2 should:2 dare:1 need:1",
    "CONJ": "and:14 but:6 for:4 if:4 or:3 yet:3 when:3 then:3 so:3 as:3 though:2 while:2 where:2 "
    "because:1 &:0.15",
    "PREP": "of:12 in:8 to:7 with:6 from:4 by:4 upon:3 at:3 like:2 under:2 near:2 past:1 through:1 till:1 "
    "before:1 after:1 against:1 among:1 behind:1 o'er:1 'gainst:0.7 except:0.5",
    "INTJ": "O:6 alas:2 nay:2 lo:1 hark:1 ay:1 rejoice:1",
}
STEMS = {"NOUN": 2500, "VERB": 1200, "ADJ": 1200, "ADV": 200}  # how many invented words
FAVOURITES = {"NOUN": 400, "VERB": 250, "ADJ": 250, "ADV": 50}  # how many of each a speaker likes ...
LOYALTY = 0.75  # ... and how often one of these is used
NEAR, FAR = 20, 100  # the larger, the more evenly the favourites, or everybody's words, are used
RECALL, MEMORY = 0.2, 6  # how often a noun is one of the last few different ones
ENDINGS = ("", "s", "st", "th")  # of a verb: after I, a noun, thou, he

# the sounds of invented words
ONSETS = ("b:7 d:7 g:5 h:4 l:8 m:8 qu:0.8 r:8 s:7 v:4 w:5 y:0.8 z:0.5 bl:2 cl:2 cr:2 dr:2 fl:2 gl:2 gr:2 "
          "pl:3 pr:3 sk:2 st:4 th:4 tr:3")
VOWELS = "a:6 e:8 i:5 o:6 u:2 ea:1.5 ai:1 ou:1"
CODAS = ":4 n:5 r:6 l:4 nd:3 rn:2 st:2 th:2 lt:1.5 ft:1 mb:1"
SYLLABLES = "1:60 2:38 3:2"

# --- word order ---

ORDER = {  # where we are -> what may come
    "SENTENCE": "WE:10 THOU:6 HE:7 DET:22 NOUN:12 ADJ:11 INTJ:10 AUX:12 CONJ:10",
    "CLAUSE": "WE:12 THOU:7 HE:9 DET:25 NOUN:14 ADJ:12 CONJ:21",
    "AFTER_CONJ": "WE:22 THOU:12 HE:14 DET:52",
    "ASKED": "WE:30 THOU:17 HE:15 DET:38",
    "NP": "ADJ:50 NOUN:50",
    "NP_ADJ": "ADJ:20 NOUN:80",
    "PREDICATE": "VERB:66 AUX:20 ADV:14",
    "AFTER_SUBJECT": "VERB:50 AUX:16 ADV:9 PREP:25",
    "VERB_ONLY": "VERB:100",
    "AFTER_AUX": "VERB:86 ADV:14",
    "OBJECT": "DET:36 NOUN:20 ADJ:18 THEM:10 PREP:16",
    "AFTER_PREP": "DET:52 NOUN:20 ADJ:18 THEM:10",
    "MORE": "PREP:100",
}
FOLLOWS = {  # what came -> where we are then
    "DET": "NP", "ADJ": "NP_ADJ", "ADV": "VERB_ONLY", "PREP": "AFTER_PREP", "CONJ": "AFTER_CONJ",
    "AUX": "AFTER_AUX", "VERB": "OBJECT", "NAME": "CALLED", "INTJ": "NAMED",
}
SUBJECTS = {  # the same for what can be a subject, with the verb's ending
    "WE": ("PREDICATE", ""), "THOU": ("PREDICATE", "st"), "HE": ("PREDICATE", "th"),
    "NOUN": ("AFTER_SUBJECT", "s"), "THEM": ("AFTER_SUBJECT", "s"),
}
ENDS = {"OBJECT": 0.2, "MORE": 0.58, "CALLED": 1.0}  # chance that the clause ends here
MARKS = {".": {",": 38, ";": 9, ":": 6, ".": 47}, "?": {",": 25, "?": 75}, "!": {",": 30, "!": 70}}
WORD = re.compile(r"[A-Za-z0-9'$&-]*")


@cache
def table(text: str) -> dict[str, float]:
    """A table written as "word:weight word:weight"."""
    return {word: float(weight) for word, weight in (item.rsplit(":", 1) for item in text.split())}


class Bag:
    """Strings with weights; none begins another, since words close with END."""

    def __init__(self, items: dict[str, float]):
        total = sum(items.values())
        self.items = {s: w / total for s, w in items.items() if w > 0}
        self.strings = list(self.items)

    @classmethod
    def words(cls, items: dict[str, float]):
        return cls({w + END: p for w, p in items.items()})

    @cached_property
    def capital(self):
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
    def sums(self) -> list[float]:
        return list(accumulate(self.items.values()))

    def draw(self, rng: random.Random) -> str:
        at = bisect_right(self.sums, rng.random())
        return self.strings[min(at, len(self.strings) - 1)]


LEAVE = Bag({"\n": 1.0})  # an empty line: the speech is over


class Lexicon:
    """The invented words and names, each speaker's favourites and friends: the same for every play."""

    def __init__(self):
        # only random() is used: it is promised to give the same numbers in every version of Python
        self._rng = random.Random(0)
        self._taken = {word.lower() for words in CLOSED.values() for word in table(words)}
        self.names = [self._name(letter) for letter in ascii_uppercase]
        stems = {kind: [self._stem(kind) for _ in range(n)] for kind, n in STEMS.items()}
        self.common = {kind: {w: 1 / (i + FAR) for i, w in enumerate(ws)} for kind, ws in stems.items()}
        self.own = {kind: [self._favourites(kind, ws) for _ in self.names] for kind, ws in stems.items()}
        self.friends = [self._pick([j for j in range(26) if j != i], 4) for i in range(26)]
        self.kind = {word.lower(): kind for kind, words in CLOSED.items() for word in table(words)}
        self.kind |= {form: kind for kind, ws in stems.items() for w in ws for form in forms(kind, w)}
        self.kind |= {name.lower(): "NAME" for name in self.names}

    def _pick(self, items: list, n: int) -> list:
        left = list(items)
        return [left.pop(int(self._rng.random() * len(left))) for _ in range(n)]

    def _favourites(self, kind: str, words: list[str]) -> dict[str, float]:
        return {w: 1 / (i + NEAR) for i, w in enumerate(self._pick(words, FAVOURITES[kind]))}

    def _spell(self, *sounds: str) -> str:
        return "".join([Bag(table(s)).draw(self._rng) for s in sounds])

    def _name(self, letter: str) -> str:
        while True:
            name = letter + self._spell(VOWELS, ONSETS, VOWELS, "n:1 s:1 :1 l:1")
            if name.lower() not in self._taken:
                self._taken.add(name.lower())
                return name

    def _stem(self, kind: str) -> str:
        """A new word; adverbs end in -ly, verbs leave room for their endings."""
        while True:
            syllables = int(self._spell(SYLLABLES))
            word = self._spell(*[ONSETS, VOWELS] * syllables, CODAS)
            if kind == "ADV":
                word += "ly"
            if kind == "VERB" and word[-1] in "aeiou":
                word += "d"
            clumsy = len(word) < 3 or (kind == "VERB" and word[-1] in "th")  # no "gristth"
            if not clumsy and self._taken.isdisjoint(forms(kind, word)):
                self._taken.update(forms(kind, word))
                return word


def forms(kind: str, stem: str) -> list[str]:
    return [stem + ending for ending in ENDINGS] if kind == "VERB" else [stem]


lexicon = cache(Lexicon)

# --- what may come, as weighted bags; the same few hundred questions come again and again ---


@cache
def bag(kind: str, speaker: int | None, ending: str) -> Bag:
    """The words of a kind: everybody's (`speaker` None) or one speaker's favourites."""
    if kind in CLOSED:
        return Bag.words(table(CLOSED[kind]))
    words = lexicon().common[kind] if speaker is None else lexicon().own[kind][speaker]
    return Bag.words({w + ending: p for w, p in words.items()})


@cache
def words_at(node: str, speaker: int, ending: str, capital: bool, recalls: bool):
    """(weight of a noun from memory, [(weight, bag)] of all other words) at a place in the sentence."""
    order, mix, recall = table(ORDER[node]), [], 0.0
    for kind, weight in order.items():
        share, end = weight / sum(order.values()), ending if kind == "VERB" else ""
        if kind == "NOUN" and recalls:
            recall = share * RECALL
            share -= recall
        if kind in STEMS:
            mix.append((share * LOYALTY, bag(kind, speaker, end)))
            share *= 1 - LOYALTY
        mix.append((share, bag(kind, None, end)))
    return recall, [(w, b.capital) for w, b in mix] if capital else mix


@cache
def people(speaker: int | None, before: int | None, called: int | None, form: str) -> Bag:
    """Who speaks next, or who is called by name: the one called, the one before, a friend."""
    weights = [0.15 / 26] * 26
    for i in lexicon().friends[speaker] if speaker is not None else ():
        weights[i] += 0.25 / 4
    if called is not None:
        weights[called] += 0.6
    if before is not None:
        weights[before] += 0.4
    if speaker is not None:
        weights[speaker] = 0.0
    names = [name.upper() if form == ":\n" else name for name in lexicon().names]
    return Bag({name + form: w for name, w in zip(names, weights, strict=True)})


@cache
def spaces(ends: float, mark: str, line: int) -> Bag:
    """What stands between two words: a space or a line end, after a mark where the clause ends."""
    turn = min(max((line - 26) / 24, 0.0), 1.0) ** 2  # lines break between 27 and 50 characters
    total = sum(MARKS[mark].values())
    before = {"": 1 - ends, **{m: ends * w / total for m, w in MARKS[mark].items()}}
    if ends == 1.0:
        before = {",": 1.0}  # after a name that was called
    items = {}
    for m, w in before.items():
        stop = turn if m not in (".", "?", "!") else max(turn, 0.6)  # a sentence likes to end its line
        items[m + " "], items[m + "\n"] = w * (1 - stop), w * stop
    return Bag(items)


class Play:
    """The state of the grammar, all of it told by the text: `options` may come now, `take` moves on."""

    def __init__(self):
        self.speaker = self.before = self.called = None
        self.memory: list[str] = []  # the last few different nouns, newest last
        self.node, self.between = "SPEAKER", False  # between: a word has ended, its space or mark is next
        self.capital, self.line = True, 0  # line: characters in this line so far
        self.mark, self.ending, self.role, self.may_leave = ".", "", "SUBJECT", False

    def options(self) -> list[tuple[float, Bag]]:
        """Weighted bags; the law of what comes now is their mixture."""
        if self.node == "SPEAKER":
            return [(1.0, people(self.speaker, self.before, self.called, ":\n"))]
        if self.between:
            return [(1.0, spaces(ENDS.get(self.node, 0.0), self.mark, min(self.line, 60)))]
        if self.node == "NAMED":
            return [(1.0, people(self.speaker, self.before, None, END))]
        recall, mix = words_at(self.node, self.speaker, self.ending, self.capital, bool(self.memory))
        if recall:
            nouns = Bag.words(dict.fromkeys(self.memory, 1.0))
            mix = [(recall, nouns.capital if self.capital else nouns), *mix]
        if self.may_leave:
            mix = [(0.4, LEAVE), *((0.6 * w, b) for w, b in mix)]
        return mix

    def take(self, s: str) -> None:
        """Move on past `s`, one whole string of `options` (without END)."""
        self.line = 0 if s.endswith("\n") else self.line + len(s)
        if self.node == "SPEAKER":
            who = lexicon().names.index(s[:-2].capitalize())
            self.before, self.speaker, self.called = self.speaker, who, None
            self.node, self.capital = "SENTENCE", True
        elif self.between:
            self._take_space(s)
        elif s == "\n":
            self.node, self.may_leave = "SPEAKER", False
        else:
            self._take_word(s)

    def _take_space(self, s: str) -> None:
        ends_sentence, self.between = s[0] in ".?!", False
        self.capital = s[-1] == "\n" or ends_sentence
        if s[0] in ".?!,;:":
            self.ending, self.role = "", "SUBJECT"
            self.node = "SENTENCE" if ends_sentence else "CLAUSE"
        if ends_sentence:
            self.mark, self.may_leave = ".", s[-1] == "\n"

    def _take_word(self, s: str) -> None:
        word, opens = s.lower(), self.node == "SENTENCE"
        kind = lexicon().kind[word]
        self.between, self.capital, self.may_leave = True, False, False
        if kind == "NOUN":
            self.memory = [w for w in self.memory if w != word][-(MEMORY - 1) :] + [word]
        if kind == "NAME":
            self.called = lexicon().names.index(s)
        if kind in SUBJECTS:
            self.node, self.ending = self._after_noun(kind)
            return
        self.node = FOLLOWS[kind]
        if kind == "AUX":
            self.ending = ""
        if kind == "AUX" and opens:
            self.mark, self.node, self.role = "?", "ASKED", "ASKED"
        elif kind == "INTJ":
            self.mark = "!"
        elif kind == "VERB":
            self.role = "OBJECT"

    def _after_noun(self, kind: str) -> tuple[str, str]:
        """(where we are, the verb's ending) after a noun or pronoun, by its role in the clause."""
        if self.role == "OBJECT":
            return "MORE", ""
        return ("AFTER_AUX", "") if self.role == "ASKED" else SUBJECTS[kind]


# --- the text, its law and its floor ---


@lru_cache(maxsize=2)
def make(size: int = SIZE, seed: int = 0) -> str:
    """A play of `size` characters, always the same for one seed. Words and cast do not depend on the seed."""
    play, rng, parts, length = Play(), random.Random(f"play {seed}"), [], 0
    while length < size:
        s = draw(play.options(), rng).rstrip(END)
        play.take(s)
        parts.append(s)
        length += len(s)
    return "".join(parts)[:size]


def draw(options: list[tuple[float, Bag]], rng: random.Random) -> str:
    u, i = rng.random(), 0
    while i < len(options) - 1 and u >= options[i][0]:
        u -= options[i][0]
        i += 1
    return options[i][1].draw(rng)


def log_probs(text: str, start: int = 0) -> list[float]:
    """log p (nats, at most 0) of every character of `text` from `start` on, given all before it.

    `text` begins where a play begins. ValueError, with the place, at a character that cannot follow.
    """
    play, out, at, closing = Play(), [], 0, 0.0
    while at < len(text):
        s = next_string(text, at, play)
        if at + len(s) > start - 40:  # what comes long before `start` is followed, not scored
            *steps, end = score(play.options(), s, at, is_last=at + len(s) == len(text))
            steps[0] += closing  # that the last word ended there is part of the next character's surprise
            out += steps
            closing = end
        at += len(s)
        if at < len(text):
            play.take(s)
    return out[start - len(text) :] if start < len(text) else []


def next_string(text: str, at: int, play: Play) -> str:
    """A speaker's line, what stands between two words, or a word."""
    if play.node == "SPEAKER":
        return text[at : text.find("\n", at) + 1 or len(text)]
    if play.between:
        return text[at : at + (1 if text[at] in " \n" else 2)]
    return WORD.match(text, at)[0] or text[at]


def score(options: list[tuple[float, Bag]], s: str, at: int, is_last: bool) -> list[float]:
    """log p of each character of `s`, and that it ends there: 0 for strings complete as they stand, and for
    the last of a text, which may be cut off anywhere.
    """
    heads = [s[:i] for i in range(1, len(s) + 1)]
    asks_end = not is_last and not any(s in bag.items for _, bag in options)
    out, before = [], 1.0
    for head in heads + [s + END] * asks_end:
        now = sum([w * bag.mass.get(head, 0.0) for w, bag in options])
        if not now:
            raise ValueError(f"not the stand-in's grammar: {s!r} cannot stand at {at}")
        out.append(math.log(now / before))
        before = now
    return out if asks_end else [*out, 0.0]


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
    return sum(surprise) / len(surprise), stdev(blocks) / 10
