"""The rendered book in a browser: nothing broken, nothing asked of another host, everything moves."""

import json
import time
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from dlbook.evidence import element_id, sections, statements, verdicts
from tests.pages.browser import CHAPTERS, FAULTS, PAGES, open_page, value
from tools import chapters
from tools.fingerprint import read
from tools.repository import address

# ---- every page


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_and_asks_no_other_host(browser: Chrome, root: str, page: str) -> None:
    open_page(browser, f"{root}{page}.html")

    loud = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not loud, "errors in the browser's console"
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert f"{root}{page}.html" in asked
    assert not {url for url in asked if not url.startswith((root, "data:", "blob:"))}, "requests to other hosts"

    faults = value(browser, FAULTS)
    assert not any(faults.values()), faults


# ---- what moves


def test_search_by_keyboard_finds_a_page_by_a_word(browser: Chrome, root: str) -> None:
    open_page(browser, f"{root}intro.html")
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
    ActionChains(browser).send_keys("saturation", Keys.ENTER).perform()
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
def test_explorers_move_by_mouse_and_by_keyboard(browser: Chrome, root: str, page: str) -> None:
    open_page(browser, f"{root}{page}.html")
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
    texts = dict(value(browser, "[...document.querySelectorAll('tr[id]')].map(r => [r.id, r.textContent])"))
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


def test_status_page_shows_every_chapters_run(browser: Chrome, site: str) -> None:
    browser.get(f"{site}chapters/status.html")
    texts = dict(value(browser, "[...document.querySelectorAll('tr[id]')].map(r => [r.id, r.textContent])"))
    stored = {path.stem: read(path)["metadata"]["dlbook"] for path in chapters()}
    assert set(texts) == {f"run-{section.id}" for section in sections() if section.file in stored}
    for section in sections():
        if section.file in stored:
            facts, text = stored[section.file], texts[f"run-{section.id}"]
            minutes, seconds = divmod(round(facts["seconds"]), 60)
            wanted = [f"scale {facts['scale']}", f"{minutes} min {seconds} s", f"{facts['peak_memory_mb']} MB"]
            wanted += [facts["device"], facts["date"], *facts["versions"].values()]
            assert [word for word in wanted if word not in text] == []
            [link] = browser.find_elements(By.CSS_SELECTOR, f"#run-{section.id} .dl-said a")
            assert link.get_attribute("href") == f"{site}chapters/{section.file}.html"


@pytest.mark.parametrize("page", PAGES)
def test_no_script_of_the_icon_font(browser: Chrome, site: str, page: str) -> None:
    browser.get(f"{site}{page}.html")
    assert not value(browser, "document.querySelectorAll('script[src*=fontawesome]').length"), "0.5 MB for nothing"


def test_contents_lead_to_the_section(browser: Chrome, site: str) -> None:
    """Also the last one, before anything between it and the top was laid out."""
    browser.get(f"{site}{CHAPTERS[-1]}.html")
    links = browser.find_elements(By.CSS_SELECTOR, ".bd-sidebar-secondary a.nav-link")
    links[-2].click()
    target = json.dumps((links[-2].get_attribute("href") or "").partition("#")[2])
    top = f"document.getElementById({target}).getBoundingClientRect().top"
    WebDriverWait(browser, 10).until(lambda _: abs(value(browser, top)) < 300)
    time.sleep(2)  # formulas above it are set meanwhile
    assert abs(value(browser, top)) < 300
