"""Explorer: gradient descent with momentum, on a bowl that is steep one way and on a curved valley.

Momentum as Polyak (1964), https://doi.org/10.1016/0041-5553(64)90137-5, has it: v <- m v - r g(w), w <- w + v, with the
learning rate r, the momentum m and the gradient g.

Chapter: chapters/02-neural-network-fundamentals.ipynb
"""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlbook.explore.explorer import Explorer
from dlbook.explore.frames import fixed_axes
from dlbook.plot.surface import surface as contours

STEPS = 50
RATES = (0.002, 0.01, 0.04, 0.079, 0.09)
MOMENTA = (0.0, 0.5, 0.9)
START = (-1.6, 1.1)
XLIM, YLIM = (-2.0, 2.0), (-1.5, 2.0)
LOST = 1e3  # a path that leaves this far is on its way to infinity


def bowl(x: Tensor, y: Tensor) -> Tensor:
    """A quadratic 25 times as steep along y as along x; plain descent diverges from a rate of 2 / 25 = 0.08 on."""
    return 0.5 * (x**2 + 25 * y**2)


def valley(x: Tensor, y: Tensor) -> Tensor:
    """Rosenbrock's curved valley, less deep than his, with its lowest point at (1, 1)."""
    return 0.5 * (1 - x) ** 2 + 2.5 * (y - x**2) ** 2


SURFACES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bowl": bowl, "valley": valley}


def explore_descent() -> Explorer:
    """Change learning rate and momentum: when does descent creep, converge, oscillate, diverge?

    Example:
        >>> len(explore_descent().combinations)
        30
    """
    start = {"learning_rate": 0.01, "momentum": 0.0}
    return Explorer(draw, alt=describe, start=start, surface=list(SURFACES), learning_rate=RATES, momentum=MOMENTA)


def descend(
    function: Callable[[Tensor, Tensor], Tensor], learning_rate: float, momentum: float, steps: int = STEPS
) -> Tensor:
    """The points that descent visits, from `START` on; it ends early where it is lost.

    Shapes:
        returns: (T, 2) with T at most ``steps + 1``, float64.

    Example:
        >>> path = descend(bowl, learning_rate=0.04, momentum=0.0)
        >>> bool(path[-1].abs().max() < 0.25)  # 1.6 * 0.96**50 = 0.21
        True
    """
    w, velocity = torch.tensor(START, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    path = [w]
    for _ in range(steps):
        w = w.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(w[0], w[1]), w)
        velocity = momentum * velocity - learning_rate * gradient
        w = w.detach() + velocity
        path.append(w)
        if not bool(w.abs().max() < LOST):
            break
    return torch.stack(path)


def verdict(function: Callable[[Tensor, Tensor], Tensor], path: Tensor) -> str:
    """How a descent went, in one word.

    "diverges" when it ends higher than it began, "converges" when at most 1 % of the loss is left, else "oscillates"
    when more than a quarter of its steps turn back on the step before, else "creeps".

    Example:
        >>> verdict(bowl, descend(bowl, learning_rate=0.085, momentum=0.0))
        'diverges'
    """
    loss = function(path[:, 0], path[:, 1])  # (T,)
    if not bool(loss[-1] < loss[0]):
        return "diverges"
    if bool(loss[-1] <= 0.01 * loss[0]):
        return "converges"
    steps = path.diff(dim=0)  # (T - 1, 2)
    turns = (steps[1:] * steps[:-1]).sum(dim=1) < 0  # (T - 2,)
    return "oscillates" if turns.double().mean() > 0.25 else "creeps"


def draw(surface: str, learning_rate: float, momentum: float) -> Figure:
    """The path over the contours, and the verdict."""
    function = SURFACES[surface]
    path = descend(function, learning_rate, momentum)
    figure, ax = fixed_axes(height=4.4)
    contours(
        function,
        XLIM,
        YLIM,
        xlabel="first weight",
        ylabel="second weight",
        label="loss",
        log=True,
        levels=12,
        points=81,
        paths={"path": path},
        ax=ax,
    )
    ax.set_title(_words(surface, learning_rate, momentum))
    return figure


def describe(surface: str, learning_rate: float, momentum: float) -> str:
    """The picture in words."""
    words = _words(surface, learning_rate, momentum)
    return f"Path of gradient descent over a {surface}, learning rate {learning_rate:g}, momentum {momentum:g}: {words}"


def _words(surface: str, learning_rate: float, momentum: float) -> str:
    """The verdict with the losses it rests on."""
    function = SURFACES[surface]
    path = descend(function, learning_rate, momentum)
    first, last = (function(*w).item() for w in (path[0], path[-1]))
    return f"{verdict(function, path)}: loss {first:.3g} → {last:.2g} in {len(path) - 1} steps"
