"""Explorer: an activation function, its slope, and its tangent at a point of the reader's choice.

Chapter: chapters/02-neural-network-fundamentals.ipynb
"""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlbook.explore.explorer import Explorer
from dlbook.explore.frames import fixed_axes
from dlbook.layers import activations
from dlbook.plot.style import COLORS

#: As readers know it -> as `dlbook.layers.activations` calls it.
NAMES = {
    "ReLU": "relu",
    "leaky ReLU": "leaky_relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "GELU": "gelu",
    "SiLU": "silu",
}
POSITIONS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
REACH = 4.0  # the curves run from -REACH to REACH


def explore_activations() -> Explorer:
    """Choose a function and move along it: where is its slope large, and where does it vanish?

    Example:
        >>> explore_activations().start
        {'function': 'ReLU', 'x': 1.0}
    """
    return Explorer(draw, alt=describe, start={"x": 1.0}, function=list(NAMES), x=POSITIONS)


def draw(function: str, x: float) -> Figure:
    """The function, its slope and its tangent at ``x``."""
    value, slope = at(function, x)
    grid = torch.linspace(-REACH, REACH, 801, dtype=torch.float64)  # (801,), with 0 among them
    figure, ax = fixed_axes()
    ax.plot(grid, _function(function)(grid), color=COLORS[0], linestyle="-", linewidth=2.5, label="value f(x)")
    ax.plot(grid, activations.derivative(NAMES[function], grid), color=COLORS[1], linestyle="--", label="slope f'(x)")
    tangent = torch.tensor([x - 1.5, x + 1.5])
    ax.plot(tangent, value + slope * (tangent - x), color=COLORS[5], linestyle="-", linewidth=1.2, label="tangent")
    ax.plot([x], [value], "o", color=COLORS[0], markersize=11)
    ax.plot([x], [slope], "s", color=COLORS[1], markersize=6)
    ax.axhline(0, color="#888888", linewidth=0.8, linestyle="-", zorder=0)
    ax.set(xlim=(-REACH, REACH), ylim=(-1.5, 3.5), xlabel="input x", ylabel="value and slope")
    ax.set_title(f"{function} at x = {x:g}:  value {value:.3f},  slope {slope:.3f}")
    ax.legend(loc="upper left")
    return figure


def describe(function: str, x: float) -> str:
    """The picture in words."""
    value, slope = at(function, x)
    return f"Curve, slope and tangent of {function}; at x = {x:g} its value is {value:.3f} and its slope {slope:.3f}"


def at(function: str, x: float) -> tuple[float, float]:
    """Value and slope at one point.

    Example:
        >>> at("sigmoid", 0.0)
        (0.5, 0.25)
    """
    point = torch.tensor([x], dtype=torch.float64)
    return _function(function)(point).item(), activations.derivative(NAMES[function], point).item()


def _function(name: str) -> Callable[[Tensor], Tensor]:
    """The function behind a name that readers know."""
    found: Callable[[Tensor], Tensor] = getattr(activations, NAMES[name])
    return found
