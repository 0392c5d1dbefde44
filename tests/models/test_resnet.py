"""ResNet: published sizes, the plain network, both shortcuts, dilation."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlbook.models.resnet import SIZES, Block, ResNet, ResNetConfig, cifar_config

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
TEN_CLASSES = {"resnet20": 269_722, "resnet56": 853_018, "resnet110": 1_727_962, "plain20": 269_722, "plain56": 853_018}
TINY = ResNetConfig((2, 1, 1), (4, 6, 10))


def on_meta(config, **keywords):
    with torch.device("meta"):
        return ResNet(config, **keywords)


@pytest.mark.parametrize(("name", "count"), (COUNTS | TEN_CLASSES).items())
def test_published_parameters(name, count):
    model = on_meta(SIZES[name], num_classes=10 if name in TEN_CLASSES else 1000)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", [*COUNTS, "resnet20", "resnet56", "resnet110", "plain56"])
def test_its_number_counts_the_layers_with_weights(name):
    model = on_meta(SIZES[name])
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n]
    assert len(layers) == int(name.removeprefix("resnet").removeprefix("plain"))


def test_a_block_whose_branch_gives_nothing_passes_its_input_on():
    block = Block(4, 4, TINY, nn.BatchNorm2d)
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(3, 4, 5, 6)
    assert torch.equal(block(x), x)
    plain = Block(4, 4, replace(TINY, residual=False), nn.BatchNorm2d)
    nn.init.zeros_(plain.bn2.weight)
    assert plain(x).abs().max() == 0


def test_plain_and_residual_have_the_same_layers():
    for depth in (20, 56):
        plain, residual = (on_meta(cifar_config(depth, residual=r)).state_dict() for r in (False, True))
        assert {n: t.shape for n, t in plain.items()} == {n: t.shape for n, t in residual.items()}


def test_the_shortcut_without_parameters_takes_every_other_pixel_and_adds_zeros():
    block = Block(4, 6, replace(TINY, shortcut="pad"), nn.BatchNorm2d, stride=2)
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(3, 4, 5, 8)
    y = block(x)
    assert torch.equal(y[:, :4], x[:, :, [0, 2, 4]][:, :, :, [0, 2, 4, 6]])
    assert y[:, 4:].abs().max() == 0
    assert not list(block.downsample.parameters())


@pytest.mark.parametrize("bottleneck", [False, True])
def test_equals_the_equation_written_out(bottleneck):
    torch.manual_seed(0)
    block = Block(4, 3, replace(TINY, bottleneck=bottleneck), nn.BatchNorm2d, stride=2)
    x = torch.randn(2, 4, 7, 6)
    h = block.bn1(F.conv2d(x, block.conv1.weight, stride=1 if bottleneck else 2, padding=0 if bottleneck else 1))
    h = block.bn2(F.conv2d(h.relu(), block.conv2.weight, stride=2 if bottleneck else 1, padding=1))
    if bottleneck:
        h = block.bn3(F.conv2d(h.relu(), block.conv3.weight))
    shortcut = block.downsample[1](F.conv2d(x, block.downsample[0].weight, stride=2))
    torch.testing.assert_close(block(x), (h + shortcut).relu())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_dilation_keeps_the_weights_and_makes_the_last_stages_finer(name):
    model = on_meta(SIZES[name])
    x = torch.zeros(1, 3, 64, 96, device="meta")
    assert [tuple(h.shape[2:]) for h in model.features(x)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for stride, last_two in ((16, [(4, 6), (4, 6)]), (8, [(8, 12), (8, 12)])):
        finer = on_meta(replace(SIZES[name], output_stride=stride))
        assert [tuple(h.shape[2:]) for h in finer.features(x)][2:] == last_two
        assert {n: t.shape for n, t in finer.state_dict().items()} == {
            n: t.shape for n, t in model.state_dict().items()
        }
    dilations = [block.conv2.dilation[0] for name in model.stages for block in finer.get_submodule(name)]
    assert dilations == ([1] * 4 + [2, 2, 4, 4] if name == "resnet18" else [1] * 7 + [1] + [2] * 5 + [2, 4, 4])


@pytest.mark.parametrize("kind", [{}, {"bottleneck": True}, {"bottleneck": True, "stride_first": True}], ids=str)
def test_a_dilated_network_computes_every_pixel_that_the_strided_one_does(kind):
    torch.manual_seed(0)
    config = replace(TINY, stem="cifar", depths=(1, 2, 2), **kind)
    coarse, fine = ResNet(config).eval().double(), ResNet(replace(config, output_stride=1)).eval().double()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(fine.features(x)[-1][:, :, ::4, ::4], coarse.features(x)[-1])


def test_another_normalisation_can_be_put_in():
    model = ResNet(TINY, norm=lambda channels: nn.GroupNorm(2, channels))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize(
    "change",
    [
        {"depths": (1, 2)},
        {"widths": (4, 0, 2)},
        {"stem": "cifar10"},
        {"shortcut": "A"},
        {"shortcut": "pad", "bottleneck": True},
        {"shortcut": "pad", "widths": (8, 6, 7)},
        {"output_stride": 12},
        {"output_stride": 2},
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"depths=|must be|needs|is none of"):
        replace(TINY, **change)


@pytest.mark.parametrize("depth", [2, 21, 55])
def test_other_depths_of_the_cifar_family_are_refused(depth):
    with pytest.raises(ValueError, match=f"6 n \\+ 2.*got {depth}"):
        cifar_config(depth)


def test_other_pictures_are_refused():
    with pytest.raises(ValueError, match=r"\(batch, 1, height, width\), got \(2, 3, 28, 28\)"):
        ResNet(TINY, in_channels=1)(torch.zeros(2, 3, 28, 28))
