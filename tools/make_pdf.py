"""Print the built book with Chromium:  _build/book.pdf

    python -m tools.make_pdf

All pages are put one behind the other into a single page, in the order of the table of contents, and that is printed:
so links between them stay inside, sheets are numbered through, and headings, descriptions of pictures and the outline
come along. It is printed twice, since the contents can only name the sheets once they are known.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pypdf import PdfReader

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
PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light">
<head><meta charset="utf-8"><title>{title}</title>
{head}
</head>
<body><div class="bd-main"><div class="bd-content"><div class="bd-article-container"><div class="bd-article">
<nav class="dl-contents"><p class="dl-title">{title}</p><h1>Contents</h1><ul></ul></nav>
{sections}
</div></div></div></div>
<script>const sheets = {sheets};
{script}</script></body></html>
"""
# Names of places are made different from page to page, and links between pages lead to places of the one page.
SCRIPT = """
const pages = new Map([...document.querySelectorAll("[data-page]")].map(part => [part.dataset.page, part]));
const root = new URL(".", location.href);
for (const [page, part] of pages) {
  const own = new URL(`${page}.html`, root);
  for (const image of part.querySelectorAll("img")) {
    image.loading = "eager";
    image.src = new URL(image.getAttribute("src"), own);
  }
  for (const link of part.querySelectorAll("a[href]")) {
    const address = new URL(link.getAttribute("href"), own);
    const name = address.href.startsWith(root) && address.pathname.slice(root.pathname.length).replace(/[.]html$/, "");
    const place = decodeURIComponent(address.hash.slice(1));
    link.href = pages.has(name) ? `#${name}${place && "/"}${place}` : address;
  }
  for (const place of part.querySelectorAll("[id]:not(svg *)")) place.id = `${page}/${place.id}`;
  for (const fold of part.querySelectorAll("details")) fold.open = true;
  part.id = page;
}
const contents = document.querySelector(".dl-contents ul");
document.querySelectorAll("[data-page] :is(h1, h2)").forEach((heading, at) => {
  const line = contents.appendChild(document.createElement("li"));
  const title = heading.cloneNode(true);
  title.querySelectorAll(".headerlink").forEach(mark => mark.remove());
  const link = line.appendChild(document.createElement("a"));
  link.textContent = title.textContent.trim();
  link.href = `#${heading.closest("section").id}`;
  line.className = heading.localName;
  line.append(sheets[at] ?? "000");
});
"""


def one_page(html: Path, sheets: list[int]) -> str:
    """Put all pages of the book into one; its contents name the given sheets."""
    needed = r'<link [^>]*rel="stylesheet"[^>]*>|<script>window\.MathJax.*?</script>|<script[^>]*mathjax[^>]*></script>'
    sections, head = [], []
    for page in in_order():
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        article = text.partition('<article class="bd-article">')[2].partition("</article>")[0]
        head += [part.replace('"../', '"') for part in re.findall(needed, text)]  # not all pages have formulas
        sections.append(f'<div data-page="{page}">{article}</div>')
    return PAGE.format(
        title=yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"],
        head="\n".join(dict.fromkeys(head)),
        sections="\n".join(sections),
        sheets=json.dumps(sheets),
        script=SCRIPT,
    )


def print_page(chromium: str, address: str, target: Path) -> None:
    """Print one page from a browser with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, *PRINT_FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={target}"]
        done = subprocess.run([chromium, *flags, address], capture_output=True, text=True, timeout=600)
    if done.returncode or not target.exists():
        raise RuntimeError(f"Chromium did not print {address}:\n{done.stderr[-2000:]}")


def headings(book: PdfReader, entries: list[Any] | None = None, level: int = 1) -> Iterator[tuple[int, str, int]]:
    """Yield the outline: each heading's level, its text, and its sheet counted from 1."""
    for entry in book.outline if entries is None else entries:
        if isinstance(entry, list):
            yield from headings(book, entry, level + 1)
        else:
            yield level, str(entry.title), (book.get_destination_page_number(entry) or 0) + 1


def make_pdf(target: Path = ROOT / "_build" / "book.pdf", html: Path = HTML) -> Path:
    """Print all pages of the built book into one file and return where it is."""
    chromium = find_chromium()
    if not chromium:
        sys.exit("make pdf needs Chromium or Chrome: sudo apt-get install chromium, or set CHROMIUM to its path.")
    sheets: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(html, Path(folder, "html")))
        with served(copy) as site:
            for _ in range(2):
                (copy / "book.html").write_text(one_page(html, sheets), encoding="utf-8")
                print_page(chromium, f"{site}book.html", target)
                book = PdfReader(target)
                sheets = [sheet for level, _, sheet in headings(book) if level <= 2][1:]  # without the contents' own
    print(f"{target}: {len(book.pages)} sheets, {target.stat().st_size / 1e6:.1f} MB", flush=True)
    return target


if __name__ == "__main__":
    make_pdf()
