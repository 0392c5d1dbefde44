"""What `make mutants` changes and runs is there; a name that is not would change nothing, in silence."""

import pytest

from tools import ROOT
from tools.mutants import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_files_and_tests_are_there(name):
    files, tests = TARGETS[name]
    for given in (*files, *tests):
        path, _, test = given.removeprefix("--deselect=").partition("::")
        assert f"def {test}" in (ROOT / path).read_text(encoding="utf-8"), given
