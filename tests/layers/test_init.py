import math

import pytest
import torch
from torch import nn

from dlbook.layers import activations
from dlbook.layers.init import init_linear, matched_gain, signal_factors


def test_relu_needs_the_gain_of_he():
    assert math.isclose(matched_gain("relu"), nn.init.calculate_gain("relu"), rel_tol=1e-12)
    forward, backward = signal_factors("relu", math.sqrt(2))
    assert math.isclose(forward, 1, rel_tol=1e-12)
    assert math.isclose(backward, 1, rel_tol=1e-12)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu"])
def test_factors_agree_with_a_wide_random_layer(name):
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(4_000_000, generator=generator, dtype=torch.float64)
    forward, backward = signal_factors(name, gain=1.5)
    assert math.isclose(forward, 2.25 * getattr(activations, name)(u).square().mean().item(), rel_tol=5e-3)
    assert math.isclose(backward, 2.25 * activations.derivative(name, u).square().mean().item(), rel_tol=5e-3)


@pytest.mark.parametrize(
    ("scheme", "std"), [("xavier", math.sqrt(2 / 1100)), ("he", math.sqrt(2 / 800)), ("matched", 1.5925374 / 800**0.5)]
)
def test_standard_deviation(scheme, std):
    linear = nn.Linear(800, 300)
    init_linear(linear, scheme, "tanh", torch.Generator().manual_seed(0))
    assert math.isclose(linear.weight.std().item(), std, rel_tol=5e-3)
    assert linear.bias.abs().max() == 0


def test_unknown_scheme_names_the_choices():
    with pytest.raises(ValueError, match="'xavier', 'he' or 'matched', got 'zeros'"):
        init_linear(nn.Linear(2, 3), "zeros")


def test_same_generator_same_weights():
    one, two = nn.Linear(5, 3), nn.Linear(5, 3)
    init_linear(one, "he", generator=torch.Generator().manual_seed(7))
    init_linear(two, "he", generator=torch.Generator().manual_seed(7))
    assert torch.equal(one.weight, two.weight)
