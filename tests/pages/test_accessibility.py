"""Nobody is shut out: by colours or missing names, by a small screen or large letters, by having no mouse."""

import time
from importlib.resources import files
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.pages.browser import PAGES, PHONE, WIDE, ZOOMED, open_page, value

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")  # the script alone, no Playwright
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
THEMES: dict[str, dict[str, Any]] = {"light": {}, "dark": COLOURS}  # a theme changes nothing but colours
SCREENS = {"wide": WIDE, "phone": PHONE}
ALL_PAGES = [*PAGES, "search", "genindex"]


def unfold(browser: Chrome) -> None:
    """Open all that is folded, and give the theme its 0.3 s to let the keyboard reach what now scrolls."""
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    time.sleep(0.5)


@pytest.fixture
def still(browser: Chrome) -> Chrome:
    """The browser without motion: no colour between two themes, no scrolling on the way."""
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return browser


# ---- axe-core

# Chapters have 13,000 pieces of coloured code and as many of formulas, and axe-core looks at each for milliseconds.
# Of code each kind is enough, once for each place it stands in; MathJax describes a formula as a whole.
THIN = """
const seen = new Set();
for (const piece of document.querySelectorAll("pre span:not(:has(*))")) {
    let kind = piece.className;
    for (let e = piece.parentElement; e.tagName !== "ARTICLE" && e !== document.body; e = e.parentElement)
        kind += ` in ${e.tagName} ${e.className}`;
    if (seen.has(kind)) piece.replaceWith(piece.textContent);
    seen.add(kind);
}
const boxes = [...document.querySelectorAll("mjx-container")].map(f => [f, f.firstElementChild.getBoundingClientRect()]);
for (const [formula, {width, height}] of boxes) {
    const box = document.createElement("span");
    box.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
    formula.replaceChildren(box);
}
"""


def violations(browser: Chrome, rules: dict[str, Any]) -> dict[str, list[str]]:
    """Return what axe-core finds in the open page: rules, and the elements that break them."""
    found: dict[str, Any] = browser.execute_async_script(
        """
        const done = arguments[1];
        axe.run({...arguments[0], resultTypes: ["violations"]}).then(done, error => done({error: String(error)}));
    """,
        rules,
    )
    assert "error" not in found, found["error"]
    return {
        f"{rule['id']}: {rule['help']}": [f"{node['html'][:200]} {node['failureSummary']}" for node in rule["nodes"]]
        for rule in found["violations"]
    }


@pytest.mark.parametrize("page", ALL_PAGES)
def test_axe_finds_nothing(still: Chrome, site: str, page: str) -> None:
    open_page(still, f"{site}{page}.html")
    still.execute_script(AXE)
    still.execute_script(THIN)
    found = {}
    for screen, size in SCREENS.items():
        still.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        unfold(still)
        for theme, rules in THEMES.items():
            still.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
            found |= {f"{screen}, {theme}: {rule}": where for rule, where in violations(still, rules).items()}
    assert not found


# ---- small screens and large letters

# What may be wider than the article scrolls by itself; what is hidden at its edge cannot be read.
CUT_OFF = """(() => {
    const told = e => e.outerHTML.slice(0, 200), hides = v => ["hidden", "clip"].includes(v);
    const shown = e => e.getClientRects().length && e.clientWidth > 1 && !e.closest(".visually-hidden, svg");
    const right = e => e.getBoundingClientRect().right, all = selector => [...document.querySelectorAll(selector)];
    const edge = Math.min(document.documentElement.clientWidth, right(document.querySelector("article, main"))) + 1;
    const wide = e => e.scrollWidth > e.clientWidth + 1;
    return {
        "beyond the edge": all("article *").filter(e => shown(e) && right(e) > edge &&
            !e.closest("pre, table, .math, .pst-scrollable-table-container, .dlbook-summary")).map(told),
        "hidden at its edge": all("body *").filter(e => shown(e) && wide(e) && !e.closest("mjx-container *") &&
            hides(getComputedStyle(e).overflowX)).map(told),
        "beyond its own edge": all("h1, h2, h3, h4, .bd-sidebar, .bd-toc").filter(e => shown(e) && wide(e)).map(told),
    };
})()"""


@pytest.mark.parametrize("page", ALL_PAGES)
def test_nothing_is_cut_off(still: Chrome, site: str, page: str) -> None:
    """On a phone, in a window at 200 %, and with letters of twice the size: no page scrolls sideways or hides words."""
    open_page(still, f"{site}{page}.html")
    found = {}
    for name, size, letters in (("phone", PHONE, ""), ("200 %", ZOOMED, ""), ("large letters", WIDE, "200%")):
        still.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        still.execute_script("document.documentElement.style.fontSize = arguments[0]", letters)
        unfold(still)
        if value(still, "document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found[name, "scrolls sideways"] = [value(still, "document.documentElement.scrollWidth")]
        found |= {(name, fault): where[:5] for fault, where in value(still, CUT_OFF).items() if where}
    assert not found


# ---- no mouse

# What the keyboard has to reach: all that can be pressed or filled in, and all that scrolls without such a thing in it.
REACHABLE = """
const shown = e => e.checkVisibility({visibilityProperty: true}) && !e.closest("[inert], dialog:not([open])");
const pressed = "a[href], button, input, select, textarea, summary, [tabindex='0']";
const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1;
window.wanted = new Set([...document.querySelectorAll("body *")].filter(e => shown(e) && !e.disabled &&
    (e.matches(pressed) ? e.type !== "hidden" : scrolls(e) && !e.querySelector(pressed))));
window.reached = [];
window.unseen = [];
addEventListener("focusin", ({target}) => {
    reached.push(target);
    if (getComputedStyle(target).outlineStyle === "none") unseen.push(target.outerHTML.slice(0, 200));
});
return wanted.size;
"""


@pytest.mark.parametrize("page", ALL_PAGES)
def test_keyboard_reaches_everything(still: Chrome, site: str, page: str) -> None:
    open_page(still, f"{site}{page}.html")
    for number, summary in enumerate(still.find_elements(By.CSS_SELECTOR, "details > summary")):
        summary.send_keys(Keys.ENTER if number % 2 else Keys.SPACE)
    assert not value(still, "document.querySelectorAll('details:not([open])').length"), "stays folded"
    time.sleep(0.5)  # as above
    still.execute_script("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
    still.get(f"{still.current_url.partition('#')[0]}#")  # the next Tab goes to the first element
    count = still.execute_script(REACHABLE)
    ActionChains(still, duration=0).send_keys(Keys.TAB * count).perform()

    assert value(still, "reached[0].matches('a[href=\"#main-content\"]')"), "the first stop does not skip to the text"
    missed = "[...wanted].filter(e => !reached.includes(e)).map(e => e.outerHTML.slice(0, 200))"
    assert not value(still, missed), "not reached by Tab"
    assert not value(still, "unseen"), "one does not see where one is"
    needless = "[...new Set(reached)].filter(e => !wanted.has(e)).map(e => e.outerHTML.slice(0, 200))"
    assert not value(still, needless), "stops with nothing to press, to fill in or to scroll"


def test_skip_link_leads_to_the_text(still: Chrome, site: str) -> None:
    open_page(still, f"{site}intro.html")
    ActionChains(still).send_keys(Keys.TAB, Keys.ENTER, Keys.TAB).perform()
    assert value(still, "document.activeElement.closest('#main-content') !== null")
