import math

import pytest
import torch

from dlbook.data.augment import random_affine, smooth

N, C, H, W = 3, 2, 20, 24


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blob(x, y):
    """A soft dot at column x and row y."""
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4.0)


def centre(picture):
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    return (picture * columns).sum() / picture.sum(), (picture * rows).sum() / picture.sum()


def test_shift_stays_within_its_limit_and_uses_it():
    images = blob(12.0, 10.0).expand(400, 1, H, W)
    moved = random_affine(images, translate=3.0, generator=generator())
    xs, ys = zip(*(centre(m[0]) for m in moved), strict=True)
    for found, start in ((torch.stack(xs), 12.0), (torch.stack(ys), 10.0)):
        assert (found - start).abs().max() <= 3.01
        assert (found - start).abs().max() > 2.9


def test_turning_keeps_the_distance_from_the_middle():
    middle = ((W - 1) / 2, (H - 1) / 2)
    images = blob(middle[0] + 6, middle[1]).expand(200, 1, H, W)
    turned = random_affine(images, degrees=90, generator=generator())
    angles = []
    for picture in turned:
        x, y = centre(picture[0])
        assert math.hypot(x - middle[0], y - middle[1]) == pytest.approx(6, abs=0.35)
        angles.append(math.degrees(math.atan2(y - middle[1], x - middle[0])))
    assert max(angles) > 80
    assert min(angles) < -80


def test_size_and_shear_do_what_they_say():
    images = blob((W - 1) / 2 + 5, (H - 1) / 2).expand(300, 1, H, W)
    xs = torch.stack([centre(m[0])[0] for m in random_affine(images, scale=0.2, generator=generator())])
    assert (xs - (W - 1) / 2).max() == pytest.approx(6, abs=0.1)
    assert (xs - (W - 1) / 2).min() == pytest.approx(4, abs=0.1)
    images = blob((W - 1) / 2, (H - 1) / 2 + 5).expand(300, 1, H, W)
    xs = torch.stack([centre(m[0])[0] for m in random_affine(images, shear=0.4, generator=generator())])
    assert (xs - (W - 1) / 2).abs().max() == pytest.approx(0.4 * 5, abs=0.15)


def test_smoothed_noise_has_variance_one_and_varies_slowly():
    field = smooth(torch.randn(400, 2, H, W, generator=generator()), 2.0)
    assert field.var().item() == pytest.approx(1, rel=0.05)
    neighbours = (field[..., 1:] * field[..., :-1]).mean().item()
    assert neighbours == pytest.approx(math.exp(-1 / (4 * 2.0**2)), abs=0.03)


def test_elastic_bends_and_same_seed_gives_the_same():
    images = torch.rand(N, C, H, W, generator=generator())
    one = random_affine(images, elastic=1.5, generator=generator(1))
    assert torch.equal(one, random_affine(images, elastic=1.5, generator=generator(1)))
    assert not torch.allclose(one, images, atol=0.05)
    assert one.shape == images.shape


def test_keeps_dtype():
    images = torch.rand(N, C, H, W, dtype=torch.float64)
    assert random_affine(images, degrees=5, elastic=1.0).dtype == torch.float64


@pytest.mark.parametrize(("shape", "smoothness"), [((H, W), 4.0), ((N, C, H, W), 0.0)])
def test_mistakes_are_named(shape, smoothness):
    with pytest.raises(ValueError, match="got"):
        random_affine(torch.zeros(shape), elastic=1.0, smoothness=smoothness)
