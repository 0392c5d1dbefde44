"""AlexNet in one piece and in two towers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dlbook.models.alexnet import SIZES, AlexNet, AlexNetConfig, ResponseNorm, smallest_side

TINY = AlexNetConfig((4, 6, 10, 8, 2), hidden=7, pooled=2, stem=(5, 1, 2), two_towers=True)


@pytest.mark.parametrize(("name", "count"), [("alexnet", 61_100_840), ("alexnet_2012", 60_965_224)])
def test_published_parameters(name, count):
    with torch.device("meta"):
        model = AlexNet(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_towers_meet_only_in_the_third_convolution():
    model = AlexNet(TINY, in_channels=1, num_classes=3).eval()
    x = torch.randn(2, 4, 9, 9, requires_grad=True)  # what the first convolution hands on
    second, third = (m for m in model.features if isinstance(m, nn.Conv2d) and m.in_channels in (4, 6))
    second(x)[:, :3].sum().backward()
    assert x.grad[:, :2].abs().sum() > 0
    assert x.grad[:, 2:].abs().sum() == 0
    assert (third.groups, second.groups) == (1, 2)


def test_response_normalisation_is_pytorchs_and_follows_two_convolutions():
    assert sum(isinstance(m, ResponseNorm) for m in AlexNet(TINY).features) == 2
    a = torch.rand(2, 7, 4, 3, dtype=torch.float64) * 100
    theirs = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(ResponseNorm()(a), theirs(a))


def test_response_normalisation_does_not_overflow_in_float16():
    a = torch.full((1, 5, 1, 1), 300.0, dtype=torch.float16)
    assert ResponseNorm()(a).flatten()[2].item() == pytest.approx(300 / 47**0.75, rel=1e-3)


def test_two_towers_start_as_published():
    torch.manual_seed(0)
    layers = [m for m in AlexNet(replace(TINY, hidden=301)).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer.bias.unique().tolist() for layer in layers] == [[0], [1], [0], [1], [1], [1], [1], [0]]
    assert layers[-2].weight.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012", "alexnet_small"])
def test_the_smallest_picture_is_just_large_enough(name):
    with torch.device("meta"):
        model, side = AlexNet(SIZES[name]).eval(), smallest_side(SIZES[name])
        assert model(torch.zeros(2, 3, side, side)).shape == (2, 1000)
        assert model.features(torch.zeros(2, 3, side, side)).shape[2:] == (1, 1)
        with pytest.raises(ValueError, match=f"at least {side} x {side}"):
            model(torch.zeros(2, 3, side - 1, side))


@pytest.mark.parametrize(
    "change", [{"widths": (1, 2, 3)}, {"widths": (3, 4, 4, 4, 4)}, {"hidden": 0}, {"dropout": 1.0}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=str(*change.values()).replace("(", r"\(").replace(")", r"\)")):
        replace(TINY, **change)
