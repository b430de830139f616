"""Made-up texts of every kind that a reader may bring: each a pure function of its length."""

import functools
import random


@functools.cache
def words(letters, many=3000, sizes=(1, 2, 3, 4, 5, 6, 7, 8), seed=0):
    """(words, weights): invented words, the first ones common, as in any language."""
    r = random.Random(seed)
    weights = [1 / (i + 2) for i in range(len(letters))]
    made = ["".join(r.choices(letters, weights, k=r.choice(sizes))) for _ in range(many)]
    return made, [1 / (i + 5) for i in range(many)]


def prose(letters, size, sizes=(2, 3, 4, 5, 6, 7, 8), space=" ", ends=".?!", seed=0, many=3000):
    """Sentences and paragraphs of invented words over `letters`."""
    r, parts, length = random.Random(seed), [], 0
    made, weights = words(letters, many, sizes, seed)
    while length < size:
        sentence = space.join(r.choices(made, weights, k=r.randint(4, 14)))
        sentence = sentence[0].upper() + sentence[1:] + r.choice(ends) + r.choice([" ", " ", " ", "\n\n"])
        parts.append(sentence)
        length += len(sentence)
    return "".join(parts)[:size]


def cyrillic(size=400_000):
    """A novel: the commonest Russian letters first."""
    return prose("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё", size)


def hebrew(size=100_000):
    """From right to left, no capitals."""
    return prose("יוהלאמרבתשנכםדקעחפטןצגזסךףץ", size)


def han(size=200_000, symbols=3000):
    """No spaces, and so many symbols that no alphabet will do."""
    letters = "".join(chr(0x4E00 + i) for i in range(symbols))
    return letters + prose(letters, size - symbols, (1, 2, 2, 3), "", "。？！")


def verse(size=30_000):
    return "\n".join(line.strip() for line in prose("etaoinshrdlu", size, many=400).split("."))[:size]


def log(lines=4000):
    """One symbol on most lines."""
    r = random.Random(0)
    return "".join(r.choice(["x\n"] * 9 + [f"error {r.randrange(100)}\n"]) for _ in range(lines))


def play(speeches=600):
    r = random.Random(0)
    cast = ["АННА", "О'Брайен", "Third Man"]
    return "\n\n".join(f"{r.choice(cast)}:\n{prose('abcdef', 60, seed=i, many=300)}" for i in range(speeches))
