"""A matrix as colours.

Chapter: all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dlbook.plot.arrays import as_array
from dlbook.plot.style import WIDTH, axes

#: Up to this many cells each also carries its value as text.
FEW = 120


def heatmap(
    values: Any,
    *,
    xlabel: str,
    ylabel: str,
    label: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    cmap: str = "Blues",
    digits: str = ".3g",
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix, first row on top.

    Args:
        values: The matrix; cells that are not finite stay grey.
        xlabel: What runs over the columns.
        ylabel: What runs over the rows.
        label: What the colours mean, with the unit; written at the colour bar.
        rows: A name for each row.
        columns: A name for each column.
        value_range: The values at both ends of the colour bar; the smallest and largest if left out.
        cmap: A colour map of matplotlib; "RdBu_r" with a range symmetric about 0 for signed values.
        digits: How values are written into the cells of a small matrix, as in ``format(value, digits)``.
        ax: Where to draw; a new figure if left out.

    Shapes:
        values: (R, C).

    Raises:
        ValueError: If the shape is another, names are not one for each row or column, or no value is finite.

    Example:
        >>> ax = heatmap([[1, 2, 3], [4, 5, 6]], xlabel="column", ylabel="row", label="value")
        >>> [text.get_text() for text in ax.texts]
        ['1', '2', '3', '4', '5', '6']
    """
    matrix = as_array(values, "values").astype(float)
    if matrix.ndim != 2:
        raise ValueError(f"values must be (rows, columns), got shape {matrix.shape}")
    for names, count, what in ((rows, matrix.shape[0], "rows"), (columns, matrix.shape[1], "columns")):
        if names is not None and len(names) != count:
            raise ValueError(f"{len(names)} names for {count} {what}: {list(names)[:8]}")
    finite = matrix[np.isfinite(matrix)]
    if finite.size == 0:
        raise ValueError(f"none of the {matrix.size} values is finite")
    low, high = value_range or (float(finite.min()), float(finite.max()))

    if ax is None:
        cell = min(0.8, (WIDTH - 1.8) / matrix.shape[1])
        ax = axes(width=min(WIDTH, max(4.0, cell * matrix.shape[1] + 1.8)), height=_height(matrix.shape[0], cell))
    shown = ax.imshow(matrix, cmap=cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    ax.set_facecolor("#999999")
    ax.grid(False)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if columns is not None:
        ax.set_xticks(range(len(columns)), columns)
    if rows is not None:
        ax.set_yticks(range(len(rows)), rows)
    ax.get_figure().colorbar(shown, ax=ax, label=label)  # type: ignore[union-attr]
    if matrix.size <= FEW:
        for (row, column), value in np.ndenumerate(matrix):
            red, green, blue, _ = shown.to_rgba(np.array([value]))[0]
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            color = "white" if dark else "black"
            ax.text(column, row, format(value, digits), ha="center", va="center", color=color, fontsize=9)
    return ax


def _height(rows: int, cell: float) -> float:
    """Inches for ``rows`` rows: cells about as high as wide, within what a page bears."""
    return min(6.0, max(2.2, min(cell, 0.6) * rows + 0.9))
