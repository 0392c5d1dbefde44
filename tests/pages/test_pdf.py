"""The PDF: every page of the book with its headings as outline, links that stay inside, nothing cut off."""

import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from selenium.webdriver import Chrome

from tests.pages.browser import CHAPTERS, PAGES, WIDE, open_page
from tools.browser import served
from tools.make_pdf import headings, make_pdf, one_page
from tools.structure import in_order

PRINTED_WIDTH = 680  # the 180 mm between the margins of an A4 sheet, in CSS pixels


@pytest.fixture(scope="module")
def book(built: Path, tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    return PdfReader(make_pdf(tmp_path_factory.mktemp("pdf") / "book.pdf", built))


@pytest.fixture(scope="module")
def texts(book: PdfReader) -> list[str]:
    """The text of each sheet."""
    return [sheet.extract_text() for sheet in book.pages]


@pytest.fixture(scope="module")
def articles(built: Path) -> str:
    """What is to be printed: the HTML of all pages without what surrounds them."""
    pages = ((built / f"{page}.html").read_text(encoding="utf-8") for page in in_order())
    return "".join(page.partition('<article class="bd-article">')[2].partition("</article>")[0] for page in pages)


def plain(html: str) -> str:
    """Return the text of a piece of HTML."""
    return unescape(re.sub(r"<[^<>]*>", "", html))


def without_space(text: str) -> str:
    return re.sub(r"\s", "", text)


def elements(node: Any) -> Iterator[Any]:
    """Yield every element of the tags' tree."""
    node = node.get_object()
    if isinstance(node, list):
        for child in node:
            yield from elements(child)
    elif isinstance(node, dict):
        yield node
        yield from elements(node["/K"]) if "/K" in node else ()


def test_outline_is_the_headings_and_the_contents_name_their_sheets(
    book: PdfReader, texts: list[str], articles: str
) -> None:
    wanted = [(int(level), plain(title)) for level, title in re.findall(r'<h(\d)>(.*?)<a class="headerlink"', articles)]
    found = list(headings(book))
    assert [(level, title) for level, title, _ in found] == [(1, "Contents"), *wanted]

    for _, title, sheet in found:
        assert without_space(title) in without_space(texts[sheet - 1]), f"{title} is not on sheet {sheet}"
    first = next(sheet for _, _, sheet in found[1:])
    listed = without_space("".join(texts[: first - 1]))
    missing = [entry for entry in found[1:] if entry[0] <= 2 and without_space(f"{entry[1]}{entry[2]}") not in listed]
    assert not missing, "the contents name other sheets, or none"


def test_links_stay_inside_and_those_to_other_hosts_are_kept(book: PdfReader, articles: str) -> None:
    places, outside, lost, inside = book.named_destinations, set(), [], 0
    for sheet in book.pages:
        for note in sheet.get("/Annots", ()):
            link = note.get_object()
            if "/Dest" not in link:
                outside.add(link["/A"]["/URI"].rstrip("/"))
            elif (place := places.get(link["/Dest"])) and book.get_destination_page_number(place) is not None:
                inside += 1
            else:
                lost.append(link["/Dest"])
    assert inside
    assert not lost
    body = re.sub(r"<pre>.*?</pre>|<a class=\"headerlink\".*?</a>", "", articles, flags=re.DOTALL)
    wanted = {unescape(address).rstrip("/") for address in re.findall(r'<a [^>]*href="(https?://[^"]*)"', body)}
    assert outside == wanted


def test_every_figure_is_there_with_its_number_and_its_description(
    book: PdfReader, texts: list[str], articles: str
) -> None:
    numbers = re.findall(r'class="caption-number">(Figure [\d.]+)', articles)
    printed = without_space("".join(texts))
    assert numbers
    assert not [number for number in numbers if without_space(number) not in printed]
    described = {plain(alt) for alt in re.findall(r'<figure.*?<img alt="([^"]*)"', articles, re.DOTALL)}
    tags = list(elements(book.trailer["/Root"]["/StructTreeRoot"]))
    kept = {str(tag["/Alt"]) for tag in tags if "/Alt" in tag}
    assert len(described) == len(numbers)
    assert described <= kept


def test_all_code_is_there_and_all_formulas_are_set(texts: list[str], articles: str) -> None:
    """The longest lines have to be wrapped, and the solutions, which are folded in the pages, are open."""
    printed = without_space("".join(texts))
    code = [plain(block) for block in re.findall(r"<pre>(.*?)</pre>", articles, re.DOTALL)]
    lines = sorted((line for block in code for line in block.splitlines()), key=len)
    assert len(lines[-1]) > 100
    assert not [line for line in lines if without_space(line) not in printed]
    assert r"\(" not in printed.replace(r"r\(", "")
    assert r"\begin{" not in printed
    assert "Hideitagain" not in printed


def test_the_file_is_tagged_and_carries_its_title_and_fonts(book: PdfReader) -> None:
    root = book.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert book.metadata
    assert book.metadata.title == "Deep learning, put to the test"
    for sheet in book.pages:
        for font in sheet["/Resources"].get("/Font", {}).values():
            font = font.get_object()
            inner = font.get("/DescendantFonts", [font])[0].get_object()
            embedded = "/CharProcs" in inner or any("FontFile" in key for key in inner["/FontDescriptor"])
            assert embedded, inner


def test_nothing_is_cut_off(built: Path, browser: Chrome, tmp_path: Path) -> None:
    """At the width of the sheet no text stands outside it, nothing scrolls, and no picture is higher than a sheet."""
    copy = Path(shutil.copytree(built, tmp_path / "html"))
    (copy / "book.html").write_text(one_page(built, []), encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WIDE | {"width": PRINTED_WIDTH})
    try:
        with served(copy) as site:
            open_page(browser, f"{site}book.html")
            wrong = browser.execute_script(CUT_OFF, PRINTED_WIDTH)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert not wrong, "\n".join(wrong[:20])


CUT_OFF = """
const width = arguments[0], wrong = [];
const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (words.nextNode()) {
  const node = words.currentNode, range = document.createRange();
  if (!node.data.trim() || node.parentElement.closest("script, style, mjx-assistive-mml")) continue;
  range.selectNodeContents(node);
  const outside = [...range.getClientRects()].some(box => box.width > 1 && (box.left < -1 || box.right > width + 1));
  if (outside) wrong.push("outside: " + node.data.trim().slice(0, 80));
}
for (const part of document.querySelectorAll("body *:not(mjx-container *, svg *, script, style)")) {
  const box = part.getBoundingClientRect(), style = getComputedStyle(part);
  if (!box.width) continue;
  const cut = part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 1;
  if (style.overflow !== "visible" && style.display !== "inline" && cut)
    wrong.push("cut: " + part.outerHTML.slice(0, 80));
  if (part.matches("img, svg, mjx-container") && (box.right > width + 1 || box.height > 960))
    wrong.push("too large: " + part.outerHTML.slice(0, 80));
}
return wrong;
"""


def test_all_pages_come_in_the_order_of_the_contents() -> None:
    contents = {"root": "a", "parts": [{"chapters": [{"file": "b", "sections": [{"file": "c"}]}, {"file": "d"}]}]}
    assert list(in_order(contents)) == ["a", "b", "c", "d"]
    assert len(PAGES) == len(set(PAGES))
    assert set(CHAPTERS) <= set(in_order())
