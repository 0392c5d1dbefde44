"""CutMix: what is taken from where, and whether the labels say so."""

import pytest
import torch

from dlbook.data.cutmix import cutmix

N, C, H, W = 400, 2, 12, 20


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixed(alpha: float = 1.0):
    """Each picture shows its own number everywhere, and is a class of its own."""
    images = torch.arange(N, dtype=torch.float64).view(N, 1, 1, 1).expand(N, C, H, W)
    return cutmix(images, torch.arange(N), N, alpha=alpha, generator=generator())


def test_labels_are_the_shares_of_the_pixels():
    images, y = mixed()
    for number in range(N):
        shares = torch.bincount(images[number].long().flatten(), minlength=N) / (C * H * W)
        torch.testing.assert_close(y[number], shares.double())


def test_what_is_foreign_is_one_rectangle_in_all_channels():
    images, _ = mixed()
    foreign = images != torch.arange(N).view(N, 1, 1, 1)  # (N, C, H, W)
    assert torch.equal(foreign[:, 0], foreign[:, 1])
    rows, columns = foreign[:, 0].any(2), foreign[:, 0].any(1)
    assert torch.equal(foreign[:, 0], rows.unsqueeze(2) & columns.unsqueeze(1))
    assert ((rows.int().diff(dim=1) == 1).sum(1) <= 1).all()  # no gap
    sizes = torch.stack([rows.sum(1) / H, columns.sum(1) / W])
    assert sizes.min() == 0
    assert sizes.max() > 0.9
    inner = (~rows[:, 0]) & (~rows[:, -1]) & (~columns[:, 0]) & (~columns[:, -1]) & rows.any(1)
    assert ((sizes[0] - sizes[1])[inner].abs() < 1 / H + 1 / W).all()  # the picture's own ratio, but for whole pixels


def test_alpha_says_how_much():
    shares = {alpha: 1 - mixed(alpha)[1].diagonal() for alpha in (0.1, 1.0, 50.0)}
    assert shares[0.1].std() > shares[1.0].std() > shares[50.0].std()
    assert 0.2 < shares[1.0].mean() < 0.45  # a half, less what lies outside


def test_a_generator_repeats_and_a_dtype_stays():
    images, labels = torch.rand(5, 3, 8, 6), torch.tensor([0, 1, 2, 0, 1])
    one, other = (cutmix(images, labels, 3, generator=generator(4)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert cutmix(images.half(), labels, 3)[0].dtype == torch.float16


@pytest.mark.parametrize(
    ("shape", "labels", "alpha", "message"),
    [
        ((5, 8, 6), 5, 1.0, r"images must be \(N, C, H, W\), got \(5, 8, 6\)"),
        ((5, 3, 8, 6), 4, 1.0, r"labels must be \(5,\), one for each picture, got \(4,\)"),
        ((5, 3, 8, 6), 5, 0.0, "alpha must be positive, got 0.0"),
    ],
)
def test_wrong_input(shape, labels, alpha, message):
    with pytest.raises(ValueError, match=message):
        cutmix(torch.zeros(shape), torch.zeros(labels, dtype=torch.int64), 3, alpha=alpha)
