"""A computation graph: boxes for values, rounded boxes for operations, arrows that run over neither.

Chapter: chapters/02-neural-network-fundamentals.ipynb
"""

from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from dlbook.plot.layered import Layout, layered
from dlbook.plot.style import COLORS, axes

#: Inches: room between layers, between the boxes of a layer, and around the text of a box.
BETWEEN_LAYERS, BETWEEN_BOXES, PADDING = 0.45, 0.2, 0.09
HEAD = 0.13  # inches
LABEL_SIZE, NOTE_SIZE = 11, 9  # points
ROUNDEST = 0.4  # inches; boxes larger than this keep room for their text in the corners
WIDEST = 7.0  # inches; a graph that would be wider runs downwards
FILLS = {"value": ("#e8f0f8", COLORS[0]), "operation": ("#fbe9df", COLORS[1])}

Size = tuple[float, float]


def graph(
    nodes: Mapping[str, str],
    edges: Sequence[tuple[str, str]],
    *,
    operations: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
    direction: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a directed graph without cycles, such as the one that backpropagation walks.

    Args:
        nodes: Name -> the label in its box; mathematics stands between dollar signs.
        edges: (from, to) by name. The same edge twice (``x * x``) gives two arrows.
        operations: The names drawn rounded; all others are values.
        notes: Name -> smaller text below the label, for a shape or a gradient.
        direction: "right" or "down"; left out, "right" unless the drawing would be wider than a page.
        ax: Where to draw, made to fit; a new figure of the right size if left out.

    Raises:
        ValueError: If there are no nodes, a name is unknown, edges run in a circle, or the direction is another.

    Example:
        >>> names = {"x": "$x$", "w": "$w$", "times": "×", "y": "$y$"}
        >>> ax = graph(names, [("x", "times"), ("w", "times"), ("times", "y")], operations={"times"})
        >>> len(ax.texts)
        4
    """
    notes = dict(notes or {})
    if not nodes:
        raise ValueError("nodes is empty: nothing to draw")
    if strangers := sorted((set(notes) | set(operations)) - set(nodes)):
        raise ValueError(f"operations or notes name {strangers}, the nodes are {list(nodes)}")
    if direction not in (None, "right", "down"):
        raise ValueError(f"direction must be 'right' or 'down', got {direction!r}")
    sizes = {name: _size(label, notes.get(name, "")) for name, label in nodes.items()}
    plans = [_Plan(sizes, edges, down) for down in (False, True) if direction in (None, "down" if down else "right")]
    plan = plans[0] if plans[0].extent[0] <= WIDEST else plans[-1]

    width, height = plan.extent
    ax = axes(ax, width=width, height=height)
    for name, label in nodes.items():
        _draw_box(ax, plan.middle(name), sizes[name], label, notes.get(name, ""), name in operations)
    for path in plan.arrows():
        ax.add_patch(
            FancyArrowPatch(
                path=path, arrowstyle="-|>", mutation_scale=11, color="#555555", linewidth=1.3, shrinkA=0, shrinkB=0
            )
        )
    ax.set(xlim=(plan.left, plan.left + width), ylim=(plan.bottom, plan.bottom + height), aspect="equal")
    ax.set_axis_off()
    return ax


class _Plan:
    """Boxes and arrows in inches, layers running to the right or down."""

    def __init__(self, sizes: Mapping[str, Size], edges: Sequence[tuple[str, str]], down: bool) -> None:
        self.down, self.sizes = down, sizes
        self.deep = {name: size[1 if down else 0] for name, size in sizes.items()}  # along the layers
        self.wide = {name: size[0 if down else 1] for name, size in sizes.items()}  # across them
        self.layout: Layout = layered(self.wide, edges, gap=BETWEEN_BOXES)
        last = max(self.layout.layer.values())
        depth = [
            max((self.deep[name] for name in sizes if self.layout.layer[name] == number), default=0.0)
            for number in range(last + 1)
        ]
        starts = [sum(depth[:number]) + number * BETWEEN_LAYERS for number in range(last + 1)]
        self.bounds = [(start, start + size) for start, size in zip(starts, depth, strict=True)]
        places = self.layout.across
        low = min(at - self.wide.get(name, 0.0) / 2 for name, at in places.items()) - PADDING
        high = max(at + self.wide.get(name, 0.0) / 2 for name, at in places.items()) + PADDING
        long = self.bounds[-1][1] + 2 * PADDING
        self.extent: Size = (high - low, long) if down else (long, high - low)
        self.left, self.bottom = (low, PADDING - long) if down else (-PADDING, -high)

    def point(self, along: float, across: float) -> tuple[float, float]:
        """From (along the layers, across them) to (x, y)."""
        return (across, -along) if self.down else (along, -across)

    def middle(self, name: str) -> tuple[float, float]:
        """The middle of a node's box."""
        return self.point(sum(self.bounds[self.layout.layer[name]]) / 2, self.layout.across[name])

    def arrows(self) -> list[Path]:
        """One path for each edge: straight through layers, curved only in the free room between them."""
        routes, across = self.layout.routes, self.layout.across
        paths = []
        for route in routes:
            start, end = route[0], route[-1]
            leave, enter = across[start], self._entry(route)
            at = [leave, *(across[waypoint] for waypoint in route[1:-1]), enter]
            first, final = sum(self.bounds[self.layout.layer[start]]) / 2, sum(self.bounds[self.layout.layer[end]]) / 2
            points = [self.point(first + self.deep[start] / 2, leave)]
            codes = [Path.MOVETO]
            for place, following, name in zip(at, at[1:], route, strict=False):
                near, far = self.bounds[self.layout.layer[name]][1], self.bounds[self.layout.layer[name] + 1][0]
                far -= HEAD if name == route[-2] else 0.0  # the arrow's head lies on a straight piece
                half = (near + far) / 2
                bend = [(near, place), (half, place), (half, following), (far, following)]
                points += [self.point(*corner) for corner in bend]
                codes += [Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
            points.append(self.point(final - self.deep[end] / 2, enter))
            paths.append(Path(points, [*codes, Path.LINETO]))
        return paths

    def _entry(self, route: list[str]) -> float:
        """Where an arrow touches the box it ends at: one place for each arrow there, in the order they come."""
        name = route[-1]
        ways = sorted(
            (way for way in self.layout.routes if way[-1] == name), key=lambda way: self.layout.across[way[-2]]
        )
        rank = next(place for place, way in enumerate(ways) if way is route)
        step = min(0.16, 0.6 * self.wide[name] / len(ways))
        return self.layout.across[name] + (rank - (len(ways) - 1) / 2) * step


def _draw_box(ax: Axes, middle: Size, size: Size, label: str, note: str, rounded: bool) -> None:
    """A box with its text."""
    fill, edge = FILLS["operation" if rounded else "value"]
    corner = (middle[0] - size[0] / 2, middle[1] - size[1] / 2)
    style = f"round,pad=0,rounding_size={min(*size, ROUNDEST) / 2}" if rounded else "square,pad=0"
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, facecolor=fill, edgecolor=edge, linewidth=1.4))
    up = _extent(note, NOTE_SIZE)[1] / 2 + 0.02 if note else 0.0
    ax.text(middle[0], middle[1] + up, label, ha="center", va="center_baseline", fontsize=LABEL_SIZE)
    if note:
        below = middle[1] - _extent(label, LABEL_SIZE)[1] / 2 - 0.02
        ax.text(middle[0], below, note, ha="center", va="center", fontsize=NOTE_SIZE, color="#333333")


def _size(label: str, note: str) -> Size:
    """Width and height of a box that holds both texts, in inches."""
    extents = [_extent(label, LABEL_SIZE)] + ([_extent(note, NOTE_SIZE)] if note else [])
    width = max(extent[0] for extent in extents) + 2 * PADDING
    height = sum(extent[1] for extent in extents) + 2 * PADDING + (0.04 if note else 0.0)
    return max(width, 0.42), height


def _extent(text: str, size: float) -> Size:
    """Width and height of a text in inches, measured without drawing it."""
    rows = text.split("\n")
    width = max(TextPath((0, 0), row or " ", prop=FontProperties(size=size)).get_extents().width for row in rows)
    return width / 72, 1.25 * size / 72 * len(rows)
