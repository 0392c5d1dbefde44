"""Explorer: how closely one hidden layer, written down bump by bump, follows a function.

Chapter: chapters/02-neural-network-fundamentals.ipynb
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from dlbook.explore.explorer import Explorer
from dlbook.models.bump import BumpNetwork, sup_error
from dlbook.plot.style import COLORS, WIDTH

Function = Callable[[Tensor], Tensor]

COUNTS = (2, 4, 6, 8, 12, 16, 24, 32, 64, 128)
MOST_HATS = 32  # more single bumps would only be a grey haze


def wiggle(x: Tensor) -> Tensor:
    """A smooth function on [0, 1] with slow and fast turns."""
    return torch.sin(2 * math.pi * x) + 0.5 * torch.sin(5 * math.pi * x**2)


def explore_bumps(f: Function | None = None, *, interval: tuple[float, float] = (0.0, 1.0)) -> Explorer:
    """Add bumps and watch the largest error fall.

    Args:
        f: The function to follow, elementwise on a float64 tensor: (N,) -> (N,). A wiggly one if left out.
        interval: Where to follow it.

    Example:
        >>> explore_bumps(torch.sin, interval=(0.0, 6.0))
        Explorer(num_bumps: 2, 4, 6, 8, 12, 16, 24, 32, 64, 128)
    """
    f = wiggle if f is None else f
    all_errors = errors(f, interval)

    def describe(num_bumps: int) -> str:
        return (
            f"A function and the one-hidden-layer network of {num_bumps} bumps that follows it; "
            f"the largest error is {all_errors[num_bumps]:.2g}"
        )

    return Explorer(
        partial(draw, f=f, interval=interval, all_errors=all_errors),
        alt=describe,
        start={"num_bumps": 8},
        num_bumps=COUNTS,
    )


def errors(f: Function, interval: tuple[float, float]) -> dict[int, float]:
    """The largest error for each number of bumps on offer."""
    return {count: sup_error(BumpNetwork.approximate(f, *interval, count), f, *interval) for count in COUNTS}


def draw(num_bumps: int, *, f: Function, interval: tuple[float, float], all_errors: dict[int, float]) -> Figure:
    """Above the function, the network and its bumps; below the largest error against the number of bumps."""
    low, high = interval
    x = torch.linspace(low, high, 1001, dtype=torch.float64)  # (N,)
    network = BumpNetwork.approximate(f, low, high, num_bumps)
    with torch.no_grad():
        y, g = f(x), network(x.unsqueeze(1)).squeeze(1)  # (N,) each
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 5.0), height_ratios=[2, 1], layout="none")
    figure.subplots_adjust(left=0.13, right=0.97, top=0.94, bottom=0.1, hspace=0.35)
    if num_bumps <= MOST_HATS:
        edges = torch.linspace(low, high, num_bumps + 1, dtype=torch.float64)  # (n + 1,)
        hats = f(edges) * (1 - (x.unsqueeze(1) - edges).abs() * num_bumps / (high - low)).clamp(min=0)  # (N, n + 1)
        above.plot(x, hats, color="#999999", linestyle="-", linewidth=0.8)
    above.plot(x, y, color=COLORS[0], linestyle="-", linewidth=2.5, label="function")
    above.plot(x, g, color=COLORS[1], linestyle="--", label="network")
    room = 0.08 * float(y.max() - y.min()) + 1e-9
    above.set(xlim=interval, ylim=(float(y.min()) - room, float(y.max()) + room), xlabel="x", ylabel="f(x)")
    above.set_title(f"{num_bumps} bumps: largest error {all_errors[num_bumps]:.2g}")
    above.legend(loc="upper right")
    below.loglog(list(all_errors), list(all_errors.values()), color=COLORS[0], linestyle="-", marker="o")
    below.plot([num_bumps], [all_errors[num_bumps]], "o", color=COLORS[1], markersize=10)
    ticks = [2**power for power in range(1, 8)]
    below.set_xticks(ticks, [str(tick) for tick in ticks])
    below.set_xticks([], minor=True)
    below.set(xlabel="number of bumps", ylabel="largest error")
    return figure
