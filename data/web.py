"""Fetch a file from an address: patient with a slow server, quick to give up on one that is not there."""

import http.client
import queue
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

CONNECT_SECONDS = 4.0  # name look-up, connection and first answer
READ_SECONDS = 10.0  # silence in the middle of a download
TOTAL_SECONDS = 120.0  # a server that drips
SILENT = "no answer"
AGENT = {"User-Agent": "Mozilla/5.0 (gpt2-from-scratch)"}  # some libraries of books refuse Python's own


class NoAnswer(OSError):
    """Nobody there, or a plain no: trying again would only cost time."""


def fetch(address: str, largest: int, patience: float, say) -> bytes:
    """The bytes at `address`, at most `largest`; OSError says why not. What breaks off is tried once more.

    patience: seconds until the first answer; say: gets a line at each new 5 MB.
    """
    for tries_left in (1, 0):
        try:
            response = _open(address, patience)
            say(f"downloading {address}")
            return _read(response, largest, say)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, NoAnswer) or not tries_left:
                raise OSError(str(error) or type(error).__name__) from None


def _read(response, largest, say):
    body, end, shown = bytearray(), time.monotonic() + TOTAL_SECONDS, 0
    with response:
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > largest:
                raise NoAnswer(f"it sends more than the {largest} bytes expected")
            if time.monotonic() > end:
                raise NoAnswer(f"not done after {TOTAL_SECONDS:.0f} s")
            if len(body) // 5_000_000 > shown:
                shown = len(body) // 5_000_000
                say(f"  {len(body) / 1e6:.0f} MB")
    promised = response.headers.get("Content-Length", "")
    if promised.isdigit() and len(body) < int(promised):
        raise http.client.IncompleteRead(bytes(body), int(promised) - len(body))
    return bytes(body)


def _open(address, patience):
    """An open response within `patience` seconds: in a thread, since a name look-up has no time-out."""
    box = queue.Queue()

    def work():
        try:
            plain = urllib.parse.quote(address, safe=string.punctuation)  # a pasted one may have spaces
            request = urllib.request.Request(plain, headers=AGENT)
            box.put(urllib.request.urlopen(request, timeout=READ_SECONDS))
        except Exception as error:  # handed to the caller, whatever it is
            box.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = box.get(timeout=patience)
    except queue.Empty:
        raise NoAnswer(f"{SILENT} in {patience:g} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        kind = OSError if answer.code >= 500 else NoAnswer
        raise kind(f"HTTP {answer.code}")
    if isinstance(answer, Exception):
        raise NoAnswer(str(getattr(answer, "reason", answer)) or type(answer).__name__)
    return answer
