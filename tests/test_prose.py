"""Spelling, in the pages, the chapters' text and the code's comments."""

import subprocess
import sys

from tools import ROOT
from tools.repository import texts
from tools.structure import all_chapters

CHECKED = {".md", ".py", ".yml", ".toml", ".bib", ".css", ".txt"}
# Right in their place, though a list of common slips has them: field-standard names and abbreviations.
IGNORED = "nd,ba,fo,hist,te,ot,coo,dout,arange,convertor,tood"


def misspelt(*paths):
    command = [sys.executable, "-m", "codespell_lib", f"--ignore-words-list={IGNORED}", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def test_files_are_spelt_right():
    paths = [path for path in texts() if path.suffix in CHECKED and path.name != "test_prose.py"]
    assert misspelt(*paths) == []


def test_chapters_are_spelt_right(tmp_path):
    for chapter in all_chapters():
        (tmp_path / f"{chapter.path.stem}.md").write_text(chapter.prose, encoding="utf-8")
    assert misspelt(tmp_path) == []


def test_a_slip_is_found(tmp_path):
    (tmp_path / "page.md").write_text("teh network")
    assert "teh ==> the" in misspelt(tmp_path / "page.md")[0]
