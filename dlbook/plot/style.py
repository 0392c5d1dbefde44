"""How every figure of the book looks: colours, dashes, sizes.

The colours start from Okabe and Ito's set, which people with any common form of colour blindness tell apart
(https://jfly.uni-koeln.de/color/), each darkened until it stands out from white by at least 4.5 to 1. A line is told
from the next by its dash as well, so no figure relies on colour alone.

Chapter: all.
"""

import sys
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

#: Colour-blind-safe and readable on white: blue, vermilion, green, purple, ochre, black, grey.
COLORS = ("#0072b2", "#d04a00", "#00805c", "#a8457f", "#8a6400", "#222222", "#767676")
#: One dash for each colour.
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.2)), (0, (7, 2, 1, 2, 1, 2)), (0, (9, 3)), (0, (3, 1)))
#: One marker for each colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

#: Inches. At 100 dots an inch the text stays legible when a phone 390 pixels wide shrinks the figure to fit.
WIDTH, HEIGHT = 6.4, 3.8

#: The settings themselves, so that a frame can be drawn in this style without changing the caller's.
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 11,
    "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=DASHES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.formatter.limits": (-3, 5),
    "axes.formatter.use_mathtext": True,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.figsize": (WIDTH, HEIGHT),
    "figure.titlesize": 11,
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "image.cmap": "viridis",
    "legend.fontsize": 10,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "#cccccc",
    "legend.handlelength": 2.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "savefig.facecolor": "white",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}


def use_style() -> None:
    """Draw figures in the book's style from now on.

    Nothing changes before this is called; importing the package leaves matplotlib alone. Under IPython (a notebook)
    figures are also sent at twice the density, so that they are crisp on phones.

    Example:
        >>> import matplotlib
        >>> with matplotlib.rc_context():
        ...     use_style()
        ...     matplotlib.rcParams["figure.dpi"]
        100.0
    """
    if in_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")  # type: ignore[no-untyped-call]
    # After the inline backend: when that is configured it may write settings of its own.
    matplotlib.rcParams.update(RC)


def in_ipython() -> bool:
    """Whether this process is an IPython session or a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return get_ipython() is not None


def axes(ax: Axes | None = None, *, width: float = WIDTH, height: float = HEIGHT) -> Axes:
    """``ax`` itself, or the axes of a new figure ``width`` by ``height`` inches.

    Example:
        >>> ax = axes(width=5.0, height=2.0)
        >>> axes(ax) is ax
        True
    """
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax
