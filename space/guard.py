"""What stands before Gradio: no uploads, only small bodies, nothing that names a file; and who reads an
answer.

An ASGI middleware, standard library only. Gradio itself takes files from anybody, also for an app without
a file input.
"""

import ipaddress
import json
import time
from collections import Counter
from urllib.parse import parse_qs

MAX_BODY = 200_000  # bytes; a full seed text of the widest letters takes 120,000
PATIENCE = 8.0  # seconds in which a visitor must begin to read what was asked for; a busy machine needs some

READING = Counter()  # session or event -> open streams of answers


class Guard:
    """Refuses with one sentence what this app never needs, and keeps count of the open streams."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"].rstrip("/")
        if scope["method"] in ("GET", "HEAD"):
            return await self.watch(reader_of(path, scope), scope, receive, send)
        body, size = b"", 0
        while True:
            part = await receive()
            if part["type"] == "http.disconnect":
                return
            size += len(part.get("body", b""))
            body = body + part.get("body", b"") if size <= MAX_BODY else b""  # the rest is thrown away
            if not part.get("more_body"):
                break
        if path.endswith("/upload"):
            return await refuse(send, 413, "This app takes no files.")
        if size > MAX_BODY:
            return await refuse(send, 413, f"Too long: {size:,} bytes, at most {MAX_BODY:,} are read.")
        if names_a_file(body):
            return await refuse(send, 400, "This app takes text and numbers, no files.")
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return whole.pop() if whole else await receive()

        return await self.app(scope, replay, send)

    async def watch(self, reader, scope, receive, send):
        READING[reader] += 1
        try:
            return await self.app(scope, receive, send)
        finally:
            READING[reader] -= 1
            if READING[reader] <= 0:
                del READING[reader]


def reader_of(path: str, scope) -> str:
    """Whose answer a GET reads: the session of a page, or the event of a single call; else ""."""
    if path.endswith("/queue/data"):
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    return path.rsplit("/", 1)[1] if "/call/" in path else ""


def names_a_file(body: bytes) -> bool:
    """Whether the JSON holds what Gradio would take for a file, or is nested too deep to be looked at."""
    try:
        left = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # no JSON: Gradio says so itself
    while left:
        value = left.pop()
        if isinstance(value, dict) and ("path" in value or "_type" in value):
            return True
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return False


async def refuse(send, status: int, sentence: str):
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_read(session) -> bool:
    """Whether somebody reads this session's answers, or begins to within PATIENCE."""
    until = time.monotonic() + PATIENCE
    while not READING[session] and time.monotonic() < until:
        time.sleep(0.02)
    return READING[session] > 0


def address_of(request) -> str | None:
    """A visitor's public address, as the proxy before us tells it; None for this machine and its own."""
    told = request.headers.get("x-forwarded-for") or getattr(request.client, "host", "") or ""
    host = told.split(",")[0].strip()
    try:
        return host if ipaddress.ip_address(host).is_global else None
    except ValueError:
        return None
