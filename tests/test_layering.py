"""Imports within the package point down, never in a circle, and files stay short enough to read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tools import ROOT
from tools.fingerprint import imported_modules, module_name

PACKAGE = ROOT / "dlbook"
FILES = sorted(PACKAGE.rglob("*.py"))
FOR_ALL = {"device", "seeding", "scale"}
# dlbook.<folder> may import only what stands beside it here, itself and FOR_ALL.
MAY_IMPORT = {
    "layers": set(),
    "models": {"layers"},
    "data": set(),
    "train": set(),
    "plot": set(),
    "explore": {"layers", "models", "data", "train", "plot", "autograd"},
}
MOST_LINES = 400

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, without the packages around them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return imported_modules(tree, module_name(path, ROOT), ROOT)


def at_the_top(path: Path) -> set[str]:
    """The same for the imports that run when the module is imported: those within functions do not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    return imported_modules(top, module_name(path, ROOT), ROOT)


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != PACKAGE], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    folder = path.relative_to(PACKAGE).parts[0]
    assert folder in MAY_IMPORT, f"say in MAY_IMPORT what dlbook.{folder} may import"
    folders = {name.split(".")[1] for name in imports(path) if "." in name}
    extra = folders - MAY_IMPORT[folder] - FOR_ALL - {folder}
    assert not extra, f"dlbook.{folder} may not import {sorted(extra)}"


@every_file
def test_package_imports_neither_tools_nor_tests(path):
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    assert not roots & {"tools", "tests", "benchmarks"}


@every_file
def test_file_is_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines"


def test_no_circles():
    graph = {module_name(path, ROOT): at_the_top(path) for path in FILES}
    del graph["dlbook"]  # the root is loaded before all others; reading its version back is no circle
    graph = {name: found - {"dlbook"} for name, found in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_finds_a_wrong_import(tmp_path):
    (tmp_path / "dlbook" / "models").mkdir(parents=True)
    (tmp_path / "dlbook" / "plot").mkdir()
    for name in ("__init__", "models/__init__", "models/net", "plot/__init__"):
        (tmp_path / "dlbook" / f"{name}.py").touch()
    tree = ast.parse("def f():\n    from ..plot import lines")
    assert imported_modules(tree, "dlbook.models.net", tmp_path) == {"dlbook.plot"}
