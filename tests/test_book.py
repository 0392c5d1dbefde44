"""The rendered book in a browser: nothing broken, nothing asked of another host, everything moves.

The pages are built first if they are missing or older than what they are made from.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urljoin, urlparse

import pytest
from filelock import FileLock
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from dlbook.evidence import element_id, sections, statements, verdicts
from make import BROWSERS, render
from tools import ROOT, chapters
from tools.fingerprint import read
from tools.repository import address
from tools.structure import in_contents

HTML = ROOT / "_build" / "html"
PAGES = sorted(in_contents())
CHAPTERS = [f"chapters/{path.stem}" for path in chapters()]
SOURCES = ("*.md", "*.yml", "*.bib", "chapters/*", "_static/**/*", "assets/*", "dlbook/**/*.py", "dlbook/*.yml")
SOURCES += ("tools/book_extension/**/*",)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
WIDE = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage"""


# ---- the built pages, served, and a browser


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built pages, up to date."""
    files = [path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file()]
    HTML.parent.mkdir(exist_ok=True)
    with FileLock(HTML.parent / "pages.lock"):
        last = HTML / "searchindex.js"  # written in the end
        if not last.exists() or last.stat().st_mtime < max(path.stat().st_mtime for path in files):
            assert render({}) == 0, "the book does not build without warnings: see above"
    return HTML


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site(built: Path) -> Iterator[str]:
    """The address of the book on a server of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (found and driver):
        pytest.fail(
            f"these tests need Chromium (found: {found}) and chromedriver (found: {driver}). Debian and Ubuntu: "
            "sudo apt-get install chromium chromium-driver; elsewhere install Chrome and the chromedriver of the same "
            "version, and set CHROMIUM to the browser's path if it is not found."
        )
    options = ChromeOptions()
    options.binary_location = found
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Chrome) -> Chrome:
    """The browser with a wide window, the light theme, and logs emptied."""
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WIDE)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    return chromium


def open_page(browser: Chrome, address: str) -> None:
    """Open a page and wait until its mathematics is set and its pictures are there."""
    browser.get(address)
    browser.set_script_timeout(30)
    browser.execute_async_script("""
        const done = arguments[0];
        document.querySelectorAll("img").forEach(image => { image.loading = "eager"; });
        const set = window.MathJax?.startup?.promise ?? Promise.resolve();
        const drawn = [...document.images].map(image => image.decode().catch(() => null));
        Promise.all([set, ...drawn]).then(() => done());
    """)


def value(browser: Chrome, script: str) -> Any:
    return browser.execute_script(f"return {script}")


# ---- every page


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_and_asks_no_other_host(browser: Chrome, site: str, page: str) -> None:
    open_page(browser, f"{site}{page}.html")

    loud = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not loud, "errors in the browser's console"
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert f"{site}{page}.html" in asked
    assert not {url for url in asked if not url.startswith((site, "data:", "blob:"))}, "requests to other hosts"

    assert not value(browser, "document.querySelectorAll('mjx-merror, mjx-mtext[style*=red]').length"), "bad TeX"
    unset = "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length"
    assert not value(browser, unset), "mathematics left as TeX"
    nameless = "[...document.querySelectorAll('article img')].filter(i => !i.alt.trim()).map(i => i.outerHTML)"
    assert not value(browser, nameless), "pictures without a description"
    assert not value(browser, "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"), "broken pictures"


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(browser: Chrome, site: str, page: str) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    open_page(browser, f"{site}{page}.html")
    wide = """[...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > 391
        && !e.closest("pre, .math, mjx-container, table, .pst-scrollable-table-container, .visually-hidden"))
        .slice(0, 5).map(e => e.outerHTML.slice(0, 200))"""
    assert value(browser, "document.documentElement.scrollWidth") <= PHONE["width"], value(browser, wide)
    assert not value(browser, wide), "wider than the screen"


# ---- what moves


def test_search_finds_a_page_by_a_word(browser: Chrome, site: str) -> None:
    browser.get(f"{site}search.html?q=saturation")
    found = WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "ul.search li a"))
    assert any("glossary.html" in link.get_attribute("href") for link in found)


def test_search_works_without_a_server(browser: Chrome, built: Path) -> None:
    browser.get((built / "search.html").as_uri() + "?q=saturation")
    found = WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "ul.search li a"))
    assert any("glossary.html" in link.get_attribute("href") for link in found)


def test_theme_switch_turns_page_and_figures_dark(browser: Chrome, site: str) -> None:
    open_page(browser, f"{site}{(CHAPTERS or PAGES)[0]}.html")
    switch = browser.find_element(By.CSS_SELECTOR, "button.theme-switch-button")
    seen = {}
    for _ in range(3):  # auto, light, dark, in the theme's order
        switch.click()
        theme = value(browser, "document.documentElement.dataset.theme")
        ground = value(browser, "getComputedStyle(document.body).backgroundColor")
        figure = value(
            browser,
            "(f => f && getComputedStyle(f).filter)(document.querySelector('.cell:not(.tag_photo) figure img'))",
        )
        seen[theme] = (ground, figure)
    assert set(seen) == {"light", "dark"}
    assert seen["light"][0] != seen["dark"][0]
    if seen["dark"][1] is not None:
        assert "invert" in seen["dark"][1]
        assert "invert" not in seen["light"][1]


@pytest.mark.parametrize("page", CHAPTERS)
def test_explorers_move_by_mouse_and_by_keyboard(browser: Chrome, site: str, page: str) -> None:
    open_page(browser, f"{site}{page}.html")
    for explorer in browser.find_elements(By.CSS_SELECTOR, ".dl-explorer"):
        image = explorer.find_element(By.TAG_NAME, "img")
        for control in explorer.find_elements(By.CSS_SELECTOR, "input, select"):
            browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", control)
            shown = [image.get_attribute("alt")]
            control.send_keys(Keys.ARROW_RIGHT if control.tag_name == "input" else Keys.ARROW_DOWN)
            shown.append(image.get_attribute("alt"))
            control.send_keys(Keys.HOME)
            shown.append(image.get_attribute("alt"))
            if control.tag_name == "input":
                right = control.size["width"] // 2 - 4
                ActionChains(browser).move_to_element_with_offset(control, right, 0).click().perform()
                shown.append(image.get_attribute("alt"))
                assert shown[3] != shown[2], f"{page}: the mouse does not move {control.get_attribute('outerHTML')}"
            assert len(set(shown)) > 1, f"{page}: keys do not move {control.get_attribute('outerHTML')}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_colab_button_opens_this_chapter(browser: Chrome, site: str, page: str) -> None:
    browser.get(f"{site}{page}.html")
    [button] = browser.find_elements(By.CSS_SELECTOR, ".article-header-buttons a.btn-colab")
    place = address().replace("https://", "https://colab.research.google.com/")
    place = place.replace("/github.com/", "/github/")
    assert button.get_attribute("href") == f"{place}/blob/main/{page}.ipynb"
    assert button.is_displayed()


# ---- what needs no browser: links, and the page of evidence


@dataclass
class Links(HTMLParser):
    """The places a page has and those it leads to."""

    places: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: text or "" for name, text in attributes}
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        self.targets |= {given[name] for name in ("href", "src") if given.get(name)}


@cache
def links(path: Path) -> Links:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("page", [*PAGES, "index", "search", "genindex"])
def test_links_within_the_book_lead_somewhere(built: Path, page: str) -> None:
    here = (built / f"{page}.html").resolve()
    lost = []
    for target in links(here).targets:
        parts = urlparse(urljoin(here.as_uri(), target))
        if parts.scheme != "file":
            continue
        file = Path(unquote(parts.path))
        inside = parts.fragment and file.suffix == ".html"
        if not file.exists() or (inside and unquote(parts.fragment) not in links(file).places):
            lost.append(target)
    assert not lost


def test_evidence_page_shows_every_statement_with_its_verdict(browser: Chrome, site: str) -> None:
    stored = {id: payload for path in chapters() for id, payload in verdicts(read(path)).items()}
    file_of = {section.id: section.file for section in sections()}
    browser.get(f"{site}chapters/evidence.html")
    texts = dict(value(browser, "[...document.querySelectorAll('tr[id]')].map(r => [r.id, r.innerText])"))
    assert list(texts) == [element_id(id) for id in statements()]
    for id, statement in statements().items():
        row = texts[element_id(id)].translate(str.maketrans("’“”", '\'""'))  # Sphinx sets quotation marks
        assert statement.claim in row
        assert (stored[id]["verdict"] if id in stored else "open") in row
        links_out = browser.find_elements(By.CSS_SELECTOR, f"#{element_id(id)} .dl-verdict a")
        wanted = [f"{site}chapters/{file_of[statement.section]}.html#{element_id(id)}"] if id in stored else []
        assert [link.get_attribute("href") for link in links_out] == wanted

    counts = [int(count.text) for count in browser.find_elements(By.CSS_SELECTOR, ".dl-counts .dl-count")]
    assert sum(counts) == len(statements())
    assert counts[3] == len(statements()) - len(stored)
