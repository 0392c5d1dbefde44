"""The PDF: every page of the book with its headings as outline, links that stay inside, nothing cut off."""

from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link
from pypdf.generic import Fit

from tests.pages.browser import PAGES
from tools.make_pdf import join
from tools.structure import in_order

SITE = "http://127.0.0.1:1/"


@pytest.fixture
def printed(tmp_path: Path) -> dict[str, Path]:
    """Two printed pages; the first leads to the second and to another host, the second to itself by an anchor."""
    files = {}
    for page, sheets in (("one", 2), ("two", 3)):
        writer = PdfWriter()
        for _ in range(sheets):
            writer.add_blank_page(200, 300)
        writer.add_outline_item(title=f"Page {page}", page_number=0)
        writer.add_named_destination(title="here", page_number=1)
        if page == "one":
            for address in (f"{SITE}two.html#here", f"{SITE}two.html#lost", "https://example.org/"):
                writer.add_annotation(page_number=0, annotation=Link(rect=(10, 10, 20, 20), url=address))
        else:
            writer.add_annotation(
                page_number=0, annotation=Link(rect=(10, 10, 20, 20), target_page_index=2, fit=Fit.fit())
            )
        files[page] = tmp_path / f"{page}.pdf"
        writer.write(files[page])
    return files


def test_pages_are_joined_with_outline_and_links(printed: dict[str, Path], tmp_path: Path) -> None:
    join(printed, SITE).write(tmp_path / "book.pdf")
    book = PdfReader(tmp_path / "book.pdf")
    assert len(book.pages) == 5
    outline = [(item.title, book.get_destination_page_number(item)) for item in book.outline]
    assert outline == [("Page one", 0), ("Page two", 2)]
    links = [note.get_object() for note in book.pages[0]["/Annots"]]
    number = {sheet.indirect_reference: at for at, sheet in enumerate(book.pages)}

    sheets = [number[link["/Dest"][0].get_object().indirect_reference] for link in links[:2]]
    assert sheets == [3, 2], "the anchor's sheet, and the first one where the anchor is not known"
    assert links[2]["/A"]["/URI"] == "https://example.org/"


def test_all_pages_come_in_the_order_of_the_contents() -> None:
    contents = {"root": "a", "parts": [{"chapters": [{"file": "b", "sections": [{"file": "c"}]}, {"file": "d"}]}]}
    assert list(in_order(contents)) == ["a", "b", "c", "d"]
    assert len(PAGES) == len(set(PAGES))
