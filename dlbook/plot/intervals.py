"""Estimates with the intervals that hold them, one below the other.

Chapter: all.
"""

from collections.abc import Mapping
from typing import Protocol

from matplotlib.axes import Axes

from dlbook.plot.style import COLORS, axes


class HasInterval(Protocol):
    """What `dlbook.evidence.Estimate` offers: a mean between two ends."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def intervals(
    estimates: Mapping[str, HasInterval],
    *,
    xlabel: str,
    margin: float | None = None,
    margin_label: str = "margin",
    xscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw each estimate as a dot on the bar of its interval, the first on top.

    Args:
        estimates: Name -> an object with ``mean``, ``low`` and ``high``.
        xlabel: What is estimated, with its unit.
        margin: Where to draw the line an estimate has to pass.
        margin_label: What that line is called.
        xscale: A scale of matplotlib: "linear", "log".
        ax: Where to draw; a new figure if left out.

    Raises:
        ValueError: If there are no estimates, or a mean lies outside its interval.

    Example:
        >>> from types import SimpleNamespace
        >>> ours = SimpleNamespace(mean=0.92, low=0.91, high=0.93)
        >>> ax = intervals({"ours": ours}, xlabel="accuracy", margin=0.9)
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['ours']
    """
    if not estimates:
        raise ValueError("estimates is empty: nothing to draw")
    for name, estimate in estimates.items():
        if not estimate.low <= estimate.mean <= estimate.high:  # false for NaN as well
            raise ValueError(
                f"{name!r}: the mean {estimate.mean} is not between low={estimate.low} and high={estimate.high}"
            )
    ax = axes(ax, height=0.9 + 0.42 * len(estimates) + (0.3 if margin is not None else 0.0))
    for row, estimate in enumerate(estimates.values()):
        ax.plot([estimate.low, estimate.high], [row, row], "-", color=COLORS[0], linewidth=4, alpha=0.45)
        ax.plot(estimate.mean, row, "o", color=COLORS[0], markersize=7)
    if margin is not None:
        ax.axvline(margin, color=COLORS[1], linestyle="--", linewidth=1.5, label=margin_label)
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, frameon=False)
    ax.set(xlabel=xlabel, xscale=xscale, ylim=(len(estimates) - 0.5, -0.5))
    ax.set_yticks(range(len(estimates)), list(estimates))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    return ax
