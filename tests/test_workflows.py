"""What runs on GitHub: actions pinned by hash, least rights, a limit of time, and commands that exist."""

import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from make import TASKS
from tools import ROOT

GITHUB = ROOT / ".github"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((GITHUB / "workflows").iterdir())}
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = {f"{name}:{job}": body for name, workflow in WORKFLOWS.items() for job, body in workflow["jobs"].items()}
STEPS = [step for job in JOBS.values() for step in job["steps"]]
COMMANDS = [step["run"] for step in STEPS if "run" in step]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

each_workflow = pytest.mark.parametrize("name", TEXTS)
each_job = pytest.mark.parametrize("name", JOBS)


def test_there_are_three():
    assert list(TEXTS) == ["pages.yml", "tests.yml", "weekly.yml"]


@each_workflow
def test_actions_are_pinned_by_hash_with_the_version_beside(name):
    used = [line.strip().removeprefix("- ") for line in TEXTS[name].splitlines() if "uses:" in line]
    pinned = re.compile(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert used
    assert [line for line in used if not pinned.fullmatch(line)] == []


def test_one_action_has_one_version():
    used = {line.split("uses: ")[1] for text in TEXTS.values() for line in text.splitlines() if "uses:" in line}
    assert len({line.split("@")[0] for line in used}) == len(used), sorted(used)


@each_workflow
def test_a_workflow_may_only_read(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert "secrets." not in TEXTS[name]
    assert "pull_request_target" not in TEXTS[name], "it would run a stranger's code with our rights"
    assert WORKFLOWS[name]["concurrency"]["group"]


@each_job
def test_only_the_deployment_may_write_and_it_runs_nothing_else(name):
    job = JOBS[name]
    if name == "pages.yml:deploy":
        assert job["permissions"] == {"pages": "write", "id-token": "write"}
        assert "github.event_name != 'pull_request' && github.ref == 'refs/heads/main'" in job["if"]
        assert [step["uses"].split("@")[0] for step in job["steps"]] == ["actions/deploy-pages"]
    else:
        assert "permissions" not in job


@each_job
def test_a_job_ends(name):
    assert 0 < JOBS[name]["timeout-minutes"] <= 90


def test_a_checkout_leaves_no_credentials():
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_commands_take_nothing_that_a_stranger_can_write():
    """The title of a pull request, put into a command, would be run by the shell."""
    filled = {word for command in COMMANDS for word in re.findall(r"\$\{\{ *([\w.-]+)", command)}
    assert {word.split(".")[0] for word in filled} <= {"matrix", "env"}


def test_commands_are_tasks_and_files_that_exist():
    tasks = [task for command in COMMANDS for task in re.findall(r"\bmake (\w+)", command)]
    assert {"test", "book", "setup"} <= set(tasks) <= set(TASKS)
    named = WORKFLOWS["tests.yml"]["env"]["PACKAGE"].split()
    named += [path for command in COMMANDS for path in re.findall(r"/book/(\S+)", command)]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_python_that_the_package_takes_is_tested():
    wanted = SpecifierSet(PROJECT["requires-python"])
    pythons = JOBS["tests.yml:systems"]["strategy"]["matrix"]["python"]
    assert all(python in wanted for python in pythons)
    assert f">={pythons[0]}" == str(wanted), "the oldest is among them"
    oldest, newest = JOBS["tests.yml:versions"]["strategy"]["matrix"]["include"]
    assert (oldest["python"], oldest["resolution"]) == (pythons[0], "lowest-direct")
    assert (newest["python"], newest["resolution"]) == (pythons[-1], "highest")


def test_the_repository_is_named_nowhere():
    """GitHub knows where it runs, and so a fork's workflows are its own."""
    owner_and_name = "/".join(PROJECT["urls"]["Repository"].split("/")[-2:])
    files = [path for path in GITHUB.rglob("*") if path.is_file()]
    assert [path.name for path in files if owner_and_name in path.read_text(encoding="utf-8")] == []


def test_scripts_are_sound():
    for script in GITHUB.glob("*.sh"):
        assert "set -euo pipefail" in script.read_text(encoding="utf-8")
        subprocess.run(["bash", "-n", script], check=True)


def test_dependabot_looks_after_both_each_week():
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    assert all(update["schedule"] == {"interval": "weekly"} and update["groups"] for update in updates)
