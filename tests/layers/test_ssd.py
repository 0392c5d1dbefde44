"""Mamba-2's duality: the recurrence, the quadratic form and the chunked one are one map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbook.layers.selective_scan import readable
from dlbook.layers.ssd import ssd, ssd_quadratic, ssd_scan

B, L, H, P, N = 2, 21, 3, 4, 5
NAMES = ("x", "dt", "A", "B", "C", "h0")


def inputs(length=L, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, length, H, P), (B, length, H), (H,), (B, length, N), (B, length, N), (B, H, N, P))
    made = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in zip(NAMES, shapes, strict=True)
    }
    made["dt"], made["A"] = made["dt"].exp(), -made["A"].exp()
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in made.items()}


def without_state(given_):
    return {name: tensor for name, tensor in given_.items() if name != "h0"}


def test_the_recurrence_is_mamba_with_one_rate_for_each_head():
    given_ = inputs()
    wide = {
        "x": given_["x"].flatten(2),
        "dt": given_["dt"].repeat_interleave(P, 2),
        "A": given_["A"].repeat_interleave(P).unsqueeze(1).expand(-1, N),
        "B": given_["B"],
        "C": given_["C"],
        "h0": given_["h0"].transpose(1, 2).flatten(2),
    }
    y, h = ssd_scan(**given_)
    y_wide, h_wide = readable(**wide)
    torch.testing.assert_close(y.flatten(2), y_wide)
    torch.testing.assert_close(h.transpose(1, 2).flatten(2), h_wide)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(length=st.integers(1, 40), chunk=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_all_forms_are_equal_with_gradients(length, chunk, seed):
    given_ = inputs(length, seed)
    weights = torch.randn(B, length, H, P, dtype=torch.float64), torch.randn(B, H, N, P, dtype=torch.float64)

    def gradients(results, names):
        total = sum((part * weight).sum() for part, weight in zip(results, weights, strict=False))
        return torch.autograd.grad(total, [given_[name] for name in names])

    one, two = ssd(**given_, chunk=chunk), ssd_scan(**given_)
    for mine, wanted in zip((*one, *gradients(one, NAMES)), (*two, *gradients(two, NAMES)), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-10)
    started = without_state(given_)
    one, two = (ssd_quadratic(**started),), ssd_scan(**started)[:1]
    for mine, wanted in zip((*one, *gradients(one, started)), (*two, *gradients(two, started)), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("function", [ssd, ssd_scan])
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


def test_fast_decay_does_not_overflow():
    given_ = inputs(dtype=torch.float32)
    given_["A"] = torch.full((H,), -1e4).requires_grad_()
    results = [
        ssd_scan(**without_state(given_))[0],
        ssd(**without_state(given_))[0],
        ssd_quadratic(**without_state(given_)),
    ]
    for y in results:
        torch.testing.assert_close(y, results[0])
        y.sum().backward()
    assert all(given_[name].grad.isfinite().all() for name in NAMES[:-1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_numbers_are_computed_in_float32(dtype):
    given_ = inputs(dtype=dtype)
    for function in (ssd, ssd_scan):
        y, h = function(**given_)
        assert h.dtype == torch.float32
        assert torch.equal(y, function(**{name: tensor.float() for name, tensor in given_.items()})[0].to(dtype))


def test_autocast_rounds_none_of_them():
    given_ = without_state(inputs(dtype=torch.float32))
    exact = ssd_scan(**given_)[0]
    with torch.autocast("cpu", torch.bfloat16):
        for y in (ssd(**given_, chunk=4)[0], ssd_quadratic(**given_), ssd_scan(**given_)[0]):
            torch.testing.assert_close(y, exact, rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients_are_the_differences():
    given_ = inputs(5)
    few = [given_[name][:1] if name in ("x", "dt", "B", "C", "h0") else given_[name] for name in NAMES]
    assert torch.autograd.gradgradcheck(lambda *x: ssd(*x, chunk=2)[0], few)


@pytest.mark.parametrize("function", [ssd, ssd_scan])
def test_nan_stays_in_its_row(function):
    given_ = inputs()
    with torch.no_grad():
        given_["x"][1, 3] = torch.nan
    y, h = function(**given_)
    assert y.isnan().flatten(1).any(1).tolist() == [False, True]
    assert h.isnan().flatten(1).any(1).tolist() == [False, True]


@pytest.mark.parametrize("function", [ssd, ssd_scan])
def test_whole_numbers_are_named(function):
    given_ = {name: x.detach() for name, x in inputs().items()}
    with pytest.raises(ValueError, match=r"must be floating-point numbers, got torch\.int64"):
        function(**{**given_, "x": given_["x"].long()})
    with pytest.raises(ValueError, match=r"x must be \(batch, length, heads, P\)"):
        function(**{**given_, "x": torch.zeros(4)})


@pytest.mark.parametrize("function", [ssd, ssd_scan])
@pytest.mark.parametrize("name", ["dt", "A", "C", "h0"])
def test_shapes_that_do_not_fit_are_named(function, name):
    given_ = inputs()
    given_[name] = given_[name].repeat_interleave(2, 0)
    with pytest.raises(ValueError, match=rf"^{name} must be \("):
        function(**given_)


def test_what_is_no_sequence_of_heads_and_no_chunk_is_named():
    given_ = inputs()
    with pytest.raises(ValueError, match=r"x must be \(batch, length, heads, P\).*got \(2, 3, 4\)"):
        ssd(**{**given_, "x": given_["x"][:, 0]})
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        ssd(**given_, chunk=0)
