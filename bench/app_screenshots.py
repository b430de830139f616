"""Pictures of the app as visitors see it: desktop, phone, dark, Look inside; written to results/screenshots/.

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
VISITS = {
    "app_desktop": ({"viewport": {"width": 1180, "height": 900}}, "KATHARINA:\nWhy, sir, "),
    "app_dark": ({"viewport": {"width": 1180, "height": 900}, "color_scheme": "dark"}, "ROMEO:\n"),
    "app_phone": ({"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}, "The moon"),
    "app_notice": ({"viewport": {"width": 1180, "height": 620}}, "Caf\u00e9 2 \U0001f600 <b>bold</b>: "),
}


def visit(browser, url: str, name: str, habits: dict, prompt: str) -> None:
    """Generate 200 characters with seed 1, look at the 30th, take the whole page (the notice: what is in view)."""
    page = browser.new_context(**habits).new_page()
    page.goto(url)
    page.wait_for_selector("#go")
    page.fill("#prompt textarea", prompt)
    page.fill("#seed input, #seed textarea", "1")
    page.locator("#tokens input[type=number]").fill("200")
    page.click("#go")
    page.wait_for_selector("#letters .ch.at")
    page.wait_for_selector('#paper .paper[aria-busy="false"]')
    page.locator("#letters .ch").nth(min(30, page.locator("#letters .ch").count() - 1)).click()
    page.wait_for_timeout(800)
    page.locator("#attention .mini").nth(6).click()
    page.wait_for_timeout(800)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=OUT / f"{name}.png", full_page=name != "app_notice")
    Image.open(OUT / f"{name}.png").quantize(96).save(OUT / f"{name}.png", optimize=True)  # a third of the bytes
    page.context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "space" / "model"))
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with running_app("--model", args.model) as url, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (habits, prompt) in VISITS.items():
            visit(browser, url, name, habits, prompt)
            say(f"{name}.png {(OUT / f'{name}.png').stat().st_size} bytes")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
