"""VGG's published sizes and its bad input."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dlbook.models.vgg import SIZES, VGG, VGGConfig

COUNTS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_parameters(name, count):
    with torch.device("meta"):
        model = VGG(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_its_number_counts_the_layers_with_weights(name):
    with torch.device("meta"):
        model = VGG(SIZES[name])
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == int(name[3:])


def test_equals_pytorchs_layers_in_a_row():
    model = VGG(VGGConfig(((4,), (6, 5)), hidden=7, pooled=1), in_channels=2, num_classes=3).eval()
    one, two, three = (m for m in model.features if isinstance(m, nn.Conv2d))
    a, b, c = (m for m in model.classifier if isinstance(m, nn.Linear))
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    row = nn.Sequential(one, relu, pool, two, relu, three, relu, pool, nn.Flatten(), a, relu, b, relu, c)
    for layer in (a, b, c):
        nn.init.normal_(layer.weight)  # as they start, the logits are so small that they are equal to anything
    x = torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(model(x), row(x))


def test_too_small_pictures_are_refused():
    model = VGG(SIZES["vgg_small"])
    assert model.eval()(torch.zeros(2, 3, 8, 9)).shape == (2, 1000)
    with pytest.raises(ValueError, match=r"at least 8 x 8 pixels, got \(2, 3, 8, 7\)"):
        model(torch.zeros(2, 3, 8, 7))


@pytest.mark.parametrize("change", [{"blocks": ()}, {"blocks": ((3,), ())}, {"hidden": 0}, {"dropout": -0.1}], ids=str)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"must|needs"):
        replace(SIZES["vgg_small"], **change)
