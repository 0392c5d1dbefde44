import pytest
import torch
from torch import nn

from dlbook.models.convnext import SIZES, Block, ChannelNorm, ConvNeXt, ConvNeXtConfig

COUNTS = {  # torchvision's documentation; table 1 of the paper has 29, 50, 89 and 198 million
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = ConvNeXt(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_a_block_with_layer_scale_0_changes_nothing():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 3)
    assert torch.equal(Block(6, layer_scale=0.0)(x), x)


def test_a_block_sees_three_places_to_each_side():
    torch.manual_seed(0)
    block, x = Block(4, layer_scale=1.0).double(), torch.randn(1, 4, 11, 13, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 5, 6] += 1
    moved = (block(changed) - block(x)).abs().sum(1)[0] > 1e-12
    expected = torch.zeros(11, 13, dtype=torch.bool)
    expected[2:9, 3:10] = True
    assert torch.equal(moved, expected)


def test_channel_norm_is_group_norm_of_one_place():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    norm = ChannelNorm(6).double()
    wanted = nn.functional.layer_norm(x.movedim(1, -1), (6,), eps=1e-6).movedim(-1, 1)
    torch.testing.assert_close(norm(x), wanted)


def test_memory_format_does_not_matter():
    torch.manual_seed(0)
    model = ConvNeXt(ConvNeXtConfig((1, 1), (8, 12), layer_scale=1.0), num_classes=5).double()
    x = torch.rand(2, 3, 18, 25, dtype=torch.float64)
    torch.testing.assert_close(model(x), model(x.contiguous(memory_format=torch.channels_last)))


def test_stages_halve_the_picture():
    maps = ConvNeXt(SIZES["convnext_mini"], in_channels=1).features(torch.zeros(2, 1, 28, 30))
    assert [tuple(m.shape) for m in maps] == [(2, 32, 14, 15), (2, 64, 7, 7), (2, 128, 3, 3)]


def test_overfits_one_batch():
    torch.manual_seed(0)
    model = ConvNeXt(ConvNeXtConfig((1, 1), (8, 16), 2, layer_scale=0.1), num_classes=3, in_channels=1)
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 32, 32), r"images must be \(batch, 3, height, width\), got \(2, 1, 32, 32\)"),
        ((3, 32, 32), r"images must be \(batch, 3, height, width\), got \(3, 32, 32\)"),
        ((2, 3, 32, 31), r"images of \(32, 31\) are below 32 pixels a side"),
    ],
)
def test_other_shapes_are_refused(shape, message):
    model = ConvNeXt(ConvNeXtConfig((1, 1, 1, 1), (4, 4, 4, 4)))
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depths": (1, 2)}, r"each stage has a depth and a width, got \(1, 2\) and \(96, 192, 384, 768\)"),
        ({"patch_size": 0}, "sizes must be positive, got .*patch_size=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXtConfig(**sizes)
