"""What the measurements in a browser share: Chromium, a folder that is served, the process of a page."""

import contextlib
import shutil
import threading

import psutil
from playwright.sync_api import sync_playwright

from space.static_site import make_server

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextlib.contextmanager
def chromium():
    """A fresh browser."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def served(folder):
    """The address of a folder, served from a thread."""
    server = make_server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def page_process():
    """The id of the page's process: of those that run pages (Chromium keeps a spare one), the largest."""
    family = psutil.Process().children(recursive=True)
    pages = [p for p in family if "--type=renderer" in " ".join(p.cmdline())]
    return max(pages, key=lambda p: p.memory_info().rss).pid
