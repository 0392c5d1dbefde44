"""What every public function of the package promises, on shapes, dtypes and numbers that nobody chose by hand."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dlbook import autograd
from dlbook.autograd import Array
from dlbook.data.batches import Batches
from dlbook.layers import activations
from dlbook.layers.init import init_linear, matched_gain, signal_factors
from dlbook.models.bump import BumpNetwork
from dlbook.models.mlp import KERNELS, MLP
from dlbook.models.sawtooth import Sawtooth, count_pieces, max_pieces, sawtooth
from dlbook.train import accuracy, evaluate, fit

quick = settings(max_examples=40, deadline=None, derandomize=True)
ELEMENTWISE = ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu")
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)  # numbers, empty arrays, several axes
seeds = st.integers(0, 2**32 - 1)


def layouts(values: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers in another order in memory."""
    if layout == "transposed" and values.ndim > 1:
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        return torch.stack([values, torch.full_like(values, 7)], dim=-1)[..., 0]
    return values


@st.composite
def tensors(draw, shapes=shapes, dtypes=DTYPES, sizes=(1e-30, 1.0, 1e4, 1e30)):
    """Random tensors of all sizes of number and layouts in memory, with zeros among them."""
    generator = torch.Generator().manual_seed(draw(seeds))
    values = torch.randn(draw(shapes), generator=generator, dtype=torch.float64) * draw(st.sampled_from(sizes))
    values = torch.where(torch.rand(values.shape, generator=generator) < 0.1, torch.zeros_like(values), values)
    return layouts(values.to(draw(st.sampled_from(dtypes))), draw(st.sampled_from(["plain", "transposed", "strided"])))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """A few roundings of the dtype; torch computes bfloat16 in float32 inside, and rounds less often."""
    eps = torch.finfo(dtype).eps
    return {"rtol": 16 * eps, "atol": 4 * eps}


def reference(name: str, x: torch.Tensor) -> torch.Tensor:
    return KERNELS[name](x.double())


@pytest.mark.parametrize("name", ELEMENTWISE)
@quick
@given(x=tensors())
def test_an_activation_is_right_for_any_shape_dtype_layout_and_size(name, x):
    before = x.clone()
    y = getattr(activations, name)(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert torch.equal(x, before)  # the input is left alone
    torch.testing.assert_close(y.double(), reference(name, x), **tolerance(x.dtype))


@pytest.mark.parametrize("name", ELEMENTWISE)
@quick
@given(x=tensors())
def test_a_derivative_is_right_for_any_shape_dtype_layout_and_size(name, x):
    slope = activations.derivative(name, x)
    assert slope.shape == x.shape
    assert slope.dtype == x.dtype
    exact = x.double().requires_grad_()
    [expected] = torch.autograd.grad(reference(name, exact).sum(), exact)
    away = x != 0 if name in ("relu", "leaky_relu") else torch.ones_like(x, dtype=torch.bool)
    torch.testing.assert_close(slope.double()[away], expected[away], **tolerance(x.dtype))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@quick
@given(x=tensors(shapes=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)), axis=st.integers(0, 3))
def test_softmax_is_right_along_any_axis(name, x, axis):
    axis %= x.ndim
    y = getattr(activations, name)(x, axis)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    # from numbers exact in float64, so that what remains are the roundings of this dtype alone
    expected = getattr(torch, name)(x.double(), axis)
    torch.testing.assert_close(
        y.double(), expected, rtol=64 * torch.finfo(x.dtype).eps, atol=16 * torch.finfo(x.dtype).eps
    )


@quick
@given(x=tensors(shapes=st.sampled_from([(0, 3), (2, 0, 3)])))
def test_softmax_of_no_rows_has_no_rows(x):
    assert activations.softmax(x).shape == activations.log_softmax(x).shape == x.shape


@settings(quick, max_examples=10)
@given(name=st.sampled_from(ELEMENTWISE), gain=st.floats(1e-3, 1e3))
def test_signal_factors_grow_with_the_square_of_the_gain(name, gain):
    forward, backward = signal_factors(name)
    assert signal_factors(name, gain) == pytest.approx((gain**2 * forward, gain**2 * backward), rel=1e-12)
    assert signal_factors(name, matched_gain(name))[0] == pytest.approx(1, rel=1e-12)


@quick
@given(
    scheme=st.sampled_from(["xavier", "he", "matched"]),
    name=st.sampled_from(ELEMENTWISE),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=seeds,
)
def test_init_linear_draws_the_scaled_numbers_of_the_generator(scheme, name, sizes, bias, dtype, seed):
    inputs, outputs = sizes
    linear = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    init_linear(linear, scheme, name, torch.Generator().manual_seed(seed))
    variance = {"xavier": 2 / (inputs + outputs), "he": 2 / inputs, "matched": matched_gain(name) ** 2 / inputs}[scheme]
    drawn = torch.empty(outputs, inputs, dtype=dtype).normal_(
        0, math.sqrt(variance), generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(linear.weight, drawn)
    assert linear.weight.dtype == dtype
    assert linear.bias is None or not linear.bias.any()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_over_no_classes_is_empty(name):
    assert getattr(activations, name)(torch.zeros(2, 0)).shape == (2, 0)


@pytest.mark.parametrize(
    "call", [lambda: signal_factors("step"), lambda: init_linear(nn.Linear(2, 3), "matched", "step")]
)
def test_an_unknown_activation_is_named(call):
    with pytest.raises(ValueError, match="no derivative for 'step'"):
        call()


# ---- the engine

broadcast = st.sampled_from(
    [((), ()), ((3,), ()), ((2, 1), (1, 3)), ((4, 1, 3), (2, 1)), ((0, 3), (3,)), ((1, 1), (0, 1)), ((1,), (1, 1))]
)
ARITHMETIC = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y, "/": lambda x, y: x / y}
kinds = st.sampled_from([np.float64, np.float32])


@pytest.mark.parametrize("sign", ARITHMETIC)
@quick
@given(pair=broadcast, turn=st.booleans(), kind=kinds, seed=seeds, size=st.sampled_from([1e-10, 1.0, 1e10]))
def test_arithmetic_broadcasts_as_torch_does_and_keeps_the_dtype(sign, pair, turn, kind, seed, size):
    rng = np.random.default_rng(seed)
    a, b = (np.asarray(rng.uniform(0.5, 2, shape) * size, dtype=kind) for shape in (pair[::-1] if turn else pair))
    x, y = Array(a, requires_grad=True), Array(b, requires_grad=True)
    u, v = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    result, expected = ARITHMETIC[sign](x, y), ARITHMETIC[sign](u, v)
    result.sum().backward()
    expected.sum().backward()
    for ours, theirs in ((result.data, expected.detach()), (x.grad, u.grad), (y.grad, v.grad)):
        assert ours.dtype == kind
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=64 * np.finfo(kind).eps)


@pytest.mark.parametrize("name", ["exp", "log", "relu", "tanh", "sigmoid"])
@quick
@given(shape=shapes, kind=kinds, seed=seeds, strided=st.booleans())
def test_functions_keep_shape_and_dtype(name, shape, kind, seed, strided):
    values = np.random.default_rng(seed).uniform(-4, 4, (*shape, 2)).astype(kind)
    values = values[..., 0] if strided else np.ascontiguousarray(values[..., 0])
    values = np.asarray(np.abs(values) + kind(0.1) if name == "log" else values)
    x, u = Array(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    y, expected = getattr(autograd, name)(x), getattr(torch, name)(u)
    y.sum().backward()
    expected.sum().backward()
    assert y.data.dtype == x.grad.dtype == kind
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=16 * np.finfo(kind).eps, atol=np.finfo(kind).eps)
    np.testing.assert_allclose(x.grad, u.grad.numpy(), rtol=64 * np.finfo(kind).eps, atol=4 * np.finfo(kind).eps)


@quick
@given(x=st.sampled_from([1e4, -1e4, 1e300, -1e300, 0.0]))
def test_functions_with_an_end_reach_it_without_a_warning(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("sigmoid", "tanh", "relu"):
            value = Array([x], requires_grad=True)
            y = getattr(autograd, name)(value)
            y.backward()
            assert np.isfinite(y.data).all()
            assert np.isfinite(value.grad).all()


@quick
@given(
    rows=st.integers(1, 6), classes=st.integers(1, 5), size=st.sampled_from([1.0, 1e4, 1e30]), kind=kinds, seed=seeds
)
def test_the_engines_cross_entropy_equals_torchs(rows, classes, size, kind, seed):
    rng = np.random.default_rng(seed)
    logits = np.asfortranarray(rng.normal(size=(rows, classes)) * size).astype(kind)
    labels = rng.integers(0, classes, rows)
    ours, theirs = Array(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
    loss, expected = autograd.cross_entropy(ours, labels), F.cross_entropy(theirs, torch.tensor(labels))
    loss.backward()
    expected.backward()
    eps = np.finfo(kind).eps
    assert loss.data.dtype == ours.grad.dtype == kind
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=64 * eps, atol=8 * eps)
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=64 * eps, atol=8 * eps)


@pytest.mark.parametrize(("logits", "labels"), [((0, 3), 0), ((2, 3), 0), ((2,), 2), ((2, 3, 1), 2)])
def test_the_engines_cross_entropy_refuses_what_does_not_fit(logits, labels):
    with pytest.raises(ValueError, match=r"need logits \(B, classes\) and labels \(B,\)"):
        autograd.cross_entropy(Array(np.ones(logits)), np.zeros(labels, dtype=int))


def test_the_slope_of_a_constant_power_is_zero():
    x = Array([0.0, 2.0], requires_grad=True)
    y = x**0
    y.sum().backward()
    np.testing.assert_array_equal(y.data, [1.0, 1.0])
    np.testing.assert_array_equal(x.grad, [0.0, 0.0])


def test_the_mean_of_nothing_is_refused_in_plain_words():
    for shape, axis in (((0,), None), ((0, 3), 0), ((0, 3), 1)):
        with pytest.raises(ValueError, match="has no mean"):
            Array(np.zeros(shape)).mean(axis)


# ---- models


@quick
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    batch=st.integers(0, 4),
    name=st.sampled_from(sorted(KERNELS)),
    dtype=st.sampled_from(DTYPES),
    seed=seeds,
)
def test_a_perceptron_is_the_chain_of_its_layers(sizes, batch, name, dtype, seed):
    model = MLP(sizes, activation=name, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = torch.randn(sizes[0], batch, generator=torch.Generator().manual_seed(seed)).T.to(dtype)  # not contiguous
    y = model(x)
    assert y.shape == (batch, sizes[-1])
    assert y.dtype == dtype
    h = x
    for linear in model.layers[:-1]:
        h = KERNELS[name](F.linear(h, linear.weight, linear.bias))
    assert torch.equal(y, F.linear(h, model.layers[-1].weight, model.layers[-1].bias))


points = st.lists(st.integers(0, 2**20), max_size=8).map(
    lambda places: torch.tensor(places, dtype=torch.float64) / 2**20
)


@quick
@given(x=points, depth=st.integers(1, 9), dtype=st.sampled_from(DTYPES))
def test_the_sawtooth_network_is_its_formula(x, depth, dtype):
    x = x.to(dtype)
    y = Sawtooth(depth)(x.unsqueeze(1))
    assert y.shape == (len(x), 1)
    assert y.dtype == dtype
    folded = [Fraction(place) for place in x.tolist()]  # exactly, and by folding: another way than both
    for _ in range(depth):
        folded = [2 * min(place, 1 - place) for place in folded]
    expected = torch.tensor([float(place) for place in folded], dtype=torch.float64)
    assert torch.equal(y.squeeze(1), expected.to(dtype))
    assert torch.equal(sawtooth(x.double(), depth), expected)


@quick
@given(widths=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=seeds)
def test_no_network_has_more_pieces_than_it_can_have(widths, seed):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in zip([1, *widths], [*widths, 1], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    pieces = count_pieces(nn.Sequential(*layers[:-1]), -3, 3)
    assert 1 <= pieces <= max_pieces(widths)


@quick
@given(
    a=st.floats(-3, 3),
    b=st.floats(-3, 3),
    low=st.floats(-5, 5),
    width=st.floats(0.1, 5),
    bumps=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    batch=st.integers(0, 7),
)
def test_hats_follow_a_straight_line_exactly(a, b, low, width, bumps, dtype, batch):
    network = BumpNetwork.approximate(lambda x: a * x + b, low, low + width, bumps)
    x = torch.linspace(low, low + width, batch, dtype=torch.float64).to(dtype).clamp(low, low + width).unsqueeze(1)
    y = network(x)
    assert y.shape == (batch, 1)
    assert y.dtype == dtype
    # rounding x in bfloat16 may leave the interval, and left of it the network is flat: x is compared where it is
    inside = (x.double() >= low) & (x.double() <= low + width)
    expected = (a * x.double() + b).to(dtype)
    torch.testing.assert_close(y[inside], expected[inside], rtol=4 * torch.finfo(dtype).eps, atol=1e-12)


@quick
@given(shape=shapes.filter(lambda shape: len(shape) < 2 or math.prod(shape[1:]) != 6))
def test_a_perceptron_refuses_examples_of_another_size(shape):
    with pytest.raises(ValueError, match=r"x must be \(batch, \.\.\.\) with 6 elements each, got \("):
        MLP((6, 2))(torch.zeros(shape))


@pytest.mark.parametrize("make", [lambda: Sawtooth(2), lambda: BumpNetwork(3)])
@quick
@given(shape=shapes.filter(lambda shape: len(shape) != 2 or shape[1] != 1))
def test_inputs_that_are_no_column_are_refused(make, shape):
    with pytest.raises(ValueError, match="x must be"):
        make()(torch.zeros(shape))


# ---- measuring


@quick
@given(
    rows=st.integers(1, 6),
    classes=st.integers(1, 5),
    rest=st.lists(st.integers(1, 3), max_size=2),
    size=st.sampled_from([1.0, 1e30]),
    dtype=st.sampled_from(DTYPES),
    seed=seeds,
)
def test_accuracy_counts(rows, classes, rest, size, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs = (torch.randn(rows, *rest, classes, generator=generator) * size).to(dtype).movedim(-1, 1)
    y = torch.randint(classes, (rows, *rest), generator=generator)
    scores, labels = outputs.movedim(1, -1).reshape(-1, classes).tolist(), y.flatten().tolist()
    right = [row.index(max(row)) == label for row, label in zip(scores, labels, strict=True)]
    measured = accuracy(outputs, y)
    assert measured.shape == ()
    assert measured.item() == pytest.approx(sum(right) / len(right), abs=1e-6)


@quick
@given(shapes, shapes)
def test_accuracy_refuses_shapes_that_do_not_go_together(outputs, y):
    if len(outputs) != len(y) + 1:
        with pytest.raises(ValueError, match="do not go with labels"):
            accuracy(torch.zeros(outputs), torch.zeros(y))


def test_accuracy_refuses_one_label_for_several_rows():
    with pytest.raises(ValueError, match="do not go with labels"):
        accuracy(torch.zeros(4, 3), torch.zeros(1))


def test_accuracy_refuses_another_number_of_labels():
    with pytest.raises(ValueError, match="do not go with labels"):
        accuracy(torch.zeros(4, 3), torch.zeros(2))


@pytest.mark.parametrize("outputs", [(0, 3), (4, 0), (0, 0), (2, 3, 0)])
def test_accuracy_of_nothing_is_refused(outputs):
    with pytest.raises(ValueError, match="no example or no class"):
        accuracy(torch.zeros(outputs), torch.zeros(outputs[:1] + outputs[2:]))


def train_and_evaluate(data) -> list:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = fit(model, data, F.cross_entropy, optimizer, epochs=2, accumulate=2)
    measured = evaluate(model, data, F.cross_entropy, {"accuracy": accuracy})
    return [history, measured, model.weight.tolist()]


def test_an_empty_batch_weighs_nothing():
    x, y = torch.eye(3), torch.tensor([0, 1, 1])
    empty, filled = (x[:0], y[:0]), [(x, y), (x[:2], y[:2]), (x[1:], y[1:])]
    assert train_and_evaluate([empty, filled[0], empty, empty, *filled[1:], empty]) == train_and_evaluate(filled)


@pytest.mark.parametrize("use", [evaluate, lambda *args: fit(*args, torch.optim.SGD([torch.zeros(1)]), epochs=1)])
def test_nothing_but_empty_batches_is_no_data(use):
    with pytest.raises(ValueError, match="data is empty"):
        use(nn.Identity(), [(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))], F.cross_entropy)


@quick
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5), dtype=st.sampled_from(DTYPES[:2]), seed=seeds)
def test_every_example_weighs_the_same_however_it_is_batched(sizes, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 3, generator=generator, dtype=dtype)
    y = torch.randint(3, (sum(sizes),), generator=generator)
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    measured = evaluate(nn.Identity(), batches, F.cross_entropy, {"accuracy": accuracy})
    assert measured["loss"] == pytest.approx(F.cross_entropy(x.double(), y).item(), rel=1e-6)
    assert measured["accuracy"] == pytest.approx(accuracy(x, y).item(), rel=1e-6)


@quick
@given(
    count=st.integers(1, 12),
    batch_size=st.integers(1, 15),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    shape=st.lists(st.integers(0, 3), max_size=2),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["plain", "transposed", "strided"]),
)
def test_batches_are_the_examples_each_once(count, batch_size, shuffle, drop_last, shape, dtype, layout):
    x = layouts(torch.arange(count * math.prod(shape)).reshape(count, *shape).to(dtype), layout)
    y = torch.arange(count)
    arguments = {"shuffle": shuffle, "drop_last": drop_last, "generator": torch.Generator().manual_seed(0)}
    if drop_last and count < batch_size:
        with pytest.raises(ValueError, match="drop_last leaves no batch"):
            Batches(x, y, batch_size, **arguments)
        return
    batches = Batches(x, y, batch_size, **arguments)
    pairs = list(batches)
    kept = count - count % batch_size if drop_last else count
    assert len(pairs) == len(batches) == math.ceil(kept / batch_size)
    assert all(len(a) == len(b) == batch_size for a, b in pairs[:-1])
    seen = torch.cat([b for _, b in pairs])
    assert len(seen) == kept
    assert len(set(seen.tolist())) == kept
    assert shuffle or torch.equal(seen, y[:kept])
    together = torch.cat([a for a, _ in pairs])
    assert together.dtype == dtype
    assert torch.equal(together, x[seen])
