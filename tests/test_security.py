"""Nothing here runs code that a reader, a file or a server sends, and no text of theirs becomes part of a page."""

import ast
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from dlbook import evidence, source
from dlbook.evidence import MIME, Statement, card, claim, summary
from dlbook.explore import Explorer
from dlbook.scale import start
from tools import ROOT

FILES = sorted(
    path for folder in ("dlbook", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py") if path.is_file()
)
FORBIDDEN = {
    *("eval", "exec", "__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load", "cloudpickle.load"),
    *("marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle", "builtins.eval", "builtins.exec"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load"),
    *("shutil.unpack_archive", "tempfile.mktemp"),
}
METHODS = {"extractall"}  # of any archive: paths in it may lead out
CALLS = {"compile"}  # as a name it is one of our own arguments too


def dangers(code: str) -> list[str]:
    """Calls, or mere mentions, by which a text could become code; with the line in front."""
    tree = ast.parse(code)
    full = {}  # name in this file -> what it is
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {name.asname: name.name for name in node.names if name.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}

    def name_of(node: ast.expr) -> str:
        if isinstance(node, ast.Attribute):
            return f"{name_of(node.value)}.{node.attr}"
        return full.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and name_of(node) in FORBIDDEN:
            found.append((node.lineno, name_of(node)))
        if not isinstance(node, ast.Call):
            continue
        given = {word.arg: word.value for word in node.keywords}
        name = name_of(node.func)
        if name in CALLS:
            found.append((node.lineno, name))
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            found.append((node.lineno, node.func.attr))
        if "shell" in given and not is_constant(given["shell"], False):
            found.append((node.lineno, "shell="))
        if name == "torch.load" and not is_constant(given.get("weights_only"), True):
            found.append((node.lineno, "torch.load without weights_only=True"))
        if name == "numpy.load" and not is_constant(given.get("allow_pickle", ast.Constant(False)), False):
            found.append((node.lineno, "allow_pickle="))
    return [f"line {line}: {what}" for line, what in sorted(found)]


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_is_run_as_code(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


def test_all_folders_are_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == {"dlbook", "tools", "benchmarks"}
    assert len(FILES) > 40


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "f = exec",
        "compile(text, 'x', 'eval')",
        "import os\nos.system('ls')",
        "from os import system as s\ns('ls')",
        "import subprocess as p\np.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        "import pickle\npickle.load(file)",
        "from pickle import loads\nloads(text)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "archive.extractall(folder)",
    ],
)
def test_each_danger_is_seen(code):
    assert dangers(code)


@pytest.mark.parametrize(
    "code",
    [
        "import re\nre.compile('x')",
        "model.eval()",
        "import torch\ntorch.load(path, weights_only=True)",
        "import yaml\nyaml.safe_load(text)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
    ],
)
def test_what_only_looks_like_one_is_left_alone(code):
    assert dangers(code) == []


# ---- text stays text

EVIL = "</script></style></td>\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"


class Tags(HTMLParser):
    """The elements of a page in order, with their attributes, and its text as a reader sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text, self.values = "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(name for name, _ in attributes)))
        self.values += "".join(value or "" for _, value in attributes)

    def handle_data(self, data):
        self.text += data


def assert_only_text_differs(evil: str, harmless: str, *, shown: int) -> None:
    """The two pages have the same elements and attributes; the evil text is read ``shown`` times or more."""
    there, here = Tags(evil), Tags(harmless)
    assert there.tags == here.tags
    assert (there.text + there.values).count(EVIL) >= shown


def payload(text: str) -> dict:
    found = {"number": 1.5, "low": 1.0, "high": 2.0, "seeds": 5, "confidence": 0.95, "margin": 1.0}
    return {"id": "2.1", "verdict": "holds", "because": text, "limits": text, "unit": text, "scale": "smoke", **found}


def test_a_card_keeps_every_text_a_text():
    assert_only_text_differs(card(payload(EVIL))["text/html"], card(payload("harmless"))["text/html"], shown=4)


def pages(monkeypatch, said: str) -> list[str]:
    """The pages of a claim about a statement that says so, and of the summary after it."""
    statement = Statement("2.1", "exact", said, said)
    monkeypatch.setattr(evidence, "statements", lambda: {"2.1": statement})
    shown = []
    monkeypatch.setattr(evidence, "show", shown.append)
    start("smoke")
    claim("2.1", holds=True, because=said, limits=said)
    summary()
    assert shown[0][MIME]["because"] == said.strip()
    return [bundle["text/html"] for bundle in shown]


def test_a_statement_and_its_summary_keep_every_text_a_text(monkeypatch, capsys):
    for evil, harmless in zip(pages(monkeypatch, EVIL), pages(monkeypatch, "harmless"), strict=True):
        assert_only_text_differs(evil, harmless, shown=2)


def test_the_summary_is_one_table(monkeypatch, capsys):
    parsed = Tags(pages(monkeypatch, "said")[1])
    rows = [("thead", "th", ["No.", "Verdict", "Statement", "Rests on"])]
    rows += [("tbody", "td", ["2.1", "◐ holds, with limits", "said", "said"])]
    expected = ["style", "div", "table"]
    for part, cell, texts in rows:
        expected += [part, "tr", *[cell] * len(texts)]
    assert [tag for tag, _ in parsed.tags] == expected
    assert parsed.text.endswith("}" + "".join(text for _, _, texts in rows for text in texts))


def test_code_in_a_listing_stays_code():
    code = f"# {EVIL}\nclass A:\n    '''{EVIL}'''\n\n    def f(self):\n        return {EVIL!r}\n"
    parsed = Tags(source.highlight(code))
    assert {tag for tag, _ in parsed.tags} == {"span"}
    assert parsed.text == code


def explorer(label: str) -> Explorer:
    def draw(**_: object) -> Figure:
        return Figure(figsize=(1, 1))

    controls = {label: [1, 2], "kind": [label, "other"]}
    return Explorer(draw, alt=label, **controls)


def test_an_explorer_keeps_control_choice_and_alternative_text_a_text():
    assert_only_text_differs(explorer(EVIL).html, explorer("harmless").html, shown=3)
    assert Tags(explorer("$key ${src} $").html).tags == Tags(explorer("harmless").html).tags  # it is a template
