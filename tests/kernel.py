"""Chapters in a real kernel, cell by cell, as JupyterLab and Colab run them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from tools.repository import address

SECONDS_PER_CELL = 120
# All that the set-up cell can see of Colab; there too the module is loaded before the first cell.
ON_COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')"


@dataclass
class Answer:
    """What a cell came to: "" or the kind of error, and its outputs in Jupyter's form."""

    error: str
    outputs: list[nbformat.NotebookNode]

    @property
    def text(self) -> str:
        """All that it wrote, errors included."""
        parts = [output.get("text", "") + "\n".join(output.get("traceback", [])) for output in self.outputs]
        return "".join(parts)


class Kernel:
    """A kernel that runs, and who speaks to it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, code: str) -> Answer:
        """Run one cell."""
        outputs = []

        def keep(message: dict[str, Any]) -> None:
            if message["msg_type"] in ("stream", "display_data", "execute_result", "error"):
                outputs.append(nbformat.v4.output_from_msg(message))

        reply = self.client.execute_interactive(
            code, allow_stdin=False, output_hook=keep, timeout=SECONDS_PER_CELL, stop_on_error=False
        )
        return Answer(reply["content"].get("ename", ""), outputs)

    def restart(self) -> None:
        """Start it anew where it is, as "Restart" does: nothing that ran is known any more."""
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=SECONDS_PER_CELL)


@contextmanager
def kernel(folder: Path, environment: dict[str, str], name: str = "python3") -> Iterator[Kernel]:
    """Start a kernel in a folder, and end it."""
    settings = {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    manager, client = start_new_kernel(kernel_name=name, cwd=str(folder), env=os.environ | settings | environment)
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def cells(path: Path) -> list[str]:
    """A chapter's code cells, from top to bottom."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def served_here(sources: Path, folder: Path) -> dict[str, str]:
    """Make a git repository of the sources, and return the environment in which the book's address leads to it."""
    git = ["git", f"--git-dir={folder}", f"--work-tree={sources}", "-c", "user.name=test", "-c", "user.email=test"]
    for command in (
        ["init", "-q"],
        ["add", "dlbook", "pyproject.toml", "README.md"],
        ["commit", "-q", "-m", "sources"],
    ):
        subprocess.run([*git, *command], check=True, capture_output=True)
    settings = {f"url.{folder.as_uri()}.insteadOf": address(), "protocol.file.allow": "always"}
    found = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return found
