"""Pictures of the app as visitors see it, for gpt2_gradio.ipynb: results/screenshots/.

    python -m bench.app_screenshots [--model FOLDER]      needs Chromium and playwright
"""

from PIL import Image

from bench import common
from bench.browser import chromium
from data.files import say
from lab.project import ROOT
from tests.tiny_app import running_app

OUT = common.RESULTS / "screenshots"
SIZES = {"app_desktop": (1440, 900), "app_phone": (360, 740)}


def main(argv=None):
    args = common.options(__doc__, argv, model=str(ROOT / "space" / "model"))
    with chromium() as browser, running_app("--model", args.model) as url:
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto(url)
            page.wait_for_selector("#paper .ch.at")
            page.wait_for_timeout(800)
            path = OUT / f"{name}.png"
            page.screenshot(path=path, full_page=True)
            Image.open(path).quantize(96).save(path, optimize=True)  # a third of the bytes
            say(f"{name}.png {path.stat().st_size} bytes")


if __name__ == "__main__":
    common.start(main)
