"""Pictures of the app as visitors see it, written to results/screenshots/: three widths, light and dark,
a notice.

    python -m bench.app_screenshots [--model FOLDER]      needs Chromium and playwright
"""

import argparse
import shutil
import sys

from PIL import Image
from playwright.sync_api import sync_playwright

from data.files import say
from lab.project import ROOT
from tests.tiny_app import running_app

OUT = ROOT / "results" / "screenshots"
VISITS = {"app_desktop": (1440, "light", None), "app_dark": (1440, "dark", None),
          "app_tablet": (768, "light", None),
          "app_phone": (360, "light", None), "app_phone_dark": (360, "dark", None),
          "app_notice": (1440, "light", "Caf\u00e9 2 \U0001f600 <b>bold</b>: ")}


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
    page.wait_for_timeout(800)
    page.screenshot(path=OUT / f"{name}.png", full_page=True)
    # a third of the bytes
    Image.open(OUT / f"{name}.png").quantize(96).save(OUT / f"{name}.png", optimize=True)
    page.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "space" / "model"))
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with running_app("--model", args.model) as url, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, scheme, prompt) in VISITS.items():
            visit(browser, url, name, width, scheme, prompt)
            say(f"{name}.png {(OUT / f'{name}.png').stat().st_size} bytes")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
