"""What the tests of the pages share: which pages there are, and how one is opened."""

from typing import Any

from selenium.webdriver import Chrome

from tools import ROOT, chapters
from tools.structure import in_contents

HTML = ROOT / "_build" / "html"
PAGES = sorted(in_contents())
CHAPTERS = [f"chapters/{path.stem}" for path in chapters()]
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
WIDE = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


def open_page(browser: Chrome, address: str) -> None:
    """Open a page and wait until its mathematics is set and its pictures are there."""
    browser.get(address)
    browser.set_script_timeout(30)
    browser.execute_async_script("""
        const done = arguments[0];
        document.querySelectorAll("img").forEach(image => { image.loading = "eager"; });
        dispatchEvent(new Event("beforeprint"));  // formulas far below are set now, too
        const set = window.MathJax?.startup?.promise ?? Promise.resolve();
        const drawn = [...document.images].map(image => image.decode().catch(() => null));
        Promise.all([set, ...drawn]).then(() => done());
    """)


def value(browser: Chrome, script: str) -> Any:
    return browser.execute_script(f"return {script}")
