"""The selective scan: readable, in blocks, and step by step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbook.layers import selective_scan as module
from dlbook.layers.selective_scan import readable, selective_scan

SIZES = B, L, D, N = 3, 21, 4, 5
NAMES = ("x", "dt", "A", "B", "C", "h0")


def inputs(sizes=SIZES, dtype=torch.float64, seed=0):
    batch, length, channels, n = sizes
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "x": (batch, length, channels), "dt": (batch, length, channels), "A": (channels, n),
        "B": (batch, length, n), "C": (batch, length, n), "h0": (batch, n, channels),
    }  # fmt: skip
    made = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    made["dt"], made["A"] = made["dt"].exp(), -made["A"].exp()
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in made.items()}


def by_hand(x, dt, A, B, C, h0):
    """One number after the other, with the state as the paper writes it, (D, N)."""
    y, h = torch.zeros_like(x), h0.mT.clone()
    for b in range(len(x)):
        for t in range(x.shape[1]):
            for d in range(x.shape[2]):
                h[b, d] = torch.exp(dt[b, t, d] * A[d]) * h[b, d] + dt[b, t, d] * B[b, t] * x[b, t, d]
                y[b, t, d] = C[b, t] @ h[b, d]
    return y, h.mT


@pytest.mark.parametrize("function", [readable, selective_scan])
def test_is_the_equations(function):
    given_ = inputs()
    with torch.no_grad():
        for mine, wanted in zip(function(**given_), by_hand(**given_), strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 4), st.integers(1, 4)),
    block=st.sampled_from([1, 100, 2**17]),
    seed=st.integers(0, 2**32 - 1),
    last=st.booleans(),
)
def test_blocks_give_the_numbers_and_gradients_of_the_readable_path(sizes, block, seed, last):
    one, two = inputs(sizes, seed=seed), inputs(sizes, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        results = selective_scan(**one), readable(**two)
        for mine, wanted in zip(*results, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)
        weights = [torch.randn_like(part) for part in results[0]]
        for y, h in results:
            ((y * weights[0]).sum() + last * (h * weights[1]).sum()).backward()
    for name in NAMES:
        torch.testing.assert_close(one[name].grad, two[name].grad, rtol=1e-9, atol=1e-10, msg=name)


def test_gradients_are_the_differences():
    assert torch.autograd.gradcheck(selective_scan, tuple(inputs((2, 7, 3, 2)).values()))


@pytest.mark.parametrize("function", [readable, selective_scan])
def test_half_and_half_is_the_whole(function):
    given_ = inputs()
    y, h = function(**given_)
    state, parts = given_["h0"], []
    for part in (slice(0, 8), slice(8, 8), slice(8, L)):  # one of them empty
        some = {name: given_[name][:, part] for name in ("x", "dt", "B", "C")}
        y_part, state = function(**some, A=given_["A"], h0=state)
        parts.append(y_part)
    torch.testing.assert_close(torch.cat(parts, 1), y)
    torch.testing.assert_close(state, h)


@pytest.mark.parametrize("function", [readable, selective_scan])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_numbers_are_computed_in_float32(function, dtype):
    short = inputs(dtype=dtype)
    y, h = function(**short)
    assert (y.dtype, h.dtype) == (dtype, torch.float32)
    exact, state = function(**{name: tensor.float() for name, tensor in short.items()})
    assert torch.equal(y, exact.to(dtype))
    assert torch.equal(h, state)
    y.sum().backward()
    assert all(tensor.grad.dtype == dtype for tensor in short.values())


def test_autocast_rounds_neither_it_nor_its_gradients():
    given_ = inputs(dtype=torch.float32)

    def results(function):
        y, _ = function(**given_)
        return y, *torch.autograd.grad(y.square().sum(), list(given_.values()))

    wanted = results(selective_scan)
    with torch.autocast("cpu", torch.bfloat16):
        for function in (selective_scan, readable):
            for mine, exact in zip(results(function), wanted, strict=True):
                torch.testing.assert_close(mine, exact, rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients_are_right_or_refused():
    given_ = list(inputs((2, 5, 3, 2)).values())
    assert torch.autograd.gradgradcheck(readable, given_)
    grads = torch.autograd.grad(selective_scan(*given_)[0].square().sum(), given_, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grads[0].sum().backward()


@pytest.mark.parametrize("function", [readable, selective_scan])
def test_nan_stays_in_its_row(function):
    given_ = inputs()
    with torch.no_grad():
        given_["x"][1, 3] = torch.nan
    y, h = function(**given_)
    assert y.isnan().flatten(1).any(1).tolist() == [False, True, False]
    assert not y[1, :3].isnan().any()
    assert h.isnan().flatten(1).any(1).tolist() == [False, True, False]
    y.sum().backward()
    for name in ("x", "dt", "B", "C", "h0"):
        assert not given_[name].grad[::2].isnan().any(), name


@pytest.mark.parametrize("function", [readable, selective_scan])
@pytest.mark.parametrize("sizes", [(B, 1, D, N), (0, L, D, N)])
def test_one_step_and_no_row(function, sizes):
    given_ = inputs(sizes)
    y, h = function(**given_)
    with torch.no_grad():
        expected = by_hand(**given_)
    torch.testing.assert_close((y.detach(), h.detach()), expected)
    (y.sum() + h.sum()).backward()
    assert all(tensor.grad.isfinite().all() for tensor in given_.values())


@pytest.mark.parametrize("function", [readable, selective_scan])
def test_how_the_numbers_lie_in_memory_changes_nothing(function):
    plain = inputs()
    other = {name: x.detach().mT.contiguous().mT.requires_grad_() for name, x in plain.items()}
    assert not other["x"].is_contiguous()
    for given_ in (plain, other):
        y, h = function(**given_)
        (y.square().sum() + h.sum()).backward()
    for name in NAMES:
        torch.testing.assert_close(other[name].grad, plain[name].grad, msg=name)


@pytest.mark.parametrize("function", [readable, selective_scan])
@pytest.mark.parametrize(("name", "dtype"), [("x", torch.int64), ("A", torch.complex128), ("h0", torch.int64)])
def test_numbers_of_another_kind_are_named(function, name, dtype):
    given_ = {key: x.detach() for key, x in inputs().items()}
    given_[name] = given_[name].to(dtype)
    with pytest.raises(ValueError, match=rf"must be floating-point numbers, got .*{dtype}"):
        function(**given_)


def test_only_one_state_a_block_is_kept():
    given_ = inputs((2, 512, 64, 16), torch.float32)
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        selective_scan(**given_)
    assert kept < 0.2 * 2 * 512 * 64 * 16


@pytest.mark.parametrize("function", [readable, selective_scan])
@pytest.mark.parametrize("name", NAMES[1:])
def test_shapes_that_do_not_fit_are_named(function, name):
    given_ = inputs()
    given_[name] = given_[name].repeat_interleave(2, 0)
    with pytest.raises(ValueError, match=rf"^{name} must be \({len(given_[name]) // 2}, "):
        function(**given_)


def test_an_input_of_another_rank_is_named():
    given_ = inputs()
    with pytest.raises(ValueError, match=r"x must be \(batch, length, channels\).*\(3, 4\)"):
        selective_scan(**{**given_, "x": given_["x"][:, 0]})
