"""Time two functions in alternation and say how many times longer ours takes.

On a machine that others use too, numbers move by 10 to 20 % from one run to the next; both sides of one round move
together. So each round times ours and the peer one after the other, in turns which goes first, and the median of the
rounds' ratios counts, shown with its quartiles. On the CPU one thread computes and its own seconds are counted, not
those on the wall, so that other programs disturb less; on a GPU it is the time until its queue is empty.
"""

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What is compared with what.
        median: The median over the rounds.
        low: Their lower quartile.
        high: Their upper quartile.
        unit: "x" for ours divided by the peer, "s" for seconds.
        target: What the median must not exceed.
        ours: Median seconds of ours, where both are timed.
        peer: Median seconds of the peer, where both are timed.
    """

    name: str
    median: float
    low: float
    high: float
    unit: str
    target: float
    ours: float | None = None
    peer: float | None = None

    @property
    def met(self) -> bool:
        """Whether the median is within the target."""
        return self.median <= self.target


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    target: float,
    rounds: int,
    clock: Callable[[], float] = CLOCK,
) -> Row:
    """Ratio of two running times.

    Args:
        name: What is compared with what.
        ours: Called once a round; should take a tenth of a second or more.
        peer: Does the same work another way.
        target: The largest ratio wanted.
        rounds: How often each is timed, after one call of each to warm up; at least 2.
        clock: Gives seconds.
    """
    for function in (ours, peer):
        _seconds(function, clock)
    times: dict[Callable[[], object], list[float]] = {ours: [], peer: []}
    for number in range(rounds):
        for function in (ours, peer) if number % 2 == 0 else (peer, ours):
            times[function].append(_seconds(function, clock))
    ratios = [a / b for a, b in zip(times[ours], times[peer], strict=True)]
    return summary(name, ratios, "x", target, statistics.median(times[ours]), statistics.median(times[peer]))


def summary(
    name: str, values: Sequence[float], unit: str, target: float, ours: float | None = None, peer: float | None = None
) -> Row:
    """A row from the numbers of all rounds."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Row(name, median, low, high, unit, target, ours, peer)


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the call only queued the work
    return clock() - start


def machine() -> str:
    """Processor, cores and GPU, such as "AMD EPYC 7B13, 2 cores"."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.+)", info.read_text())):
        name = found[1]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{' '.join(name.split())}, {os.cpu_count()} cores{gpu}"


def environment() -> dict[str, str]:
    """What the numbers depend on besides the code."""
    return {
        "machine": machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "clock": CLOCK.__name__,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table that also reads well in a terminal."""
    head = ("what", "median", "quartiles", "target", "", "ours", "peer")
    cells = [head] + [
        (
            row.name,
            f"{row.median:.3f} {row.unit}",
            f"{row.low:.3f} to {row.high:.3f}",
            f"at most {row.target:g} {row.unit}",
            "met" if row.met else "NOT MET",
            "" if row.ours is None else f"{row.ours:.3f} s",
            "" if row.peer is None else f"{row.peer:.3f} s",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def record(rows: Sequence[Row]) -> dict[str, object]:
    """Everything as plain data, for a JSON file."""
    return {**environment(), "rows": [asdict(row) | {"met": row.met} for row in rows]}
