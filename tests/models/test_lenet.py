"""LeNet-5: its count, its two input sizes, its choices."""

import pytest
import torch
from torch import nn

from dlbook.models.lenet import LeNet


def test_parameters_layer_by_layer():
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in LeNet().named_children()}
    assert counts == {"c1": 156, "c3": 2416, "c5": 48120, "f6": 10164, "output": 850}
    assert sum(counts.values()) == 61_706


def test_28_pixels_are_32_with_a_border_of_zeros():
    model, x = LeNet().eval(), torch.randn(3, 1, 32, 32)
    x[:, :, [0, 1, 30, 31]] = 0
    x[:, :, :, [0, 1, 30, 31]] = 0
    torch.testing.assert_close(model(x[:, :, 2:30, 2:30]), model(x))


@pytest.mark.parametrize(
    ("activation", "pooling", "layers"),
    [("tanh", "average", (nn.Tanh, nn.AvgPool2d)), ("relu", "max", (nn.ReLU, nn.MaxPool2d))],
)
def test_equals_pytorchs_layers_in_a_row(activation, pooling, layers):
    model, (act, pool) = LeNet(in_channels=2, num_classes=7, activation=activation, pooling=pooling), layers
    c1, c3, c5, f6, output = model.children()
    row = nn.Sequential(c1, act(), pool(2), c3, act(), pool(2), nn.Flatten(), c5, act(), f6, act(), output)
    x = torch.randn(3, 2, 32, 32)
    torch.testing.assert_close(model(x), row(x))


@pytest.mark.parametrize("shape", [(2, 1, 28, 32), (2, 1, 30, 30), (2, 3, 28, 28), (1, 28, 28)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"got \({', '.join(map(str, shape))}\)"):
        LeNet()(torch.zeros(shape))


@pytest.mark.parametrize("choice", [{"activation": "sigmoid"}, {"pooling": "mean"}, {"num_classes": 0}])
def test_unknown_choices_are_refused(choice):
    with pytest.raises(ValueError, match=str(*choice.values())):
        LeNet(**choice)
