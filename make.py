"""Every task of the book, from a bare Python 3.11 or newer:  python make.py TASK [NAME=VALUE ...]

The tools go into .venv once, and again only when what they are made from changes. `make TASK` does the same.
"""

# Nothing above the version check may need a new Python: an old one has to get as far as the message.
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "This book needs Python 3.11 or newer, and this is Python %d.%d.\n"
        "Install a newer one (https://www.python.org/downloads), then: python3.13 make.py TASK,\n"
        "or: make TASK PYTHON=python3.13" % sys.version_info[:2]
    )

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
import venv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "dlbook-stamp"
BUILD = ROOT / "_build"
REQUIREMENTS = ("requirements.txt", "constraints.txt", "overrides.txt", "data-packages.txt")
PATIENCE = 10  # seconds that a command has for tidying up after Ctrl-C
MUTMUT = "mutmut==3.8.1"
NEEDED_GB = 3  # PyTorch for the CPU and all the tools
VARIABLES = {
    "SCALE": "smoke, cpu (default) or gpu: how large the chapters run",
    "ONLY": 'the chapters meant, such as "02 03"; of `mutants` the parts, such as "losses evidence"',
    "JOBS": "how many chapters run side by side",
    "FORCE": "1: run chapters that are not stale too",
    "PORT": "where `serve` listens (8000)",
    "URL": "the address that `repository` writes everywhere",
    "PYTHON": "the Python that `make` starts",
}
# What pip calls a setting, and what uv, which reads none of pip's settings, calls it.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
    "cert": "SSL_CERT_FILE",
}


class Stop(Exception):
    """Something that the reader has to mend; the message says what and how."""


def call(*command, env=None):
    """Run a command to its end and return its exit code. Ctrl-C gives it the time to tidy up after itself."""
    process = subprocess.Popen([str(part) for part in command], cwd=ROOT, env=env)
    try:
        return process.wait()
    except KeyboardInterrupt:
        end(process)
        raise


def end(process):
    """See a command to its end. Ctrl-C in a terminal has reached it too; a signal to this process alone has not."""
    for harder in (process.terminate if os.name == "nt" else lambda: process.send_signal(signal.SIGINT), process.kill):
        try:
            process.wait(PATIENCE)
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            harder()
    process.wait()


def python(*arguments, env=None):
    return call(PYTHON, *arguments, env=env)


# ---- setting up


def wanted_stamp():
    """Return a text that changes when .venv has to be brought up to date."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [sys.version, str(ROOT), os.environ.get("UV_TORCH_BACKEND", "")]
    parts += [(ROOT / name).read_text(encoding="utf-8") for name in REQUIREMENTS]
    parts += [project["dependencies"], project["optional-dependencies"], project["version"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def setup(values):
    """create .venv and install the pinned tools; a second time it does nothing"""
    stamp = wanted_stamp()
    if STAMP.exists() and STAMP.read_text() == stamp:
        return 0
    free = shutil.disk_usage(ROOT).free / 1e9
    if not usable_venv():
        if free < NEEDED_GB:
            raise Stop(
                f"The disk of {ROOT} has {free:.1f} GB left. The tools need {NEEDED_GB} GB, and on Linux 9 GB with\n"
                "PyTorch for NVIDIA GPUs; UV_TORCH_BACKEND=cpu takes the small one. Free some space and try again."
            )
        create_venv()
    STAMP.unlink(missing_ok=True)  # from here on .venv is neither old nor new
    say("installing the tools into .venv (a minute, the first time)")
    # By its version and not with -c, which makes old pips speak of a conflict where there is no network.
    uv = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("uv=="))
    install_uv = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", uv)
    install = ("-m", "uv", "pip", "install", "-r")
    tools, data = ("requirements.txt", "-c", "constraints.txt"), ("data-packages.txt", "--no-deps")
    if python(*install_uv) or any(python(*install, *files, env=uv_environment()) for files in (tools, data)):
        raise Stop(why_installing_failed())
    STAMP.write_text(stamp)
    return 0


def usable_venv():
    """Whether .venv has a working Python of this version, with pip."""
    question = "import pip, sys; print(sys.version)"
    try:
        answer = subprocess.run([str(PYTHON), "-c", question], capture_output=True, text=True)
    except OSError:
        return False
    return answer.stdout.strip() == sys.version


def create_venv():
    if importlib.util.find_spec("ensurepip") is None:  # Debian and Ubuntu keep it in a package of its own
        raise Stop(
            "This Python cannot create virtual environments.\n"
            f"On Debian and Ubuntu: sudo apt-get install python3.{sys.version_info[1]}-venv"
        )
    say(f"creating {VENV}")
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Stop(f"Creating {VENV} failed: {error}\nIs there space on the disk, and may you write there?") from error


def uv_environment():
    """Return the environment in which uv finds packages where pip would."""
    listed = subprocess.run([str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found = pip_settings(listed)
    env = dict(os.environ, VIRTUAL_ENV=str(VENV), UV_BUILD_CONSTRAINT="constraints.txt")
    env["UV_OVERRIDE"] = "overrides.txt"
    for theirs, ours in PIP_TO_UV.items():
        if theirs in found:
            separator = "," if theirs == "find-links" else " "
            env.setdefault(ours, separator.join(found[theirs].split()))
    if "UV_INDEX" in env:  # pip takes the best version of all indexes, uv by default that of the first one
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


def pip_settings(listed):
    """Read what `pip config list` prints; the environment goes before the files, [install] before [global]."""
    rank = {"global": 0, "install": 1, ":env:": 2}
    found = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in rank and rank[section] >= found.get(name, (0,))[0]:
            found[name] = rank[section], str(ast.literal_eval(value))
    return {name: value for name, (_, value) in found.items()}


def why_installing_failed():
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 1:
        return f"Installing failed, and the disk of {ROOT} has only {free:.1f} GB left. Free some space and try again."
    return (
        "Installing failed; the lines above say why. Most often the network is the reason:\n"
        "  - no connection: connect and try again; what was downloaded before is kept\n"
        "  - a proxy: set HTTPS_PROXY, or pip's setting: python3 -m pip config set global.proxy http://...\n"
        "  - a package mirror: python3 -m pip config set global.index-url https://..."
    )


# ---- the book


def chapters(values):
    """run the stale chapters and store their outputs (SCALE, ONLY, JOBS, FORCE)"""
    options = [f"--{name.lower()}={values[name]}" for name in ("SCALE", "ONLY", "JOBS") if values.get(name)]
    return python("-m", "tools.run_chapters", *options, *(["--force"] if values.get("FORCE") else []))


def render(values):
    """build the pages from the stored outputs, without running anything; every warning is an error"""
    # The pages show the package's code, which Sphinx does not watch: build all of them, every time.
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    say("building the pages")
    return call(BIN / "jupyter-book", "build", ".", "--all", "-q", "-W", "--keep-going", "-n", env=env)


def book(values):
    """run the stale chapters, build the pages, say where they are"""
    code = chapters(values) or render(values)
    if not code:
        say(f"open {(BUILD / 'html' / 'index.html').as_uri()}")
    return code


def serve(values):
    """show the built pages at http://localhost:8000 (PORT)"""
    code = 0 if (BUILD / "html" / "index.html").exists() else book(values)
    if code:
        return code
    port = values.get("PORT", "8000")
    say(f"open http://localhost:{port} (Ctrl-C ends it)")
    return python("-m", "http.server", port, "--bind", "127.0.0.1", "--directory", BUILD / "html")


def pdf(values):
    """print the pages into _build/book.pdf, with Chromium"""
    return render(values) or python("-m", "tools.make_pdf")


def lab(values):
    """open the chapters in JupyterLab"""
    return python("-m", "jupyter", "lab", "chapters")


# ---- checks

LINT = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
}
NO_TESTS = 5  # what pytest says when there is nothing to test, as before the first chapter is there
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium():
    """Return where Chromium or Chrome is: as CHROMIUM says, else as the system finds it, else None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def lint(values):
    """check style, types and spelling"""
    return max(python("-m", *command) for command in [*LINT.values(), ("pytest", "-q", "tests/test_prose.py")])


def test(values):
    """check everything: style, types, the pages, the package, every chapter at smoke scale, a browser"""
    junit = BUILD / "junit"
    shutil.rmtree(junit, ignore_errors=True)
    junit.mkdir(parents=True)
    os.environ.update(DLBOOK_SCALE="smoke", OMP_NUM_THREADS="1")
    if not find_chromium():
        say("no Chromium: the tests of the pages will fail. On Debian and Ubuntu: sudo apt-get install chromium")
        say("chromium-driver; elsewhere install Chrome, and set CHROMIUM to its path if it is not found.")

    def pytest(name, *arguments):
        return python("-m", "pytest", "-q", "-n=2", f"--junitxml={junit / name}.xml", *arguments)

    lax = (
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=300",
        "--dist=loadfile",
        "-p",
        "no:cacheprovider",
    )
    steps = {name: lambda command=command: python("-m", *command) for name, command in LINT.items()}
    steps |= {
        "pages": lambda: render(values),  # before the tests that look at them
        "tests": lambda: pytest("tests", "tests", "dlbook", "--doctest-modules"),
        "notebooks": lambda: pytest("notebooks", "chapters", *lax),
    }
    total = {"passed": 0, "failed": 0, "skipped": 0}
    began = time.monotonic()
    for name, step in steps.items():
        say(name)
        started = time.monotonic()
        code = step()
        counted = count(junit / f"{name}.xml", code)
        total = {word: total[word] + counted[word] for word in total}
        say(f"{name}: {'FAILED' if counted['failed'] else 'passed'} in {time.monotonic() - started:.0f} s")
    say(f"all steps in {time.monotonic() - began:.0f} s")
    print("\n" + ", ".join(f"{number} {word}" for word, number in total.items()), flush=True)
    return 1 if total["failed"] else 0


def count(report, code):
    """Return how many checks of a step passed, failed and were skipped.

    A step without a report is one check. A step that failed counts as a failure even if its report names none.
    """
    total = failed = skipped = 0
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
        if code and not failed and code != NO_TESTS:
            total, failed = total + 1, 1
    else:
        total, failed = 1, int(bool(code))
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def colab(values):
    """run every chapter with Colab's Python, PyTorch and other versions (up to 3 GB to download)"""
    env = dict(os.environ, DLBOOK_COLAB="1", OMP_NUM_THREADS="1")
    return python("-m", "pytest", "-q", "tests/test_colab_environment.py", env=env)


def bench(values):
    """time the package beside the libraries that one would take instead"""
    return python("-m", "benchmarks")


def mutants(values):
    """change the code in small ways and count the changes that the tests notice (ONLY; hours)"""
    # In an environment of the moment above .venv: mutmut brings a dozen packages that nothing else needs.
    run = ("-m", "uv", "run", "--no-project", "--python", PYTHON, "--with", MUTMUT)
    return python(*run, "python", "-m", "tools.mutants", *values.get("ONLY", "").split(), env=uv_environment())


# ---- the rest


def clean(values):
    """remove the built pages and the tools' caches (to install anew as well, delete .venv)"""
    for name in ("_build", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    return 0


def repository(values):
    """write the repository's address everywhere (URL=https://github.com/OWNER/NAME)"""
    if not values.get("URL"):
        raise Stop("Say which address: make repository URL=https://github.com/OWNER/NAME")
    return python("-m", "tools.repository", values["URL"])


def help(values):
    """list the tasks"""
    print("make TASK [NAME=VALUE ...]      (without make: python make.py TASK [NAME=VALUE ...])\n")
    for name, task in TASKS.items():
        print(f"  {name:<11} {task.__doc__}")
    print()
    for name, meaning in VARIABLES.items():
        print(f"  {name:<11} {meaning}")
    return 0


TASKS = {
    task.__name__: task
    for task in (book, test, setup, chapters, lint, serve, pdf, lab, bench, mutants, colab, clean, repository, help)
}
NEED_NOTHING = {"setup", "clean", "help"}  # setup sets up by itself


def say(text):
    print(f"==> {text}", flush=True)


def main(arguments):
    values = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    names = [argument for argument in arguments if "=" not in argument] or ["help"]
    unknown = [name for name in names if name not in TASKS] + [name for name in values if name not in VARIABLES]
    try:
        if unknown:
            raise Stop(f"{', '.join(unknown)}: unknown. `make help` lists the tasks and the variables.")
        # Busy waiting makes two processes on two cores many times slower, and has to be off before torch loads.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        for name in names:
            code = (0 if name in NEED_NOTHING else setup(values)) or TASKS[name](values)
            if code:
                return code
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != 28:
            raise
        print(f"The disk is full: {error}. Free some space and try again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
