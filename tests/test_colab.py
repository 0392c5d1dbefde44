"""Installing the package on Colab replaces none of what Colab has.

colab-versions.txt holds the versions of a snapshot of August 2026, Python 3.13.
"""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tools import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "tests" / "colab-versions.txt").read_text(encoding="utf-8").split()
ON_COLAB = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_colab_has_what_the_package_needs(requirement):
    assert canonicalize_name(requirement.name) in ON_COLAB, (
        "Colab lacks it: installing it there costs every reader time"
    )
    version = ON_COLAB[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"Colab has {version}: pip would replace it"


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_no_upper_bound(requirement):
    assert {specifier.operator for specifier in requirement.specifier} <= {">="}


def test_colab_has_a_python_that_will_do():
    assert SpecifierSet(PROJECT["requires-python"]).contains(ON_COLAB["python"])
