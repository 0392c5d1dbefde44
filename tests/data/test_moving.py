"""Moving digits stand where it says, fly straight between walls, and are the same for the same generator."""

import pytest
import torch

from dlbook.data.images import mnist5k
from dlbook.data.moving import moving_digits, reflect


def pictures():
    """Five of 4 x 3 pixels, all different and none dark."""
    return torch.arange(1.0, 61).view(5, 1, 4, 3) / 60, torch.tensor([9, 8, 7, 6, 5])


def make(seed=0, **settings):
    images, labels = pictures()
    return moving_digits(images, labels, 6, generator=torch.Generator().manual_seed(seed), **settings)


def test_frames_are_the_pictures_where_the_corners_say():
    videos = make(num_frames=30, size=11, num_digits=2)
    images, labels = pictures()
    assert videos.frames.shape == (6, 30, 1, 11, 11)
    assert videos.labels.shape == (6, 2)
    assert videos.corners.shape == (6, 30, 2, 2)
    assert videos.frames.dtype == torch.float32
    for n in range(6):
        for t in range(30):
            expected = torch.zeros(11, 11)
            for k in range(2):
                row, column = videos.corners[n, t, k].tolist()
                [which] = (labels == videos.labels[n, k]).nonzero().tolist()
                region = expected[row : row + 4, column : column + 3]
                region.copy_(torch.maximum(region, images[which[0], 0]))
            assert torch.equal(videos.frames[n, t, 0], expected)


def test_digits_reach_the_walls_and_no_further():
    corners = make(num_frames=200, size=11).corners
    assert corners.amin((0, 1, 2)).tolist() == [0, 0]
    assert corners.amax((0, 1, 2)).tolist() == [7, 8]


def test_speed_is_kept_between_walls():
    corners = make(num_frames=20, size=500, speed=(3.0, 5.0), num_digits=1).corners[:, :, 0].double()
    steps = corners.diff(dim=1)
    turns = steps.sign().diff(dim=1).ne(0).any(-1).any(-1)
    flights = corners[~turns]
    assert len(flights) > 2
    speed = (flights[:, -1] - flights[:, 0]).norm(dim=1) / 19
    assert 2.9 < speed.min() <= speed.max() < 5.1
    straight = flights[:, :1] + (flights[:, -1:] - flights[:, :1]) * torch.linspace(0, 1, 20).view(-1, 1)
    assert (flights - straight).abs().max() <= 1.5  # whole pixels at both ends and in between


def test_standing_still():
    corners = make(num_frames=7, size=11, speed=(0.0, 0.0)).corners
    assert (corners == corners[:, :1]).all()


def test_the_generator_decides():
    first, again, other = make(3, size=9), make(3, size=9), make(4, size=9)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.frames, other.frames)


def test_a_frame_as_large_as_the_picture_holds_it_still():
    images, labels = torch.rand(2, 1, 5, 5), torch.tensor([0, 1])
    videos = moving_digits(images, labels, 3, num_frames=4, size=5, num_digits=1)
    assert torch.equal(videos.frames, images[videos.labels[:, 0]].unsqueeze(1).expand(-1, 4, -1, -1, -1))


def test_digits_of_mnist():
    data = mnist5k()
    videos = moving_digits(data.test_images, data.test_labels, 3, generator=torch.Generator().manual_seed(1))
    assert videos.frames.shape == (3, 20, 1, 64, 64)
    assert 0 == videos.frames.min() < videos.frames.max() <= 1
    assert videos.labels.max() <= 9


def test_reflection():
    position = torch.linspace(-40, 40, 641, dtype=torch.float64)
    inside = reflect(position, torch.tensor(7.0))
    assert inside.min() == 0
    assert inside.max() == 7
    assert torch.equal(inside, reflect(position + 14, torch.tensor(7.0)))
    assert torch.equal(inside, inside.flip(0))
    assert reflect(torch.tensor([-3.0, 0.0, 5.0]), torch.tensor(0)).tolist() == [0, 0, 0]
    assert reflect(torch.tensor([0.1, 0.35]), torch.tensor(0.25)).tolist() == pytest.approx([0.1, 0.15])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 3}, "size=3 is smaller than the pictures, 4 x 3"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"num_digits": 0}, "num_digits must be at least 1, got 0"),
        ({"speed": (4.0, 2.0)}, r"got \(4.0, 2.0\)"),
        ({"speed": (-1.0, 2.0)}, r"got \(-1.0, 2.0\)"),
        ({"speed": (0.0, float("nan"))}, "nan"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize("shape", [(5, 3, 4, 3), (5, 4, 3), (0, 1, 4, 3), (4, 1, 4, 3)])
def test_bad_pictures_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected pictures \(M, 1, h, w\) and labels \(M,\)"):
        moving_digits(torch.zeros(shape), torch.zeros(5), 1)


def test_no_videos_are_refused():
    images, labels = pictures()
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        moving_digits(images, labels, 0)
