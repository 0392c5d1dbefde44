import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import nn

from dlbook.models.convnext import ConvNeXt, ConvNeXtConfig
from dlbook.models.modernize import Block, Design, Modernized, cost, from_convnext, last_step, path, width_for

DESIGNS = path((1, 2, 1), (1, 1, 3))


def test_the_last_step_is_convnext():
    torch.manual_seed(0)
    config = ConvNeXtConfig((2, 1, 3), (4, 8, 16), patch_size=2, layer_scale=0.5)
    convnext = ConvNeXt(config, num_classes=7, in_channels=2).double()
    for parameter in convnext.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = last_step(config, num_classes=7, in_channels=2).double()
    ours.load_state_dict(from_convnext(convnext.state_dict()))
    x = torch.rand(3, 2, 18, 23, dtype=torch.float64)
    torch.testing.assert_close(ours(x), convnext(x), rtol=1e-10, atol=1e-12)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in convnext.parameters())


def test_the_paths_ends_have_the_published_counts():
    designs = path()
    with torch.device("meta"):
        resnet, convnext = (Modernized(designs[name], width=w) for name, w in (("resnet", 64), ("layer scale", 96)))
    assert sum(p.numel() for p in resnet.parameters()) == 25_557_032  # ResNet-50, torchvision's documentation
    assert sum(p.numel() for p in convnext.parameters()) == 28_589_128  # ConvNeXt-T


def test_the_first_step_is_a_plain_resnet():
    model = Modernized(path()["resnet"], width=64)
    stem = [type(layer) for layer in model.stem]
    assert stem == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert (model.stem[0].kernel_size, model.stem[0].stride, model.stem[0].padding) == ((7, 7), (2, 2), (3, 3))
    block = model.stages[1][0]
    layers = [type(layer) for layer in block.branch]
    assert layers == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.Conv2d, nn.BatchNorm2d]
    assert [(c.kernel_size[0], c.stride[0], c.out_channels) for c in block.branch if isinstance(c, nn.Conv2d)] == [
        (1, 1, 128),
        (3, 2, 128),
        (1, 1, 512),
    ]
    assert [type(layer) for layer in block.shortcut] == [nn.Conv2d, nn.BatchNorm2d]
    assert isinstance(block.last, nn.ReLU)


def test_each_step_changes_one_thing():
    designs = [dataclasses.asdict(design) for design in DESIGNS.values()]
    for one, two in pairwise(designs):
        assert sum(one[key] != two[key] for key in one) == 1


@pytest.mark.parametrize("name", DESIGNS)
def test_every_step_trains_at_equal_cost(name):
    torch.manual_seed(0)
    shape = (1, 28, 28)
    wanted = cost(DESIGNS["resnet"], 32, shape, patch_size=2)
    width = width_for(DESIGNS[name], wanted, shape, patch_size=2)
    assert abs(cost(DESIGNS[name], width, shape, patch_size=2) / wanted - 1) < 0.05
    model = Modernized(DESIGNS[name], width=width, patch_size=2, in_channels=1, num_classes=3, layer_scale=0.1)
    x = torch.rand(6, *shape)
    nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 2, 1, 0])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


def test_the_last_blocks_order():
    block = Block(list(DESIGNS.values())[-1], before=4, width=4)
    assert [type(layer).__name__ for layer in block.branch] == ["Conv2d", "ChannelNorm", "Conv2d", "GELU", "Conv2d"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="got width=8 and patch_size=3"):
        Modernized(Design((1,)), width=8, patch_size=3)
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, height, width\), got \(2, 1, 8, 8\)"):
        Modernized(Design((1,)), width=8)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="flops=1 is below the"):
        width_for(Design((1,)), 1, (3, 16, 16))
    with pytest.raises(ValueError, match=r"widths must double from stage to stage, got \(4, 6\)"):
        last_step(ConvNeXtConfig((1, 1), (4, 6)))
