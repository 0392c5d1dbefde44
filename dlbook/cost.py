"""What a computation costs: seconds and bytes, measured; and how a cost grows with the size of its input.

Chapter: chapters/04-recurrent-networks.ipynb

Time: other programs disturb every measurement, and disturb those made at one moment alike. So several computations are
timed in turns, round after round, and compared within a round. On a CPU one thread computes, and the seconds that this
process computed are counted, not those on the wall; on a GPU it is the time until its queue is empty.

Memory: what the operating system says of a process is coarse and depends on what was freed before, and tracemalloc sees
only Python's own objects. PyTorch's allocators see every request, also for what an operation needs only while it runs.
On a GPU they keep the peak themselves. On a CPU the profiler writes down each request and each release, and we add up.
"""

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

#: A sample takes at least so many seconds: what is shorter is called several times.
SHORTEST = 0.01
# The clock of computed seconds is too coarse on some systems.
CPU_CLOCK = time.process_time if time.get_clock_info("process_time").resolution < 1e-5 else time.perf_counter


def seconds(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Seconds that each call takes, measured in turns, after a call of each to warm up.

    Args:
        calls: Name -> what to time. Gradients are taken or not as the caller has set.
        rounds: How often each is timed; every other round goes through them backwards.
        device: Where they compute.

    Returns: name -> seconds, one number for each round; numbers of one round belong together.

    Raises:
        ValueError: If there is nothing to time, or no round.

    Example:
        >>> took = seconds({"small": lambda: torch.ones(10).sum(), "large": lambda: torch.ones(10**6).sum()}, rounds=3)
        >>> [len(times) for times in took.values()], min(took["small"]) > 0
        ([3, 3], True)
    """
    if not calls or rounds < 1:
        raise ValueError(f"expected calls and at least one round, got {list(calls)} and {rounds=}")
    device = torch.device(device)
    took: dict[str, list[float]] = {name: [] for name in calls}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        repeats = {name: _repeats(call, device) for name, call in calls.items()}
        for number in range(rounds):
            for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
                took[name].append(_sample(calls[name], repeats[name], device) / repeats[name])
    finally:
        torch.set_num_threads(threads)
    return took


def peak_bytes(call: Callable[[], object], *, device: torch.device | str = "cpu") -> int:
    """The most bytes that a call holds at any moment, without what was there before; its result counts.

    Args:
        call: What to measure. It runs once.
        device: Where its memory is, "cpu" or "cuda".

    Raises:
        ValueError: If the device is another: those keep no such account.

    Example:
        >>> def doubled_twice():
        ...     doubled = torch.ones(1000) + torch.ones(1000)  # three times 4,000 bytes
        ...     return doubled + doubled  # two of them are free again
        >>> peak_bytes(doubled_twice)
        12000
    """
    device = torch.device(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise ValueError(f"memory can be measured on a CPU or with CUDA, got {device}")
    with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = call()  # kept until the record ends
    del result
    kineto = record.profiler.kineto_results
    events = [event for event in kineto.events() if event.name() == "[memory]"]
    held = np.cumsum([0, *(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))])
    return int(held.max())


def tensor_bytes(state: object) -> int:
    """Bytes of all tensors in nested tuples, lists and dictionaries: what a network carries from token to token.

    Args:
        state: A tensor, None, or what holds some.

    Raises:
        ValueError: If there is something else in it.

    Example:
        >>> tensor_bytes([(torch.zeros(2, 3), torch.zeros(5, dtype=torch.float64)), None])
        64
    """
    if state is None:
        return 0
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        state = list(state.values())
    if isinstance(state, Sequence) and not isinstance(state, str):
        return sum(tensor_bytes(part) for part in state)
    raise ValueError(f"expected tensors in tuples, lists or dictionaries, got {type(state).__name__}")


def exponent(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """The p for which costs grow most nearly like sizes to the power p: the slope through their logarithms.

    Args:
        sizes: Of the inputs, positive.
        costs: As many, positive.

    Raises:
        ValueError: If there are fewer than two different sizes, or a number is not positive.

    Example:
        >>> round(exponent([1, 2, 4], [5, 20, 80]), 6)
        2.0
    """
    x, y = np.asarray(list(sizes), float), np.asarray(list(costs), float)
    if x.shape != y.shape or len(set(x.tolist())) < 2 or not (x > 0).all() or not (y > 0).all():
        raise ValueError(f"expected as many positive sizes as costs, at least two, got {x.tolist()} and {y.tolist()}")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _repeats(call: Callable[[], object], device: torch.device) -> int:
    """How many calls make a sample; the first one is slower than the others and says little if it was short."""
    took = _sample(call, 1, device)
    if took < 2 * SHORTEST:
        took = _sample(call, 1, device)
    return math.ceil(SHORTEST / max(took, 1e-7))


def _sample(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    clock = CPU_CLOCK if device.type == "cpu" else time.perf_counter
    _wait(device)
    start = clock()
    for _ in range(repeats):
        call()
    _wait(device)
    return clock() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _quiet() -> Generator[None]:
    """PyTorch's profiler writes two lines to the error stream at every use, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
