"""Several processes from a notebook: ``torchrun`` for a function, with what it returns and what went wrong.

The processes are started, watched and restarted by the agent behind ``torchrun``, ``torch.distributed.launcher``. What
is added here makes it usable from a cell: functions defined in the notebook can be sent, a traceback comes back, and an
interrupt ends all.

Chapter: chapters/05-training-and-optimization.ipynb
"""

import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import cloudpickle
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

T = TypeVar("T")


class RankFailedError(RuntimeError):
    """A process ended before it had a result; the message holds its rank and its traceback.

    Attributes:
        rank: Which process it was, from 0; the first to fail, if there were several.
        restarts: How often all had been started anew before.
    """

    def __init__(self, rank: int, restarts: int, what: str) -> None:
        super().__init__(f"rank {rank} failed after {restarts} restarts:\n{what}")
        self.rank = rank
        self.restarts = restarts


def launch(function: Callable[..., T], *args: Any, processes: int = 2, max_restarts: int = 0) -> list[T]:
    """Call a function in several new processes at once, which can talk to one another, and return all results.

    In each process ``torch.distributed`` is ready (gloo on CPUs, NCCL on GPUs, one GPU a process), and the processor's
    cores are shared out. If one process fails, the others are ended; with ``max_restarts`` all are then started anew, so
    the function should begin from its last checkpoint.

    Args:
        function: What each process calls; may be defined in a notebook. What it reads from the notebook is copied to
            the processes, what it changes there stays there.
        args: Its arguments, copied to each process.
        processes: How many.
        max_restarts: How often to start all anew after a failure.

    Returns:
        What the function returned, by rank.

    Raises:
        ValueError: If there is no process to start, or the number of restarts is negative.
        RankFailedError: If a process failed and no restart was left; with its traceback.
        KeyboardInterrupt: If interrupted; no process is left behind.

    Example:
        >>> launch(pow, 2, 5, processes=1)
        [32]

    Source: https://docs.pytorch.org/docs/stable/elastic/run.html
    """
    if processes < 1 or max_restarts < 0:
        raise ValueError(f"processes must be at least 1 and max_restarts 0, got {processes} and {max_restarts}")
    call = cloudpickle.dumps((function, args))
    with tempfile.TemporaryDirectory() as folder, _quiet(), _signals_as_before():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="dlbook",
            rdzv_backend="c10d",  # on a free port of this machine
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=5,
        )
        try:
            results: dict[int, bytes] = elastic_launch(config, _work)(call)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise RankFailedError(rank, max_restarts, _what_happened(failure.error_file, failure.message)) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
    return [cloudpickle.loads(results[rank]) for rank in range(processes)]


def _work(call: bytes) -> bytes:
    """What runs in each process."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])))
    function, args = cloudpickle.loads(call)
    dist.init_process_group()
    result: bytes = cloudpickle.dumps(function(*args))
    dist.destroy_process_group()  # not after a failure: the others would fail too, and one of them be blamed
    return result


def _what_happened(error_file: str, message: str) -> str:
    """The traceback that the process wrote, from the function on that was to be called, or how it was ended."""
    try:
        with open(error_file, encoding="utf-8") as file:
            stack: str = json.load(file)["message"]["extraInfo"]["py_callstack"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError):
        return message
    head, *frames = stack.rstrip().split("\n  File ")
    ours = [number for number, frame in enumerate(frames, 1) if ", in _work\n" in frame]
    return "\n  File ".join([head, *(frames[max(ours, default=0) :] or frames)])  # all where it was not even called


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """The agent puts its own handlers in the place of those that were there, and leaves them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT
    before = [signal.getsignal(kind) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """The agent's report of a failure goes into the error that is raised, not also to the log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
