import pytest
import torch
from torch import nn

from dlbook.models.mlp import MLP

B, IN, H1, H2, OUT = 4, 7, 5, 6, 3  # all different, so a swapped axis fails
TWINS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}
TWINS["silu"] = nn.SiLU


@pytest.mark.parametrize("activation", TWINS)
def test_equals_torch_sequential(activation):
    ours = MLP((IN, H1, H2, OUT), activation=activation)
    phi = TWINS[activation]
    theirs = nn.Sequential(nn.Linear(IN, H1), phi(), nn.Linear(H1, H2), phi(), nn.Linear(H2, OUT))
    for linear, weights in zip(theirs[::2], ours.layers, strict=True):
        linear.load_state_dict(weights.state_dict())
    x = torch.randn(B, IN, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    torch.testing.assert_close(ours(x.reshape(B, 1, IN, 1)), theirs(x), rtol=0, atol=0)


def test_one_matched_layer_keeps_the_size_of_the_signal():
    for activation in TWINS:
        model = MLP((2000, 2000), activation=activation, generator=torch.Generator().manual_seed(0))
        z = torch.randn(64, 2000, generator=torch.Generator().manual_seed(1))
        phi = TWINS[activation]()
        assert model(phi(z)).square().mean().item() == pytest.approx(1, rel=0.03)


def test_dropout_only_while_training():
    model = MLP((IN, 400, OUT), dropout=0.5)
    x = torch.ones(B, IN)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("sizes", "activation", "message"),
    [
        ((3,), "relu", r"two or more positive numbers, got \(3,\)"),
        ((3, 0), "relu", r"\(3, 0\)"),
        ((3, 2), "step", "'step'"),
    ],
)
def test_mistakes_are_named(sizes, activation, message):
    with pytest.raises(ValueError, match=message):
        MLP(sizes, activation=activation)
