"""Which device computes, how many threads it gets, and in which precision.

Used by every chapter through `dlbook.start`.
"""

import math
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def best_device() -> torch.device:
    """Return the fastest device at hand: an NVIDIA or AMD GPU, Apple's GPU, or the CPU.

    Example:
        >>> best_device().type in ("cuda", "mps", "cpu")
        True
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def available_cores() -> int:
    """Count the cores this process may use, which in a container can be fewer than the machine has.

    Example:
        >>> 1 <= available_cores() <= os.cpu_count()
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()  # microseconds of CPU time per period, or "max"
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # not Linux, or no limit set
        return cores


def tune(device: torch.device) -> None:
    """Set what a reader expects to be set: no more threads than cores, and TF32 for float32 products on NVIDIA GPUs.

    TF32 keeps float32's range and rounds the factors of a matrix product to 10 bits of mantissa, which is several
    times faster and changes results in the fourth digit. To have full float32 back:
    ``torch.set_float32_matmul_precision("highest")``.

    Args:
        device: Where the chapter will compute.

    Example:
        >>> tune(torch.device("cpu"))
        >>> torch.get_num_threads() <= available_cores()
        True
    """
    cores = available_cores()
    if torch.get_num_threads() > cores:  # more threads than cores is slower than fewer
        torch.set_num_threads(cores)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def describe(device: torch.device) -> str:
    """Name a device in words: a GPU by its model, the CPU by its number of threads.

    Args:
        device: Any torch device.

    Example:
        >>> describe(torch.device("cpu"))
        'cpu, ... thread...'
    """
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    return device.type


def autocast(device: torch.device, precision: Precision = "float32") -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs in the given precision.

    Args:
        device: Where the model and its input are.
        precision: "float32" changes nothing. "bfloat16" and "float16" let torch run matrix products and
            convolutions in 16 bits and keep sums, norms and losses in 32. Older GPUs, Colab's T4 among them,
            have float16 in hardware and only emulate bfloat16.

    Raises:
        ValueError: If the precision is unknown, or is a 16-bit one on the CPU.

    Example:
        >>> with autocast(torch.device("cpu"), "float32"):
        ...     (torch.ones(2, 3) @ torch.ones(3, 1)).dtype
        torch.float32
    """
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    if precision == "float32":
        return nullcontext()
    if device.type == "cpu":
        raise ValueError(
            f"precision={precision!r} on the CPU: 16-bit arithmetic is emulated there and was measured 15 to 23 times "
            f"slower than float32; use precision='float32' or a GPU"
        )
    return torch.autocast(device.type, dtype=DTYPES[precision])
