"""Figures as small PNG files, and as the difference from another figure, which is smaller still.

Chapter: all.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from dlbook.plot.style import HEIGHT, RC, WIDTH

#: Dots an inch in the file; a figure is shown at 100, so this is crisp on phones at half the bytes of twice as many.
DENSITY = 130
#: Colours a file keeps. The book's figures are flat, and their edges need few shades.
PALETTE = 32
#: Pixels stored around what differs from another figure.
RIM = 2

Pixels = NDArray[np.uint8]


def pixels(draw: Callable[..., Figure], values: Mapping[str, Any]) -> Pixels:
    """The figure ``draw(**values)`` in the book's style, whatever the caller's style is.

    Shapes:
        returns: (H, W, 3).
    """
    # Plain numbers at the ticks: as mathematics they take a third of the time of drawing, in every frame again.
    with matplotlib.rc_context(RC | {"axes.formatter.use_mathtext": False}):
        figure = draw(**values)
        try:
            raw = io.BytesIO()
            figure.savefig(raw, format="png", dpi=DENSITY)
        finally:
            plt.close(figure)  # or the inline backend would show it as well
    return np.asarray(Image.open(raw).convert("RGB"))


def png(image: Pixels, over: Pixels | None = None) -> bytes:
    """``image`` as a PNG file of few colours, the same bytes each time.

    Args:
        image: What to store.
        over: If given and of the same size, only what differs from it is stored and the rest is transparent, so that
            the file laid over ``over`` shows ``image``. Explorers change little from figure to figure, and their
            files shrink to a fraction.

    Shapes:
        image, over: (H, W, 3).

    Example:
        >>> base = np.full((40, 60, 3), 255, dtype=np.uint8)
        >>> image = base.copy()
        >>> image[5, 7] = 0
        >>> Image.open(io.BytesIO(png(image, over=base))).convert("RGBA").getpixel((7, 5))
        (0, 0, 0, 255)
    """
    codes = (image.astype(np.uint32) << np.array([16, 8, 0], dtype=np.uint32)).sum(axis=-1)  # (H, W), one per colour
    drawn = np.ones(codes.shape, dtype=bool)  # (H, W)
    if over is not None and over.shape == image.shape:
        drawn = _widened((image != over).any(axis=-1))
    indices = np.zeros(codes.shape, dtype=np.uint8)  # 0 is transparent
    palette = np.zeros((1, 3), dtype=np.uint8)
    if drawn.any():
        colours, indices[drawn] = _few(codes[drawn])
        indices[drawn] += 1
        palette = np.concatenate([palette, colours])
    file = io.BytesIO()
    few = Image.fromarray(indices)
    few.putpalette(palette.tobytes())
    few.save(file, format="PNG", optimize=True, transparency=0)
    return file.getvalue()


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (H, W) with the `RIM` pixels around it.

    A browser scales both pictures before it lays one over the other; without a rim, what should be hidden shines
    through along the edges.
    """
    for axis in (0, 1):
        padded = np.pad(mask, [(RIM, RIM) if axis == other else (0, 0) for other in (0, 1)])
        mask = np.asarray(sliding_window_view(padded, 2 * RIM + 1, axis=axis).any(axis=-1))
    return mask


def _few(codes: NDArray[np.uint32]) -> tuple[Pixels, Pixels]:
    """At most `PALETTE` - 1 colours that stand for all of ``codes``, and which of them stands for each.

    The next colour is always the one that is frequent and far from those there are, so that the flat areas of a
    figure keep their exact colours, white above all, and a thin line its own; Pillow's methods turn orange brown.

    Shapes:
        codes: (N,), a colour each as 0xRRGGBB.
        returns: (K, 3) and (N,).
    """
    unique, which, count = np.unique(codes, return_inverse=True, return_counts=True)  # (U,), (N,), (U,)
    colours = np.stack([unique >> 16 & 255, unique >> 8 & 255, unique & 255], axis=1).astype(float)  # (U, 3)
    distance = np.full(len(unique), np.inf)  # (U,), squared, to the nearest colour chosen
    nearest = np.zeros(len(unique), dtype=np.uint8)
    chosen: list[int] = []
    while len(chosen) < PALETTE - 1 and distance.max() > 0:
        new = int(np.argmax(count if not chosen else np.sqrt(count) * distance))
        away = ((colours - colours[new]) ** 2).sum(axis=1)
        nearest[away < distance] = len(chosen)
        distance = np.minimum(distance, away)
        chosen.append(new)
    return colours[chosen].astype(np.uint8), nearest[which]


def shown(image: Pixels) -> tuple[int, int]:
    """Width and height at which a figure is shown, in CSS pixels."""
    return round(image.shape[1] * 100 / DENSITY), round(image.shape[0] * 100 / DENSITY)


def fixed_axes(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A new figure, ``height`` inches high, whose axes stay where they are whatever is written beside them.

    Constrained layout would move them a little from frame to frame; and it takes half of the time of drawing.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, height), layout="none")
    figure.subplots_adjust(left=0.12, right=0.97, top=0.92, bottom=0.14)
    return figure, ax
