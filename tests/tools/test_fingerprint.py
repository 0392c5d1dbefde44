import json

import pytest

from tools.fingerprint import fingerprint, stale_reason

PACKAGE = {
    "__init__": '"""Root."""\n__version__ = "0.1.0"\n',
    "scale": "def start():\n    from dlbook import plot\n    return plot.STYLE\n",
    "alone": "X = 1\n",
    "plot/__init__": "from .lines import draw\nSTYLE = 'plain'\n",
    "plot/lines": (
        '"""Lines."""\nfrom ..deep.base import SIZE\n\n\ndef draw(x):\n    """Draw."""\n    return f"{x + SIZE:>4}!"\n'
    ),
    "deep/__init__": "",
    "deep/base": "SIZE = 3  # pixels\n",
    "deep/other": "Y = 2\n",
}
CELLS = ["%matplotlib inline\nfrom dlbook.scale import start", "def f(x):\n    '''Say.'''\n    return x + 1\n\nf(2)"]


def notebook(cells=CELLS, **metadata):
    made = [{"cell_type": "code", "source": source, "metadata": {}} for source in cells]
    return {"cells": [{"cell_type": "markdown", "source": "# T", "metadata": {}}, *made], "metadata": metadata}


@pytest.fixture
def package(tmp_path):
    """A function that writes the package, with some files changed, and returns the chapter's fingerprint."""

    def write(**changed):
        for name, text in {**PACKAGE, **changed}.items():
            path = tmp_path / "dlbook" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return fingerprint(notebook(), tmp_path)

    write.root = tmp_path
    return write


def test_follows_imports_through_the_package(package):
    modules = {"dlbook", "dlbook.scale", "dlbook.plot", "dlbook.plot.lines", "dlbook.deep", "dlbook.deep.base"}
    assert set(package()) == {"cells"} | modules


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("import dlbook.deep.other as o", {"dlbook", "dlbook.deep", "dlbook.deep.other"}),
        ("from dlbook.deep import other", {"dlbook", "dlbook.deep", "dlbook.deep.other"}),
        ("from dlbook import alone", {"dlbook", "dlbook.alone"}),
        ("def f():\n    import dlbook.alone", {"dlbook", "dlbook.alone"}),
        ("import numpy", set()),
        ("x = !ls\n%pip list\nimport dlbook.alone", {"dlbook", "dlbook.alone"}),
    ],
)
def test_finds_every_form_of_import(package, line, modules):
    package()
    assert set(fingerprint(notebook([line]), package.root)) == {"cells"} | modules


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("plot/lines", '"""Draw."""', '"""Draw lines, in other words."""'),
        ("plot/lines", '"""Lines."""', '"""Lines"""\n\n"""and more"""'),
        ("plot/lines", "def draw(x):", "def draw(\n    x,\n):  # why"),
        ("plot/lines", '"Draw."""\n', '"Draw."""\n    # a comment\n'),
        ("deep/base", "SIZE = 3  # pixels", "SIZE = (3)"),
        ("plot/__init__", "'plain'", '"plain"'),
        ("__init__", "0.1.0", "0.2.0"),
        ("alone", "X = 1", "X = 2"),
        ("deep/other", "Y = 2", "Z = 3"),
    ],
)
def test_wording_and_other_modules_keep_it(package, module, before, after):
    assert before in PACKAGE[module]
    assert package() == package(**{module: PACKAGE[module].replace(before, after)})


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("deep/base", "3", "4"),
        ("deep/base", "3", "3.0"),
        ("plot/lines", "x + SIZE", "x - SIZE"),
        ("plot/lines", ":>4}", ":<4}"),
        ("plot/lines", "}!", "}?"),
        ("plot/lines", "def draw(x)", "def draw(x=0)"),
        ("plot/__init__", "STYLE = 'plain'", "STILE = 'plain'"),
        ("scale", "return plot.STYLE", "return plot.STYLE, 1"),
    ],
)
def test_code_changes_it(package, module, before, after):
    assert before in PACKAGE[module]
    then, now = package(), package(**{module: PACKAGE[module].replace(before, after)})
    changed = {name for name in then if then[name] != now[name]}
    assert changed == {"dlbook." + module.replace("/__init__", "").replace("/", ".")}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("x + 1", "x + 2", False),
        ("f(2)", "f(3)", False),
        ("inline", "qt", False),
        ("f(2)", "f( 2 )  # two", True),
        ("Say.", "Tell.", True),
        ("f(2)", "f(2)\n'shown'", False),  # the last string of a cell is its output
    ],
)
def test_cells(package, before, after, same):
    package()
    changed = [source.replace(before, after) for source in CELLS]
    assert changed != CELLS
    equal = fingerprint(notebook(changed), package.root) == fingerprint(notebook(), package.root)
    assert equal is same


def test_order_of_cells_counts_and_markdown_does_not(package):
    package()
    there, back = ["a = 1", "b = 2"], ["b = 2", "a = 1"]
    assert fingerprint(notebook(there), package.root) != fingerprint(notebook(back), package.root)
    reworded = notebook(there)
    reworded["cells"][0]["source"] = "# Another title"
    assert fingerprint(reworded, package.root) == fingerprint(notebook(there), package.root)


def test_set_up_cell_does_not_count(package):
    package()
    cells = notebook(["%pip install -q x", "a = 1"])
    cells["cells"][1]["metadata"]["tags"] = ["setup"]
    moved = json.loads(json.dumps(cells).replace("install -q x", "install -q y"))
    assert fingerprint(moved, package.root) == fingerprint(cells, package.root)


def test_same_on_every_python(tmp_path):
    """Fixed values, found alike on 3.11, 3.12 and 3.13: a chapter run on one is fresh on the others."""
    (tmp_path / "dlbook").mkdir()
    (tmp_path / "dlbook" / "__init__.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass A:\n    x: int = 1_000\n\n\n"
        "async def f(a, /, b=-1.5e-3, *c, d: str | None = u'é', **e):\n"
        "    return f'{a!r:>{b}}' '' f\"x{c=}y\" 'z' + b'\\x00'.decode(), [*c, {**e, None: ...}], lambda: 0j\n"
        "match f:\n    case {'k': [1, *_], **rest} if rest:\n        pass\n"
        "try:\n    pass\nexcept* ValueError:\n    del f\n"
    )
    found = fingerprint(notebook(["import dlbook"]), tmp_path)
    assert found == {"cells": "f0f3e352f2ef1767", "dlbook": "80fac0e90051959a"}


@pytest.mark.parametrize(
    ("stored", "scale", "reason"),
    [
        ({}, "cpu", "never run"),
        ({"scale": "smoke"}, "cpu", "stored at smoke scale"),
        ({"scale": "cpu"}, "cpu", None),
        ({"scale": "gpu"}, "cpu", None),
        ({"scale": "cpu"}, "gpu", "stored at cpu scale"),
        ({"scale": "gpu"}, "gpu", None),
    ],
)
def test_scale_of_stored_outputs(package, stored, scale, reason):
    if stored:
        stored["fingerprint"] = package()
    assert stale_reason(notebook(dlbook=stored), scale, package.root) == reason


def test_says_what_changed(package):
    kept = notebook(dlbook={"scale": "cpu", "fingerprint": package()})
    package(**{"deep/base": "SIZE = 4", "scale": "import dlbook.alone\n"})
    reason = stale_reason(kept, "cpu", package.root)
    assert reason == "dlbook.scale changed, dlbook.alone newly imported, dlbook.deep no longer imported and 3 more"


def test_broken_cell_is_named(package):
    package()
    with pytest.raises(SyntaxError, match=r"cell 2, line 1.*for"):
        fingerprint(notebook(["for x in"]), package.root)
