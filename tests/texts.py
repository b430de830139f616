"""Made-up texts of every kind that a reader may bring: each a pure function of its length. And a server."""

import functools
import http.server
import random
import threading


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


class Server:
    """On this machine; the first part of a path says how the answer goes wrong, as in /cut/book.txt."""

    def __init__(self, body: bytes):
        asked, stop = [], threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                asked.append(self.path)
                kind = self.path.split("/")[1]
                if kind == "hang":
                    return stop.wait(20)
                if kind.isdigit():
                    return self.send_error(int(kind))
                if kind == "once-broken":  # breaks off the first time only
                    kind = "cut" if asked.count(self.path) == 1 else "good"
                self.send_response(200)
                if kind not in ("short", "page", "endless"):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                half = body[: len(body) // 2]
                self.wfile.write({"wrong": body[::-1], "cut": half, "short": half, "stall": half,
                                  "page": b"<!DOCTYPE html><p>Book"}.get(kind, body))  # fmt: skip
                for _ in range(100 if kind == "endless" else 0):
                    self.wfile.write(body)
                if kind == "stall":
                    self.wfile.flush()
                    stop.wait(20)

        self.asked, self.stop = asked, stop
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __call__(self, *kinds):
        """Addresses, with spaces between."""
        return " ".join(f"http://127.0.0.1:{self.http.server_port}/{kind}" for kind in kinds)

    def close(self):
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()
