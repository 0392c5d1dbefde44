"""make.py: what a newcomer meets first."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

import make
from tools import ROOT

Usage = namedtuple("Usage", "total used free")
INSTALL = ["venv", "pip", "uv", "uv"]  # .venv, the installer, the tools, the packages of which only the data are read


def run(*arguments, **env):
    command = [sys.executable, "make.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **env})


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """make.py as it is in a clone in which nothing is set up yet."""
    for name in (*make.REQUIREMENTS, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(make, "ROOT", tmp_path)
    monkeypatch.setattr(make, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(make, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(make, "STAMP", tmp_path / ".venv" / "stamp")
    return tmp_path


@pytest.fixture
def installs(bare, monkeypatch):
    """The same, where creating .venv and installing only write down what they would do."""
    done = []

    def create():
        make.VENV.mkdir(exist_ok=True)
        done.append("venv")

    monkeypatch.setattr(make, "create_venv", create)
    monkeypatch.setattr(make, "usable_venv", lambda: "venv" in done)
    monkeypatch.setattr(make, "uv_environment", dict)
    monkeypatch.setattr(make, "python", lambda *arguments, env=None: done.append(arguments[1]) or 0)
    return done


def test_old_python_gets_as_far_as_the_message():
    ast.parse((ROOT / "make.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_uses_the_standard_library_alone():
    tree = ast.parse((ROOT / "make.py").read_text(encoding="utf-8"))
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_sets_up_once(installs):
    assert make.setup({}) == 0
    assert installs == INSTALL
    assert make.setup({}) == 0
    assert installs == INSTALL, "a second time nothing is installed"


@pytest.mark.parametrize(
    ("name", "before", "after", "again"),
    [
        ("requirements.txt", "papermill", "papermill>=2", True),
        ("constraints.txt", "numpy==", "numpy==9", True),
        ("pyproject.toml", "torch>=2.6", "torch>=2.7", True),
        ("pyproject.toml", "line-length = 120", "line-length = 100", False),
    ],
)
def test_sets_up_again_when_requirements_change(installs, bare, name, before, after, again):
    make.setup({})
    text = (bare / name).read_text()
    assert before in text
    (bare / name).write_text(text.replace(before, after))
    make.setup({})
    assert (installs == [*INSTALL, *INSTALL[1:]]) is again


def test_installing_that_failed_is_tried_again(installs, monkeypatch):
    monkeypatch.setattr(make, "python", lambda *_, env=None: 1)
    with pytest.raises(make.Stop, match="HTTPS_PROXY"):
        make.setup({})
    assert not make.STAMP.exists()


def test_no_space_for_the_tools(bare, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9e9, 8e9, 1e9))
    assert make.main(["setup"]) == 1
    assert "has 1.0 GB left" in capsys.readouterr().err


def test_disk_full_while_installing(installs, monkeypatch):
    sizes = iter([9e9, 0.2e9])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9e9, 0, next(sizes)))
    monkeypatch.setattr(make, "python", lambda *_, env=None: 1)
    with pytest.raises(make.Stop, match=r"only 0\.2 GB left"):
        make.setup({})


def test_python_without_venv(bare, monkeypatch, capsys):
    monkeypatch.setattr(make.importlib.util, "find_spec", lambda name: None)
    assert make.main(["setup"]) == 1
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in capsys.readouterr().err


def test_pip_settings_reach_uv(monkeypatch):
    listed = (
        ":env:.find-links='/wheels /more'\n"
        "global.cert='/ca.pem'\nglobal.find-links='/old'\nglobal.index-url='https://mirror/simple'\n"
        "install.index-url='https://nearer/simple'\nglobal.extra-index-url='https://a/simple https://b/simple'\n"
    )
    found = make.pip_settings(listed)
    assert found == {
        "find-links": "/wheels /more",
        "cert": "/ca.pem",
        "index-url": "https://nearer/simple",
        "extra-index-url": "https://a/simple https://b/simple",
    }
    for name in (*make.PIP_TO_UV.values(), "UV_INDEX_STRATEGY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://chosen/simple")
    monkeypatch.setattr(make, "PYTHON", sys.executable)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=listed))
    env = make.uv_environment()
    assert env["UV_FIND_LINKS"] == "/wheels,/more"
    assert env["UV_INDEX"] == "https://a/simple https://b/simple"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert env["SSL_CERT_FILE"] == "/ca.pem"
    assert env["UV_DEFAULT_INDEX"] == "https://chosen/simple", "what the reader set for uv goes first"


def test_every_constraint_is_one_version_of_the_public_index():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and (line.count("==") != 1 or "+" in line)] == []


@pytest.mark.parametrize("wrong", [["bok"], ["help", "SCAL=cpu"]])
def test_unknown_words(wrong):
    done = run(*wrong)
    assert done.returncode == 1
    assert "unknown. `make help`" in done.stderr


def test_help_names_every_task():
    shown = run().stdout
    assert all(f"  {name} " in shown for name in make.TASKS)


def test_makefile_offers_the_same_tasks():
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("TASKS :=")]
    assert set(line.split()[2:]) == set(make.TASKS)


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_passes_variables_on(tmp_path):
    (tmp_path / "make.py").write_text("import sys\nprint(sys.argv[1:])\n")
    command = ["make", "-f", ROOT / "Makefile", "-C", tmp_path, "--no-print-directory", "chapters"]
    given = subprocess.run([*command, "SCALE=gpu", "ONLY=02 03"], capture_output=True, text=True, check=True).stdout
    assert sorted(ast.literal_eval(given)) == ["ONLY=02 03", "SCALE=gpu", "chapters"]


@pytest.mark.parametrize(
    ("report", "code", "counted"),
    [
        (None, 0, (1, 0, 0)),
        (None, 2, (0, 1, 0)),
        ('<testsuite tests="9" failures="2" errors="1" skipped="3"/>', 1, (3, 3, 3)),
        ('<testsuite tests="9" failures="0" errors="0" skipped="1"/>', 0, (8, 0, 1)),
        ('<testsuite tests="9" failures="0" errors="0" skipped="0"/>', 3, (9, 1, 0)),  # pytest itself broke
        ('<testsuite tests="0"/>', 5, (0, 0, 0)),  # there was nothing to test
    ],
)
def test_counting(tmp_path, report, code, counted):
    path = tmp_path / "x.xml"
    if report:
        path.write_text(f"<testsuites>{report}</testsuites>")
    assert tuple(make.count(path, code).values()) == counted


def test_test_runs_every_step_and_counts(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(make, "BUILD", tmp_path)
    monkeypatch.setattr(make, "python", lambda *arguments, env=None: ran.append(arguments[1]) or len(ran) == 1)
    monkeypatch.setattr(make, "render", lambda values: ran.append("pages") or 0)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert make.test({}) == 1
    assert ran == ["ruff", "ruff", "mypy", "pages", "pytest", "pytest"]
    assert capsys.readouterr().out.splitlines()[-1] == "5 passed, 1 failed, 0 skipped"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("send", [os.killpg, os.kill], ids=["Ctrl-C", "a signal to make.py alone"])
def test_interrupted_it_waits_for_the_task_and_ends_quietly(send):
    program = (
        "import make, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in case the tests run as a job in the background
        "late = 'import time\\ntry:\\n  print(1, flush=True); time.sleep(60)\\n'\n"
        "late += 'except KeyboardInterrupt:\\n  time.sleep(1); print(2, flush=True)'\n"
        "make.setup = lambda values: 0\n"
        "make.PATIENCE = 3\n"
        "make.TASKS['lab'] = lambda values: make.call(sys.executable, '-c', late)\n"
        "sys.exit(make.main(['lab']))\n"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "1\n"
    time.sleep(0.2)
    send(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "2\n", "\n")
