"""Change the package in small ways, one at a time, and count the changes that its tests notice, with mutmut 3.

    make mutants                                        all targets: hours on a busy machine
    make mutants ONLY="losses evidence"                 some of them
    python -m tools.mutants train --only "*[147]"       of one target the mutants whose number ends so: a fixed sample

It works in a copy of the committed files, which it leaves behind: there `python -m mutmut show MUTANT` shows a change.
What was found, and what stands behind each mutant that no test notices, is in tests/mutants.md.
"""

import argparse
import collections
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import ROOT

# name: (files that are changed, tests that should notice); without train/processes.py, whose tests run under torchrun,
# in processes of their own that mutmut does not see
TARGETS = {
    "autograd": (["dlbook/autograd.py"], ["tests/test_autograd.py"]),
    "activations": (
        ["dlbook/layers/activations.py", "dlbook/layers/init.py"],
        ["tests/layers/test_activations.py", "tests/layers/test_init.py"],
    ),
    "losses": (
        ["dlbook/layers/losses.py", "dlbook/train/segmentation.py"],
        ["tests/layers/test_losses.py", "tests/train/test_segmentation.py"],
    ),
    "train": (
        [f"dlbook/train/{name}.py" for name in ("checkpoint", "history", "loop", "metrics")],
        [
            *(f"tests/train/test_{name}.py" for name in ("checkpoint", "history", "loop", "metrics")),
            # many seconds each, and what they would catch the others catch
            "--deselect=tests/train/test_checkpoint.py::test_a_killed_process_leaves_a_checkpoint_to_go_on_from",
            "--deselect=tests/train/test_loop.py::test_compiled_training_gives_the_same_model",
        ],
    ),
    "evidence": (["dlbook/evidence.py"], ["tests/test_evidence.py"]),
}
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
SETTINGS = """
[tool.mutmut]
source_paths = ["dlbook"]
only_mutate = {files}
also_copy = ["tests", "tools", "benchmarks", "README.md", "make.py"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = {options}
"""
# A mutant is caught by the first example that fails; looking for a smaller one takes longer than all the rest.
NO_SHRINKING = """
from hypothesis import Phase

settings.register_profile("mutants", settings(), phases=[Phase.explicit, Phase.generate])
settings.load_profile("mutants")
"""


def copy(name: str, folder: Path) -> None:
    """Put the committed files into the folder, with the settings for one target."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=folder, check=True, input=archive)
    files, tests = TARGETS[name]
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write(SETTINGS.format(files=files, tests=tests, options=OPTIONS))
    with (folder / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(NO_SHRINKING)


def check_names(folder: Path, tests: list[str], environment: dict[str, str]) -> None:
    """Stop where pytest does not find a test by its name: mutmut would take that for a failure, and so for a catch."""
    collect = [sys.executable, "-m", "pytest", *OPTIONS, "--collect-only"]
    listed = subprocess.run([*collect, *tests], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    names = [line for line in listed.stdout.splitlines() if "::" in line]
    subprocess.run([*collect, *names], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def mutate(name: str, only: list[str]) -> None:
    """Run the mutants of one target, count them, and print those that no test noticed."""
    folder = Path(tempfile.mkdtemp(prefix=f"mutants-{name}-"))
    copy(name, folder)
    # One thread: mutmut forks, and a fork has none of the threads that torch waits for.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "mutmut"]
    print(f"==> {name}, in {folder}", flush=True)
    check_names(folder, TARGETS[name][1], environment)
    subprocess.run([*command, "run", "--max-children", "1", *only], cwd=folder, env=environment, check=True)
    report = [*command, "results", "--all", "true"]
    results = subprocess.run(report, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
    found = dict(line.strip().rsplit(": ", 1) for line in results.splitlines() if ": " in line)
    tried = {mutant: status for mutant, status in found.items() if status != "not checked"}
    print("".join(f"{status}: {mutant}\n" for mutant, status in tried.items() if status not in ("killed", "timeout")))
    counts = collections.Counter(tried.values())
    caught = counts["killed"] + counts["timeout"]
    print(f"==> {name}: {caught} of {len(tried)} caught, {len(found)} in all; {dict(counts)}", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(TARGETS), help=", ".join(TARGETS))
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="names of mutants, as mutmut has them")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - TARGETS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: must be among {', '.join(TARGETS)}")
    if importlib.util.find_spec("mutmut") is None:
        print("Mutants are made by mutmut, which `make mutants` adds for the time of the run.", file=sys.stderr)
        return 1
    for name in given.names:
        mutate(name, given.only)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
