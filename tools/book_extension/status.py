"""The page of stored runs: at which scale, for how long, on what each chapter was run last."""

import json
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from dlbook.evidence import Section

from .evidence import FromNotebooks, quiet, table

SPELLED = {"python": "Python", "torch": "PyTorch", "numpy": "NumPy", "scipy": "SciPy", "matplotlib": "Matplotlib"}


class StatusTable(FromNotebooks):
    """Every chapter with its stored run; the page is rebuilt when a chapter changes."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for section, notebook in self.notebooks():
            facts = json.loads(notebook.read_text(encoding="utf-8"))["metadata"].get("dlbook")
            rows.append(self.row(section, facts))
        return [table(["Chapter", "Stored run"], rows, "dl-status", (36, 64))]

    def row(self, section: Section, facts: dict[str, Any] | None) -> nodes.row:
        link = nodes.reference("", f"{section.id} {section.title}", refuri=self.address(section), internal=True)
        lines = run_lines(facts) if facts else ["not run yet"]
        cells: list[list[nodes.Node]] = [[nodes.paragraph("", "", link, classes=["dl-said"])]]
        cells.append([nodes.paragraph(text=lines[0]), *map(quiet, lines[1:])])
        return nodes.row("", *(nodes.entry("", *cell) for cell in cells), ids=[f"run-{section.id}"])


def run_lines(facts: dict[str, Any]) -> list[str]:
    """Return what is known of a run: scale, time and memory; device and date; versions."""
    memory = facts.get("peak_memory_mb")
    first = [f"scale {facts['scale']}", spell_time(facts["seconds"])]
    first += [f"at most {memory} MB of memory"] if memory else []  # Windows does not tell
    versions = (f"{SPELLED.get(name, name)} {number}" for name, number in facts["versions"].items())
    return [", ".join(first), f"{facts['device']}; {facts['date']}", ", ".join(versions)]


def spell_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def setup(app: Sphinx) -> None:
    app.add_directive("status-table", StatusTable)
