"""What all tests share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Before torch is imported: waiting threads must not take the cores from the tests beside them.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["MPLBACKEND"] = "agg"

import pytest
from filelock import FileLock
from hypothesis import settings

from tools import ROOT

# The same cases in every run, and no limit of time for one: the machine has other things to do.
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder for what is made once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def wheel_sources(shared_folder: Path) -> Path:
    """A copy of what the wheel is made from, since building leaves files beside the sources."""
    sources = shared_folder / "wheel-sources"
    with FileLock(shared_folder / "wheel-sources.lock"):
        if not sources.exists():
            shutil.copytree(ROOT / "dlbook", sources / "dlbook", ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md"):
                shutil.copy(ROOT / name, sources / name)
    return sources


@pytest.fixture(scope="session")
def wheel(shared_folder: Path, wheel_sources: Path) -> Path:
    """The package's wheel."""
    folder = shared_folder / "wheel"
    with FileLock(shared_folder / "wheel.lock"):
        if not folder.exists():
            build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, wheel_sources]
            subprocess.run(build, check=True, capture_output=True, text=True)
    [found] = folder.glob("dlbook-*.whl")
    return found


@pytest.fixture(scope="session")
def installed_wheel(shared_folder: Path, wheel: Path) -> Path:
    """A folder in which the package lies as pip installs it from a wheel."""
    target = shared_folder / "installed-wheel"
    with FileLock(shared_folder / "installed-wheel.lock"):
        if not target.exists():
            install = [*PIP, "install", "--no-deps", "--target", target, wheel]
            subprocess.run(install, check=True, capture_output=True)
    return target
