"""Places for the nodes of a directed graph without cycles, in layers, so that no edge runs over a node.

The method is that of Sugiyama, Tagawa & Toda (1981), https://doi.org/10.1109/TSMC.1981.4308636: each node goes into
the layer after its last input; an edge that skips layers gets a waypoint in each of them, which takes room as a node
does; the nodes of each layer are sorted by the mean place of their neighbours; then each moves as near to its
neighbours as its own neighbours in the layer allow.

Chapter: chapters/02-neural-network-fundamentals.ipynb
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Where nodes and the waypoints of edges stand.

    Args:
        layer: Node or waypoint -> its layer, from 0.
        across: Node or waypoint -> its middle within the layer.
        routes: For each edge, in the order given, the nodes and waypoints it passes, from its start to its end.
    """

    layer: dict[str, int]
    across: dict[str, float]
    routes: list[list[str]] = field(default_factory=list)


def layered(sizes: Mapping[str, float], edges: Sequence[tuple[str, str]], *, gap: float) -> Layout:
    """Place the nodes of a graph.

    Args:
        sizes: Node -> how much room it takes within its layer.
        edges: (from, to); two alike share their way.
        gap: Room between neighbours in a layer.

    Raises:
        ValueError: If an edge names an unknown node, or the edges run in a circle.

    Example:
        >>> found = layered({"a": 1.0, "b": 1.0, "c": 1.0}, [("a", "b"), ("b", "c"), ("a", "c")], gap=0.5)
        >>> found.layer["c"], found.routes[2]
        (2, ['a', 'a > c @ 1', 'c'])
    """
    if strangers := sorted({end for edge in edges for end in edge} - set(sizes)):
        raise ValueError(f"edges name {strangers}, the nodes are {list(sizes)}")
    layer = _layers(list(sizes), edges)
    room, routes = dict(sizes), []
    for start, end in edges:
        waypoints = [f"{start} > {end} @ {number}" for number in range(layer[start] + 1, layer[end])]
        for number, waypoint in enumerate(waypoints, start=layer[start] + 1):
            layer[waypoint], room[waypoint] = number, 0.0
        routes.append([start, *waypoints, end])
    steps = {step for route in routes for step in pairwise(route)}
    before: dict[str, list[str]] = {node: [] for node in layer}
    after: dict[str, list[str]] = {node: [] for node in layer}
    for start, end in sorted(steps):
        before[end].append(start)
        after[start].append(end)
    rows = [[node for node in layer if layer[node] == number] for number in range(1 + max(layer.values()))]
    rows = _sorted_rows(rows, before, after)
    return Layout(layer, _places(rows, before, after, room, gap), routes)


def _layers(nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Each node's layer: inputs just before their first use, every other node right after its last input."""
    before: dict[str, set[str]] = {node: set() for node in nodes}
    after: dict[str, set[str]] = {node: set() for node in nodes}
    for start, end in edges:
        before[end].add(start)
        after[start].add(end)
    layer: dict[str, int] = {}
    while len(layer) < len(nodes):
        ready = [node for node in nodes if node not in layer and before[node] <= set(layer)]
        if not ready:
            raise ValueError(f"the edges run in a circle through some of {[n for n in nodes if n not in layer]}")
        layer |= {node: max((layer[start] + 1 for start in before[node]), default=0) for node in ready}
    for node in nodes:  # a weight of the last layer stands beside that layer, not at the far end
        if not before[node] and after[node]:
            layer[node] = min(layer[end] for end in after[node]) - 1
    return layer


def _sorted_rows(
    rows: list[list[str]], before: Mapping[str, list[str]], after: Mapping[str, list[str]]
) -> list[list[str]]:
    """The rows in the order, of those that sorting by neighbours passes through, in which fewest edges cross."""
    best, fewest = rows, _crossings(rows, after)
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        down = sweep % 2 == 0
        for number in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            near = rows[number - 1 if down else number + 1]
            place = {node: float(at) for at, node in enumerate(near)}
            rows[number] = _by_neighbours(rows[number], before if down else after, place)
        if (crossings := _crossings(rows, after)) < fewest:
            best, fewest = rows, crossings
    return best


def _by_neighbours(row: list[str], near: Mapping[str, list[str]], place: Mapping[str, float]) -> list[str]:
    """A row sorted by the mean place of each node's neighbours; a node without any keeps its own."""

    def key(at: int) -> float:
        places = [place[node] for node in near[row[at]] if node in place]
        return sum(places) / len(places) if places else float(at)

    return [row[at] for at in sorted(range(len(row)), key=key)]


def _crossings(rows: Sequence[Sequence[str]], after: Mapping[str, list[str]]) -> int:
    """How many pairs of edges between neighbouring rows cross."""
    count = 0
    for row, following in pairwise(rows):
        place = {node: at for at, node in enumerate(following)}
        ends = [(at, place[end]) for at, node in enumerate(row) for end in after[node]]
        count += sum(a < c and b > d for a, b in ends for c, d in ends)
    return count


def _places(
    rows: Sequence[Sequence[str]],
    before: Mapping[str, list[str]],
    after: Mapping[str, list[str]],
    room: Mapping[str, float],
    gap: float,
) -> dict[str, float]:
    """The middle of each node: as near to its neighbours as the order and the room in its row allow."""
    # What pulls hard stays straight: waypoints most, as a long edge with bends is hard to follow; an input used once
    # hardly at all, or a chain of layers with a weight each would run aslant.
    pull = {node: 1.0 if before[node] or len(after[node]) != 1 else 0.01 for node in room}
    pull |= {node: 8.0 for node, size in room.items() if size == 0.0}
    place: dict[str, float] = {}
    for row in rows:
        place |= _apart(dict.fromkeys(row, 0.0), room, pull, gap)
    for _ in range(SWEEPS):
        for row in [*rows, *reversed(rows)]:
            wanted = {}
            for node in row:
                near = {other: pull[other] for other in before[node] + after[node]}
                total = sum(weight * place[other] for other, weight in near.items())
                wanted[node] = total / sum(near.values()) if near else place[node]
            place |= _apart(wanted, room, pull, gap)
    return place


def _apart(
    wanted: Mapping[str, float], room: Mapping[str, float], pull: Mapping[str, float], gap: float
) -> dict[str, float]:
    """The places nearest to the wanted ones (weighted least squares) that keep the row's order and its nodes apart."""
    offsets = [0.0]
    for left, right in pairwise(wanted):
        offsets.append(offsets[-1] + (room[left] + room[right]) / 2 + gap)
    blocks: list[tuple[float, float, int]] = []  # (mean, weight, count): pooling neighbours until the means rise
    for (node, place), offset in zip(wanted.items(), offsets, strict=True):
        mean, weight, count = place - offset, pull[node], 1
        while blocks and blocks[-1][0] > mean:
            other, more, number = blocks.pop()
            mean, weight, count = (other * more + mean * weight) / (more + weight), more + weight, number + count
        blocks.append((mean, weight, count))
    moved = [mean for mean, _, count in blocks for _ in range(count)]
    return {node: offset + shift for node, offset, shift in zip(wanted, offsets, moved, strict=True)}
