"""The pages in Firefox, from a server and as files: no error, no other host asked, mathematics, explorers, search."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.pages.browser import CHAPTERS, FAULTS, PAGES, READY
from tests.pages.firefox import Firefox


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    if not found:
        missing = "NO FIREFOX: the pages were not tried in it. Debian: sudo apt-get install firefox-esr"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    browser = Firefox(found, tmp_path_factory.mktemp("firefox"))
    yield browser
    browser.close()


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_and_asks_no_other_host(firefox: Firefox, root: str, page: str) -> None:
    firefox.open(f"{root}{page}.html")
    firefox.value(f"{READY}.then(() => null)")
    faults = firefox.value(FAULTS)
    assert not any(faults.values()), faults
    assert not [entry["text"] for entry in firefox.seen("log.entryAdded") if entry["level"] in ("warn", "error")]
    asked = {event["request"]["url"] for event in firefox.seen("network.beforeRequestSent")}
    assert not {url for url in asked if not url.startswith((root, "data:", "blob:"))}, "requests to other hosts"


@pytest.mark.parametrize("page", CHAPTERS)
def test_explorers_move_by_keyboard(firefox: Firefox, root: str, page: str) -> None:
    firefox.open(f"{root}{page}.html")
    controls = "document.querySelectorAll('.dl-explorer :is(input, select)')"
    count = firefox.value(f"{controls}.length")
    assert count or not firefox.value("document.querySelectorAll('.dl-explorer').length")
    for number in range(count):
        control = f"{controls}[{number}]"
        firefox.value(f"{control}.focus()")
        seen = set()
        for key in ("home", "right", "down", "down"):  # for a slider and for a list
            firefox.press(key)
            seen.add(firefox.value(f"{control}.closest('.dl-explorer').querySelector('img').alt"))
        assert len(seen) > 1, f"keys do not move {firefox.value(f'{control}.outerHTML')}"


def test_search_finds_a_page_by_a_word(firefox: Firefox, root: str) -> None:
    firefox.open(f"{root}search.html?q=saturation")
    found = """new Promise((done, fail) => {
        const late = Date.now() + 20000;
        const look = () => {
            const links = [...document.querySelectorAll("ul.search li a")].map(a => a.href);
            if (links.some(a => a.includes("glossary.html"))) done(links);
            else Date.now() > late ? fail(`found only ${links}`) : setTimeout(look, 50);
        };
        look();
    })"""
    assert firefox.value(found)
