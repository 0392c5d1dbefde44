import pytest
import torch
from torch import nn

from dlbook.layers.attention import attention
from dlbook.models.swin import SIZES, Block, Merging, Swin, SwinConfig, WindowAttention, join, partition, shift_mask

COUNTS = {"swin_t": 28_288_354, "swin_s": 49_606_258, "swin_b": 87_768_224}  # torchvision's documentation


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = Swin(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_windows_are_cut_row_by_row_and_joined_again():
    x = torch.arange(2 * 4 * 6 * 3).view(2, 4, 6, 3)
    windows = partition(x, 2)
    assert torch.equal(windows[1, 4], x[1, 2:4, 2:4].flatten(0, 1))  # second row of windows, second of three
    assert torch.equal(join(windows, 4, 6, 2), x)


def test_the_mask_keeps_apart_what_was_apart():
    """Beside the definition: two tokens see each other if their places before the roll lie within a window's reach."""
    rows, columns, window, shifts = 6, 9, 3, (1, 1)
    mask = shift_mask(rows, columns, window, shifts, torch.device("cpu"))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([row, column], -1).roll((-1, -1), dims=(0, 1))  # where each token was
    place = partition(place[None], window)[0]  # (G, T, 2)
    near = (place[:, :, None] - place[:, None]).abs().amax(-1) < window
    assert torch.equal(mask, near)
    assert not mask.all()


def test_bias_depends_on_the_offset_alone():
    torch.manual_seed(0)
    layer = WindowAttention(width=6, num_heads=2, window=3).double()
    nn.init.normal_(layer.bias_table)
    bias = layer.bias_table[layer.offsets].view(9, 9, 2)
    # from the middle to its right neighbour = from the first to the second place of the last row
    assert torch.equal(bias[4, 5], bias[6, 7])
    assert not torch.equal(bias[4, 5], bias[5, 4])
    x = torch.randn(2, 5, 9, 6, dtype=torch.float64)
    q, k, v = layer.qkv(x).unflatten(-1, (3, 2, 3)).permute(3, 0, 1, 4, 2, 5)  # (B, G, N, T, K)
    wanted = layer.out(attention(q, k, v, bias.permute(2, 0, 1)).transpose(2, 3).flatten(3))
    torch.testing.assert_close(layer(x), wanted, rtol=1e-10, atol=1e-12)


def test_a_shifted_block_joins_neighbouring_windows_and_no_opposite_edges():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 8, 4, dtype=torch.float64)
    changed = x.clone()
    changed[0, 0, 0, 1] += 1  # one channel: the norm would take away what all have in common

    def reached(shifted: bool) -> torch.Tensor:
        torch.manual_seed(1)
        block = Block(4, 2, window=4, shifted=shifted).double()
        return ((block(changed) - block(x)).abs().sum(-1)[0] > 1e-12).nonzero().max(0).values

    assert reached(False).tolist() == [3, 3]  # the window of 4 x 4
    assert reached(True).tolist() == [1, 1]  # shifted by 2: the corner keeps to 2 x 2


def test_merging_halves_and_fills_up():
    x = torch.randn(2, 5, 4, 3)
    merge = Merging(3)
    torch.testing.assert_close(merge(x), merge(nn.functional.pad(x, (0, 0, 0, 0, 0, 1))))
    assert merge(x).shape == (2, 3, 2, 6)


def test_any_size_gives_logits():
    model = Swin(SIZES["swin_mini"], num_classes=5)
    for size in [(28, 28), (31, 50), (3, 2)]:
        assert model(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_overfits_one_batch():
    torch.manual_seed(0)
    model = Swin(SwinConfig(8, (2, 1), (2, 2), window=2, patch_size=1), num_classes=3, in_channels=1)
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (3, 28, 28)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"images must be \(batch, 3, height, width\), got \({shape[0]}, "):
        Swin(SIZES["swin_mini"])(torch.zeros(shape))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depths": (2, 2)}, r"each stage has a depth and heads, got \(2, 2\) and \(3, 6, 12, 24\)"),
        ({"window": 0}, "sizes must be positive, got .*window=0"),
        ({"width": 100}, "num_heads=3 does not divide width=100"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        SwinConfig(**sizes)
