"""The rendered book, served, and a browser to open it.

The pages are built first if they are missing or older than what they are made from.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from make import find_chromium, render
from tests.pages.browser import HTML, WIDE
from tools import ROOT
from tools.browser import FLAGS, served

SOURCES = ("*.md", "*.yml", "*.bib", "chapters/*", "_static/**/*", "assets/*", "dlbook/**/*.py", "dlbook/*.yml")
SOURCES += ("tools/book_extension/**/*",)


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


@pytest.fixture(scope="session")
def site(built: Path) -> Iterator[str]:
    """The address of the book on a server of its own."""
    with served(built) as address:
        yield address


@pytest.fixture(scope="session", params=["http", "file"])
def root(request: pytest.FixtureRequest, built: Path) -> str:
    """What the addresses of all pages begin with, in both ways to read the book: from a server, and as files."""
    if request.param == "http":
        site: str = request.getfixturevalue("site")
        return site
    return f"{built.as_uri()}/"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    found = find_chromium()
    driver = shutil.which("chromedriver")
    if not (found and driver):
        pytest.fail(
            f"these tests need Chromium (found: {found}) and chromedriver (found: {driver}). Debian and Ubuntu: "
            "sudo apt-get install chromium chromium-driver; elsewhere install Chrome and the chromedriver of the same "
            "version, and set CHROMIUM to the browser's path if it is not found."
        )
    options = ChromeOptions()
    options.binary_location = found
    cut = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # the network, but for our own server
    for flag in [*FLAGS, cut, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Chrome) -> Chrome:
    """The browser with a wide window, an empty page, the light theme, and logs emptied."""
    chromium.get("about:blank")
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WIDE)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    return chromium
