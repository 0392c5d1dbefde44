"""A function of two variables as contours, and the paths that optimisers take over it.

Chapter: all.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator

from dlbook.plot.arrays import as_array
from dlbook.plot.style import COLORS, DASHES, MARKERS, WIDTH, axes


def surface(
    function: Callable[..., Any],
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    *,
    xlabel: str,
    ylabel: str,
    label: str,
    paths: Mapping[str, Any] | None = None,
    log: bool = False,
    levels: int = 15,
    points: int = 121,
    ax: Axes | None = None,
) -> Axes:
    """Draw filled contours of ``function``, evaluated on the whole grid in one call.

    Args:
        function: Takes x and y, two float64 tensors of the grid's shape, and returns the values there.
        xlim: Left and right end.
        ylim: Lower and upper end.
        xlabel: The first variable's name.
        ylabel: The second variable's name.
        label: What the function measures; written at the colour bar.
        paths: Name -> the points an optimiser visited, drawn from a ring at its start to a star at its end.
        log: Space the levels evenly in the logarithm, for values above 0 that span many powers of ten.
        levels: About how many contours.
        points: Grid points along each axis, P.
        ax: Where to draw; a new figure if left out.

    Shapes:
        function: (P, P), (P, P) -> (P, P).
        paths: (T, 2) each.

    Raises:
        ValueError: If a limit does not rise, the function returns another shape or no finite value, a path is not
            (T, 2), or ``log`` meets no value above 0.

    Example:
        >>> bowl = lambda x, y: x**2 + 10 * y**2
        >>> ax = surface(bowl, (-1, 1), (-1, 1), xlabel="x", ylabel="y", label="loss", paths={"down": [[1, 1], [0, 0]]})
        >>> [line.get_label() for line in ax.lines][0]
        'down'
    """
    x, y, values = _grid(function, xlim, ylim, points)
    drawn = {name: as_array(path, f"path {name!r}") for name, path in (paths or {}).items()}
    for name, path in drawn.items():
        if path.ndim != 2 or path.shape[1] != 2:
            raise ValueError(f"path {name!r} must be (steps, 2), got shape {path.shape}")
    values, norm, steps = _levels(values, levels, log)

    ax = axes(ax, height=0.7 * WIDTH)
    filled = ax.contourf(x, y, values, levels=steps, norm=norm, cmap="Blues")
    ax.contour(x, y, values, levels=steps, norm=norm, colors="#33506b", linewidths=0.5, alpha=0.6)
    bar = ax.get_figure().colorbar(filled, ax=ax, label=label)  # type: ignore[union-attr]
    if log:
        bar.locator, bar.formatter = LogLocator(numticks=8), LogFormatterSciNotation()
        bar.update_ticks()
    for number, (name, path) in enumerate(drawn.items(), start=1):  # blue is the colour of the surface
        style = {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[(number - 1) % len(DASHES)]}
        ax.plot(path[:, 0], path[:, 1], marker=MARKERS[number - 1], markersize=3, linewidth=1.4, label=name, **style)
        ax.plot(*path[0], marker="o", markersize=9, markerfacecolor="none", markeredgewidth=2, color=style["color"])
        ax.plot(*path[-1], marker="*", markersize=13, markeredgecolor="white", color=style["color"])
    ax.set(xlim=xlim, ylim=ylim, xlabel=xlabel, ylabel=ylabel)
    ax.grid(False)
    if len(drawn) > 1:
        ax.legend()
    return ax


def _grid(
    function: Callable[..., Any], xlim: tuple[float, float], ylim: tuple[float, float], points: int
) -> tuple[Any, Any, Any]:
    """The grid's x (P,), its y (P,) and the function's values (P, P), a row for each y."""
    for name, (low, high) in (("xlim", xlim), ("ylim", ylim)):
        if not low < high:
            raise ValueError(f"{name} must rise, got {(low, high)}")
    x = torch.linspace(*xlim, points, dtype=torch.float64)
    y = torch.linspace(*ylim, points, dtype=torch.float64)
    across, up = torch.meshgrid(x, y, indexing="xy")  # (P, P) each
    with torch.no_grad():
        values = as_array(function(across, up), "the function's values").astype(float)
    if values.shape != across.shape:
        raise ValueError(f"the function returned shape {values.shape} for a grid of {tuple(across.shape)}")
    if not np.isfinite(values).any():
        raise ValueError(f"none of the function's {values.size} values is finite")
    return x.numpy(), y.numpy(), np.ma.masked_invalid(values)


def _levels(values: Any, count: int, log: bool) -> tuple[Any, LogNorm | None, Any]:
    """The values to draw, the norm that turns them into colours, and where the contours lie."""
    low, high = float(values.min()), float(values.max())
    if not log:
        return values, None, MaxNLocator(count).tick_values(low, high if high > low else low + 1.0)
    if high <= 0.0:
        raise ValueError(f"log levels need values above 0, the largest is {high}")
    # Six powers of ten show a valley; without a floor a single point near 0 would take most of the colours.
    low = max(low, 1e-6 * high)
    low = low if low < high else high / 10
    return np.ma.maximum(values, low), LogNorm(low, high), np.geomspace(low, high, count + 1)
