"""Pages open fast on a slow line: little to load, and pictures only when they come near."""

import gzip
import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from fontTools.ttLib import TTFont
from selenium.webdriver import Chrome

from tests.pages.browser import CHAPTERS, PAGES, open_page, value

LIMIT = 500_000  # bytes, gzip
PICTURES = {".png", ".svg", ".jpg", ".ico"}
PACKED = {".woff", ".woff2"}


def weight(file: Path) -> int:
    """The bytes that a server sends for a file: it packs everything but fonts, which are packed already."""
    return file.stat().st_size if file.suffix in PACKED else len(gzip.compress(file.read_bytes(), 6))


def fetched(browser: Chrome, built: Path, site: str) -> dict[str, int]:
    """Return what the browser asked the site for since the log was read last, pictures left out, and its weight."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    paths = {unquote(urlparse(url).path).lstrip("/") for url in asked if url.startswith(site)}
    return {path: weight(built / path) for path in paths if Path(path).suffix not in PICTURES}


@pytest.mark.parametrize("page", PAGES)
def test_page_is_light(browser: Chrome, built: Path, site: str, page: str) -> None:
    open_page(browser, f"{site}{page}.html")
    loaded = fetched(browser, built, site)
    assert f"{page}.html" in loaded
    assert "_static/pages.css" in loaded
    assert sum(loaded.values()) <= LIMIT, sorted(loaded.items(), key=lambda item: -item[1])
    inlined = value(browser, "[...document.images].filter(i => i.src.length > 4000).map(i => i.alt)")
    assert not inlined, "pictures within the page, which load whether seen or not"


@pytest.mark.parametrize("page", PAGES)
def test_pictures_load_late_and_keep_their_place(browser: Chrome, site: str, page: str) -> None:
    browser.get(f"{site}{page}.html")
    faults = """[...document.querySelectorAll("article img")].filter(i =>
        i.loading !== "lazy" || !(+i.getAttribute("width") && +i.getAttribute("height"))).map(i => i.outerHTML)"""
    assert not value(browser, faults)


@pytest.mark.parametrize("page", PAGES)
def test_the_theme_is_known_before_the_first_line_is_drawn(browser: Chrome, built: Path, site: str, page: str) -> None:
    """With "auto" first and light or dark later, sizes and colours would jump before the reader's eyes."""
    settled = "document.documentElement.dataset.theme = "
    text = (built / f"{page}.html").read_text(encoding="utf-8")
    assert settled in text
    assert 'getItem("theme") || "auto"' not in text
    browser.get(f"{site}{page}.html")
    assert value(browser, "document.documentElement.dataset.theme") in ("light", "dark")


@pytest.mark.parametrize("page", [*PAGES, "search", "genindex"])
def test_every_icon_is_drawn(browser: Chrome, built: Path, site: str, page: str) -> None:
    """An icon whose letter or font was cut away would be nothing or a box."""
    browser.get(f"{site}{page}.html")
    icons = browser.execute_async_script("""
        const done = arguments[0];
        const icons = [...document.querySelectorAll("i, span")].filter(i => /(^| )fa[a-z]?[ -]/.test(i.className));
        const drawn = icons.map(async icon => {
            const style = getComputedStyle(icon, "::before");
            const letter = style.content.replaceAll('"', "");
            const font = `${style.fontWeight} 16px ${style.fontFamily}`;
            const faces = await document.fonts.load(font, letter).catch(() => []);
            const files = [...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
                .filter(rule => rule instanceof CSSFontFaceRule
                    && rule.style.fontFamily === style.fontFamily && rule.style.fontWeight === style.fontWeight)
                .map(rule => rule.style.src);
            return [icon.className, letter, faces.length, files.join()];
        });
        Promise.all(drawn).then(done);
    """)
    assert icons
    for name, letter, faces, files in icons:
        assert len(letter) == 1, f"{name} has no letter"
        assert faces, f"{name}: its font does not load"
        assert ord(letter) in letters(built / "_static", files), f"{name} is not in its font"


def letters(static: Path, source: str) -> set[int]:
    """The characters in the font that a style sheet of the pages names."""
    name = source.split('url("')[1].split('"')[0]
    return set(TTFont(static / name).getBestCmap())


@pytest.mark.parametrize("page", CHAPTERS)
def test_explorers_fetch_their_frames_when_turned_to(browser: Chrome, site: str, page: str) -> None:
    open_page(browser, f"{site}{page}.html")
    explorers = value(browser, "document.querySelectorAll('[data-dl-explorer]').length")
    browser.get_log("performance")
    for k in range(explorers):
        wanted = browser.execute_async_script(
            """
            const [k, done] = arguments;
            const root = document.querySelectorAll("[data-dl-explorer]")[k];
            root.dispatchEvent(new Event("pointerover"));
            Promise.all(root.ahead.map(image => image.decode())).then(() => done(root.ahead.length));
        """,
            k,
        )
        assert wanted > 1
