"""A small reverse-mode automatic differentiation engine over NumPy arrays.

Each operation notes its inputs and, for each of them, a rule that turns the gradient of the result into the gradient of
that input (a vector-Jacobian product). ``backward`` walks these notes from the end to the start and adds up: that is
backpropagation, for any program made of these operations.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Sources: Linnainmaa (1976), Rumelhart et al. (1986), Griewank & Walther (2008); the form follows micrograd
(https://github.com/karpathy/micrograd), with arrays in place of single numbers.

Letters: x, y for arrays, g for "gradient of the loss with respect to the result at hand".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Rule = Callable[[Floats], Floats]  # gradient of the result -> gradient of one input


class Array:
    """An array that remembers how it was computed.

    Args:
        data: Numbers. Integers become float64; float32 and float64 are kept.
        requires_grad: Whether ``backward`` shall leave a gradient here.

    Attributes:
        data: The numbers.
        grad: Gradient of the last ``backward``, same shape as ``data``; ``None`` before. Adds up over several calls for
            the arrays one started from, until ``zero_grad``.
        op: Name of the operation that made it; empty for an array one started from.
        parents: The arrays that it was made from.

    Raises:
        TypeError: If the data are not real numbers.

    Example:
        >>> x = Array([1.0, 2.0, 3.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        array([2., 4., 6.])
    """

    __array_priority__ = 100.0  # numpy_array * Array shall call Array.__rmul__, not work element by element

    def __init__(self, data: ArrayLike, requires_grad: bool = False) -> None:
        values = np.asarray(data)
        if values.dtype.kind not in "iuf":
            raise TypeError(f"an Array holds real numbers, got {values.dtype}")
        self.data: Floats = values if values.dtype.kind == "f" else values.astype(np.float64)
        self.requires_grad = requires_grad
        self.grad: Floats | None = None
        self.op = ""
        self.parents: tuple[Array, ...] = ()
        self._rules: tuple[Rule, ...] = ()

    def __repr__(self) -> str:
        made_by = f", op={self.op!r}" if self.op else ""
        return f"Array({np.array2string(self.data, precision=4, threshold=20)}{made_by})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def T(self) -> "Array":
        return self.transpose()

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> float:
        """The number in an array of one element."""
        return float(self.data.item())

    def zero_grad(self) -> None:
        self.grad = None

    def backward(self, grad: ArrayLike | None = None) -> None:
        """Fill ``grad`` of everything that this array was computed from.

        Args:
            grad: Gradient of the loss with respect to this array; may be left out when this array is the loss itself.

        Raises:
            ValueError: If nothing here requires a gradient, or ``grad`` is missing or of another shape.
        """
        if not self.requires_grad:
            raise ValueError("nothing that this array was computed from requires a gradient")
        if grad is None:
            if self.data.size != 1:
                raise ValueError(f"backward() without a gradient needs one number, not shape {self.shape}")
            grad = np.ones_like(self.data)
        seed = np.asarray(grad, dtype=self.data.dtype)
        if seed.shape != self.shape:
            raise ValueError(f"the gradient has shape {seed.shape}, the array {self.shape}")

        gradients = {id(self): seed}
        for node in reversed(ancestors(self)):  # a node comes up only after all that was computed from it
            g = gradients.pop(id(node))
            leaf = not node.parents
            node.grad = g if node.grad is None or not leaf else node.grad + g
            for parent, rule in zip(node.parents, node._rules, strict=True):
                if parent.requires_grad:
                    share = sum_to_shape(rule(g), parent.shape)
                    before = gradients.get(id(parent))
                    gradients[id(parent)] = share if before is None else before + share

    # Arithmetic: NumPy's broadcasting, undone on the way back by sum_to_shape.
    def __add__(self, other: "Array | ArrayLike") -> "Array":
        y = self._like(other)
        return record("+", self.data + y.data, (self, lambda g: g), (y, lambda g: g))

    def __mul__(self, other: "Array | ArrayLike") -> "Array":
        y = self._like(other)
        return record("×", self.data * y.data, (self, lambda g: g * y.data), (y, lambda g: g * self.data))

    def __sub__(self, other: "Array | ArrayLike") -> "Array":
        y = self._like(other)
        return record("−", self.data - y.data, (self, lambda g: g), (y, lambda g: -g))

    def __truediv__(self, other: "Array | ArrayLike") -> "Array":
        y = self._like(other)
        quotient = self.data / y.data
        return record("÷", quotient, (self, lambda g: g / y.data), (y, lambda g: -g * quotient / y.data))

    def __pow__(self, exponent: float) -> "Array":
        x = self.data
        if exponent == 0:  # a constant, also at x = 0, where the rule below has 0 * infinity
            return record("^0", np.ones_like(x), (self, np.zeros_like))
        return record(f"^{exponent:g}", x**exponent, (self, lambda g: g * exponent * x ** (exponent - 1)))

    def __neg__(self) -> "Array":
        return record("−", -self.data, (self, lambda g: -g))

    def __matmul__(self, other: "Array | ArrayLike") -> "Array":
        """Matrix product of (..., n, k) and (..., k, m); the dimensions in front broadcast.

        Raises:
            ValueError: If one side has fewer than two dimensions, or the inner sizes differ.
        """
        y = self._like(other)
        if self.ndim < 2 or y.ndim < 2 or self.shape[-1] != y.shape[-2]:
            raise ValueError(f"cannot multiply shapes {self.shape} and {y.shape}: need (..., n, k) and (..., k, m)")
        return record(
            "@",
            self.data @ y.data,
            (self, lambda g: g @ y.data.swapaxes(-1, -2)),  # (n, m) (m, k)
            (y, lambda g: self.data.swapaxes(-1, -2) @ g),  # (k, n) (n, m)
        )

    def __radd__(self, other: ArrayLike) -> "Array":
        return self + other

    def __rmul__(self, other: ArrayLike) -> "Array":
        return self * other

    def __rsub__(self, other: ArrayLike) -> "Array":
        return self._like(other) - self

    def __rtruediv__(self, other: ArrayLike) -> "Array":
        return self._like(other) / self

    def __rmatmul__(self, other: ArrayLike) -> "Array":
        return self._like(other) @ self

    def _like(self, other: "Array | ArrayLike") -> "Array":
        """Plain numbers take this array's dtype, so that float32 stays float32."""
        return other if isinstance(other, Array) else Array(np.asarray(other, dtype=self.data.dtype))

    # Shape
    def reshape(self, *shape: int) -> "Array":
        return record("reshape", self.data.reshape(shape), (self, lambda g: g.reshape(self.shape)))

    def transpose(self, *axes: int) -> "Array":
        """Permute the axes; without arguments turn their order around."""
        order = axes or tuple(reversed(range(self.ndim)))
        back = np.argsort(order)
        return record("transpose", self.data.transpose(order), (self, lambda g: g.transpose(back)))

    def __getitem__(self, index: Any) -> "Array":
        def rule(g: Floats) -> Floats:
            full = np.zeros_like(self.data)
            np.add.at(full, index, g)  # adds up where an index comes twice, unlike full[index] += g
            return full

        return record("[ ]", self.data[index], (self, rule))

    # Reductions
    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Array":
        def rule(g: Floats) -> Floats:
            return np.broadcast_to(restore_axes(g, axis, keepdims), self.shape)

        return record("sum", self.data.sum(axis=axis, keepdims=keepdims), (self, rule))

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Array":
        if not self.data.size:
            raise ValueError(f"an array of shape {self.shape} has no mean")
        total = self.sum(axis, keepdims)
        return total * (total.data.size / self.data.size)

    def max(self, axis: int | None = None, keepdims: bool = False) -> "Array":
        """Largest element; where several are equal they share the gradient."""
        largest = self.data.max(axis=axis, keepdims=True)
        here = (self.data == largest) / (self.data == largest).sum(axis=axis, keepdims=True, dtype=self.data.dtype)
        kept = largest if keepdims else largest.squeeze(axis=axis)
        return record("max", kept, (self, lambda g: here * restore_axes(g, axis, keepdims)))


def record(op: str, data: ArrayLike, *inputs: tuple[Array, Rule]) -> Array:
    """The result of an operation, with a note of what it came from: this one line builds the graph."""
    result = Array(data, requires_grad=any(parent.requires_grad for parent, _ in inputs))
    result.op = op
    result.parents = tuple(parent for parent, _ in inputs)
    result._rules = tuple(rule for _, rule in inputs)
    return result


def ancestors(end: Array) -> list[Array]:
    """All arrays that ``end`` depends on and that require a gradient, each after those it was computed from.

    A loop with its own stack, because a graph can be deeper than Python lets functions call themselves.
    """
    order: list[Array] = []
    seen: set[int] = set()
    stack: list[tuple[Array, bool]] = [(end, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if parent.requires_grad)
    return order


def sum_to_shape(g: Floats, shape: tuple[int, ...]) -> Floats:
    """Undo broadcasting: an element that was used several times receives the sum of its gradients."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))  # axes that broadcasting put in front
    stretched = tuple(i for i, size in enumerate(shape) if size == 1 and g.shape[i] != 1)
    return g.sum(axis=stretched, keepdims=True) if stretched else g


def restore_axes(g: Floats, axis: int | tuple[int, ...] | None, keepdims: bool) -> Floats:
    """Put back, with size 1, the axes that a reduction removed."""
    return g if keepdims or axis is None else np.expand_dims(g, axis)


def exp(x: Array) -> Array:
    y = np.exp(x.data)
    return record("exp", y, (x, lambda g: g * y))


def log(x: Array) -> Array:
    return record("log", np.log(x.data), (x, lambda g: g / x.data))


def relu(x: Array) -> Array:
    return record("relu", np.maximum(x.data, 0), (x, lambda g: g * (x.data > 0)))


def tanh(x: Array) -> Array:
    y = np.tanh(x.data)
    return record("tanh", y, (x, lambda g: g * (1 - y * y)))


def sigmoid(x: Array) -> Array:
    z = np.exp(-np.abs(x.data))  # at most 1: no overflow
    y = np.where(x.data >= 0, 1, z) / (1 + z)
    return record("sigmoid", y, (x, lambda g: g * z / (1 + z) ** 2))


def cross_entropy(logits: Array, labels: NDArray[np.integer[Any]]) -> Array:
    """Mean negative log-probability of the right class, as one operation.

    Its rule is the best known of deep learning: (softmax(logits) - one_hot(labels)) / batch. Taking softmax and
    logarithm together needs no logarithm of a probability that may have rounded to 0.

    Args:
        logits: Scores before softmax.
        labels: Right class of each row, 0 to classes - 1.

    Shapes: logits (B, classes), labels (B,); returns one number.

    Raises:
        ValueError: If the shapes do not match or a label is not a class.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"need logits (B, classes) and labels (B,), B > 0; got {logits.shape} and {labels.shape}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be 0 to {logits.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    rows = np.arange(len(labels))
    shifted = logits.data - logits.data.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    totals = exponentials.sum(axis=1, keepdims=True)

    def rule(g: Floats) -> Floats:
        share: Floats = exponentials / totals
        share[rows, labels] -= 1
        share *= g / len(labels)
        return share

    return record("cross-entropy", (np.log(totals[:, 0]) - shifted[rows, labels]).mean(), (logits, rule))


class SGD:
    """Stochastic gradient descent, with momentum if asked; the same steps as :class:`torch.optim.SGD`.

    With gradient g, velocity v and learning rate a:  v = momentum * v + g,  parameter = parameter - a * v.

    Args:
        parameters: The arrays to change, in place.
        learning_rate: Step per unit of gradient.
        momentum: Share of the velocity that is kept, 0 to below 1.
    """

    def __init__(self, parameters: Iterable[Array], learning_rate: float, momentum: float = 0.0) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.velocities = [np.zeros_like(p.data) for p in self.parameters] if momentum else []

    def step(self) -> None:
        """Change each parameter by its gradient, and forget the gradient."""
        for i, (p, g) in enumerate(gradients_of(self.parameters)):
            if self.momentum:
                v = self.velocities[i]
                v *= self.momentum
                v += g
                g = v
            p.data -= self.learning_rate * g


class Adam:
    """Adam (Kingma & Ba, 2015); the same steps as :class:`torch.optim.Adam`.

    m and v are running means of the gradient and of its square; divided by 1 - beta**t they are no longer biased
    towards their start at 0. Then  parameter = parameter - a * m / (sqrt(v) + eps).

    Args:
        parameters: The arrays to change, in place.
        learning_rate: About the largest change of a parameter in one step.
        betas: Share of the old means that is kept.
        eps: Keeps the division finite.
    """

    def __init__(
        self,
        parameters: Iterable[Array],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.betas = betas
        self.eps = eps
        self.steps = 0
        self.means = [np.zeros_like(p.data) for p in self.parameters]
        self.squares = [np.zeros_like(p.data) for p in self.parameters]

    def step(self) -> None:
        """Change each parameter by its gradient, and forget the gradient."""
        self.steps += 1
        beta1, beta2 = self.betas
        unbias1, unbias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        for (p, g), m, v in zip(gradients_of(self.parameters), self.means, self.squares, strict=True):
            change = np.subtract(g, m)  # one scratch array, used all the way: new ones would cost as much as the sums
            change *= 1 - beta1
            m += change
            np.multiply(g, g, out=change)
            change -= v
            change *= 1 - beta2
            v += change
            np.sqrt(v, out=change)
            change += self.eps * unbias2**0.5
            np.divide(m, change, out=change)
            change *= self.learning_rate / unbias1 * unbias2**0.5
            p.data -= change


def gradients_of(parameters: Sequence[Array]) -> Iterable[tuple[Array, Floats]]:
    """Each parameter with its gradient, which is taken away so that the next one starts from nothing."""
    for p in parameters:
        if p.grad is None:
            raise ValueError(f"a parameter of shape {p.shape} has no gradient: call backward() before step()")
        g, p.grad = p.grad, None
        yield p, g
