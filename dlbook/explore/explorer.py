"""A figure with controls: live where a kernel runs, still moving where none does.

One output holds four forms of the same thing, and each place shows the best it can:

    application/vnd.jupyter.widget-view+json   ipywidgets, drawn afresh on each change (JupyterLab, Colab, VS Code)
    text/html                                  the figures drawn beforehand and a few lines of script (the built book)
    image/png                                  the first figure (printed pages, viewers that strip scripts)
    text/plain                                 what a terminal shows

Chapter: all.
"""

import base64
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from matplotlib.figure import Figure

from dlbook.explore import frames, page
from dlbook.explore.page import Value, spoken, written
from dlbook.scale import current

#: Every figure is stored in the notebook, so there is an end to how many there may be.
MOST_FRAMES = 64
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Show ``draw(**values)`` for every combination of the controls' values.

    Args:
        draw: Returns the figure for one combination; pure, so that equal values give equal figures.
        alt: What the figure shows, for those who do not see it; or a function of the values that says so.
        start: The first combination shown; controls left out start at their first value.
        controls: Name -> its values. Numbers make a slider, texts a drop-down list. Underscores in a name are shown
            as spaces.

    Raises:
        ValueError: If there is no control, one has no values, equal values or both numbers and texts, there are more
            combinations than `MOST_FRAMES`, or ``start`` is not among them.

    Example:
        >>> from matplotlib import pyplot as plt
        >>> def draw(power):
        ...     figure, ax = plt.subplots(figsize=(3, 2))
        ...     ax.plot([0, 1, 2], [x**power for x in (0, 1, 2)])
        ...     return figure
        >>> Explorer(draw, alt="A power of x", power=[1, 2, 3])
        Explorer(power: 1, 2, 3)
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        *,
        alt: str | Callable[..., str],
        start: Mapping[str, Value] | None = None,
        **controls: Sequence[Value],
    ) -> None:
        if not controls:
            raise ValueError("an explorer needs at least one control")
        self.controls = {name: _checked(name, values) for name, values in controls.items()}
        self.combinations = [
            dict(zip(self.controls, values, strict=True)) for values in itertools.product(*self.controls.values())
        ]
        if len(self.combinations) > MOST_FRAMES:
            sizes = " x ".join(str(len(values)) for values in self.controls.values())
            raise ValueError(
                f"{sizes} = {len(self.combinations)} figures are more than {MOST_FRAMES}: offer fewer values"
            )
        self.start = {name: values[0] for name, values in self.controls.items()} | dict(start or {})
        if self.start not in self.combinations:
            raise ValueError(f"start={dict(start or {})} is not among the values {self.controls}")
        self.draw = draw
        self._alt = alt
        self._drawn: dict[tuple[Value, ...], frames.Pixels] = {}

    def alt(self, **values: Value) -> str:
        """What the figure for these values shows, in words."""
        if callable(self._alt):
            return self._alt(**values)
        return f"{self._alt}: " + ", ".join(f"{spoken(name)} {written(value)}" for name, value in values.items())

    def pixels(self, **values: Value) -> frames.Pixels:
        """The figure for these values, (H, W, 3), drawn once and kept."""
        key = tuple(values[name] for name in self.controls)
        if key not in self._drawn:
            self._drawn[key] = frames.pixels(self.draw, values)
        return self._drawn[key]

    def png(self, **values: Value) -> bytes:
        """The figure for these values as a PNG file."""
        return frames.png(self.pixels(**values))

    @cached_property
    def html(self) -> str:
        """The form that moves without a kernel: every figure, the controls, and the script that joins them."""
        stored = []
        for values in self.combinations:
            base = self._base(values)
            image, behind = self.pixels(**values), self.pixels(**base)
            file = frames.png(image, over=None if values == base else behind)
            stored.append(page.Frame(file, self.alt(**values), over=self.combinations.index(base)))
        return page.page(stored, self.controls, self.start, frames.shown(self.pixels(**self.start)))

    def _base(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The combination that looks most like this one: the same choices, with all sliders at their start."""
        return {name: value if isinstance(value, str) else self.start[name] for name, value in values.items()}

    def widget(self) -> Any:
        """A new live form; needs a running kernel to move. Uses nothing that ipywidgets 7.7.1 lacks."""
        import ipywidgets as widgets

        image = widgets.Image(value=self.png(**self.start), format="png")
        image.layout.width = f"{frames.shown(self.pixels(**self.start))[0]}px"
        image.layout.max_width = "100%"
        inputs = {}
        for name, values in self.controls.items():
            kind = widgets.Dropdown if isinstance(values[0], str) else widgets.SelectionSlider
            inputs[name] = kind(
                options=[(written(value), value) for value in values],
                value=self.start[name],
                description=spoken(name),
                style={"description_width": "initial"},
            )

        def show(_: Any) -> None:
            image.value = self.png(**{name: control.value for name, control in inputs.items()})

        for control in inputs.values():
            control.observe(show, names="value")
        return widgets.VBox([*inputs.values(), image])

    def __repr__(self) -> str:
        parts = [f"{name}: {', '.join(map(written, values))}" for name, values in self.controls.items()]
        return f"Explorer({'; '.join(parts)})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The four forms, as IPython asks for them."""
        still = self.png(**self.start)
        box = self.widget()
        data: dict[str, Any] = {
            "text/plain": repr(self),
            "image/png": base64.b64encode(still).decode(),
            # The id alone, as _repr_mimebundle_: ipywidgets 7 and 8 name their own ways of display differently
            WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": box.model_id},
        }
        run = current()
        if run is None or run.scale != "smoke":  # a run at smoke scale is never stored: it need not draw every figure
            data["text/html"] = self.html
        return data, {"image/png": dict(zip(("width", "height"), frames.shown(self.pixels(**self.start)), strict=True))}


def _checked(name: str, values: Sequence[Value]) -> list[Value]:
    """The values of a control, or an error that says what is wrong with them."""
    values = list(values)
    if not values:
        raise ValueError(f"control {name!r} has no values")
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"control {name!r} mixes numbers and texts: {values}")
    if len({written(value) for value in values}) < len(values):
        raise ValueError(f"control {name!r} has values that read alike: {[written(value) for value in values]}")
    return values
