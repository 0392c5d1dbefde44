"""Training curves: after a run, or live while it goes on.

A history maps names to lists, one number an epoch: "loss", "val_loss", "val_accuracy". Names that differ only in a
leading ``val_`` or ``train_`` measure the same quantity on other data and share one panel.

Chapter: all.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dlbook.plot.lines import lines
from dlbook.plot.style import HEIGHT, WIDTH, in_ipython

History = Mapping[str, Sequence[float]]

#: A live figure holds up to this many panels and its text up to this many lines, whatever the length of the run.
MOST_PANELS, MOST_LINES = 3, 10


def curves(history: History, ax: Axes | None = None, *, quantity: str | None = None) -> Axes:
    """Draw a training history against the epoch.

    Args:
        history: Name -> one number an epoch.
        ax: Where to draw one quantity. Left out, a new figure has one panel for each quantity.
        quantity: Which one ("loss", "accuracy"); left out, the first on a given ``ax``, else all.

    Shapes:
        returns: the axes drawn on; of several panels the first, the others being ``ax.figure.axes``.

    Raises:
        ValueError: If the history is empty or does not hold the quantity.

    Example:
        >>> ax = curves({"loss": [2.0, 1.0], "val_loss": [2.1, 1.4], "val_accuracy": [0.3, 0.6]})
        >>> [panel.get_ylabel() for panel in ax.figure.axes]
        ['loss', 'accuracy']
    """
    groups = _quantities(history)
    if quantity is not None and quantity not in groups:
        raise ValueError(f"quantity={quantity!r} is not in the history, which has {list(groups)}")
    chosen = [quantity] if quantity else list(groups)[: MOST_PANELS if ax is None else 1]
    panels = [ax] if ax is not None else _panels(len(chosen)).axes
    for panel, name in zip(panels, chosen, strict=True):
        series = {label: history[label] for label in groups[name]}
        epochs = range(1, 1 + len(next(iter(series.values()))))
        lines(list(epochs), series, xlabel="epoch", ylabel=name, ax=panel)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if len(series) == 1 and groups[name][0] != name:
            panel.legend()  # says that the only line is the one on validation data
    return panels[0]


class LiveCurves:
    """Show a history while training goes on: ``fit(..., on_epoch=LiveCurves())``.

    In a notebook one figure and one short table of numbers are redrawn in place, so the stored notebook keeps just
    the last of each; the figure is redrawn only as often as costs less than a fifth of the training time, and once
    more when the cell ends. Elsewhere lines of text are printed: each of the first ten epochs, then the 20th, 50th,
    100th and so on.

    Args:
        title: A line above the figure, for cells that train several models.

    Example:
        >>> live, history = LiveCurves(), {"loss": []}
        >>> for loss in (2.0, 1.25):
        ...     history["loss"].append(loss)
        ...     live(history)
        epoch   1  loss 2
        epoch   2  loss 1.25
    """

    def __init__(self, title: str | None = None) -> None:
        self.title = title
        self._history: History | None = None
        self._figure_handle: Any = None
        self._text_handle: Any = None
        self._stale = False
        self._drawn_at = self._cost = 0.0

    def __call__(self, history: History) -> None:
        """Show the history as it is after the epoch that has just ended."""
        epoch = max((len(values) for values in history.values()), default=0)
        if epoch == 0:
            raise ValueError(f"the history holds no epoch yet: {dict(history)}")
        if not in_ipython():
            if epoch <= MOST_LINES or str(epoch).rstrip("0") in ("1", "2", "5"):
                print(_line(history, epoch))  # noqa: T201
            return
        if self._history is not history:
            self._open(history)
        self._text_handle.update(_Text(table(history)))
        self._stale = True
        if time.monotonic() - self._drawn_at > 4 * self._cost:
            self._draw()

    def _open(self, history: History) -> None:
        """Begin a new figure and a new table below it."""
        from IPython import display, get_ipython

        self.close()
        self._history = history
        self._figure_handle = display.display(_Text("training ..."), display_id=True)  # type: ignore[no-untyped-call]
        self._text_handle = display.display(_Text(""), display_id=True)  # type: ignore[no-untyped-call]
        get_ipython().events.register("post_run_cell", self.close)

    def _draw(self) -> None:
        """Redraw the figure where it stands."""
        began = time.monotonic()
        assert self._history is not None
        figure = curves(self._history).get_figure()
        assert isinstance(figure, Figure)
        if self.title:
            figure.suptitle(self.title)
        self._figure_handle.update(figure)
        plt.close(figure)  # or the inline backend shows it a second time when the cell ends
        self._stale = False
        self._drawn_at = time.monotonic()
        self._cost = self._drawn_at - began

    def close(self, *_: Any) -> None:
        """Draw what has not been drawn yet; called by IPython when the cell ends, also after an error."""
        if self._history is None:
            return
        from IPython import get_ipython

        if self._stale:
            self._draw()
        self._history = None
        get_ipython().events.unregister("post_run_cell", self.close)


def table(history: History) -> str:
    """The history as text: all epochs when they are few, else about ten of them with the first and the last.

    Example:
        >>> print(table({"loss": [2.0, 1.0], "val_accuracy": [0.5, 0.75]}))
        epoch   1  loss 2  val_accuracy 0.5
        epoch   2  loss 1  val_accuracy 0.75
    """
    epochs = max((len(values) for values in history.values()), default=0)
    step = -(-epochs // (MOST_LINES - 1)) if epochs > MOST_LINES else 1
    shown = sorted({1, *range(step, epochs + 1, step), epochs}) if epochs else []
    return "\n".join(_line(history, epoch) for epoch in shown)


class _Text:
    """Plain text that a notebook shows as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _line(history: History, epoch: int) -> str:
    """One epoch's numbers, four digits each."""
    numbers = [f"{name} {values[epoch - 1]:.4g}" for name, values in history.items() if len(values) >= epoch]
    return f"epoch {epoch:3d}  " + "  ".join(numbers)


def _quantities(history: History) -> dict[str, list[str]]:
    """Quantity -> the names in the history that measure it, in their order there."""
    groups: dict[str, list[str]] = {}
    for name, values in history.items():
        if len(values):
            groups.setdefault(name.removeprefix("val_").removeprefix("train_"), []).append(name)
    if not groups:
        raise ValueError(f"the history is empty: {dict(history)}")
    return groups


def _panels(count: int) -> Figure:
    """A new figure with ``count`` panels side by side."""
    figure: Figure = plt.subplots(1, count, figsize=(WIDTH + 0.4 * (count - 1), HEIGHT - 0.5 * (count - 1)))[0]
    return figure
