"""FlashAttention by blocks equals attention in one go, in values and gradients, and its memory grows with the length."""

from functools import partial

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dlbook.cost import exponent, peak_bytes
from dlbook.layers.attention import attention
from dlbook.layers.flash import flash_attention


def inputs(batch, T, S, K, V, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (*batch, T, K), (*batch, S, K), (*batch, S, V)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def standard(q, k, v, causal):
    mask = torch.ones(q.shape[-2], k.shape[-2]).tril().bool() if causal else None
    return attention(q, k, v, mask)


def with_gradients(function, parts, weights):
    out = function(*parts)
    return out, *torch.autograd.grad(out, parts, weights)


@settings(
    max_examples=60, deadline=None, phases=[Phase.generate]
)  # what fails first says enough, making it smaller takes minutes
@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    T=st.integers(1, 11),
    S=st.integers(1, 11),
    K=st.integers(1, 4),
    V=st.integers(1, 4),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    causal=st.booleans(),
)
def test_equals_attention_in_one_go_with_gradients(batch, T, S, K, V, rows, columns, causal):
    parts = inputs(batch, T, S, K, V)
    weights = torch.randn(*batch, T, V, dtype=torch.float64)
    mine = with_gradients(lambda *x: flash_attention(*x, causal=causal, rows=rows, columns=columns), parts, weights)
    wanted = with_gradients(lambda *x: standard(*x, causal), parts, weights)
    for a, b in zip(mine, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_equals_torchs_kernel_at_a_real_size(causal):
    parts = inputs((2, 3), 300, 300, 16, 16, torch.float32)
    weights = torch.randn(2, 3, 300, 16)
    mine = with_gradients(lambda *x: flash_attention(*x, causal=causal), parts, weights)
    fused = with_gradients(lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal), parts, weights)
    for a, b in zip(mine, fused, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_equal_finite_differences():
    parts = inputs((2,), 5, 7, 3, 2)
    assert torch.autograd.gradcheck(lambda *x: flash_attention(*x, causal=True, rows=2, columns=3), parts)


def test_scores_of_any_size_neither_overflow_nor_vanish():
    q, k, v = (x.detach() for x in inputs((), 7, 9, 4, 3))
    q = q * torch.logspace(0, 5, 7, dtype=torch.float64).unsqueeze(1)  # to a hundred thousand, where exp is infinite
    for causal in (False, True):
        parts = [x.clone().requires_grad_() for x in (q, k, v)]
        weights = torch.ones(7, 3, dtype=torch.float64)
        mine = with_gradients(lambda *x, c=causal: flash_attention(*x, causal=c, rows=2, columns=2), parts, weights)
        wanted = with_gradients(lambda *x, c=causal: standard(*x, c), parts, weights)
        for a, b in zip(mine, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    parts = inputs((2,), 50, 50, 8, 8, dtype)
    exact = [x.detach().double().requires_grad_() for x in parts]
    weights = torch.randn(2, 50, 8).to(dtype)
    mine = with_gradients(lambda *x: flash_attention(*x, causal=True, rows=16, columns=16), parts, weights)
    wanted = with_gradients(lambda *x: standard(*x, True), exact, weights.double())
    torch.testing.assert_close(mine[0].double(), wanted[0], rtol=torch.finfo(dtype).eps, atol=1e-6)
    for a, b in zip(mine, wanted, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=0.02, atol=0.02)


def test_autocast_does_not_round_within():
    parts = inputs((2,), 9, 9, 4, 4, torch.float32)
    weights = torch.randn(2, 9, 4)
    outside = with_gradients(lambda *x: flash_attention(*x, rows=4, columns=4), parts, weights)
    with torch.autocast("cpu", torch.bfloat16):
        inside = with_gradients(lambda *x: flash_attention(*x, rows=4, columns=4), parts, weights)
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)


def test_works_with_torch_func():
    q, k, v = (x.detach() for x in inputs((3,), 5, 7, 4, 2))

    def loss(q, k, v):
        return flash_attention(q, k, v, causal=True, rows=2, columns=3).square().sum()

    wanted = torch.func.grad(lambda q: standard(q, k, v, True).square().sum())(q)
    torch.testing.assert_close(torch.func.grad(loss)(q, k, v), wanted)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(q, k, v), wanted)


def test_memory_grows_with_the_length_and_not_with_its_square():
    lengths = (512, 1024, 2048)

    def peaks(function):
        def step(parts):
            out = function(*parts)
            return torch.autograd.grad(out, parts, torch.ones_like(out))

        return [peak_bytes(partial(step, inputs((), n, n, 8, 8, torch.float32))) for n in lengths]

    flash = peaks(lambda q, k, v: flash_attention(q, k, v, causal=True, rows=32, columns=32))
    whole = peaks(lambda q, k, v: standard(q, k, v, True))
    assert exponent(lengths, flash) < 1.1
    assert exponent(lengths, whole) > 1.9
    assert whole[-1] > 50 * flash[-1]


def test_no_queries_and_unused_results():
    q, k, v = inputs((2,), 0, 5, 3, 4)
    out = flash_attention(q, k, v)
    assert out.shape == (2, 0, 4)
    assert torch.equal(torch.autograd.grad(out.sum(), k)[0], torch.zeros_like(k))
    q, k, v = inputs((2,), 6, 5, 3, 4)
    v = v.detach()
    assert flash_attention(q, k, v, rows=4).requires_grad
    assert torch.autograd.grad(flash_attention(q, k, v, rows=4).sum(), (q, k))[1].shape == k.shape


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 5, 4), (3, 5, 4), (3, 5, 4)), {}, r"got \(2, 5, 4\), \(3, 5, 4\) and \(3, 5, 4\)"),
        (((5, 4), (6, 4), (7, 4)), {}, r"got \(5, 4\), \(6, 4\) and \(7, 4\)"),
        (((4,), (4,), (4,)), {}, r"expected q \(..., T, K\)"),
        (((5, 4), (6, 3), (6, 4)), {}, r"same width, and a key, got \(5, 4\), \(6, 3\)"),
        (((5, 4), (0, 4), (0, 4)), {}, r"and a key, got \(5, 4\), \(0, 4\)"),
        (((5, 4), (6, 4), (6, 4)), {"rows": 0}, "got rows=0 and columns=128"),
        (((5, 4), (6, 4), (6, 4)), {"columns": -1}, "columns=-1"),
    ],
)
def test_bad_input_is_refused(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        flash_attention(*(torch.zeros(shape) for shape in shapes), **options)


def test_other_types_are_refused():
    x = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"of one type, got torch.float32, torch.float64 and torch.float32"):
        flash_attention(x, x.double(), x)
    with pytest.raises(ValueError, match="floating-point"):
        flash_attention(x.long(), x.long(), x.long())
