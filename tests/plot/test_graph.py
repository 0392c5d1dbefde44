"""Graphs: every arrow arrives where it should and runs over no box."""

import itertools
import random

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dlbook.plot import graph
from dlbook.plot.layered import layered


def boxes(ax: Axes) -> list[tuple[float, float, float, float]]:
    """Left, bottom, right, top of each box, in the order of the nodes."""
    found = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    return [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in found]


def arrows(ax: Axes) -> list[np.ndarray]:
    """Points along the line of each arrow, close to one another, without its head."""
    lines = []
    for patch in ax.patches:
        if isinstance(patch, FancyArrowPatch):
            corners = patch.get_path().to_polygons(closed_only=False)[0]
            pieces = [np.linspace(a, b, 20) for a, b in itertools.pairwise(corners)]
            lines.append(np.concatenate(pieces))
    return lines


def inside(points: np.ndarray, box: tuple[float, float, float, float], slack: float = 0.01) -> bool:
    left, bottom, right, top = box
    x, y = points.T
    return bool(((x > left + slack) & (x < right - slack) & (y > bottom + slack) & (y < top - slack)).any())


def random_graph(seed: int, count: int = 20) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Labels of many widths, edges that skip layers."""
    rng = random.Random(seed)
    names = [f"n{number}" for number in range(count)]
    nodes = {name: "w" * rng.randint(1, 9) for name in names}
    edges = [
        (rng.choice(names[max(0, at - 7) : at]), names[at]) for at in range(1, count) for _ in range(rng.randint(0, 2))
    ]
    return nodes, edges


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("seed", range(6))
def test_no_arrow_runs_over_a_box_and_no_boxes_touch(seed: int, direction: str) -> None:
    nodes, edges = random_graph(seed)
    ax = graph(nodes, edges, notes={"n3": "grad 1.5", "n5": "2×3"}, operations={"n4"}, direction=direction)
    places = boxes(ax)
    assert (len(places), len(arrows(ax))) == (len(nodes), len(edges))
    for line in arrows(ax):
        assert not any(inside(line, box) for box in places)
    for a, b in itertools.combinations(places, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    for left, bottom, right, top in places:
        assert ax.get_xlim()[0] < left < right < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < bottom < top < ax.get_ylim()[1]


def test_arrows_start_and_end_at_their_boxes() -> None:
    nodes, edges = random_graph(1)
    names = list(nodes)
    ax = graph(nodes, edges, direction="right")
    places = boxes(ax)
    for (start, end), line in zip(edges, arrows(ax), strict=True):
        assert abs(line[0][0] - places[names.index(start)][2]) < 1e-6
        assert abs(line[-1][0] - places[names.index(end)][0]) < 0.05
        assert places[names.index(end)][1] < line[-1][1] < places[names.index(end)][3]


def test_the_same_edge_twice_arrives_at_two_places() -> None:
    first, second = arrows(graph({"x": "x", "square": "×"}, [("x", "square"), ("x", "square")]))
    assert abs(first[-1][1] - second[-1][1]) > 0.05


def test_crossings_that_need_not_be_are_gone() -> None:
    sizes = dict.fromkeys(["a", "b", "c", "d", "e", "f"], 1.0)
    across = layered(sizes, [("a", "f"), ("b", "e"), ("c", "d")], gap=0.5).across
    assert (across["a"] < across["b"]) == (across["f"] < across["e"])
    assert (across["b"] < across["c"]) == (across["e"] < across["d"])


def test_a_chain_with_a_weight_at_each_step_is_straight() -> None:
    sizes = dict.fromkeys(["x", "w", "m", "b", "s", "r"], 1.0)
    across = layered(sizes, [("x", "m"), ("w", "m"), ("m", "s"), ("b", "s"), ("s", "r")], gap=0.5).across
    assert abs(across["m"] - across["s"]) < 0.05
    assert abs(across["s"] - across["r"]) < 0.05


@pytest.mark.parametrize(
    ("nodes", "edges", "options", "message"),
    [
        ({}, [], {}, "nodes is empty"),
        ({"a": "a"}, [("a", "b")], {}, r"edges name \['b'\], the nodes are \['a'\]"),
        ({"a": "a", "b": "b"}, [("a", "b"), ("b", "a")], {}, r"in a circle through some of \['a', 'b'\]"),
        ({"a": "a"}, [], {"notes": {"c": "x"}}, r"name \['c'\]"),
        ({"a": "a"}, [], {"operations": {"d"}}, r"name \['d'\]"),
        ({"a": "a"}, [], {"direction": "up"}, "direction must be 'right' or 'down', got 'up'"),
    ],
)
def test_graph_refuses_what_does_not_fit(nodes: dict, edges: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph(nodes, edges, **options)
