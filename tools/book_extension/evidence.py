"""The page of statements and the count of verdicts, both filled from the stored notebooks at build time."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dlbook.evidence import COLOURS, SIGNS, VERDICTS, Section, Statement, element_id, numbers_line, sections
from dlbook.evidence import statements as all_statements
from dlbook.evidence import verdicts as stored_verdicts

OPEN = "open"
TONES = {**COLOURS, OPEN: "open"}
MARKS = {**SIGNS, OPEN: "○"}
KINDS = {"exact": "by proof or construction", "measured": "by experiment", "cited": "from published figures"}
Verdicts = dict[str, dict[str, Any]]


@cache
def _read(notebook: Path, changed_at: int) -> Verdicts:
    return stored_verdicts(json.loads(notebook.read_text(encoding="utf-8")))


class FromNotebooks(SphinxDirective):
    """A directive that reads the chapters' notebooks; its page is rebuilt when a chapter changes."""

    def notebooks(self) -> Iterator[tuple[Section, Path]]:
        """Yield the chapters that are there."""
        for section in sections():
            notebook = Path(self.env.srcdir, "chapters", section.file + ".ipynb")
            self.env.note_dependency(str(notebook))
            if notebook.exists():
                yield section, notebook

    def address(self, section: Section) -> str:
        """Return the address of a chapter's page, seen from this one."""
        return self.env.app.builder.get_relative_uri(self.env.docname, f"chapters/{section.file}")

    def verdicts(self) -> Verdicts:
        found: Verdicts = {}
        for _, notebook in self.notebooks():
            found |= _read(notebook, notebook.stat().st_mtime_ns)
        return found


class EvidenceCounts(FromNotebooks):
    """How many statements hold, hold with limits, do not hold, and are open."""

    def run(self) -> list[nodes.Node]:
        found = self.verdicts()
        counts = Counter(found[id]["verdict"] if id in found else OPEN for id in all_statements())
        labels = {"holds": "hold", "holds, with limits": "hold, with limits", "does not hold": "do not hold"}
        labels[OPEN] = "are open: chapter to come"
        tiles = nodes.bullet_list(classes=["dl-counts"])
        for verdict in (*VERDICTS, OPEN):
            line = nodes.paragraph("", "", inline(str(counts[verdict]), "dl-count"), nodes.Text(" " + labels[verdict]))
            tiles += nodes.list_item("", line, classes=["dl-" + TONES[verdict]])
        return [tiles]


class EvidenceTable(FromNotebooks):
    """Every statement with its verdict, number, interval and scale, and a link to its card, chapter by chapter."""

    def run(self) -> list[nodes.Node]:
        found = self.verdicts()
        return [self.chapter(section, found) for section in sections()]

    def chapter(self, section: Section, found: Verdicts) -> nodes.section:
        mine = [statement for statement in all_statements().values() if statement.section == section.id]
        heading = nodes.title(text=f"{section.id} {section.title}")
        rows = [self.row(statement, section, found.get(statement.id)) for statement in mine]
        listed = table(["Statement", "Verdict"], rows, "dl-evidence")
        return nodes.section("", heading, listed, ids=[f"chapter-{section.id}"])

    def row(self, statement: Statement, section: Section, payload: dict[str, Any] | None) -> nodes.row:
        verdict = payload["verdict"] if payload else OPEN
        said = nodes.paragraph(
            "", "", inline(statement.id, "dl-id"), nodes.Text(" "), inline(statement.claim, "dl-said")
        )
        cells: list[list[nodes.Node]] = [[said], [self.verdict(verdict, statement, section)]]
        if payload:
            cells[0] += [quiet(payload["because"])]
            cells[0] += [quiet("Limits: " + payload["limits"])] if payload["limits"] else []
            cells[1] += [quiet(numbers_line(payload))]
        else:
            cells[0] += [quiet("To be shown: " + statement.evidence)]
        cells[1] += [quiet(KINDS[statement.kind])]
        return nodes.row("", *(nodes.entry("", *cell) for cell in cells), ids=[element_id(statement.id)])

    def verdict(self, verdict: str, statement: Statement, section: Section) -> nodes.paragraph:
        text = f"{MARKS[verdict]} {verdict}"
        if verdict == OPEN:
            shown: nodes.Node = nodes.Text(text)
        else:
            shown = nodes.reference(
                "", text, refuri=f"{self.address(section)}#{element_id(statement.id)}", internal=True
            )
        return nodes.paragraph("", "", shown, classes=["dl-verdict", "dl-" + TONES[verdict]])


def inline(text: str, style: str) -> nodes.inline:
    return nodes.inline(text=text, classes=[style])


def quiet(text: str) -> nodes.paragraph:
    return nodes.paragraph(text=text, classes=["dl-quiet"])


def table(heads: list[str], rows: list[nodes.row], style: str, widths: tuple[int, ...] = (64, 36)) -> nodes.table:
    """Return a table that becomes a list on phones; the widths are in percent."""
    first = nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in heads))
    columns = [nodes.colspec(colwidth=width) for width in widths]
    group = nodes.tgroup("", *columns, nodes.thead("", first), nodes.tbody("", *rows), cols=len(columns))
    return nodes.table("", group, classes=["dl-list", style, "colwidths-given"])


def setup(app: Sphinx) -> None:
    app.add_directive("evidence-counts", EvidenceCounts)
    app.add_directive("evidence-table", EvidenceTable)
