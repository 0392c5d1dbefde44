"""The runner, on small notebooks in a folder of their own."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

import tools
from tests.tools.notebooks import code, notebook
from tools import ROOT, chapters, run_chapters
from tools.fingerprint import fingerprint, stale_reason
from tools.progress import Board

SCALE = "import os\nprint(os.environ['DLBOOK_SCALE'], os.environ['OMP_WAIT_POLICY'], os.getcwd())"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that the runner takes for the book's; call it to put a chapter there."""
    monkeypatch.setattr(run_chapters, "chapters", lambda only="": chapters(only, tmp_path))

    def put(name, *cells):
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook(*cells), path)
        return path

    put.path = tmp_path
    return put


def test_runs_stores_and_then_rests(folder, capfd):
    path = folder("02-small", "# T", code("scale = None", "parameters"), SCALE, "1 + 1")
    ids = [cell.id for cell in nbformat.read(path, 4).cells]
    assert run_chapters.main([]) == 0
    kept = nbformat.read(path, 4)
    assert [cell.id for cell in kept.cells] == ids
    assert kept.cells[2].outputs[0].text.startswith("cpu PASSIVE ")
    assert str(folder.path) not in kept.cells[2].outputs[0].text, "it runs in a folder of its own"
    assert kept.cells[3].outputs[0].data["text/plain"] == "2"
    facts = kept.metadata.dlbook
    assert facts.scale == "cpu"
    assert facts.seconds > 0
    assert 20 < facts.peak_memory_mb < 2000
    assert facts.fingerprint == fingerprint(kept)
    assert set(facts.versions) > {"python", "torch", "numpy"}
    assert os.listdir(folder.path) == ["02-small.ipynb"]

    before = path.read_bytes()
    assert run_chapters.main([]) == 0
    assert "no chapter is stale" in capfd.readouterr().out
    assert path.read_bytes() == before


def test_failing_cell_is_shown_and_nothing_is_stored(folder, capfd):
    bad = folder("02-bad", "# T", "x = 0", "y = 3\ny / x")
    good = folder("03-good", "# T", "print('fine')")
    before = bad.read_bytes()
    assert run_chapters.main([]) == 1
    shown = capfd.readouterr().err
    assert "02-bad.ipynb, cell 3 of 3 (In [2]), line 2: y / x" in shown
    assert "ZeroDivisionError: division by zero" in shown
    assert bad.read_bytes() == before
    assert stale_reason(nbformat.read(good, 4)) is None, "the other chapters finish"
    assert sorted(os.listdir(folder.path)) == ["02-bad.ipynb", "03-good.ipynb"]


def test_dead_kernel_is_named(folder, capfd):
    path = folder("02-dead", "# T", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    before = path.read_bytes()
    assert run_chapters.main([]) == 1
    assert "02-dead.ipynb, cell 2 of 2: its Python process died" in capfd.readouterr().err
    assert path.read_bytes() == before


def test_smoke_run_stores_nothing_unless_told(folder):
    path = folder("02-small", SCALE)
    before = path.read_bytes()
    assert run_chapters.main(["--scale=smoke"]) == 0
    assert path.read_bytes() == before
    assert run_chapters.main(["--scale=smoke", "--store"]) == 0
    assert nbformat.read(path, 4).metadata.dlbook.scale == "smoke"


def test_check_lists_and_runs_nothing(folder, capfd):
    path = folder("02-small", "1")
    before = path.read_bytes()
    assert run_chapters.main(["--check"]) == 1
    assert capfd.readouterr().out == "02-small: never run\n1 of 1 chapters stale\n"
    assert path.read_bytes() == before


def test_edit_during_the_run_is_not_overwritten(folder, capfd):
    path = folder("02-edited", "placeholder")
    edit = f"from pathlib import Path\npath = Path({str(path)!r})\npath.write_text(path.read_text() + ' ')"
    path = folder("02-edited", edit)
    assert run_chapters.main([]) == 1
    assert "was edited while it ran" in capfd.readouterr().err
    assert path.read_text().endswith(" ")
    assert "dlbook" not in nbformat.read(path, 4).metadata


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_everything_and_stores_nothing(folder):
    mark = folder.path / "running"
    path = folder(
        "02-long",
        f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))",
        "time.sleep(600)",
    )
    before = path.read_bytes()
    start = "import sys; from pathlib import Path; from tools import chapters, run_chapters as r\n"
    start += f"r.chapters = lambda only='': chapters(only, Path({str(folder.path)!r}))\n"
    script = folder.path / "start.py"
    script.write_text(start + "if __name__ == '__main__':\n    sys.exit(r.main([]))\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, script], env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
            time.sleep(0.2)
        kernel = int(mark.read_text())
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) != 0
    finally:
        process.poll() is None and os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(kernel)
    assert path.read_bytes() == before
    assert sorted(os.listdir(folder.path)) == ["02-long.ipynb", "running", "start.py"]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_longest_chapter_goes_first(folder):
    for name, seconds in (("02-a", 5.0), ("03-b", 50.0), ("04-c", None)):
        path = folder(name, "1")
        made = json.loads(path.read_text())
        if seconds:
            made["metadata"]["dlbook"] = {"scale": "cpu", "seconds": seconds, "fingerprint": {"cells": "old"}}
        path.write_text(json.dumps(made))
    reasons = run_chapters.plan("", "cpu", False)
    assert [path.stem for path in reasons] == ["04-c", "03-b", "02-a"]
    assert list(reasons.values()) == ["never run", "cells changed", "cells changed"]


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        ("", ["02-nets", "03-conv", "10-more"]),
        ("3", ["03-conv"]),
        ("02 10-more", ["02-nets", "10-more"]),
        ("chapters/03-conv.ipynb,02", ["02-nets", "03-conv"]),
    ],
)
def test_choice_of_chapters(tmp_path, only, chosen):
    for name in ("02-nets", "03-conv", "10-more"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in tools.chapters(only, tmp_path)] == chosen


def test_choice_that_fits_nothing(folder, capfd):
    folder("02-small", "1")
    assert run_chapters.main(["--only=7"]) == 2
    assert capfd.readouterr().err == "no chapter fits '7'; the chapters are: 02-small\n"


def test_write_whole_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run_chapters.write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_progress_in_a_log(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    board = Board(["02-nets"], out)
    board.started("02-nets")
    for _ in range(70):
        clock[0] += 1
        board.at_cell("02-nets", 3, 9)
        board.tick()
    board.ended("02-nets", "70 s")
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines == [
        "02-nets starts",
        "02-nets #####................... cell 3/9 30 s",
        "02-nets #####................... cell 3/9 60 s",
        "02-nets 70 s",
    ]


def test_progress_on_a_terminal_stays_in_place():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    board = Board(["02-nets", "03-conv"], out)
    board.started("02-nets")
    board.tick()
    assert out.getvalue().count("\x1b[2A") == 1, "the second drawing goes over the two lines of the first"
    assert "waiting" in out.getvalue()
