"""Every chapter keeps the rules, and runs alone in an empty folder with the package installed from its wheel."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from dlbook.evidence import sections
from tools import ROOT
from tools.structure import RULES, Chapter, all_chapters, data_packages, figure_names, in_contents, source

SMOKE_SECONDS = 90  # a chapter's limit at smoke scale, start of the kernel included

CHAPTERS = pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.path.stem)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@CHAPTERS
def test_chapter_keeps_the_rules(chapter, rule):
    assert rule(chapter) == []


def test_figures_have_names_of_their_own():
    names = Counter(name for chapter in all_chapters() for name in figure_names(chapter))
    assert [name for name, count in names.items() if count > 1] == []


def test_contents_and_chapters_agree():
    listed = {name for name in in_contents() if name.startswith("chapters/")}
    there = {f"chapters/{path.stem}" for path in (ROOT / "chapters").iterdir() if path.suffix in (".ipynb", ".md")}
    assert listed == there


def test_contents_list_pages_that_exist():
    missing = [name for name in in_contents() if not any((ROOT / f"{name}.{end}").exists() for end in ("md", "ipynb"))]
    assert missing == []


def test_chapters_are_named_after_their_sections():
    names = [section.file for section in sections()]
    assert all(name.startswith(f"{number:02}-") for number, name in enumerate(names, start=1))


def hide_packages_that_are_not_set_up(chapter: Chapter, folder: Path) -> None:
    """Write what makes Python not find the packages of data that the set-up cell does not install, as on Colab."""
    hidden = [line.partition("==")[0] for line in data_packages() if line not in source(chapter.code[0]).split()]
    folder.mkdir()
    names = [name.replace("-", "_") for name in hidden]
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({names}))\n")


@CHAPTERS
def test_chapter_runs_alone(chapter: Chapter, installed_wheel: Path, tmp_path: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    notebook = nbformat.read(chapter.path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import dlbook\nprint('dlbook from', dlbook.__file__)"))
    nbformat.write(notebook, tmp_path / "in.ipynb")
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--cwd", str(folder)]
    command += ["--kernel", "python3", "--no-progress-bar", "--execution-timeout", "300", "-p", "scale", "smoke"]
    hide_packages_that_are_not_set_up(chapter, tmp_path / "site")
    paths = os.pathsep.join([str(tmp_path / "site"), str(installed_wheel)])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    env.pop("DLBOOK_SCALE", None)  # the parameter alone has to do it
    started = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-6000:]
    assert time.monotonic() - started < SMOKE_SECONDS
    last = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1]
    assert str(installed_wheel) in last.outputs[0].text
    assert list(folder.iterdir()) == [], "a chapter leaves nothing behind in the folder where it runs"
