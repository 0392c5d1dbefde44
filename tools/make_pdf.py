"""Print the built pages with Chromium, and join them into one PDF:  _build/book.pdf

    python -m tools.make_pdf

Chromium breaks a page into sheets and knows its headings and links; pypdf joins the pages in the order of the table of
contents, with the headings as outline. A link to another page of the book leads to the place in the PDF.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, TextStringObject

from make import find_chromium
from tools import ROOT
from tools.browser import FLAGS, served
from tools.structure import in_order

HTML = ROOT / "_build" / "html"
PRINT_FLAGS = [
    "--no-pdf-header-footer",
    "--virtual-time-budget=60000",
    "--run-all-compositor-stages-before-draw",
    "--generate-pdf-document-outline",
]
Places = dict[tuple[str, str], tuple[int, float]]  # page and anchor -> sheet and height on it


def print_page(chromium: str, address: str, target: Path) -> None:
    """Print one page from a browser with a profile of its own."""
    flags = [*FLAGS, *PRINT_FLAGS, f"--user-data-dir={target.with_suffix('.profile')}", f"--print-to-pdf={target}"]
    done = subprocess.run([chromium, *flags, address], capture_output=True, text=True, timeout=300)
    if done.returncode or not target.exists():
        raise RuntimeError(f"Chromium did not print {address}:\n{done.stderr[-2000:]}")


def join(printed: dict[str, Path], site: str) -> PdfWriter:
    """Join the printed pages, given by their names, and turn links between them into links within the PDF."""
    writer, places = PdfWriter(), Places()
    for page, file in printed.items():
        reader, first = PdfReader(file), len(writer.pages)
        places[page, ""] = first, float(reader.pages[0].mediabox.top)
        for anchor, place in reader.named_destinations.items():
            sheet = reader.get_destination_page_number(place)
            if sheet is not None:
                places[page, unquote(anchor.lstrip("/"))] = first + sheet, float(place.top or 0)
        link_by_address(reader, f"{site}{page}.html")
        writer.append(reader)
    for sheet in writer.pages:
        for note in sheet.get("/Annots", ()):
            lead_inside(note.get_object(), site, places, writer)
    writer.page_mode = "/UseOutlines"
    return writer


def link_by_address(reader: PdfReader, address: str) -> None:
    """Give links within a page its address, since the names of their targets may be those of another page too."""
    for sheet in reader.pages:
        for note in sheet.get("/Annots", ()):
            link = note.get_object()
            if "/Dest" in link:
                anchor = str(link.pop("/Dest")).lstrip("/")
                action = {"/S": NameObject("/URI"), "/URI": TextStringObject(f"{address}#{anchor}")}
                link[NameObject("/A")] = DictionaryObject({NameObject(name): part for name, part in action.items()})


def lead_inside(link: DictionaryObject, site: str, places: Places, writer: PdfWriter) -> None:
    """Let a link to a page of the book lead to its sheet; to its first one if the anchor is not known."""
    address = str(link.get("/A", {}).get("/URI", ""))
    if not address.startswith(site):
        return
    parts = urlparse(address)
    page = unquote(parts.path).lstrip("/").removesuffix(".html")
    found = places.get((page, unquote(parts.fragment))) or places.get((page, ""))
    if found:
        sheet, height = found
        del link["/A"]
        target = [writer.pages[sheet].indirect_reference, NameObject("/XYZ"), FloatObject(0), FloatObject(height)]
        link[NameObject("/Dest")] = ArrayObject([*target, FloatObject(0)])


def make_pdf(target: Path = ROOT / "_build" / "book.pdf", html: Path = HTML) -> Path:
    """Print all pages of the built book into one file and return where it is."""
    chromium = find_chromium()
    if not chromium:
        sys.exit("make pdf needs Chromium or Chrome: sudo apt-get install chromium, or set CHROMIUM to its path.")
    with tempfile.TemporaryDirectory() as folder, served(html) as site:
        printed = {page: Path(folder, f"{number}.pdf") for number, page in enumerate(in_order())}
        for page, file in printed.items():
            print_page(chromium, f"{site}{page}.html", file)
        joined = join(printed, site)
        joined.add_metadata({"/Title": "Deep learning, put to the test"})
        joined.write(target)
    print(f"{target}: {len(joined.pages)} sheets, {target.stat().st_size / 1e6:.1f} MB", flush=True)
    return target


if __name__ == "__main__":
    make_pdf()
