"""Many small images side by side.

Chapter: all.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dlbook.plot.arrays import as_array
from dlbook.plot.style import WIDTH


def images(
    data: Any,
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    value_range: tuple[float, float] | None = None,
    cmap: str = "gray",
    title: str | None = None,
) -> list[Axes]:
    """Draw a grid of images, all on one scale of values.

    Args:
        data: The images, tensor or array.
        titles: One line above each image.
        columns: Images in a row; chosen from their number if left out.
        value_range: The values shown darkest and brightest. Left out, it is 0 to 255 for bytes, 0 to 1 for
            values within that, else the smallest and largest value of all images together.
        cmap: Colours for images of one channel.
        title: One line above the grid.

    Shapes:
        data: (N, H, W), or (N, C, H, W) or (N, H, W, C) with C = 1 or 3; where both readings fit, (N, C, H, W).
        returns: N axes, row by row.

    Raises:
        ValueError: If the shape is another, there are no images, or titles are not one for each.

    Example:
        >>> grid = images(np.random.default_rng(0).random((6, 8, 5)), titles=list("abcdef"))
        >>> len(grid), grid[2].get_title()
        (6, 'c')
    """
    pixels = _channels_last(as_array(data, "data"))  # (N, H, W, C)
    count, height, width, channels = pixels.shape
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} images")
    low, high = value_range or _range(pixels)
    if not low < high:
        raise ValueError(f"value_range must rise, got {(low, high)}")
    if channels == 3:
        pixels = np.clip((pixels.astype(float) - low) / (high - low), 0.0, 1.0)

    columns = min(count, columns or _columns(count))
    rows = math.ceil(count / columns)
    cell = min(WIDTH / columns, 2.6)  # inches; a few images need not fill the page
    above = 0.0 if titles is None else 0.26 * max(1 + text.count("\n") for text in titles)
    size = (cell * columns, rows * (cell * height / width + above) + (0.35 if title else 0.0))
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    cells: list[Axes] = list(grid.flat)
    for number, ax in enumerate(cells):
        ax.set_axis_off()
        if number < count:
            ax.imshow(pixels[number].squeeze(), cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
            if titles is not None:
                ax.set_title(titles[number], fontsize=10)
    if title:
        figure.suptitle(title)
    return cells[:count]


def _channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W), (N, C, H, W) or (N, H, W, C) as (N, H, W, C)."""
    if pixels.ndim == 3:
        return pixels[..., None]
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3):
        return pixels.transpose(0, 2, 3, 1)
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3):
        return pixels
    raise ValueError(f"data must be (N, H, W), (N, 1 or 3, H, W) or (N, H, W, 1 or 3), got {pixels.shape}")


def _range(pixels: NDArray[Any]) -> tuple[float, float]:
    """The values shown darkest and brightest when the caller names none."""
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(pixels.min()), float(pixels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"data holds values that are not finite: smallest {low}, largest {high}")
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _columns(count: int) -> int:
    """At most eight in a row, in rows as equal as can be."""
    return math.ceil(count / math.ceil(count / 8))
