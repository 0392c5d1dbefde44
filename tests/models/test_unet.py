"""U-Net against the paper's sizes and a plain rewrite of its forward pass."""

import pytest
import torch
from torch.nn import functional as F

from dlbook.models.unet import WIDTHS, UNet, crop


def test_the_published_network_has_the_published_sizes():
    with torch.device("meta"):
        model = UNet()
        assert sum(p.numel() for p in model.parameters()) == 31_030_658
        assert model(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)  # figure 1 of the paper


def plainly(model, x):
    """Two resolutions, written down step by step from the state dict."""
    w = model.state_dict()

    def pair(name, x):
        for number in (0, 2):
            x = F.relu(F.conv2d(x, w[f"{name}.{number}.weight"], w[f"{name}.{number}.bias"]))
        return x

    fine = pair("down.0", x)
    coarse = pair("down.1", F.max_pool2d(fine, 2))
    up = F.conv_transpose2d(coarse, w["up.0.weight"], w["up.0.bias"], stride=2)
    border = (fine.shape[2] - up.shape[2]) // 2, (fine.shape[3] - up.shape[3]) // 2
    middle = fine[:, :, border[0] : -border[0], border[1] : -border[1]]
    return F.conv2d(pair("join.0", torch.cat([middle, up], 1)), w["classifier.weight"], w["classifier.bias"])


def test_equal_to_the_steps_of_the_paper():
    torch.manual_seed(0)
    model = UNet(3, 5, widths=(4, 6)).double()
    x = torch.randn(2, 3, 26, 22, dtype=torch.float64)
    assert torch.equal(model(x), plainly(model, x))


def test_with_zeros_around_it_keeps_the_size_and_without_skips_it_is_smaller():
    torch.manual_seed(0)
    model = UNet(3, 5, widths=(4, 6, 7), padded=True, norm=True)
    bare = UNet(3, 5, widths=(4, 6, 7), padded=True, norm=True, skips=False)
    x = torch.randn(2, 3, 24, 20)
    assert model(x).shape == bare(x).shape == (2, 5, 24, 20)
    across = 9 * (4 * 4 + 6 * 6)  # the weights of the first of each pair that look at what is handed across
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in bare.parameters()) == across


def test_without_skips_nothing_fine_reaches_the_output():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 16, 16)
    other = x.clone()
    other[..., ::2, ::2] -= 3  # smaller than a neighbour in each 2 x 2 square ...
    x[..., 1::2, 1::2] += 9
    other[..., 1::2, 1::2] += 9  # ... that stays the largest
    for skips, same in ((True, False), (False, True)):
        model = UNet(1, 3, widths=(4, 6), padded=True, skips=skips)
        for layer in model.down[0]:
            if isinstance(layer, torch.nn.Conv2d):  # hand the picture on as it is
                torch.nn.init.dirac_(layer.weight)
        assert torch.allclose(model(x), model(other)) == same


def test_first_weights_keep_the_size_of_the_signal():
    torch.manual_seed(0)
    model = UNet(widths=(64, 128))
    for layer, inputs in ((model.down[0][2], 64 * 9), (model.up[0], 128), (model.join[0][0], 128 * 9)):
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.03)


def test_dropout_only_while_training():
    torch.manual_seed(0)
    model, x = UNet(1, 2, widths=(4, 6), padded=True, dropout=0.5), torch.randn(1, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_crop_takes_the_middle():
    assert crop(torch.arange(6.0).view(1, 1, 1, 6), torch.zeros(1, 1, 1, 2)).tolist() == [[[[2, 3]]]]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 2, 8, 8), (1, 1, 8, 6), (1, 1, 10, 8)])
def test_pictures_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=str(shape).strip("()")):
        UNet(1, 2, widths=WIDTHS["unet_small"][:3], padded=True)(torch.zeros(shape))


@pytest.mark.parametrize("size", [570, 90])
def test_sizes_that_the_paper_could_not_take_are_refused(size):
    with torch.device("meta"), pytest.raises(ValueError, match=f"{size}"):
        UNet()(torch.zeros(1, 1, size, size))


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        UNet(0, 2)
    with pytest.raises(ValueError, match="at least two"):
        UNet(1, 2, widths=(8,))
