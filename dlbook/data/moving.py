"""Videos of handwritten digits that drift through a square and bounce off its walls.

N. Srivastava, E. Mansimov, R. Salakhutdinov, Unsupervised learning of video representations using LSTMs,
https://arxiv.org/abs/1502.04681, 2015. Chapter 4.

Letters for shapes in this file:
    N  videos    T  frames    K  digits in a video    H, W  rows and columns    M  pictures to choose from
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Videos:
    """Videos and what is to be known about them.

    Attributes:
        frames: The pictures one after the other, 0 dark to 1 bright, float32.
        labels: Which digits are seen, int64.
        corners: Row and column of each digit's upper left corner in every frame, pixels, int64.

    Shapes: ``frames`` (N, T, 1, H, W), ``labels`` (N, K), ``corners`` (N, T, K, 2).
    """

    frames: Tensor
    labels: Tensor
    corners: Tensor


def moving_digits(
    images: Tensor,
    labels: Tensor,
    count: int,
    *,
    num_frames: int = 20,
    size: int = 64,
    num_digits: int = 2,
    speed: tuple[float, float] = (2.0, 4.0),
    generator: torch.Generator | None = None,
) -> Videos:
    """Videos of digits drawn from a set of pictures, with directions, speeds and places drawn too.

    Each digit flies straight and at its own speed, is reflected by the walls, and stands on whole pixels in every
    frame. Where digits cross, the brighter pixel is seen. Give training pictures for training videos and test pictures
    for test videos: ``moving_digits(data.train_images, data.train_labels, 100)`` with ``data = mnist5k()``. A video of
    the default size takes 330 kB.

    Args:
        images: Pictures of digits, 0 dark to 1 bright.
        labels: Their classes.
        count: Videos.
        num_frames: Frames in each.
        size: Rows and columns of a frame, pixels, at least those of a picture.
        num_digits: Digits in each video.
        speed: Lowest and highest speed, pixels a frame.
        generator: Where all is drawn from, on the CPU; None takes PyTorch's global one.

    Shapes: ``images`` (M, 1, h, w), ``labels`` (M,).

    Raises:
        ValueError: If there are no such pictures, a number is below 1, or the frame is smaller than a picture.

    Example:
        >>> square = torch.ones(1, 1, 3, 3)
        >>> videos = moving_digits(square, torch.tensor([7]), 2, num_frames=5, size=8, num_digits=1)
        >>> videos.frames.shape, videos.frames.sum((2, 3, 4)).unique().tolist(), videos.labels.tolist()
        (torch.Size([2, 5, 1, 8, 8]), [9.0], [[7], [7]])
    """
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"expected pictures (M, 1, h, w) and labels (M,), got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    for name, number in (("count", count), ("num_frames", num_frames), ("num_digits", num_digits)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    height, width = images.shape[2:]
    if size < max(height, width):
        raise ValueError(f"size={size} is smaller than the pictures, {height} x {width}")
    if not 0 <= speed[0] <= speed[1] < math.inf:
        raise ValueError(f"speed must be a lower and a higher number of pixels a frame, got {speed}")

    which = torch.randint(len(images), (count, num_digits), generator=generator)  # (N, K)
    room = torch.tensor([size - height, size - width])
    start = torch.rand(count, 1, num_digits, 2, generator=generator) * room
    angle = torch.rand(count, 1, num_digits, generator=generator) * (2 * math.pi)
    pace = speed[0] + torch.rand(count, 1, num_digits, generator=generator) * (speed[1] - speed[0])
    velocity = torch.stack([angle.sin(), angle.cos()], -1) * pace.unsqueeze(-1)  # (N, 1, K, 2)
    straight = start + velocity * torch.arange(num_frames).view(-1, 1, 1)  # (N, T, K, 2)
    corners = reflect(straight, room).round().long()

    # A row and a column of darkness behind each picture: every pixel of a frame that lies off the picture looks there.
    padded = torch.nn.functional.pad(images[which.to(images.device), 0], (0, 1, 0, 1))  # (N, K, h + 1, w + 1)
    pixels = torch.arange(size)
    across = [_within(pixels - corners[..., i, None], images.shape[2 + i]).to(images.device) for i in (0, 1)]
    n = torch.arange(count).view(-1, 1, 1, 1)
    frames = images.new_zeros(count, num_frames, size, size)
    for digit in range(num_digits):  # one at a time, so that memory is needed for one
        rows, columns = (part[:, :, digit] for part in across)  # (N, T, size)
        layer = padded[n, digit, rows.unsqueeze(-1), columns.unsqueeze(-2)]  # (N, T, H, W)
        frames = torch.maximum(frames, layer)
    return Videos(frames.unsqueeze(2), labels[which.to(labels.device)], corners)


def reflect(position: Tensor, room: Tensor) -> Tensor:
    """Where something is that would have flown straight to ``position``, had it not bounced off walls at 0 and ``room``.

    Args:
        position: Without walls.
        room: Where the second wall is, at least 0.

    Shapes: any that broadcast.

    Example:
        >>> reflect(torch.tensor([-1.0, 2.0, 6.0, 11.0]), torch.tensor(5.0)).tolist()
        [1.0, 2.0, 4.0, 1.0]
    """
    turned = torch.where(room > 0, position.remainder(2 * room), 0)  # there and back
    return torch.minimum(turned, 2 * room - turned)


def _within(offset: Tensor, length: int) -> Tensor:
    """The offset itself where it lies within a picture, else the index just behind it."""
    return torch.where((offset >= 0) & (offset < length), offset, length)
