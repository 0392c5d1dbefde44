"""The engine against torch.autograd in float64 on random graphs, and against finite differences."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbook import autograd
from dlbook.autograd import SGD, Adam, Array

# name: (with our engine, with torch); every operation takes and gives finite numbers of moderate size
UNARY = {
    "neg": (lambda x: -x, lambda x: -x),
    "exp": (lambda x: autograd.exp(autograd.tanh(x)), lambda x: torch.exp(torch.tanh(x))),
    "log": (lambda x: autograd.log(x * x + 1.0), lambda x: torch.log(x * x + 1.0)),
    "relu": (autograd.relu, torch.relu),
    "tanh": (autograd.tanh, torch.tanh),
    "sigmoid": (autograd.sigmoid, torch.sigmoid),
    "cube": (lambda x: autograd.tanh(x) ** 3, lambda x: torch.tanh(x) ** 3),
    "sum all": (lambda x: x.sum(), lambda x: x.sum()),
    "mean first": (lambda x: x.mean(axis=0) if x.ndim else x, lambda x: x.mean(dim=0) if x.ndim else x),
    "sum last": (lambda x: x.sum(-1, keepdims=True) if x.ndim else x, lambda x: x.sum(-1, True) if x.ndim else x),
    "max last": (lambda x: x.max(axis=-1) if x.ndim else x, lambda x: x.amax(dim=-1) if x.ndim else x),
    "transpose": (lambda x: x.T, lambda x: x.permute(tuple(reversed(range(x.ndim))))),
    "flatten": (lambda x: x.reshape(-1), lambda x: x.reshape(-1)),
    "twice a row": (lambda x: x[[0, 0]] if x.ndim else x, lambda x: x[[0, 0]] if x.ndim else x),
    "from the right": (lambda x: 2.0 - x / 3.0, lambda x: 2.0 - x / 3.0),
    "under one": (lambda x: 1.0 / (x * x + 1.0), lambda x: 1.0 / (x * x + 1.0)),
}
BINARY = {
    "add": (lambda x, y: x + y, lambda x, y: x + y),
    "subtract": (lambda x, y: x - y, lambda x, y: x - y),
    "multiply": (lambda x, y: x * autograd.tanh(y), lambda x, y: x * torch.tanh(y)),
    "divide": (lambda x, y: x / (y * y + 1.0), lambda x, y: x / (y * y + 1.0)),
}
SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3), (4, 1, 3), (4, 2, 3)]


def can_broadcast(a, b):
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


@st.composite
def programs(draw, unary=tuple(UNARY)):
    """Shapes of the leaves, and steps: (name of a unary operation, node) or (name of a binary one, node, node)."""
    leaves = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4))
    nodes = [np.zeros(shape) for shape in leaves]  # only to know the shapes while drawing
    steps = []
    for _ in range(draw(st.integers(1, 14))):
        i = draw(st.integers(0, len(nodes) - 1))
        partners = [j for j, other in enumerate(nodes) if can_broadcast(nodes[i].shape, other.shape)]
        if draw(st.booleans()):
            name, j = draw(st.sampled_from(tuple(BINARY))), draw(st.sampled_from(partners))
            steps.append((name, i, j))
            nodes.append(np.zeros(np.broadcast_shapes(nodes[i].shape, nodes[j].shape)))
        else:
            name = draw(st.sampled_from(unary))
            steps.append((name, i))
            nodes.append(UNARY[name][0](Array(nodes[i])).data)
    return leaves, steps, draw(st.integers(0, 2**32 - 1))


def run(leaves, steps, which):
    """All nodes of the program, computed by the engine (which=0) or by torch (which=1)."""
    nodes = list(leaves)
    for name, *inputs in steps:
        function = (UNARY if len(inputs) == 1 else BINARY)[name][which]
        nodes.append(function(*(nodes[i] for i in inputs)))
    return nodes


@settings(max_examples=300, deadline=None, derandomize=True)
@given(programs())
def test_random_graphs_equal_torch(program):
    shapes, steps, seed = program
    values = [np.random.default_rng([seed, i]).normal(size=shape) for i, shape in enumerate(shapes)]
    ours = run([Array(v, requires_grad=True) for v in values], steps, 0)
    theirs = run([torch.tensor(v, requires_grad=True) for v in values], steps, 1)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-12, atol=1e-12)

    total, expected_total = Array(0.0), torch.zeros((), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):  # every node counts, each with another weight
        total, expected_total = total + a.sum() * (i + 1.0), expected_total + b.sum() * (i + 1.0)
    total.backward()
    expected_total.backward()
    for a, b in zip(ours[: len(shapes)], theirs[: len(shapes)], strict=True):
        assert a.grad.shape == a.data.shape
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-10, atol=1e-10)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(programs(unary=[name for name in UNARY if name not in ("relu", "max last")]))  # a kink has no finite difference
def test_random_graphs_equal_finite_differences(program):
    shapes, steps, seed = program
    values = [np.random.default_rng([seed, i]).normal(size=shape) for i, shape in enumerate(shapes)]
    directions = [np.random.default_rng([seed, i, 1]).normal(size=shape) for i, shape in enumerate(shapes)]
    leaves = [Array(v, requires_grad=True) for v in values]
    run(leaves, steps, 0)[-1].sum().backward()

    def loss_at(distance):
        moved = [Array(v + distance * d) for v, d in zip(values, directions, strict=True)]
        return run(moved, steps, 0)[-1].data.sum()

    slope = sum((leaf.grad * d).sum() for leaf, d in zip(leaves, directions, strict=True) if leaf.grad is not None)
    h = 1e-5
    np.testing.assert_allclose(slope, (loss_at(h) - loss_at(-h)) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("left", "right"), [((2, 3), (3, 5)), ((4, 2, 3), (3, 5)), ((4, 1, 2, 3), (6, 3, 5))])
def test_matmul_equals_torch(left, right):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=left), rng.normal(size=right)
    x, y = Array(a, requires_grad=True), Array(b, requires_grad=True)
    u, v = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    autograd.tanh(x @ y).sum().backward()
    torch.tanh(u @ v).sum().backward()
    np.testing.assert_allclose(x.grad, u.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(y.grad, v.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "index", [0, slice(1, 3), (slice(None), 1), ([0, 0, 2], [1, 1, 2]), np.array([True, False, True])]
)
def test_indexing_equals_torch(index):
    values = np.random.default_rng(0).normal(size=(3, 4))
    ours, theirs = Array(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    (ours[index] * ours[index]).sum().backward()
    (theirs[index] * theirs[index]).sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_cross_entropy_equals_torch(scale):
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(7, 5)) * scale, rng.integers(0, 5, 7)
    ours, theirs = Array(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    loss = autograd.cross_entropy(ours, labels)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels))
    (loss * 3.0).backward()
    (expected * 3.0).backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12)
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_equal_largest_elements_share_the_gradient():
    ours, theirs = Array([2.0, 5.0, 5.0], requires_grad=True), torch.tensor([2.0, 5.0, 5.0], requires_grad=True)
    ours.max().backward()
    theirs.amax().backward()
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


def test_a_graph_deeper_than_python_recurses():
    x = Array(1.0, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 0.5
    y.backward()
    assert x.grad == 1.0


def test_each_node_is_visited_once():
    x = Array(1.0, requires_grad=True)
    y = x
    for _ in range(60):
        y = y + y  # 2**60 paths lead back to x
    y.backward()
    assert x.grad == 2.0**60


def test_gradients_add_up_until_they_are_cleared():
    x = Array([1.0, 2.0], requires_grad=True)
    y = x * 3.0
    z = y.sum()
    z.backward()
    z.backward()
    np.testing.assert_array_equal(x.grad, [6.0, 6.0])
    np.testing.assert_array_equal(y.grad, [1.0, 1.0])  # in between: of the last call alone
    x.zero_grad()
    z.backward()
    np.testing.assert_array_equal(x.grad, [3.0, 3.0])


def test_one_number_in_brackets_needs_no_gradient_from_outside():
    x = Array([[3.0]], requires_grad=True)
    y = 1.0 + x * 2.0
    y.backward()
    assert y.item() == 7.0
    np.testing.assert_array_equal(x.grad, [[2.0]])


def test_numpy_on_the_left_and_dtype():
    x = Array(np.ones((2, 3), dtype=np.float32), requires_grad=True)
    y = (np.full((2, 3), 2.0) * x - 1.0) / 4.0
    assert isinstance(y, Array)
    assert y.data.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 0.5))
    product = np.ones((4, 2)) @ x
    assert product.shape == (4, 3)
    assert product.data.dtype == np.float32


# what a figure of the graph says at each node: (made by, operation)
SIGNS = {
    "+": lambda x: x + 1.0,
    "×": lambda x: x * 2.0,
    "−": lambda x: x - 1.0,
    "÷": lambda x: x / 2.0,
    "^3": lambda x: x**3,
    "^0": lambda x: x**0,
    "@": lambda x: x @ x,
    "reshape": lambda x: x.reshape(4),
    "transpose": lambda x: x.T,
    "[ ]": lambda x: x[0],
    "sum": lambda x: x.sum(),
    "max": lambda x: x.max(),
    "exp": autograd.exp,
    "log": autograd.log,
    "relu": autograd.relu,
    "tanh": autograd.tanh,
    "sigmoid": autograd.sigmoid,
    "cross-entropy": lambda x: autograd.cross_entropy(x, np.array([0, 1])),
}


@pytest.mark.parametrize(("sign", "operation"), SIGNS.items(), ids=range(len(SIGNS)))
def test_a_result_notes_its_operation_and_keeps_float32(sign, operation):
    x = Array(np.array([[1.0, 2.0], [3.0, 0.5]], dtype=np.float32), requires_grad=True)
    y = operation(x)
    assert y.op == sign
    assert y.parents[0] is x
    assert y.requires_grad
    assert y.data.dtype == np.float32
    y.backward(np.ones(y.shape))
    assert x.grad.dtype == np.float32
    assert not operation(Array(x.data)).requires_grad


def test_what_it_prints():
    x = Array([1.0, 2.0 / 3.0])
    assert repr(x) == "Array([1.     0.6667])"
    assert repr(x + 1) == "Array([2.     1.6667], op='+')"
    assert repr(-x) == "Array([-1.     -0.6667], op='−')"
    assert "..." in repr(Array(np.zeros(21)))
    assert "..." not in repr(Array(np.zeros(20)))


def test_an_array_one_starts_from():
    x = Array([[1, 2, 3], [4, 5, 6]])
    assert (x.shape, x.ndim, len(x), x.data.dtype) == ((2, 3), 2, 2, np.float64)
    assert (x.requires_grad, x.grad, x.op, x.parents) == (False, None, "", ())
    assert Array([7]).item() == 7.0
    with pytest.raises(TypeError, match="real numbers, got bool"):
        Array([True])


REDUCTIONS = {
    "sum": (lambda x, *a, **k: x.sum(*a, **k), torch.sum),
    "mean": (lambda x, *a, **k: x.mean(*a, **k), torch.mean),
    "max": (lambda x, *a, **k: x.max(*a, **k), torch.amax),
}


@pytest.mark.parametrize("keepdims", [None, False, True])
@pytest.mark.parametrize(
    ("name", "axis"), [*itertools.product(REDUCTIONS, [None, 0, 1, -1]), ("sum", (0, 2)), ("mean", (0, 2))]
)
def test_reductions_equal_torch(name, axis, keepdims):
    values = np.random.default_rng(0).normal(size=(2, 3, 5))
    ours, theirs = Array(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    given = {} if keepdims is None else {"keepdims": keepdims}
    a = REDUCTIONS[name][0](ours, *([] if axis is None else [axis]), **given)
    b = REDUCTIONS[name][1](theirs, (0, 1, 2) if axis is None else axis, keepdim=bool(keepdims))
    assert a.shape == b.shape
    np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-12)
    weights = np.random.default_rng(1).normal(size=a.shape)
    a.backward(weights)
    b.backward(torch.tensor(weights))
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12)


def test_shapes_are_changed_and_changed_back():
    values = np.arange(24.0).reshape(2, 3, 4)
    weights = np.random.default_rng(0).normal(size=values.shape)
    x = Array(values, requires_grad=True)
    moved, flat = x.transpose(1, 2, 0), x.reshape(4, 6)
    np.testing.assert_array_equal(moved.data, values.transpose(1, 2, 0))
    np.testing.assert_array_equal(flat.data, values.reshape(4, 6))
    moved.backward(weights.transpose(1, 2, 0))
    np.testing.assert_array_equal(x.grad, weights)
    flat.backward(weights.reshape(4, 6))
    np.testing.assert_array_equal(x.grad, 2 * weights)


def test_the_power_0_is_flat_everywhere():
    x = Array([0.0, 2.0], requires_grad=True)
    y = x**0
    y.sum().backward()
    np.testing.assert_array_equal(y.data, [1.0, 1.0])
    np.testing.assert_array_equal(x.grad, [0.0, 0.0])


def test_relu_is_flat_at_0():
    ours, theirs = Array([-1.0, 0.0, 2.0], requires_grad=True), torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    autograd.relu(ours).sum().backward()
    torch.relu(theirs).sum().backward()
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


def test_large_numbers_overflow_nowhere():
    values = np.array([-1e4, -20.0, 0.0, 20.0, 1e4])
    ours, theirs = Array(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    with np.errstate(over="raise", invalid="raise"):
        y = autograd.sigmoid(ours)
        y.sum().backward()
    torch.sigmoid(theirs).sum().backward()
    np.testing.assert_allclose(y.data, torch.sigmoid(theirs).detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-6, atol=1e-12)


def test_what_requires_no_gradient_gets_none():
    x, y = Array([1.0, 2.0], requires_grad=True), Array([3.0, 4.0])
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad, [3.0, 4.0])
    assert y.grad is None


@pytest.mark.parametrize(("ours", "theirs"), [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_optimizers_have_the_defaults_of_torch(ours, theirs):
    x, u = Array([1.0, -2.0], requires_grad=True), torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    given = (0.1,) if ours is SGD else ()
    our_steps, their_steps = ours(iter([x]), *given), theirs([u], *given)
    for gradient in ([3.0, 1e-8], [-1.0, 2e-8], [0.5, -1e-8]):
        x.grad, u.grad = np.array(gradient), torch.tensor(gradient, dtype=torch.float64)
        our_steps.step()
        their_steps.step()
        assert x.grad is None
    np.testing.assert_allclose(x.data, u.detach().numpy(), rtol=1e-12)


def torch_optimizer(name, parameters):
    if name == "Adam":
        return torch.optim.Adam(parameters, lr=0.01)
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9 if name == "momentum" else 0.0)


def our_optimizer(name, parameters):
    if name == "Adam":
        return Adam(parameters, learning_rate=0.01)
    return SGD(parameters, learning_rate=0.05, momentum=0.9 if name == "momentum" else 0.0)


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam"])
def test_optimizers_equal_torch_over_100_steps(name):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(100, 8, 5)), rng.integers(0, 3, (100, 8))
    start = [rng.normal(size=(5, 4)), np.zeros(4), rng.normal(size=(4, 3)), np.zeros(3)]
    ours = [Array(p.copy(), requires_grad=True) for p in start]
    theirs = [torch.tensor(p, requires_grad=True) for p in start]
    ours_steps, theirs_steps = our_optimizer(name, ours), torch_optimizer(name, theirs)
    for batch, y in zip(x, labels, strict=True):
        autograd.cross_entropy(autograd.relu(batch @ ours[0] + ours[1]) @ ours[2] + ours[3], y).backward()
        ours_steps.step()
        theirs_steps.zero_grad()
        hidden = torch.relu(torch.tensor(batch) @ theirs[0] + theirs[1])
        torch.nn.functional.cross_entropy(hidden @ theirs[2] + theirs[3], torch.tensor(y)).backward()
        theirs_steps.step()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: Array("text"), TypeError, "real numbers, got <U4"),
        (lambda: Array([1.0]).backward(), ValueError, "^nothing .* requires a gradient"),
        (lambda: Array([1.0, 2.0], True).backward(), ValueError, r"one number, not shape \(2,\)"),
        (lambda: Array([1.0, 2.0], True).backward([1.0]), ValueError, r"shape \(1,\), the array \(2,\)"),
        (lambda: Array(np.ones((2, 3))) @ np.ones((2, 3)), ValueError, r"multiply shapes \(2, 3\) and \(2, 3\)"),
        (lambda: autograd.cross_entropy(Array(np.ones((2, 3))), np.array([0, 3])), ValueError, "0 to 2, got 0 to 3"),
        (lambda: Array(np.ones(3)) @ np.ones((3, 2)), ValueError, r"multiply shapes \(3,\) and \(3, 2\)"),
        (lambda: Array(np.ones((2, 3))) @ np.ones(3), ValueError, r"multiply shapes \(2, 3\) and \(3,\)"),
        (lambda: Array(np.ones((2, 0))).mean(), ValueError, r"shape \(2, 0\) has no mean"),
        (lambda: autograd.cross_entropy(Array(np.ones((2, 3))), np.array([-1, 2])), ValueError, "0 to 2, got -1 to 2"),
        (lambda: autograd.cross_entropy(Array(np.ones((2, 3))), np.array([0])), ValueError, r"\(2, 3\) and \(1,\)"),
        (lambda: autograd.cross_entropy(Array(np.ones(2)), np.array([0, 1])), ValueError, r"\(2,\) and \(2,\)"),
        (lambda: autograd.cross_entropy(Array(np.ones((0, 3))), np.array([], int)), ValueError, "B > 0"),
        (lambda: SGD([Array([1.0], True)], 0.1).step(), ValueError, "call backward"),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
