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
ZOOMED = {"width": 640, "height": 450, "deviceScaleFactor": 2, "mobile": False}  # the wide window at 200 %

# A promise: mathematics set (its script comes when it comes), pictures there, both also below the screen.
READY = """(async () => {
    const unset = () => [...document.querySelectorAll(".math")].some(m => !m.querySelector("mjx-container"));
    dispatchEvent(new Event("beforeprint"));  // formulas far below are set now
    for (let tries = 0; unset() && tries < 300; tries++) await new Promise(done => setTimeout(done, 100));
    document.querySelectorAll("img").forEach(image => { image.loading = "eager"; });
    await Promise.all([document.fonts.ready, ...[...document.images].map(image => image.decode().catch(() => null))]);
})()"""

# What is wrong with an open page, by what it is called: lists that have to be empty.
FAULTS = """(() => {
    const all = selector => [...document.querySelectorAll(selector)];
    return {
        "bad TeX": all("mjx-merror, mjx-mtext[style*=red]").map(e => e.outerHTML),
        "mathematics left as TeX": all(".math").filter(m => !m.querySelector("mjx-container")).map(m => m.outerHTML),
        "pictures without a description": all("article img").filter(i => !i.alt.trim()).map(i => i.outerHTML),
        "broken pictures": all("img").filter(i => !i.naturalWidth).map(i => i.src),
    };
})()"""


def open_page(browser: Chrome, address: str) -> None:
    """Open a page and wait until its mathematics is set and its pictures are there."""
    browser.get(address)
    browser.set_script_timeout(180)  # a busy machine is no fault of the page
    browser.execute_async_script(f"{READY}.then(() => arguments[0]())")


def value(browser: Chrome, script: str) -> Any:
    return browser.execute_script(f"return {script}")
