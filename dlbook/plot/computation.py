"""The graph of a computation, as the engine of chapter 2 notes it.

Chapter: chapters/02-neural-network-fundamentals.ipynb
"""

from collections.abc import Mapping
from typing import Any, Protocol

from matplotlib.axes import Axes

from dlbook.plot.graph import graph


class Node(Protocol):
    """What `dlbook.autograd.Array` offers: a value, its slope, and what it was made of."""

    @property
    def data(self) -> Any: ...
    @property
    def grad(self) -> Any: ...
    @property
    def op(self) -> str: ...
    @property
    def parents(self) -> Any: ...


def computation(end: Node, *, names: Mapping[str, Node] | None = None, ax: Axes | None = None) -> Axes:
    """Draw everything that ``end`` was computed from, each node with its value and the gradient that reached it.

    Args:
        end: The result, such as a loss after ``backward()``.
        names: Label -> node, for the boxes that shall carry a name; others show their operation or value.
        ax: Where to draw; a new figure of the right size if left out.

    Example:
        >>> from dlbook.autograd import Array
        >>> x = Array(3.0, requires_grad=True)
        >>> y = x * x
        >>> y.backward()
        >>> [text.get_text() for text in computation(y, names={"$x$": x}).texts]
        ['$x$', '3\\ngradient 6', '×', '9\\ngradient 1']
    """
    labels = {id(node): label for label, node in (names or {}).items()}
    nodes: dict[str, str] = {}
    notes: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    operations: list[str] = []

    def visit(node: Node) -> None:
        key = str(id(node))
        if key in nodes:
            return
        for parent in node.parents:
            visit(parent)
        value = describe(node.data)
        nodes[key] = labels.get(id(node)) or node.op or value
        lines = [value] if nodes[key] != value else []
        if node.grad is not None:
            lines.append(f"gradient {describe(node.grad)}")
        notes[key] = "\n".join(lines)
        edges.extend((str(id(parent)), key) for parent in node.parents)
        if node.op:
            operations.append(key)

    visit(end)
    return graph(nodes, edges, operations=operations, notes={k: n for k, n in notes.items() if n}, ax=ax)


def describe(values: Any) -> str:
    """A single number as it is, of an array its shape.

    Example:
        >>> import numpy as np
        >>> describe(np.array(0.25)), describe(np.zeros((2, 3)))
        ('0.25', '2 × 3')
    """
    return f"{float(values):.4g}" if values.ndim == 0 else " × ".join(map(str, values.shape))
