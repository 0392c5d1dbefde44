"""Installing the package on Colab replaces none of what Colab has.

colab-versions.txt holds the versions of a snapshot of August 2026, Python 3.13.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pip
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


@pytest.fixture(scope="session")
def like_colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tells pip that Colab's packages are installed, without holding them; and pip itself."""
    folder = tmp_path_factory.mktemp("like-colab")
    for name, version in ON_COLAB.items():
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "INSTALLER").write_text("pip\n")
    (folder / "pip").symlink_to(Path(pip.__file__).parent)
    return folder


def pip_would_install(folder: Path, wanted: Path | str) -> list[str]:
    """What pip would install where only the packages of a folder are; it can fetch nothing."""
    command = [sys.executable, "-S", "-m", "pip", "install", "--dry-run", "--quiet", "--no-index", "--report=-", wanted]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = kept | {"PYTHONPATH": str(folder), "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [item["metadata"]["name"] for item in json.loads(done.stdout)["install"]]


def test_pip_changes_nothing_that_colab_has(wheel: Path, like_colab: Path):
    assert pip_would_install(like_colab, wheel) == ["dlbook"]


def test_pip_would_replace_what_is_too_old(like_colab: Path):
    # That the test above can see it: pip looks for a newer torch, and finds none.
    with pytest.raises(AssertionError, match="torch>=99"):
        pip_would_install(like_colab, "torch>=99")
