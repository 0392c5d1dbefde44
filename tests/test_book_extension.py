"""What the Sphinx extension makes of a chapter, in a small book of its own."""

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dlbook import evidence, source
from dlbook.evidence import statements
from tools import ROOT
from tools.book_extension.notebooks import page_form

CARD = {
    "id": "2.3",
    "verdict": "holds, with limits",
    "because": "The ratio is far beyond the margin.",
    "limits": "Dead units.",
    "scale": "cpu",
    "number": 12.4,
    "low": 11.9,
    "high": 12.9,
    "seeds": 5,
    "confidence": 0.95,
    "unit": "decades",
    "margin": 3.0,
}


class Dependencies(SimpleNamespace):
    """Stands for Sphinx's environment: remembers what a page depends on."""

    def __init__(self) -> None:
        super().__init__(files=[])

    def note_dependency(self, file: str) -> None:
        self.files.append(file)


def png(width: int, height: int) -> str:
    """A grey PNG file in base64."""
    rows = b"".join(b"\0" + bytes([200]) * width for _ in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


# ---- one output


def test_a_listing_is_rendered_afresh_and_watched() -> None:
    env = Dependencies()
    stale = {"text/html": "<p>old</p>", source.MIME: {"object": "dlbook.evidence:estimate"}}
    form = page_form(stale, env)
    assert "Student" in form["text/html"]
    assert "old" not in form["text/html"]
    assert [Path(file).name for file in env.files] == ["evidence.py"]


def test_a_card_says_what_its_statement_says_today() -> None:
    form = page_form({"text/html": "old wording", evidence.MIME: CARD}, Dependencies())
    assert statements()["2.3"].claim in form["text/html"]
    assert set(form) == {"text/plain", "text/html"}


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"image/png": "a", "text/plain": "b"}, {"image/png", "text/plain"}),
        ({"image/png": "a", "text/html": "b", "text/plain": "c"}, {"text/html", "text/plain"}),
    ],
)
def test_only_an_explorer_loses_its_still(data: dict[str, Any], kept: set[str]) -> None:
    assert set(page_form(data, Dependencies())) == kept


# ---- a whole book


def chapter() -> Any:
    figure = {"figure": {"caption": "The *caption* of it.", "name": "fig-grey"}, "image": {"alt": "A grey square."}}
    size = {"image/png": {"width": 30, "height": 20}}

    def cell(code: str, data: dict[str, Any], size: dict[str, Any] | None = None, **metadata: Any) -> Any:
        output = new_output("display_data", data=data, metadata=size or {})
        return new_code_cell(code, outputs=[output], metadata=metadata, execution_count=1)

    drawing = cell("draw()", {"image/png": png(60, 40), "text/plain": "<Figure>"}, size, mystnb=figure, tags=["photo"])
    drawing["outputs"].append(new_output("display_data", data={"text/plain": "epoch 1  loss 2"}))
    return new_notebook(
        cells=[
            new_markdown_cell("# 2 A chapter\n\nSee {numref}`fig-grey`, {eq}`eq-one` and {cite}`rosenblatt1958`."),
            new_markdown_cell("$$ x = 1 $$ (eq-one)\n\n```{prf:theorem} One\n:label: thm-one\nIt is one.\n```"),
            drawing,
            cell("show_source(estimate)", {"text/html": "old", source.MIME: {"object": "dlbook.evidence:estimate"}}),
            cell("claim('2.3')", {"text/html": "old", evidence.MIME: CARD}),
            new_code_cell(
                "assert True", metadata={"tags": ["hide-cell"], "mystnb": {"code_prompt_show": "Solution 2.1"}}
            ),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


@pytest.fixture(scope="session")
def book(shared_folder: Path) -> Path:
    """A book with one chapter, built with this book's settings; its folder of pages."""
    folder = shared_folder / "small-book"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            (folder / "chapters").mkdir(parents=True)
            for name in ("_config.yml", "references.bib", "bibliography.md", "chapters/evidence.md"):
                shutil.copy(ROOT / name, folder / name)
            for name in ("_static", "assets", "tools"):
                shutil.copytree(ROOT / name, folder / name)
            (folder / "intro.md").write_text("# Home\n\n```{evidence-counts}\n```\n", encoding="utf-8")
            pages = ["chapters/02-neural-network-fundamentals", "chapters/evidence", "bibliography"]
            contents = {"format": "jb-book", "root": "intro", "chapters": [{"file": page} for page in pages]}
            (folder / "_toc.yml").write_text(json.dumps(contents), encoding="utf-8")
            (folder / f"{pages[0]}.ipynb").write_text(json.dumps(chapter()), encoding="utf-8")
            tool = Path(sys.executable).with_name("jupyter-book")
            command = [str(tool), "build", str(folder), "-W", "--keep-going", "-n"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def page(book: Path) -> str:
    return (book / "chapters" / "02-neural-network-fundamentals.html").read_text(encoding="utf-8")


def test_figure_arrives_with_number_caption_description_and_size(page: str) -> None:
    [figure] = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert 'id="fig-grey"' in figure
    assert 'alt="A grey square."' in figure
    assert 'width="30" height="20"' in figure
    assert 'loading="lazy"' in figure
    assert "style=" not in figure
    assert "Figure 2.1" in figure
    assert "The <em>caption</em> of it." in figure
    assert "tag_photo" in page


def test_what_a_cell_shows_beside_its_picture_stands_outside_the_caption(page: str) -> None:
    below = page[page.index("</figure>") :]
    assert below.count("epoch 1  loss 2") == 1
    assert page.count("epoch 1  loss 2") == 1
    assert page.count("cell_input") == 4  # and brings no code of its own


def test_equations_and_theorems_take_the_chapters_number(page: str) -> None:
    assert 'href="#fig-grey"><span class="std std-numref">Figure 2.1</span>' in page
    assert 'href="#equation-eq-one">(2.1)</a>' in page
    assert re.search(r"Theorem\s*2\.1", page)
    assert 'class="section-number"' not in page  # the title brings its own


def test_cards_and_listings_are_those_of_today(page: str) -> None:
    assert 'id="claim-2-3"' in page
    assert statements()["2.3"].claim in page
    assert "dlbook-source" in page
    assert ">old<" not in page


def test_solution_is_folded_under_its_name(page: str) -> None:
    assert re.search(r'<details[^>]*>\s*<summary>\s*<p class="collapsed[^>]*>Solution 2\.1</p>', page)


def test_evidence_page_links_to_the_card(book: Path) -> None:
    html = (book / "chapters" / "evidence.html").read_text(encoding="utf-8")
    [row] = re.findall(r'<tr[^>]* id="claim-2-3".*?</tr>', html, re.DOTALL)
    assert 'href="02-neural-network-fundamentals.html#claim-2-3"' in row
    assert "holds, with limits" in row
    assert "12.4 decades (95 % interval 11.9 to 12.9, 5 seeds) against a margin of 3 decades, scale cpu" in row
    assert "Dead units." in row
    home = (book / "intro.html").read_text(encoding="utf-8")
    counts = [int(number) for number in re.findall(r'<span class="dl-count">(\d+)</span>', home)]
    assert counts == [0, 1, 0, len(statements()) - 1]


def test_pages_name_no_script_of_another_host(book: Path) -> None:
    for path in book.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        asked = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', html) + re.findall(
            r'<link[^>]* href="([^"]+)"', html
        )
        assert not [url for url in asked if "//" in url], path.name
        assert "thebe" not in html.lower()
        assert "unpkg" not in html
    assert (book / "_static" / "mathjax" / "mathjax.js").stat().st_size > 500_000
