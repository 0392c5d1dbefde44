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


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder in which the package lies as pip installs it from a wheel; built once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    target = shared / "installed-wheel"
    with FileLock(shared / "wheel.lock"):
        if not target.exists():
            sources = shared / "wheel-sources"  # a copy, since building leaves files beside the sources
            shutil.copytree(ROOT / "dlbook", sources / "dlbook", ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md"):
                shutil.copy(ROOT / name, sources / name)
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", shared / "wheel", sources]
            subprocess.run(build, check=True, capture_output=True, text=True)
            [wheel] = (shared / "wheel").glob("dlbook-*.whl")
            subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True, capture_output=True)
    return target
