"""Scans, on shapes, lengths, dtypes and numbers that nobody chose by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbook.layers.scan import CHUNK, associative_scan, chunked, linear, scan, scan_sequential

quick = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
# around one chunk, a few chunks, and chunks of chunks
lengths = st.one_of(st.integers(0, 3 * CHUNK), st.integers(CHUNK**2 - 2, CHUNK**2 + 2 * CHUNK))
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.complex128: 1e-12}
B, D, H = 3, 2, 5


def numbers(shape, seed, dtype=torch.float64):
    """Whole numbers and zeros of either sign among ordinary ones."""
    generator = torch.Generator().manual_seed(seed)
    kind = dtype if dtype.is_complex else torch.float64
    x = torch.randn(shape, generator=generator, dtype=kind)
    return torch.where(torch.rand(shape, generator=generator) < 0.2, x.real.round().to(kind), x).to(dtype)


def decay(shape, seed, dtype=torch.float64):
    """Factors up to 1 in size, so that long products stay finite; zeros among them."""
    a = numbers(shape, seed, torch.complex128 if dtype.is_complex else torch.float64)
    return (a / a.abs().clamp(min=1)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@quick
@given(length=lengths, seed=seeds, started=st.booleans(), dim=st.sampled_from([0, 1, 2, -1]))
def test_the_scan_is_the_recurrence_for_any_length_dtype_and_axis(dtype, length, seed, started, dim):
    shape = [B, D]
    shape.insert(dim % 3, length)
    a, b = decay(shape, seed, dtype), numbers(shape, seed + 1, dtype)
    h0 = numbers((B, D), seed + 2, dtype) if started else None
    before = a.clone(), b.clone()
    h = scan(a, b, h0, dim=dim)
    assert h.dtype == dtype
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = scan_sequential(a.to(wide), b.to(wide), None if h0 is None else h0.to(wide), dim=dim)
    torch.testing.assert_close(h.to(wide), exact, rtol=DTYPES[dtype], atol=DTYPES[dtype])


@quick
@given(length=st.integers(1, 3 * CHUNK + 2), seed=seeds, started=st.booleans())
def test_gradients_are_those_of_the_loop(length, seed, started):
    inputs = [decay((B, length, D), seed), numbers((B, length, D), seed + 1)]
    inputs += [numbers((B, D), seed + 2)] if started else []
    weights = numbers((B, length, D), seed + 3)
    for x in inputs:
        x.requires_grad_()
    ours = torch.autograd.grad(scan(*inputs), inputs, weights)
    loop = torch.autograd.grad(scan_sequential(*inputs), inputs, weights, allow_unused=True)
    for mine, theirs, x in zip(ours, loop, inputs, strict=True):
        theirs = torch.zeros_like(x) if theirs is None else theirs  # one step from 0 has no use for its factor
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("length", [1, 5, CHUNK + 3])
def test_gradients_and_their_gradients_are_the_differences(dtype, length):
    inputs = [decay((2, length, D), 0, dtype), numbers((2, length, 1), 1, dtype), numbers((2, D), 2, dtype)]
    for x in inputs:
        x.requires_grad_()
    assert torch.autograd.gradcheck(scan, inputs)
    assert torch.autograd.gradgradcheck(scan, inputs)


def test_transforms_of_functions_see_the_loop():
    a, b, h0 = decay((3, 19, D), 0), numbers((3, 19, D), 1), numbers((3, D), 2)

    def results(function):
        return (
            torch.func.grad(lambda a: function(a, b, h0).square().sum())(a),
            torch.func.jacrev(lambda a: function(a, b[:1, :5], h0[:1]))(a[:1, :5]),
            torch.func.vmap(lambda a, b, h0: function(a, b, h0, dim=0), in_dims=(0, None, None))(a, b[0], h0[0]),
            torch.func.vmap(lambda b: function(a[0], b, dim=0), in_dims=1)(b.movedim(0, 1)),
        )

    for mine, wanted in zip(results(scan), results(scan_sequential), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)


@quick
@given(length=st.integers(1, 40), seed=seeds, order=st.permutations(range(3)), step=st.sampled_from([1, 2]))
def test_how_the_numbers_lie_in_memory_changes_nothing(length, seed, order, step):
    def scattered(x):
        wide = torch.zeros([step * size for size in x.shape], dtype=x.dtype).permute(order).contiguous()
        part = wide.permute([order.index(i) for i in range(3)])[::step, ::step, ::step]
        return part.copy_(x).requires_grad_()

    plain = [decay((B, length, D), seed).requires_grad_(), numbers((B, length, D), seed + 1).requires_grad_()]
    other = [scattered(x.detach()) for x in plain]
    expected, h = scan(*plain), scan(*other)
    torch.testing.assert_close(h, expected, rtol=0, atol=0)
    weights = numbers((B, length, D), seed + 2)
    for mine, wanted in zip(
        torch.autograd.grad(h, other, weights), torch.autograd.grad(expected, plain, weights), strict=True
    ):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0)


def test_nothing_has_gradients_too():
    a, b = (torch.zeros(B, 0, D, requires_grad=True) for _ in range(2))
    for x in torch.autograd.grad(scan(a, b).sum(), (a, b)):
        assert x.shape == (B, 0, D)


def test_nan_stays_in_its_row_also_in_the_gradients():
    a, b = decay((B, 2 * CHUNK + 3, D), 0), numbers((B, 2 * CHUNK + 3, D), 1)
    a[1, 7] = b[1, 20] = torch.nan
    for x in (a, b):
        x.requires_grad_()
    h = scan(a, b)
    assert h.isnan().any(-1).any(-1).tolist() == [False, True, False]
    for grad in torch.autograd.grad(h.sum(), (a, b)):
        assert grad.isnan().any(-1).any(-1).tolist() == [False, True, False]


@quick
@given(length=lengths, seed=seeds)
def test_integers_give_exact_results(length, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-1, 2, (length, D), generator=generator)
    b = torch.randint(-9, 10, (length, D), generator=generator)
    assert torch.equal(scan(a, b, dim=0), scan_sequential(a, b, dim=0))


@quick
@given(length=st.integers(2, 80), cut=st.integers(1, 79), seed=seeds)
def test_half_and_half_is_the_whole(length, cut, seed):
    cut = min(cut, length - 1)
    a, b = decay((B, length, D), seed), numbers((B, length, D), seed + 1)
    whole = scan(a, b)
    first = scan(a[:, :cut], b[:, :cut])
    second = scan(a[:, cut:], b[:, cut:], first[:, -1])
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@quick
@given(length=lengths, seed=seeds, started=st.booleans())
def test_backwards_is_forwards_on_the_reversed_sequence(length, seed, started):
    a, b = decay((length, B, D), seed), numbers((length, B, D), seed + 1)
    h0 = numbers((B, D), seed + 2) if started else None
    expected = chunked(a.flip(0), b.flip(0), h0).flip(0)
    torch.testing.assert_close(chunked(a, b, h0, backwards=True), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(chunked(a, b, h0, backwards=True, out=b), expected, rtol=1e-12, atol=1e-12)  # into b


def test_nothing_reaches_back_in_time_not_even_nan():
    a, b = decay((1, 100, D), 0), numbers((1, 100, D), 1)
    expected = scan(a, b)
    b[0, 37] = torch.nan
    a[0, 80] = torch.inf
    torch.testing.assert_close(scan(a, b)[:, :37], expected[:, :37])
    assert scan(a, b)[:, 37:].isnan().all()


def test_long_memory_is_exact_and_strong_decay_does_not_overflow():
    ones = torch.ones(1, 5000, dtype=torch.float64)
    assert torch.equal(scan(ones, ones)[0], torch.arange(1, 5001, dtype=torch.float64))
    tiny = torch.full((1, 5000), 1e-30, requires_grad=True)  # products underflow; a scan by division would give NaN
    h = scan(tiny, torch.ones(1, 5000))
    h.sum().backward()
    assert torch.equal(h, torch.ones(1, 5000))
    assert tiny.grad.isfinite().all()


class Whole(torch.nn.Module):
    def forward(self, a, b, h0):
        return scan(a, b, h0)


def test_can_be_exported_and_compiled():
    a, b, h0 = decay((B, 37, D), 0), numbers((B, 37, D), 1), numbers((B, D), 2)
    exported = torch.export.export(Whole(), (a, b, h0)).module()
    compiled = torch.compile(Whole(), backend="aot_eager", fullgraph=True)
    for runs in (exported, compiled):
        torch.testing.assert_close(runs(a, b, h0), scan(a, b, h0))


# name: (an operation that is associative and does not commute, the same on one pair of numbers or matrices)
OPERATIONS = {
    "maps": linear,
    "matrices": lambda x, y: (y[0] @ x[0],),
    "the first": lambda x, y: x,
    "the last": lambda x, y: y,
    "maximum and where": lambda x, y: (
        torch.maximum(x[0], y[0]),
        torch.where(y[0] > x[0], y[1], x[1]),
    ),
}


def elements(name, length, seed):
    if name == "matrices":
        return (decay((length, B, D, D), seed) / D,)
    return decay((length, B, D), seed), numbers((length, B, D), seed + 1)


@pytest.mark.parametrize("name", OPERATIONS)
@quick
@given(length=st.integers(3, 40), seed=seeds)
def test_the_operations_are_associative(name, length, seed):
    operation = OPERATIONS[name]
    x, y, z = (tuple(part[i] for part in elements(name, length, seed)) for i in range(3))
    left, right = operation(operation(x, y), z), operation(x, operation(y, z))
    for one, two in zip(left, right, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
@quick
@given(length=st.integers(1, 70), seed=seeds, dim=st.sampled_from([0, 1]))
def test_an_associative_scan_is_the_fold_from_the_left(name, length, seed, dim):
    x = elements(name, length, seed)
    results = associative_scan(OPERATIONS[name], tuple(part.movedim(0, dim) for part in x), dim=dim)
    so_far = tuple(part[0] for part in x)
    for t in range(length):
        if t:
            so_far = OPERATIONS[name](so_far, tuple(part[t] for part in x))
        for one, two in zip(results, so_far, strict=True):
            torch.testing.assert_close(one.select(dim, t), two, rtol=1e-11, atol=1e-12)


def test_an_associative_scan_calls_its_operation_a_logarithm_of_times():
    calls = 0

    def add(x, y):
        nonlocal calls
        calls += 1
        return (x[0] + y[0],)

    assert associative_scan(add, (torch.ones(1, 1024, dtype=torch.int64),))[0][0, -1] == 1024
    assert calls == 2 * 10 - 1


def test_gradients_of_an_associative_scan_are_those_of_the_loop():
    inputs = [decay((B, 21, D), 0).requires_grad_(), numbers((B, 21, D), 1).requires_grad_()]
    weights = numbers((B, 21, D), 2)
    ours = torch.autograd.grad(associative_scan(linear, tuple(inputs))[1], inputs, weights)
    for mine, theirs in zip(ours, torch.autograd.grad(scan_sequential(*inputs), inputs, weights), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_an_associative_scan_of_nothing_is_nothing():
    assert associative_scan(linear, (torch.zeros(B, 0), torch.zeros(B, 0)))[1].shape == (B, 0)


X = torch.zeros(B, 7, D)


@pytest.mark.parametrize("function", [scan, scan_sequential])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, X[:, :5]), r"as many axes and steps, got \(3, 7, 2\), \(3, 5, 2\), dim=1"),
        ((X[..., 0], X), r"as many axes and steps, got \(3, 7\), \(3, 7, 2\)"),
        ((X.double(), X), r"dtypes differ: torch\.float64, torch\.float32"),
        ((X, X, X[:, 0].double()), r"dtypes differ.*h0 torch\.float64"),
        ((X > 0, X > 0), r"must be numbers, got torch\.bool"),
        ((X, X, torch.zeros(B, H)), r"h0 \(3, 5\)"),
        ((X, torch.zeros(4, 7, D)), r"do not fit: a \(3, 7, 2\), b \(4, 7, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_an_axis_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no axis 3 in shape \(3, 7, 2\)"):
        scan(X, X, dim=3)


def test_elements_of_different_lengths_are_named():
    with pytest.raises(ValueError, match=r"one length, got lengths \[7, 5\]"):
        associative_scan(linear, (X, X[:, :5]))
    with pytest.raises(ValueError, match=r"lengths \[\]"):
        associative_scan(linear, ())
