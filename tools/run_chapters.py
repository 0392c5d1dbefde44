"""Run the chapters that need it, side by side, and store their outputs in the notebooks.

    python -m tools.run_chapters [--scale cpu] [--only "02 03"] [--force] [--check]

A chapter runs in a process and in an empty folder of its own. Its notebook is written in one step when the run has
ended well, and is otherwise left as it was. Runs at smoke scale are tests: they store nothing unless told to.
"""

import argparse
import copy
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from joblib import cpu_count  # counts what a container may use; dlbook.device does too, and loads torch

from tools import chapters
from tools.fingerprint import Notebook, fingerprint, read, stale_reason
from tools.progress import Board

# nbformat, papermill and torch take seconds to import: only the processes that run a chapter do.

CELL_TIMEOUT = 1800  # seconds; a whole chapter is meant to take half of this
RECORDED = ("dlbook", "torch", "numpy", "scipy", "scikit-learn", "matplotlib")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ChapterFailed(Exception):
    """A chapter did not run to its end; the message is meant to be read by its author."""


@dataclass(frozen=True)
class Job:
    """One chapter to be run: where it lies, how large, on how many threads, and whether its outputs are kept."""

    path: Path
    scale: str
    threads: int
    store: bool


def write_whole(path: Path, text: str) -> None:
    """Write a file so that at every moment it is either the old or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def run_chapter(job: Job, report: Connection) -> None:
    """Run one chapter in this process; send ("cell", i, n) as it goes, then ("done", message) or ("failed", message).

    Runs as a process of its own, so that its memory can be told apart and that a crash takes nothing along.
    """
    # Ctrl-C reaches every process of the terminal: the parent decides, and ends this one by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.update(DLBOOK_SCALE=job.scale, OMP_NUM_THREADS=str(job.threads), OMP_WAIT_POLICY="PASSIVE")
    try:
        report.send(("done", _run_and_store(job, report)))
    except ChapterFailed as error:
        report.send(("failed", str(error)))
    except Exception as error:  # whatever else goes wrong has to reach the reader too
        report.send(("failed", f"{job.path.name}: {type(error).__name__}: {error}"))


def _run_and_store(job: Job, report: Connection) -> str:
    import nbformat

    from tools.tidy import store_outputs

    before = job.path.read_bytes()
    notebook = nbformat.reads(before.decode("utf-8"), as_version=4)
    mark = fingerprint(notebook)
    started = time.monotonic()
    executed = _execute(job, notebook, report)
    facts = _facts(job, time.monotonic() - started, mark)
    ran = f"{facts['seconds']:.0f} s, {facts['peak_memory_mb']} MB"
    if not job.store:
        return f"{ran}, not stored"
    if job.path.read_bytes() != before:
        raise ChapterFailed(f"{job.path.name} was edited while it ran; its outputs are not stored. Run it again.")
    if fingerprint(notebook) != mark:
        raise ChapterFailed(f"dlbook was edited while {job.path.name} ran; its outputs are not stored. Run it again.")
    store_outputs(notebook, executed)
    notebook["metadata"]["dlbook"] = facts
    write_whole(job.path, nbformat.writes(notebook).rstrip("\n") + "\n")
    return f"{ran}, {job.path.stat().st_size / 1e6:.2f} MB stored"


def _execute(job: Job, notebook: Notebook, report: Connection) -> Notebook:
    """Return a copy of the notebook, executed."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    at = 0

    def on_cell_start(cell: Notebook, cell_index: int) -> None:
        nonlocal at
        at = cell_index
        report.send(("cell", cell_index + 1, len(notebook["cells"])))

    # The scale comes by the environment, so that no cell with parameters is put in and has to be taken out again.
    with tempfile.TemporaryDirectory(prefix="dlbook-") as folder:
        try:
            return papermill.execute_notebook(
                copy.deepcopy(notebook),
                None,
                cwd=folder,
                kernel_name="python3",
                progress_bar=False,
                start_timeout=120,
                execution_timeout=CELL_TIMEOUT,
                on_cell_start=on_cell_start,
                extra_arguments=["--log-level=ERROR"],  # kernels warn that this machine could listen to them
            )
        except papermill.PapermillExecutionError as error:
            raise ChapterFailed(failure(job.path.name, notebook, error.cell_index, error)) from None
        except (DeadKernelError, CellTimeoutError) as error:
            died = isinstance(error, DeadKernelError)
            why = "its Python process died, most likely for want of memory" if died else f"over {CELL_TIMEOUT} s"
            raise ChapterFailed(f"{job.path.name}, cell {at + 1} of {len(notebook['cells'])}: {why}") from None


def failure(name: str, notebook: Notebook, index: int, error: Any) -> str:
    """Return what an author needs to mend a failing cell: chapter, cell, line and traceback.

    Args:
        name: of the chapter's file.
        notebook: the chapter.
        index: of the failing cell, from 0.
        error: has exec_count, ename, evalue and traceback, as papermill's error has.
    """
    lines = [ANSI.sub("", line) for line in error.traceback]
    place = f"{name}, cell {index + 1} of {len(notebook['cells'])} (In [{error.exec_count}])"
    found = re.search(rf"Cell In\[{error.exec_count}\], line (\d+)", "\n".join(lines))
    if found:
        number = int(found[1])
        source = notebook["cells"][index]["source"].splitlines()
        place += f", line {number}: {source[number - 1].strip() if number <= len(source) else ''}"
    return "\n".join([place, *lines] if lines else [place, f"{error.ename}: {error.evalue}"])


def _facts(job: Job, seconds: float, mark: dict[str, str]) -> dict[str, Any]:
    """Return what is kept about a run, under the key `dlbook` of the notebook's metadata."""
    from dlbook.device import best_device, describe

    return {
        "scale": job.scale,
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory_mb(),
        "device": describe(best_device()),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name).split("+")[0] for name in RECORDED},
        },
        "fingerprint": mark,
    }


def _peak_memory_mb() -> int | None:
    """Return the most memory that the kernel had at any time; None on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**20)


def run_all(jobs: list[Job], side_by_side: int, board: Board) -> dict[str, str]:
    """Run all jobs, at most `side_by_side` at a time; return the messages of those that failed, by chapter.

    However this ends, no process that it started is left behind.
    """
    context = get_context("spawn")
    waiting, failed = list(jobs), {}
    running: dict[Connection, tuple[Job, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                job = waiting.pop(0)
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=run_chapter, args=(job, send), name=job.path.stem)
                process.start()
                send.close()  # so that the end of the process is seen here
                running[receive] = job, process
                board.started(job.path.stem)
            for receive in wait(list(running), timeout=1.0):
                job, process = running[receive]  # type: ignore[index]
                what, *rest = _receive(receive, process, job)  # type: ignore[arg-type]
                if what == "cell":
                    board.at_cell(job.path.stem, *rest)
                    continue
                if what == "failed":
                    failed[job.path.stem] = rest[0]
                board.ended(job.path.stem, rest[0] if what == "done" else "FAILED")
                process.join()
                del running[receive]  # type: ignore[arg-type]
            board.tick()
    finally:
        _end([process for _, process in running.values()])
    return failed


def _receive(receive: Connection, process: Any, job: Job) -> tuple[Any, ...]:
    try:
        return receive.recv()
    except EOFError:
        process.join()
        return "failed", f"{job.path.name}: its process ended early (exit code {process.exitcode})"


def _end(processes: list[Any]) -> None:
    """End processes: first by asking, which lets them shut their kernels down, then by force."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def plan(only: str, scale: str, force: bool) -> dict[Path, str]:
    """Return the chapters that have to run, each with the reason, the longest first."""
    reasons, seconds = {}, {}
    for path in chapters(only):
        notebook = read(path)
        reason = "asked for" if force else "smoke run" if scale == "smoke" else stale_reason(notebook, scale)
        if reason:
            reasons[path] = reason
            seconds[path] = notebook["metadata"].get("dlbook", {}).get("seconds", float("inf"))
    return dict(sorted(reasons.items(), key=lambda item: -seconds[item[0]]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run_chapters", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--scale", choices=("smoke", "cpu", "gpu"), default="cpu")
    parser.add_argument("--only", default="", help='chapters to look at, such as "02 03"; all of them by default')
    parser.add_argument("--force", action="store_true", help="run chapters that are not stale too")
    parser.add_argument("--check", action="store_true", help="run nothing; list what is stale and exit with 1")
    parser.add_argument("--store", action="store_true", help="keep the outputs of a smoke run")
    parser.add_argument("--jobs", type=int, default=0, help="how many chapters side by side; by default one per core")
    given = parser.parse_args(arguments)
    try:
        reasons = plan(given.only, given.scale, given.force)
    except (ValueError, SyntaxError) as error:
        print(error, file=sys.stderr)
        return 2
    for path, reason in reasons.items():
        print(f"{path.stem}: {reason}", flush=True)
    if given.check or not reasons:
        print(f"{len(reasons)} of {len(chapters(given.only))} chapters stale" if reasons else "no chapter is stale")
        return 1 if reasons else 0

    # One GPU is not shared: two chapters on it could run out of its memory.
    side_by_side = min(given.jobs or (1 if given.scale == "gpu" else cpu_count()), len(reasons))
    threads = max(1, cpu_count() // side_by_side)
    store = given.scale != "smoke" or given.store
    jobs = [Job(path, given.scale, threads, store) for path in reasons]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = run_all(jobs, side_by_side, Board([job.path.stem for job in jobs]))
    for message in failed.values():
        print(f"\n{message}", file=sys.stderr)
    print(f"\n{len(jobs) - len(failed)} chapters ran, {len(failed)} failed" if failed else f"{len(jobs)} chapters ran")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped: chapters that were still running are as they were before", file=sys.stderr)
        sys.exit(130)
