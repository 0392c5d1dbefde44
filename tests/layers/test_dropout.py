"""Dropout against torch.nn, with the same random numbers."""

import pytest
import torch
from torch import nn

from dlbook.layers.dropout import Dropout, SpatialDropout

N, C = 50, 6


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    ("ours", "right", "places"),
    [
        (Dropout, nn.Dropout, ()),
        (Dropout, nn.Dropout, (4, 3)),
        (SpatialDropout, nn.Dropout1d, (7,)),
        (SpatialDropout, nn.Dropout2d, (4, 3)),
        (SpatialDropout, nn.Dropout3d, (2, 4, 3)),
    ],
)
def test_the_same_numbers_as_torch(ours, right, places, p):
    x = torch.randn(N, C, *places, generator=torch.Generator().manual_seed(1))
    found = []
    for module in (ours(p), right(p)):
        torch.manual_seed(0)
        found.append(module(x))
    torch.testing.assert_close(*found)
    assert torch.equal(ours(p).eval()(x), x)
    share = (found[0] == 0).float().mean().item()
    assert share == pytest.approx(p, abs=0.09)


def test_whole_channels_go():
    y = SpatialDropout(0.5, generator=torch.Generator().manual_seed(0))(torch.ones(N, C, 4, 3))
    assert (y.amax((2, 3)) == y.amin((2, 3))).all()
    gone = (y[:, :, 0, 0] == 0).float()
    assert gone.mean(0).min() > 0  # each channel in some example


def test_a_generator_repeats():
    x = torch.ones(N, C)
    one, other = (Dropout(0.5, generator=torch.Generator().manual_seed(3))(x) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_wrong_input(p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\), got"):
        Dropout(p)
    with pytest.raises(ValueError, match=r"\(batch, channels, places, ...\), got \(5, 3\)"):
        SpatialDropout(0.5)(torch.zeros(5, 3))
