"""Each activation against PyTorch's kernel, its derivative against automatic differentiation."""

import pytest
import torch
from torch.nn import functional as F

from dlbook.layers import activations

ELEMENTWISE = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"]
# Small numbers and huge ones, both signs, and the places where a formula changes its branch.
POINTS = torch.cat(
    [torch.linspace(-9, 9, 721), torch.tensor([0.0, -0.0, 1e-8, -1e-8, 40.0, -40.0, 1e4, -1e4])]
).double()


def torch_twin(name: str):
    return getattr(F, name) if name in ("gelu", "silu", "leaky_relu") else getattr(torch, name)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_value_equals_torch(name):
    expected = torch_twin(name)(POINTS)
    torch.testing.assert_close(getattr(activations, name)(POINTS), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_gradient_equals_torch_and_the_formula(name):
    ours, theirs = POINTS.clone().requires_grad_(), POINTS.clone().requires_grad_()
    getattr(activations, name)(ours).sum().backward()
    torch_twin(name)(theirs).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(activations.derivative(name, POINTS), theirs.grad, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_dtype_and_stays_finite(name, dtype):
    x = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4], dtype=dtype, requires_grad=True)
    y = getattr(activations, name)(x)
    y.sum().backward()
    assert y.dtype == dtype == activations.derivative(name, x.detach()).dtype
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_is_not_hidden(name):
    assert getattr(activations, name)(torch.tensor([float("nan")])).isnan().all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_equals_torch(name, dim):
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0, 0, 0], x[1, 3, 1] = 1e4, -1e4
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (getattr(activations, name)(ours, dim) * weights).sum().backward()
    (getattr(torch, name)(theirs, dim) * weights).sum().backward()
    torch.testing.assert_close(getattr(activations, name)(x, dim), getattr(torch, name)(x, dim), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_gelu_by_tanh_equals_torch():
    expected = F.gelu(POINTS, approximate="tanh")
    torch.testing.assert_close(activations.gelu(POINTS, approximate="tanh"), expected, rtol=1e-13, atol=1e-15)
    with pytest.raises(ValueError, match="'none' or 'tanh', got 'erf'"):
        activations.gelu(POINTS, approximate="erf")


def test_tanh_keeps_its_digits_near_zero():
    x = torch.logspace(-300, -1, 50, dtype=torch.float64)
    torch.testing.assert_close(activations.tanh(x), torch.tanh(x), rtol=1e-14, atol=0)


def test_unknown_derivative_names_the_choices():
    with pytest.raises(ValueError, match=r"'softsign'.*relu, leaky_relu"):
        activations.derivative("softsign", POINTS)
