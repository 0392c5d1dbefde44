"""Functions run in several processes, their results and tracebacks come back, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dlbook.train.parallel.launch import RankFailedError, launch
from tests.kernel import kernel

STEPS = 6


def fail_in_the_second() -> None:
    if dist.get_rank() == 1:
        raise ValueError("no such layer")
    dist.barrier()  # would wait for ever


def train_with_a_fault(folder: str, kill_at: int) -> torch.Tensor:
    """Train from the last checkpoint; the second process is killed once, at a step."""
    checkpoint = Path(folder) / "model.pt"
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, dtype=torch.float64))
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first = state["step"]
        weight.data = state["weight"]
    for step in range(first, STEPS):
        if step == kill_at and first == 0 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        gradient = 2 * weight.detach() * (dist.get_rank() + 1)
        dist.all_reduce(gradient)
        weight.data -= 0.1 * gradient
        if dist.get_rank() == 0:
            torch.save({"step": step + 1, "weight": weight.detach()}, checkpoint)
    return weight.detach()


def test_a_traceback_comes_back_and_the_others_are_ended():
    started = time.monotonic()
    with pytest.raises(RankFailedError, match="no such layer") as caught:
        launch(fail_in_the_second)
    assert caught.value.rank == 1
    assert "fail_in_the_second" in str(caught.value)
    assert "_work" not in str(caught.value), "frames above the function are of no use to the reader"
    assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_restart_from_the_last_checkpoint_ends_at_the_same_weights(tmp_path):
    for name in ("whole", "killed", "restarted"):
        (tmp_path / name).mkdir()
    whole = launch(train_with_a_fault, str(tmp_path / "whole"), STEPS)
    with pytest.raises(RankFailedError, match="SIGKILL"):
        launch(train_with_a_fault, str(tmp_path / "killed"), 2)
    restarted = launch(train_with_a_fault, str(tmp_path / "restarted"), 4, max_restarts=1)
    assert all(torch.equal(weight, whole[0]) for weight in (*whole, *restarted))


def test_functions_of_a_notebook_and_its_interrupt(tmp_path):
    with kernel(tmp_path, {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}) as notebook:
        answer = notebook.run(
            "from dlbook.train.parallel.launch import launch\n"
            "import os, signal, threading, time\nimport torch.distributed as dist\n"
            "factor = 7\n"
            "def ranks():\n    return factor * dist.get_rank()\n"
            "print(launch(ranks, processes=2))"
        )
        assert "[0, 7]" in answer.text
        assert "Warning" not in answer.text
        answer = notebook.run(
            "threading.Timer(4, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "try:\n    launch(time.sleep, 99)\nexcept KeyboardInterrupt:\n    print('stopped')\n"
        )
        assert "stopped" in answer.text
        pid = notebook.run("print(os.getpid())").text.strip()
        left = subprocess.run(["pgrep", "-P", pid, "-f", "spawn_main"], capture_output=True, text=True).stdout
        assert left == ""


@pytest.mark.parametrize(("processes", "restarts"), [(0, 0), (-1, 0), (1, -1)])
def test_numbers_below_the_least_are_refused(processes, restarts):
    with pytest.raises(ValueError, match=f"got {processes} and {restarts}"):
        launch(pow, 2, 5, processes=processes, max_restarts=restarts)


def test_importing_starts_nothing():
    code = "import dlbook.train.parallel.launch, signal; print(signal.getsignal(signal.SIGTERM))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(done.stdout) == signal.SIG_DFL
