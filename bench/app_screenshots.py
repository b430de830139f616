"""Pictures of the app and of the static page as visitors see them, written to results/screenshots/.

    python -m bench.app_screenshots [--model FOLDER] [--only app page]      needs Chromium and playwright
"""

import tempfile
from pathlib import Path

from PIL import Image

from bench import common
from bench.browser import chromium, served
from data.files import say
from lab.project import ROOT
from space.static_site import build_static
from tests.tiny_app import running_app

OUT = common.RESULTS / "screenshots"
SIZES = {"desktop": (1440, 900), "tablet": (768, 900), "phone": (360, 740)}
APP = {  # picture: size, scheme, what is typed
    "app_desktop": ("desktop", "light", ""), "app_dark": ("desktop", "dark", ""),
    "app_tablet": ("tablet", "light", ""), "app_phone": ("phone", "light", ""),
    "app_phone_dark": ("phone", "dark", ""),
    "app_notice": ("desktop", "light", "Caf\u00e9 2 \U0001f600 <b>bold</b>: ")}
PAGE = {  # picture: size, scheme, what is touched
    "static_desktop": ("desktop", "light", ""), "static_dark": ("desktop", "dark", ""),
    "static_tablet": ("tablet", "light", ""), "static_tablet_dark": ("tablet", "dark", ""),
    "static_phone": ("phone", "light", ""), "static_phone_dark": ("phone", "dark", ""),
    "static_looked": ("desktop", "light", "#tab_looked"),
    "static_layers": ("desktop", "light", "#tab_layers"), "static_past": ("desktop", "light", "#when")}


def prepare_app(page, prompt):
    """As it opens, or after writing from a prompt with seed 1."""
    page.wait_for_selector("#paper .ch.at")
    if prompt:
        page.fill("#prompt textarea", prompt)
        page.click("#settings button")
        page.fill("#seed input, #seed textarea", "1")
        page.click("#go")
        page.wait_for_selector("#status .note")
        page.wait_for_selector("#paper .ch.at")


def prepare_page(page, touched):
    """As it opens, or behind a tab, or with the time machine, where there is one, at its beginning."""
    page.wait_for_selector("#duel:visible")
    if touched == "#when" and page.is_visible(touched):
        page.press(touched, "Home")
        page.wait_for_selector("#past_text .soft")
    elif touched and touched != "#when":
        page.click(touched)


def take(browser, url, pictures, prepare):
    for name, (size, scheme, what) in pictures.items():
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(url)
        prepare(page, what)
        page.wait_for_timeout(800)
        path = OUT / f"{name}.png"
        page.screenshot(path=path, full_page=True)
        Image.open(path).quantize(96).save(path, optimize=True)  # a third of the bytes
        page.close()
        say(f"{name}.png {path.stat().st_size} bytes")


def main(argv=None):
    args = common.options(__doc__, argv, model=str(ROOT / "space" / "model"), only=["app", "page"])
    with chromium() as browser, tempfile.TemporaryDirectory() as scratch:
        if "page" in args.only:
            with served(build_static(args.model, Path(scratch, "site"))) as url:
                take(browser, url, PAGE, prepare_page)
        if "app" in args.only:
            with running_app("--model", args.model) as url:
                take(browser, url, APP, prepare_app)


if __name__ == "__main__":
    common.start(main)
