import pytest
import torch
from torch.nn import functional as F

from dlbook.layers.feedforward import FeedForward, SwiGLU

X = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        ("gelu_tanh", lambda x: x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
        ("gelu_sigmoid", lambda x: x / (1 + torch.exp(-1.702 * x))),
    ],
)
def test_feedforward_by_its_equation(name, function):
    layer = FeedForward(6, 7, activation=name).double()
    wanted = function(X @ layer.expand.weight.t() + layer.expand.bias) @ layer.reduce.weight.t() + layer.reduce.bias
    torch.testing.assert_close(layer(X), wanted, rtol=1e-10, atol=1e-12)


def test_swiglu_by_its_equation():
    layer = SwiGLU(6, 7, bias=True).double()
    gates = X @ layer.gate.weight.t() + layer.gate.bias
    hidden = gates * torch.sigmoid(gates) * (X @ layer.up.weight.t() + layer.up.bias)
    torch.testing.assert_close(
        layer(X), F.linear(hidden, layer.reduce.weight, layer.reduce.bias), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(("width", "hidden"), [(4096, 10928), (128, 344), (3, 8), (6, 16), (7, 24)])
def test_hidden_units_are_8_thirds_rounded_up_to_a_multiple_of_8(width, hidden):
    with torch.device("meta"):
        assert SwiGLU(width).reduce.in_features == hidden
        assert SwiGLU(width).up.out_features == SwiGLU(width).gate.out_features == hidden


def test_sizes():
    layer = FeedForward(6, bias=False, dropout=0.5)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 6 * 24
    x = X.float()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    assert sum(p.numel() for p in SwiGLU(6, 5).parameters()) == 3 * 6 * 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FeedForward(0), "width=0"),
        (lambda: FeedForward(6, -1), "hidden=-1"),
        (lambda: FeedForward(6, activation="swish"), "one of relu, gelu, gelu_tanh, gelu_sigmoid, got 'swish'"),
        (lambda: SwiGLU(0), "width=0"),
    ],
)
def test_bad_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
