"""EfficientNet: published sizes, compound scaling, its parts."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dlbook.flops import count_flops
from dlbook.models.efficientnet import (
    SIZES,
    Block,
    EfficientNet,
    SameConv2d,
    SqueezeExcitation,
    Stage,
    compound,
    scaled,
)

B0 = SIZES["efficientnet_b0"]
SMALL = SIZES["efficientnet_small"]
COUNTS = [5_288_548, 7_794_184, 9_109_994, 12_233_232, 19_341_616, 30_389_784, 43_040_704, 66_347_960]


def on_meta(config):
    with torch.device("meta"):
        return EfficientNet(config)


def flops(config):
    x = torch.zeros(1, 3, config.resolution, config.resolution, device="meta")
    return count_flops(on_meta(config), x)


@pytest.mark.parametrize(("number", "count"), list(enumerate(COUNTS)))
def test_published_parameters(number, count):
    model = on_meta(SIZES[f"efficientnet_b{number}"])
    assert sum(p.numel() for p in model.parameters()) == count


def test_operations_of_b0_are_the_papers():
    assert flops(B0) / 2e9 == pytest.approx(0.39, abs=0.005)  # table 2 counts a multiply-add as one


@pytest.mark.parametrize("factor", [{"depth": 2.0}, {"width": 2**0.5}, {"resolution": 2**0.5}], ids=str)
def test_each_factor_alone_about_doubles_the_operations(factor):
    assert 1.75 < flops(scaled(B0, **factor)) / flops(B0) < 2.25


def test_compound_scaling_raises_the_three_factors_together():
    assert compound(B0, 0) == B0
    assert compound(B0, 2) == scaled(B0, depth=1.2**2, width=1.1**2, resolution=1.15**2)
    assert compound(SMALL, 1, alpha=2.0, beta=1.0, gamma=1.0) == scaled(SMALL, depth=2.0)


def test_widths_are_multiples_and_never_more_than_a_tenth_too_small():
    for width in (0.3, 0.5, 0.7, 1.1, 1.4, 1.9):
        config = scaled(B0, width=width)
        wanted = [width * stage.width for stage in B0.stages]
        for got, number in zip((stage.width for stage in config.stages), wanted, strict=True):
            assert got % 8 == 0
            assert got >= min(8, 0.9 * number)
            assert abs(got - number) <= 8


def test_squeeze_and_excitation_weighs_channels():
    torch.manual_seed(0)
    layer, x = SqueezeExcitation(6, 2), torch.randn(3, 6, 5, 4)
    mean = x.mean((2, 3))
    squeezed = F.silu(F.linear(mean, layer.fc1.weight[:, :, 0, 0], layer.fc1.bias))
    weight = F.linear(squeezed, layer.fc2.weight[:, :, 0, 0], layer.fc2.bias).sigmoid()
    torch.testing.assert_close(layer(x), x * weight[:, :, None, None])


@pytest.mark.parametrize(("stride", "width", "shortcut"), [(1, 8, True), (2, 8, False), (1, 12, False)])
def test_the_shortcut_is_there_where_the_shape_stays(stride, width, shortcut):
    block = Block(SMALL, Stage(4, 5, stride, width, 1), 8, rate=0.0)
    torch.nn.init.zeros_(block.block[-1][1].weight)
    x = torch.randn(3, 8, 6, 10)
    y = block(x)
    assert y.shape == (3, width, 6 // stride, 10 // stride)
    assert torch.equal(y, x) if shortcut else y.abs().max() == 0


def test_blocks_are_left_out_while_training_only():
    torch.manual_seed(0)
    block = Block(SMALL, Stage(4, 3, 1, 8, 1), 8, rate=0.5)
    x = torch.randn(64, 8, 3, 4)
    same = (block(x) == x).flatten(1).all(1)
    assert 16 < same.sum() < 48
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_later_blocks_are_left_out_more_often():
    rates = [m.stochastic_depth.rate for m in EfficientNet(SMALL).modules() if isinstance(m, Block)]
    assert rates == pytest.approx([0.1 * i / 5 for i in range(5)])


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (9, 5, 2), (6, 5, 1), (5, 3, 3)])
def test_tensorflows_padding(size, kernel, stride):
    conv, x = SameConv2d(1, 1, kernel, stride), torch.randn(1, 1, size, size)
    rows = -(-size // stride)
    missing = max((rows - 1) * stride + kernel - size, 0)
    front, behind = missing // 2, (missing + 1) // 2
    expected = F.conv2d(F.pad(x, (front, behind, front, behind)), conv.weight, conv.bias, stride)
    assert expected.shape[-1] == rows
    assert torch.equal(conv(x), expected)


@pytest.mark.parametrize(
    "change",
    [{"stages": ()}, {"stem": 0}, {"stages": (Stage(1, 4, 1, 8, 1),)}, {"dropout": 1.0}, {"padding": "same"}],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match="must be"):
        replace(SMALL, **change)


def test_factors_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match=r"width=0"):
        scaled(SMALL, width=0)


def test_other_pictures_are_refused():
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\), got \(2, 1, 28, 28\)"):
        EfficientNet(SMALL)(torch.zeros(2, 1, 28, 28))
