"""The page in Firefox and WebKit: what a visitor does first, by selenium; each is skipped where it is not.

    apt-get install firefox-esr webkit2gtk-driver xvfb; pip install selenium; geckodriver in PATH
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from pages import text_at

selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium to drive Firefox and WebKit")
MINI = next(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"), None)
SHOTS = os.environ.get("BROWSER_SHOTS")  # a folder for a picture of the page in each


def missing(browser):
    """Why this browser cannot be driven here, or ""."""
    wanted = {"firefox": ("firefox-esr", "geckodriver"), "webkit": ("WebKitWebDriver", "Xvfb")}[browser]
    lacks = [name for name in wanted if shutil.which(name) is None]
    return f"needs {' and '.join(lacks)}" if lacks or (browser == "webkit" and MINI is None) else ""


@contextlib.contextmanager
def screen():
    """WebKit draws only on a screen; this one is in memory."""
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1440x900x24"],
                              pass_fds=[write], stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield f":{os.read(read, 16).decode().strip()}"
    finally:
        server.terminate()
        server.wait(30)


def firefox(_):
    options = selenium.FirefoxOptions()
    options.binary_location = shutil.which("firefox-esr")
    options.add_argument("-headless")
    service = selenium.FirefoxService(shutil.which("geckodriver"))
    return selenium.Firefox(options, service)


def webkit(stack):
    os.environ["DISPLAY"] = stack.enter_context(screen())
    options = selenium.WebKitGTKOptions()
    options.binary_location = str(MINI)
    options.add_argument("--automation")
    return selenium.WebKitGTK(options, selenium.WebKitGTKService(shutil.which("WebKitWebDriver")))


@pytest.fixture(scope="module", params=[firefox, webkit], ids=lambda start: start.__name__)
def page(request, site):
    if reason := missing(request.param.__name__):
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        driver = request.param(stack)
        stack.callback(driver.quit)
        driver.set_window_size(1440, 900)
        driver.get(site[0])
        driver.name_here = request.param.__name__
        yield driver


def run(page, script, *args):
    return page.execute_script(f"return ({script})", *args)


def until(page, condition, seconds=60):
    end = time.monotonic() + seconds
    while not run(page, condition):
        assert time.monotonic() < end, (condition, run(page, "document.body.innerText.slice(0, 2000)"))
        time.sleep(0.05)


def click(page, selector):
    page.find_element("css selector", selector).click()


def text_in(page, id="text"):
    return run(page, "document.getElementById(arguments[0]).textContent", id)


def test_the_page_as_a_stranger_uses_it(page, site):
    """A page that only Chromium runs: first text, Generate, Stop, a letter, what-if, time machine, share."""
    until(page, "document.querySelectorAll('#bars li').length > 2")
    opening = text_in(page)
    assert opening == text_at(site) and run(page, "document.querySelectorAll('.ch.at').length") == 1
    if SHOTS:
        page.save_screenshot(str(Path(SHOTS) / f"{page.name_here}.png"))
    fill = "['max', 'seed'].forEach((id, i) => { document.getElementById(id).value = arguments[0][i]; })"
    run(page, fill, [5000, 3])
    click(page, "#go")
    until(page, "document.querySelectorAll('#text .ch').length > 20")
    click(page, "#stop")
    until(page, "/^Stopped/.test(document.getElementById('status').textContent)")
    before = text_in(page)
    assert len(before) < 2000
    click(page, "#text .ch:nth-child(10)")
    until(page, "document.getElementById('text').ariaValueNow === '9'")
    until(page, "document.querySelectorAll('#bars li:not(.came) button').length > 1")
    run(page, "document.getElementById('fast').click()")
    click(page, "#bars li:not(.came) button")
    until(page, "/^Done/.test(document.getElementById('status').textContent)")
    assert text_in(page)[:9] == before[:9] and text_in(page)[9] != before[9]
    until(page, "location.search.includes('at=9')")
    shared, text = page.current_url, text_in(page)
    run(page, "[document.getElementById('when').value = 0, document.getElementById('when').onchange()]")
    until(page, "document.getElementById('past_note').textContent.includes('never saw')")
    page.get(shared)
    until(page, "/^Done/.test(document.getElementById('status').textContent)")
    assert text_in(page) == text
