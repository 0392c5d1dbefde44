"""Lines over a common x, each with its own colour and dash, and bands around them where they are uncertain.

Chapter: all.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from dlbook.plot.arrays import as_vector
from dlbook.plot.style import COLORS, DASHES, MARKERS, axes

#: Up to this many points a line also carries markers: with few points each is a measurement to be seen.
FEW = 12


def lines(
    x: Any,
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each of ``series`` against ``x``.

    Args:
        x: The common positions, (N,): tensor, array or list.
        series: Label -> values, (N,) each. With one series there is no legend.
        xlabel: What runs along x, with its unit.
        ylabel: What runs along y, with its unit.
        bands: Label of a series -> (low, high), (N,) each, shaded around its line.
        xscale: A scale of matplotlib: "linear", "log", "symlog".
        yscale: The same for y.
        title: A line above the axes.
        ax: Where to draw; a new figure if left out.

    Raises:
        ValueError: If there is no series, lengths differ, or a band belongs to no series.

    Example:
        >>> ax = lines([0, 1, 2], {"square": [0, 1, 4], "cube": [0, 1, 8]}, xlabel="x", ylabel="power of x")
        >>> [line.get_label() for line in ax.lines]
        ['square', 'cube']
    """
    bands = dict(bands or {})
    if not series:
        raise ValueError("series is empty: nothing to draw")
    if strangers := sorted(set(bands) - set(series)):
        raise ValueError(f"bands {strangers} belong to none of the series {list(series)}")
    positions = as_vector(x, "x")
    drawn = {label: as_vector(values, f"series {label!r}", len(positions)) for label, values in series.items()}
    edges = {
        label: tuple(as_vector(edge, f"band of {label!r}", len(positions)) for edge in band)
        for label, band in bands.items()
    }

    ax = axes(ax)
    first = len(ax.lines)  # lines drawn before keep their colours, ours take the next
    for number, (label, values) in enumerate(drawn.items(), start=first):
        color = COLORS[number % len(COLORS)]
        marker = MARKERS[number % len(MARKERS)] if len(positions) <= FEW else None
        ax.plot(positions, values, color=color, linestyle=DASHES[number % len(DASHES)], marker=marker, label=label)
        if label in edges:
            low, high = edges[label]
            ax.fill_between(positions, low, high, color=color, alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    if xscale == "log" and len(positions) <= FEW and (positions[1:] >= 1.4 * positions[:-1]).all():
        ax.set_xticks(positions, [f"{position:g}" for position in positions])  # 2, 4, 8 and not 2 x 10^0
        ax.set_xticks([], minor=True)
    if title:
        ax.set_title(title)
    if first + len(drawn) > 1:
        ax.legend()
    return ax
