"""Nobody is shut out: no violation of axe-core's rules, light and dark, wide and on a phone.

Chapters are not among these pages: axe-core takes minutes for the thousands of elements of one.
"""

from importlib.resources import files
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.pages.browser import CHAPTERS, PAGES, PHONE, WIDE, open_page

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")  # the script alone, no Playwright
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
THEMES: dict[str, dict[str, Any]] = {"light": {}, "dark": COLOURS}  # a theme changes nothing but colours
SCREENS = {"wide": WIDE, "phone": PHONE}


def violations(browser: Chrome, rules: dict[str, Any]) -> dict[str, list[str]]:
    """Return what axe-core finds in the open page: rules, and the elements that break them.

    It looks at no parts of formulas: MathJax makes thousands of them and describes each formula as a whole.
    """
    if not browser.execute_script("return 'axe' in window"):
        browser.execute_script(AXE)
    found: dict[str, Any] = browser.execute_async_script(
        """
        const done = arguments[1];
        const place = {exclude: [["mjx-container > *"]]};
        axe.run(place, {...arguments[0], resultTypes: ["violations"]}).then(done, error => done({error: String(error)}));
    """,
        rules,
    )
    assert "error" not in found, found["error"]
    return {
        f"{rule['id']}: {rule['help']}": [f"{node['html'][:200]} {node['failureSummary']}" for node in rule["nodes"]]
        for rule in found["violations"]
    }


@pytest.mark.parametrize("page", [*sorted(set(PAGES) - set(CHAPTERS)), "search", "genindex"])
def test_axe_finds_nothing(browser: Chrome, site: str, page: str) -> None:
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}  # no colour between two themes
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    open_page(browser, f"{site}{page}.html")
    found = {}
    for screen, size in SCREENS.items():
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for theme, rules in THEMES.items():
            browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
            found |= {f"{screen}, {theme}: {rule}": where for rule, where in violations(browser, rules).items()}
    assert not found
