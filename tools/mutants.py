"""Change the package in small ways, one at a time, and count the changes that its tests notice, with mutmut 3.

    python -m tools.mutants NAME ...      (autograd, activations, train, evidence; activations takes one minute, the others several)

It works in a copy of the committed files, which it leaves behind: there `python -m mutmut show MUTANT` shows a change.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import ROOT

# name: (files that are changed, tests that should notice)
TARGETS = {
    "autograd": (["dlbook/autograd.py"], ["tests/test_autograd.py"]),
    "activations": (["dlbook/layers/activations.py", "dlbook/layers/init.py"], ["tests/layers"]),
    "train": (
        [*(f"dlbook/train/{n}.py" for n in ("loop","checkpoint","history","metrics"))],
        [f"tests/train/test_{name}.py" for name in ("checkpoint", "history", "loop", "metrics")],
    ),
    "evidence": (["dlbook/evidence.py"], ["tests/test_evidence.py"]),
}
SETTINGS = """
[tool.mutmut]
source_paths = ["dlbook"]
only_mutate = {files}
also_copy = ["tests", "tools", "benchmarks", "README.md", "make.py"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
"""


def copy(name: str, folder: Path) -> None:
    """Put the committed files into the folder, with the settings for one target."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=folder, check=True, input=archive)
    files, tests = TARGETS[name]
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write(SETTINGS.format(files=files, tests=tests))


def mutate(name: str) -> None:
    """Run the mutants of one target and print those that no test noticed."""
    folder = Path(tempfile.mkdtemp(prefix=f"mutants-{name}-"))
    copy(name, folder)
    # One thread: mutmut forks, and a fork has none of the threads that torch waits for.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "mutmut"]
    print(f"==> {name}, in {folder}", flush=True)
    subprocess.run([*command, "run", "--max-children", "1"], cwd=folder, env=environment, check=True)
    subprocess.run([*command, "results"], cwd=folder, env=environment, check=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(TARGETS), help=", ".join(TARGETS))
    names = parser.parse_args(arguments).names
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: must be among {', '.join(TARGETS)}")
    if importlib.util.find_spec("mutmut") is None:
        print('Mutants are made by mutmut: .venv/bin/python -m uv pip install "mutmut==3.8.1"', file=sys.stderr)
        return 1
    for name in names:
        mutate(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
