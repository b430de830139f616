"""Does the app's memory stay flat? 500 requests to a fresh process, its resident memory after each.

    python -m bench.app_memory [--requests 500] [--model FOLDER]      writes results/app_memory.json

Every fifth request is a visit to the page (generate, then look inside, in a session of its own); the others call the
endpoint. Linux only: memory is read from /proc.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from data.files import write_atomic
from gpt2.machine import commit, machine
from lab.machine import today
from lab.project import ROOT
from tests.tiny_app import free_port, wait_for

PROMPTS = ["ROMEO:\n", "", "To be, or not to be", "caf\u00e9 2 <b>", "KATHARINA:\nWhy, sir, " * 20, "x" * 9000]


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def ask(place, path: str, body: dict, events: str) -> str:
    """POST a request, then read its stream of events to the end."""
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.request("GET", events.format(**answer))
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def call(place, i: int) -> bool:
    """One call of /generate; True if it came to its end."""
    data = [PROMPTS[i % len(PROMPTS)], 60, 0.7, None, i]
    return "event: complete" in ask(place, "/gradio_api/call/generate", {"data": data},
                                    "/gradio_api/call/generate/{event_id}")  # fmt: skip


def visit(place, i: int, functions: dict) -> bool:
    """One visit to the page: generate, then look inside."""
    session, done = f"visitor{i}", True
    steps = (("on_generate", [PROMPTS[i % len(PROMPTS)], 60, 0.7, "", str(i)]), ("on_written", [[7, *range(60)], 1, 1]))
    for name, data in steps:
        body = {"data": data, "fn_index": functions[name], "session_hash": session}
        said = ask(place, "/gradio_api/queue/join", body, f"/gradio_api/queue/data?session_hash={session}")
        done &= '"success":true' in said
    return done


def page_functions(place) -> dict:
    """name of a page event -> its number, from the app's own configuration."""
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("GET", "/config")
    dependencies = json.loads(connection.getresponse().read())["dependencies"]
    return {d["api_name"]: d["id"] for d in dependencies if d.get("api_name")}


def measure(url: str, pid: int, requests: int) -> tuple[list[float], int]:
    """(MB after each request, how many came to their end)."""
    place, memory, served = urlsplit(url), [], 0
    functions = page_functions(place)
    for i in range(requests):
        served += visit(place, i, functions) if i % 5 == 0 else call(place, i)
        memory.append(round(resident_mb(pid), 1))
    return memory, served


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--model", default=str(ROOT / "space" / "model"))
    args = parser.parse_args()
    port = free_port()
    command = [sys.executable, str(ROOT / "space" / "app.py"), "--model", args.model, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        began = time.monotonic()
        memory, served = measure(f"http://127.0.0.1:{port}", process.pid, args.requests)
    finally:
        process.terminate()
    fifth = max(1, args.requests // 5)
    result = {
        "machine": machine(), "date": today(), **commit(), "requests": args.requests, "served": served,
        "seconds": round(time.monotonic() - began, 1),
        "mb_after_first_fifth": memory[fifth - 1], "mb_at_end": memory[-1],
        "mb_growth": round(memory[-1] - memory[fifth - 1], 1), "mb": memory[:: max(1, args.requests // 50)],
    }  # fmt: skip
    write_atomic(ROOT / "results" / "app_memory.json", json.dumps(result, indent=1) + "\n")
    print({key: result[key] for key in ("served", "seconds", "mb_after_first_fifth", "mb_at_end", "mb_growth")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
