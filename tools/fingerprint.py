"""Say whether a chapter's stored outputs still belong to the code that is there now.

A fingerprint maps "cells" and the name of every `dlbook` module that the chapter imports, directly or through
another module, to a short hash of its syntax tree. Comments, docstrings and formatting are not in the tree that is
hashed, and the tree is written in a form of our own, because `ast.dump` differs from one Python to the next.
"""

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from tools import ROOT

PACKAGE = "dlbook"
Notebook = dict[str, Any]  # a notebook's JSON, as `read` or nbformat gives it
FULL_SCALES = ("cpu", "gpu")  # the scales whose outputs may stand in the book
# What a name or constant is used for stands in the node around it; the others hold type comments and u"" prefixes.
UNUSED_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}
# These say something about a module and compute nothing: a new version must not make every chapter stale.
ABOUT_THE_MODULE = {"__version__", "__all__"}


def read(path: Path) -> Notebook:
    """Return a notebook's JSON; nbformat, which checks it as well, takes two seconds to import."""
    return json.loads(path.read_text(encoding="utf-8"))


def has_tag(cell: dict[str, Any], tag: str) -> bool:
    return tag in cell["metadata"].get("tags", [])


def code_of(cell: dict[str, Any]) -> str:
    """Return a code cell's source as plain Python, its magics turned into calls."""
    return TransformerManager().transform_cell("".join(cell["source"]))


def fingerprint(notebook: Notebook, root: Path = ROOT) -> dict[str, str]:
    """Return the fingerprint of a chapter: {"cells": hash, "dlbook": hash, "dlbook.scale": hash, ...}.

    The set-up cell does not count: all it does is to install the package where that is missing.

    Args:
        notebook: the chapter.
        root: the folder in which the package `dlbook` lies.

    Raises:
        SyntaxError: when a cell is not Python; the message names the cell.
    """
    cells, found = [], set()
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code" or has_tag(cell, "setup"):
            continue
        try:
            tree = ast.parse(code_of(cell))
        except SyntaxError as error:
            raise SyntaxError(f"cell {index + 1}, line {error.lineno}: {error.msg}: {error.text}") from error
        cells.append(_digest(_without_prose(tree, keep_top=True)))
        found |= imported_modules(tree, "", root)
    return {"cells": _digest(cells)} | _closure(found, root)


def stale_reason(notebook: Notebook, scale: str = "cpu", root: Path = ROOT) -> str | None:
    """Return why a chapter has to run again to be right at `scale`, in a few words, or None when it need not.

    Outputs of a gpu run serve where cpu is asked for, not the other way round.
    """
    stored = notebook["metadata"].get("dlbook", {})
    if "fingerprint" not in stored:
        return "never run"
    good_enough = FULL_SCALES[FULL_SCALES.index(scale) :] if scale in FULL_SCALES else (scale,)
    if stored["scale"] not in good_enough:
        return f"stored at {stored['scale']} scale"
    then, now = stored["fingerprint"], fingerprint(notebook, root)
    changed = [f"{name} changed" for name in now if name in then and then[name] != now[name]]
    changed += [f"{name} newly imported" for name in now if name not in then]
    changed += [f"{name} no longer imported" for name in then if name not in now]
    return ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "") or None


def _closure(names: set[str], root: Path) -> dict[str, str]:
    """Return a hash for each of the modules and for all that they import within the package."""
    hashes: dict[str, str] = {}
    waiting = list(_with_parents(names))
    while waiting:
        name = waiting.pop()
        if name in hashes:
            continue
        tree, hashes[name] = _parse_module(_module_file(name, root).read_text(encoding="utf-8"))
        waiting += _with_parents(imported_modules(tree, name, root))
    return dict(sorted(hashes.items()))


@lru_cache(maxsize=512)
def _parse_module(source: str) -> tuple[ast.Module, str]:
    tree = ast.parse(source)
    digest = _digest(_without_prose(ast.parse(source), keep_top=False))
    return tree, digest


def _module_file(name: str, root: Path) -> Path:
    """Return the file of a module; it need not exist."""
    folder = root.joinpath(*name.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the name by which the file of a module is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(tree: ast.Module, module: str, root: Path = ROOT) -> set[str]:
    """Return the package's modules that a syntax tree imports by name, anywhere in it.

    Args:
        tree: of a module or of a cell.
        module: the module's own name, from which relative imports start; "" for a cell.
        root: the folder in which the package lies.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, root)
            names = {f"{base}.{alias.name}" for alias in node.names}
            modules = {name for name in names if _is_module(name, root)}
            # `from dlbook.plot import lines` takes the module `lines`, or the function that `dlbook.plot` offers
            found |= modules if modules == names else modules | {base}
    return {name for name in found if _is_module(name, root)}


def _is_module(name: str, root: Path) -> bool:
    return name.split(".")[0] == PACKAGE and _module_file(name, root).exists()


def _with_parents(names: set[str]) -> set[str]:
    """Importing dlbook.plot.lines runs dlbook and dlbook.plot first."""
    return {".".join(name.split(".")[: depth + 1]) for name in names for depth in range(name.count(".") + 1)}


def _absolute(node: ast.ImportFrom, module: str, root: Path) -> str:
    """Return the full name of the module behind `from ..name import`, as seen from `module`."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    is_package = _module_file(module, root).name == "__init__.py"
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join(kept + ([node.module] if node.module else []))


def _without_prose(tree: ast.Module, *, keep_top: bool) -> ast.Module:
    """Take out every statement that is only a string, and what a module says about itself.

    With `keep_top` the strings at the top stay: at the end of a cell a string is shown.
    """
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list) and not (keep_top and node is tree):
                setattr(node, field, [statement for statement in body if not _is_prose(statement)])
    return tree


def _is_prose(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id in ABOUT_THE_MODULE for target in statement.targets)
    return False


def _plain(node: Any) -> Any:
    """Return a syntax tree as nested tuples of strings that every Python from 3.11 on writes alike."""
    if isinstance(node, ast.Constant):
        return ("Constant", repr(node.value))
    if isinstance(node, ast.JoinedStr):
        return ("JoinedStr", *_joined(node.values))
    if isinstance(node, ast.AST):
        fields = sorted((name, value) for name, value in ast.iter_fields(node) if name not in UNUSED_FIELDS)
        return (type(node).__name__, *((name, _plain(value)) for name, value in fields if value not in (None, [])))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node)
    return repr(node)


def _joined(values: list[ast.expr]) -> list[Any]:
    """Return the pieces of an f-string; neighbouring texts become one, since Pythons cut them differently."""
    pieces: list[Any] = []
    text = ""
    for value in values:
        if isinstance(value, ast.Constant):
            text += value.value
            continue
        pieces += [("text", text), _plain(value)] if text else [_plain(value)]
        text = ""
    return pieces + ([("text", text)] if text else [])


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(_plain(value)).encode()).hexdigest()[:16]
