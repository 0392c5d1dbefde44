"""One line of progress for each chapter: kept up to date on a terminal, now and then in a log."""

import sys
import time
from dataclasses import dataclass
from typing import TextIO

EVERY = 30.0  # seconds between two lines about the same chapter in a log
BAR = 24  # characters


@dataclass
class Line:
    name: str
    started: float | None = None
    cell: int = 0
    cells: int = 0
    said: float = 0.0
    result: str = ""

    def text(self, now: float) -> str:
        if self.started is None:
            return f"{self.name:<36} waiting"
        if self.result:
            return f"{self.name:<36} {self.result}"
        done = BAR * max(self.cell - 1, 0) // max(self.cells, 1)
        bar = "#" * done + "." * (BAR - done)
        return f"{self.name:<36} {bar} cell {self.cell}/{self.cells or '?'} {now - self.started:5.0f} s"


class Board:
    """Shows how far each chapter is.

    Args:
        names: of the chapters, in the order in which they are shown.
        out: where to; a terminal is updated in place.
    """

    def __init__(self, names: list[str], out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.lines = {name: Line(name) for name in names}
        self.drawn = 0  # lines on the terminal that are to be drawn over

    def started(self, name: str) -> None:
        self.lines[name].started = self.lines[name].said = time.monotonic()
        if not self.live:
            print(f"{name:<36} starts", file=self.out, flush=True)
        self.tick()

    def at_cell(self, name: str, cell: int, cells: int) -> None:
        self.lines[name].cell, self.lines[name].cells = cell, cells

    def ended(self, name: str, result: str) -> None:
        line = self.lines[name]
        line.result = result
        if not self.live:
            print(line.text(time.monotonic()), file=self.out, flush=True)
        self.tick()

    def tick(self) -> None:
        """Show what is new; to be called about once a second."""
        now = time.monotonic()
        if self.live:
            up = f"\x1b[{self.drawn}A" if self.drawn else ""
            rows = "".join(f"\x1b[2K{line.text(now)}\n" for line in self.lines.values())
            print(f"{up}{rows}", end="", file=self.out, flush=True)
            self.drawn = len(self.lines)
            return
        for line in self.lines.values():
            if line.started is not None and not line.result and now - line.said >= EVERY:
                line.said = now
                print(line.text(now), file=self.out, flush=True)
