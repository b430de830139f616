"""Pictures of the app and of the static page as visitors see them, written to results/screenshots/.

    python -m bench.app_screenshots [--model FOLDER] [--only app|page]      needs Chromium and playwright
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from bench.static_speed import served
from data.files import say
from lab.project import ROOT
from space.static_site import build_static
from tests.tiny_app import running_app

OUT = ROOT / "results" / "screenshots"
VISITS = {"app_desktop": (1440, "light", None), "app_dark": (1440, "dark", None),
          "app_tablet": (768, "light", None),
          "app_phone": (360, "light", None), "app_phone_dark": (360, "dark", None),
          "app_notice": (1440, "light", "Caf\u00e9 2 \U0001f600 <b>bold</b>: ")}

PAGES = {"static_desktop": (1440, "light", None), "static_dark": (1440, "dark", None),
         "static_tablet": (768, "light", None), "static_tablet_dark": (768, "dark", None),
         "static_phone": (360, "light", None), "static_phone_dark": (360, "dark", None),
         "static_looked": (1440, "light", "#tab_looked"), "static_layers": (1440, "light", "#tab_layers"),
         "static_past": (1440, "light", "#when")}


def visit(browser, url: str, name: str, width: int, scheme: str, prompt: str | None) -> None:
    """The whole page as it opens, or after writing from a prompt with seed 1."""
    height = 740 if width < 500 else 900
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    page.wait_for_selector("#paper .ch.at")
    if prompt:
        page.fill("#prompt textarea", prompt)
        page.click("#settings button")
        page.fill("#seed input, #seed textarea", "1")
        page.click("#go")
        page.wait_for_selector("#status .note")
        page.wait_for_selector("#paper .ch.at")
    take(page, name)


def visit_page(browser, url: str, name: str, width: int, scheme: str, touched: str | None) -> None:
    """The static page as it opens, or behind a tab, or with the time machine at its beginning."""
    height = 740 if width < 500 else 900
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    page.wait_for_selector("#duel:visible")
    if touched == "#when":
        if not page.is_visible(touched):
            return page.close()
        page.press(touched, "Home")
        page.wait_for_selector("#past_text .soft")
    elif touched:
        page.click(touched)
    take(page, name)


def take(page, name: str) -> None:
    page.wait_for_timeout(800)
    page.screenshot(path=OUT / f"{name}.png", full_page=True)
    # a third of the bytes
    Image.open(OUT / f"{name}.png").quantize(96).save(OUT / f"{name}.png", optimize=True)
    page.close()
    say(f"{name}.png {(OUT / f'{name}.png').stat().st_size} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "space" / "model"))
    parser.add_argument("--only", choices=("app", "page"), help="one of the two")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as p, tempfile.TemporaryDirectory() as scratch:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if args.only != "app":
            with served(build_static(args.model, Path(scratch, "site"))) as url:
                for name, habits in PAGES.items():
                    visit_page(browser, url, name, *habits)
        if args.only != "page":
            with running_app("--model", args.model) as url:
                for name, habits in VISITS.items():
                    visit(browser, url, name, *habits)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
