"""How large a chapter runs: smoke (tests), cpu (the book's own numbers) or gpu (a Colab T4 or better).

A chapter's first cell calls `start`; numbers that differ by scale stand in the open:
``epochs = run.pick(smoke=1, cpu=8, gpu=40)``.
"""

import os
from dataclasses import dataclass
from typing import Literal, TypeVar, cast, get_args

import torch

import dlbook
from dlbook.device import best_device, describe, tune
from dlbook.seeding import seed_all

Scale = Literal["smoke", "cpu", "gpu"]
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What `start` decided for this chapter.

    Args:
        scale: "smoke", "cpu" or "gpu".
        seed: The seed that all global generators were given.
        device: Where to compute.

    Example:
        >>> Run("cpu", seed=0, device=torch.device("cpu")).pick(smoke=10, cpu=500, gpu=5000)
        500
    """

    scale: Scale
    seed: int
    device: torch.device

    def pick(self, *, smoke: T, cpu: T, gpu: T) -> T:
        """Return the value that belongs to this run's scale; all three are named, so that a reader sees them."""
        return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[self.scale]


_current: Run | None = None


def current() -> Run | None:
    """Return the run that `start` made last, or None before the first."""
    return _current


def resolve(scale: str | None = None) -> Scale:
    """Decide the scale: the argument, else the environment's DLBOOK_SCALE, else "gpu" if there is CUDA, else "cpu".

    Args:
        scale: "smoke", "cpu", "gpu", or None to let the surroundings decide.

    Raises:
        ValueError: If the scale is none of the three.

    Example:
        >>> resolve("smoke")
        'smoke'
    """
    origin = "scale" if scale is not None else "DLBOOK_SCALE"
    if scale is None:
        scale = os.environ.get("DLBOOK_SCALE") or ("gpu" if torch.cuda.is_available() else "cpu")
    if scale not in get_args(Scale):
        raise ValueError(f"{origin} must be 'smoke', 'cpu' or 'gpu', got {scale!r}")
    return cast(Scale, scale)


def start(scale: str | None = None, seed: int = 0) -> Run:
    """Set a chapter up: scale, device, threads, seeds and plot style; print one line that says so.

    Args:
        scale: "smoke" (seconds, for tests), "cpu" (minutes on two cores), "gpu", or None: DLBOOK_SCALE if it is
            set, else "gpu" if there is CUDA, else "cpu".
        seed: For Python's, numpy's and torch's global generators.

    Raises:
        ValueError: If the scale is none of the three, or the seed is not a whole number from 0 to 2**32 - 1.

    Example:
        >>> run = start("smoke", seed=7)
        dlbook ... · scale smoke · seed 7 · ... · torch ...
        >>> run.seed
        7
    """
    global _current
    run = Run(resolve(scale), seed, best_device())
    seed_all(seed)
    tune(run.device)
    from dlbook.plot import use_style  # matplotlib is loaded only here, so that importing dlbook stays fast

    use_style()
    _current = run
    print(_line(run))  # noqa: T201
    return run


def _line(run: Run) -> str:
    parts = [
        f"dlbook {dlbook.__version__}",
        f"scale {run.scale}",
        f"seed {run.seed}",
        describe(run.device),
        f"torch {torch.__version__.partition('+')[0]}",
    ]
    # Busy waiting costs only where several CPU threads share the work.
    if dlbook.TORCH_WAS_FIRST and run.device.type == "cpu" and torch.get_num_threads() > 1:
        parts.append("torch was imported before dlbook, so its threads wait busily: restart and import dlbook first")
    return " · ".join(parts)
