"""Checkpoints that survive a killed process and resume to the same bits on the CPU.

A file is written beside the old one, brought to disk and then renamed over it, so that at every moment there is one
whole checkpoint. It holds the model, the optimiser, the scheduler, the float16 loss scale, the history, the order of
the data and PyTorch's random states. Randomness from elsewhere (`random`, NumPy, a `DataLoader` with a generator of its
own) is not in it.

Of several processes that train together, the first one writes and reads the file, so it need not lie on a disk that
all of them see; it holds the random states of all. As many processes resume to the same bits; another number of them
goes on with the same weights and order of the data, while those without a random state there keep their own.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from dlbook.train.history import History
from dlbook.train.processes import Processes, unwrapped

FORMAT = "dlbook checkpoint, version 2"


@dataclass
class TrainingState:
    """Everything that changes while training.

    Attributes:
        model: The module that is trained, in `DistributedDataParallel` where several processes do.
        optimizer: Its optimiser.
        scheduler: The learning-rate schedule, if any.
        scaler: The loss scaler; it does nothing unless the precision is float16.
        data: The training batches; their order is kept where they have ``state_dict`` and ``load_state_dict``.
        history: What was measured so far.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    scaler: torch.amp.GradScaler
    data: Iterable[tuple[Tensor, Tensor]]
    history: History

    def save(self, path: str | Path) -> None:
        """Write a checkpoint; a reader sees the old file or the new one, never a part.

        Raises:
            OSError: If the disk is full or the folder cannot be written to; the old file is kept.
        """
        processes = Processes(self.model)
        random = processes.gather(_random_state())
        if processes.rank == 0:
            write(self._state() | {"random": random}, Path(path))

    def resume(self, path: str | Path, epochs: int) -> None:
        """Take over what the checkpoint at ``path`` holds; do nothing where there is no file.

        Args:
            path: The checkpoint.
            epochs: How many epochs are wanted in all.

        Raises:
            ValueError: If the file is damaged, belongs to another model, optimiser, schedule or data, or has more than
                ``epochs`` epochs; nothing is changed then.
        """
        path = Path(path)
        processes = Processes(self.model)
        state = processes.from_first(read(path) if processes.rank == 0 and path.exists() else None)
        if state is None:
            return
        try:
            self._check(state, path)
            history = History(state["history"])
            done = history.epochs
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"the checkpoint {path} lacks a part or holds one of another kind ({type(error).__name__}: {error}). "
                "Delete it to start anew, or name another file."
            ) from error
        if done > epochs:
            raise ValueError(f"the checkpoint {path} has {done} epochs, more than epochs={epochs}")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.history = history
        if processes.rank < len(state["random"]):
            _set_random_state(state["random"][processes.rank])

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "format": FORMAT,
            "kinds": self._kinds(),
            "history": dict(self.history),
            "random": [],
        }
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own; the data first, because they look at theirs before they change."""
        model = unwrapped(self.model)
        parts = {"data": self.data, "model": model, "optimizer": self.optimizer, "scaler": self.scaler}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler
        return {name: part for name, part in parts.items() if hasattr(part, "load_state_dict")}

    def _kinds(self) -> dict[str, str]:
        return {name: type(part).__name__ for name, part in self._parts().items()}

    def _check(self, state: dict[str, Any], path: Path) -> None:
        """Compare before anything is loaded, so that a wrong file leaves everything as it was."""
        wrong = _differences(_shapes(state["model"]), _shapes(unwrapped(self.model).state_dict()))
        groups = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
        if groups != (mine := [len(group["params"]) for group in self.optimizer.param_groups]):
            wrong.append(f"the optimizer has {groups} parameters in its groups there and {mine} here")
        wrong += _differences(state["kinds"] | {"model": None}, self._kinds() | {"model": None})
        for random in state["random"]:
            wrong += _differences(_shapes(random), _shapes(_random_state()))
        wrong = wrong or _differences(_shapes(state), _shapes(self._state()))
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise ValueError(
                f"the checkpoint {path} belongs to another training: {'; '.join(wrong[:3])}{more}. "
                "Delete it to start anew, or name another file."
            )


def write(state: dict[str, Any], path: Path) -> None:
    """Put ``state`` at ``path`` at once: temporary file, to disk, rename, the folder to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")  # one fixed name: what a killed process left is written over
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # Windows cannot open a folder; the rename itself is done
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; no code in the file is run.

    Raises:
        ValueError: If the file is damaged or no checkpoint of this package.
    """
    with path.open("rb") as file:  # a file that may not be opened is another matter, and OSError says which
        try:
            with zipfile.ZipFile(file) as archive:  # what torch writes; it stores sums, and only zipfile looks at them
                if (name := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{name} has another sum")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # one flipped bit makes zipfile, pickle or torch fail in a dozen ways
            raise ValueError(
                f"{path} cannot be read as a checkpoint: it is damaged, cut short or another kind of file. "
                "Delete it to start anew."
            ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT!r}. Delete it to start anew, or name another file.")
    return state


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _differences(there: dict[str, str | None], here: dict[str, str | None]) -> list[str]:
    return [
        f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]


def _shapes(state: dict[str, Any]) -> dict[str, str | None]:
    """What each tensor or other part is, without its values."""
    return {
        name: f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        for name, value in state.items()
    }
