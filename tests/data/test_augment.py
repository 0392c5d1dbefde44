import math

import pytest
import torch

from dlbook.data import augment
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


def pictures(n=7, channels=3, height=9, width=6):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(3))


def test_random_crop_moves_each_picture_by_whole_pixels():
    images = pictures(40)
    moved = augment.random_crop(images, 2, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    shifts = set()
    for before, after in zip(padded, moved, strict=True):
        at = [(y, x) for y in range(5) for x in range(5) if torch.equal(before[:, y : y + 9, x : x + 6], after)]
        assert len(at) == 1
        shifts.update(at)
    assert len(shifts) > 12
    assert torch.equal(augment.random_crop(images, 0), images)


def test_random_flip_mirrors_about_half():
    images = pictures(400)
    flipped = augment.random_flip(images, generator=torch.Generator().manual_seed(0))
    mirrored = torch.tensor([not torch.equal(a, b) for a, b in zip(images, flipped, strict=True)])
    assert 160 < mirrored.sum() < 240
    assert torch.equal(flipped[mirrored], images[mirrored].flip(-1))
    assert torch.equal(augment.random_flip(images, p=0), images)


def test_brightness_multiplies_a_picture():
    images = pictures() * 0.5
    brighter = augment.color_jitter(images, brightness=0.4, generator=torch.Generator().manual_seed(0))
    factors = brighter / images
    assert (factors.amax((1, 2, 3)) - factors.amin((1, 2, 3))).max() < 1e-4
    assert 0.6 <= factors.min() < factors.max() <= 1.4


def test_contrast_keeps_the_mean_grey_and_saturation_the_grey_of_a_pixel():
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    images = pictures() * 0.2 + 0.4  # far from the limits, so that nothing is cut off
    grey = (images * weights).sum(1)
    flat = augment.color_jitter(images, contrast=0.4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((flat * weights).sum(1).mean((1, 2)), grey.mean((1, 2)))
    assert not torch.allclose(flat.std((1, 2, 3)), images.std((1, 2, 3)), rtol=0.01)
    pale = augment.color_jitter(images, saturation=0.4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((pale * weights).sum(1), grey)
    assert not torch.allclose(pale, images, atol=1e-3)
    torch.testing.assert_close(augment.color_jitter(images), images)


def test_color_jitter_of_grey_pictures_stays_within_range():
    images = pictures(channels=1)
    changed = augment.color_jitter(images, brightness=1, contrast=1, saturation=1)
    assert changed.shape == images.shape
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1


@pytest.mark.parametrize("size", [0, 1, 4, 5])
def test_cutout_cuts_one_square(size):
    images = torch.ones(200, 2, 11, 8)
    cut = augment.cutout(images, size, generator=torch.Generator().manual_seed(0)) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(cut[:, 0].sum((1, 2)), rows * columns)  # one rectangle
    assert rows.max() == columns.max() == size
    if size > 1:
        assert rows.min() < size  # near the border a part lies outside


def test_mixup_mixes_pictures_and_labels_alike():
    images = torch.eye(6).repeat(50, 1).view(300, 1, 2, 3)  # a picture that is its own label
    labels = torch.arange(6).repeat(50)
    mixed, y = augment.mixup(images, labels, 6, alpha=0.4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed.flatten(1), y)
    torch.testing.assert_close(y.sum(1), torch.ones(300))
    assert ((y > 0).sum(1) == 2).float().mean() > 0.7


def test_mixup_draws_from_the_beta_distribution():
    images, labels = torch.arange(40_000.0).unsqueeze(1), torch.zeros(40_000, dtype=torch.long)
    labels[::2] = 1
    _, y = augment.mixup(images, labels, 2, alpha=0.3, generator=torch.Generator().manual_seed(1))
    share = y[0::2, 0][y[0::2, 0] > 0]  # of the other picture, where it has the other label
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.3 + 1)), rel=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: augment.random_crop(pictures()[0], 2),
        lambda: augment.random_crop(pictures(), -1),
        lambda: augment.random_flip(pictures(), p=1.2),
        lambda: augment.random_flip(pictures()[0]),
        lambda: augment.color_jitter(pictures(channels=2)),
        lambda: augment.color_jitter(pictures(), contrast=-0.1),
        lambda: augment.cutout(pictures(), -1),
        lambda: augment.mixup(pictures(), torch.zeros(3, dtype=torch.long), 4),
        lambda: augment.mixup(pictures(), torch.zeros(7, dtype=torch.long), 4, alpha=0),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(wrong):
    with pytest.raises(ValueError, match=r"must .*, got "):
        wrong()


def test_the_same_generator_changes_alike():
    for change in (
        lambda g: augment.random_crop(pictures(), 2, generator=g),
        lambda g: augment.random_flip(pictures(), generator=g),
        lambda g: augment.color_jitter(pictures(), brightness=0.5, contrast=0.5, saturation=0.5, generator=g),
        lambda g: augment.cutout(pictures(), 3, generator=g),
        lambda g: augment.mixup(pictures(), torch.arange(7), 7, generator=g)[0],
    ):
        one, two = (change(torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(one, two)
