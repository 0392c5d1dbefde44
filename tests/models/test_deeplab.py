"""DeepLabv3 against the published count, torchvision's names, and what its parts should do."""

import hashlib

import pytest
import torch
from torch.nn import functional as F

from dlbook.models.deeplab import BACKBONES, DeepLabV3, Pyramid

#: SHA-256 of the sorted lines "name shape" of torchvision 0.29.2's deeplabv3_resnet50(num_classes=21, aux_loss=False)
DIGEST = "c9ae1f13acba02d5d6809502c598e796c857b0856db8484fbcb28dcd0e9a352e"


def small(**change):
    return DeepLabV3(
        **{"backbone": BACKBONES["deeplab_small"], "in_channels": 2, "num_classes": 5, "rates": (2, 3), "width": 7}
        | change
    )


def test_the_published_network_has_the_published_count():
    with torch.device("meta"):
        model = DeepLabV3()
        assert sum(p.numel() for p in model.parameters()) == 39_638_869
        assert model.backbone.features(torch.zeros(1, 3, 97, 64))[-1].shape == (1, 2048, 13, 8)  # an eighth
        assert model.eval()(torch.zeros(1, 3, 97, 64)).shape == (1, 21, 97, 64)


def test_names_and_shapes_are_torchvisions():
    with torch.device("meta"):
        lines = [f"{name} {tuple(t.shape)}" for name, t in sorted(DeepLabV3().state_dict().items())]
    assert len(lines) == 362
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == DIGEST


def test_a_filter_of_rate_r_looks_at_every_r_th_pixel():
    torch.manual_seed(0)
    pyramid = Pyramid(3, 4, (2,), 0.0).double().eval()
    x = torch.randn(1, 3, 9, 11, dtype=torch.float64)
    dilated = pyramid.convs[1][0]
    apart = torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    apart[:, :, ::2, ::2] = dilated.weight.detach()
    torch.testing.assert_close(dilated(x), F.conv2d(x, apart, padding=2))


def test_the_last_branch_is_the_mean_of_the_whole_picture():
    torch.manual_seed(0)
    pyramid = Pyramid(3, 4, (2,), 0.0).eval()
    x = torch.randn(2, 3, 9, 11)
    moved = x.roll((4, 5), (2, 3))
    torch.testing.assert_close(pyramid.convs[-1](x), pyramid.convs[-1](moved))
    assert pyramid(x).shape == (2, 4, 9, 11)


def test_logits_are_as_large_as_the_picture():
    model = small()
    assert model(torch.zeros(3, 2, 20, 17)).shape == (3, 5, 20, 17)


def test_pictures_and_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 1, 20, 17\)"):
        small()(torch.zeros(3, 1, 20, 17))
    with pytest.raises(ValueError, match="rates=\\(0,\\)"):
        small(rates=(0,))
