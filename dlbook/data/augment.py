"""Random changes to pictures that keep what they show, on whole batches of tensors and on any device.

A network that sees each digit a little turned, shifted and bent in every epoch learns what may change without the digit
becoming another one. `mixup` alone changes what is shown, and the label with it.

Chapters: chapters/02-neural-network-fundamentals.ipynb, chapters/03-convolutional-networks.ipynb

Source: Simard, Steinkraus & Platt (2003), https://doi.org/10.1109/ICDAR.2003.1227801, unless a function names another.

Letters for shapes in this file:
    N  pictures    C  channels    H  rows    W  columns
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_affine(
    images: Tensor,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    elastic: float = 0.0,
    smoothness: float = 4.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turn, scale, shear, shift and bend each picture by its own random amount, in one interpolation.

    Args:
        images: Pictures; what moves in from outside is 0.
        degrees: Largest turn to either side, in degrees.
        translate: Largest shift along each axis, in pixels.
        scale: Largest change of size: 0.1 for 90 % to 110 %.
        shear: Largest sideways shift of a row per row of distance from the middle.
        elastic: Standard deviation of the bending at a point, in pixels; 0 for none.
        smoothness: Over about how many pixels the bending varies (standard deviation of the Gaussian that smooths it).
        generator: Source of the random numbers, on the pictures' device.

    Shapes: images (N, C, H, W) float; returns the same.

    Raises:
        ValueError: If the pictures are not (N, C, H, W), or ``smoothness`` is not positive.

    Example:
        >>> images = torch.rand(5, 1, 28, 28)
        >>> torch.allclose(random_affine(images), images, atol=1e-5)  # nothing asked for, nothing changed
        True
    """
    _check_images(images)
    if smoothness <= 0:
        raise ValueError(f"smoothness must be positive, got {smoothness}")
    n, _, height, width = images.shape

    def up_to(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator, device=images.device) * 2 - 1) * limit  # (N,)

    angle, size = up_to(math.radians(degrees)), 1 + up_to(scale)
    slant, right, down = up_to(shear), up_to(translate) * 2 / width, up_to(translate) * 2 / height
    cos, sin = angle.cos() / size, angle.sin() / size
    # From a place in the result to one in the picture, both in units of half a side: hence the ratios of the sides.
    to_x = torch.stack([cos, (cos * slant - sin) * height / width, right], dim=1)  # (N, 3)
    to_y = torch.stack([sin * width / height, sin * slant + cos, down], dim=1)  # (N, 3)
    matrix = torch.stack([to_x, to_y], dim=1)  # (N, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)  # (N, H, W, 2), -1 to 1 across the picture
    if elastic:
        noise = torch.randn(n, 2, height, width, generator=generator, device=images.device)
        pixels = smooth(noise, smoothness) * elastic  # (N, 2, H, W)
        grid = grid + pixels.movedim(1, -1) * torch.tensor([2 / width, 2 / height], device=images.device)
    return F.grid_sample(images, grid.to(images.dtype), align_corners=False)


def smooth(noise: Tensor, sigma: float) -> Tensor:
    """White noise (N, C, H, W) of variance 1, smoothed by a Gaussian of ``sigma`` pixels and back at variance 1."""
    along_rows, along_columns = (_smoothing_matrix(size, sigma, noise.device) for size in noise.shape[-2:])
    return along_rows @ noise @ along_columns  # (H, H) (N, C, H, W) (W, W): a product is far faster than a convolution


def _smoothing_matrix(size: int, sigma: float, device: torch.device) -> Tensor:
    """The (size, size) matrix whose rows are one Gaussian, moved on by a pixel from row to row and of length 1."""
    places = torch.arange(size, device=device)
    distance = (places[:, None] - places).abs()
    weights = torch.exp(-0.5 * (torch.minimum(distance, size - distance) / sigma) ** 2)
    return weights / weights.square().sum(1, keepdim=True).sqrt()  # independent numbers then keep their variance


def random_crop(images: Tensor, padding: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Each picture shifted by its own whole number of pixels; what moves in from outside is 0.

    Args:
        images: Pictures.
        padding: Largest shift along each axis, in pixels.
        generator: Source of the random numbers, on the pictures' device.

    Shapes: images (N, C, H, W); returns the same.

    Raises:
        ValueError: If the pictures are not (N, C, H, W), or ``padding`` is negative.

    Example:
        >>> random_crop(torch.ones(5, 3, 8, 6), 2).shape
        torch.Size([5, 3, 8, 6])
    """
    _check_images(images)
    if padding < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    corner = torch.randint(2 * padding + 1, (2, n, 1, 1), generator=generator, device=images.device)
    y = corner[0] + torch.arange(height, device=images.device).view(1, -1, 1)  # (N, H, 1)
    x = corner[1] + torch.arange(width, device=images.device)  # (N, 1, W)
    row = torch.arange(n, device=images.device).view(-1, 1, 1)
    return padded.movedim(1, -1)[row, y, x].movedim(-1, 1)  # (N, H, W, C) in between


def random_flip(images: Tensor, *, p: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Each picture mirrored left to right, or not.

    Args:
        images: Pictures.
        p: Probability that a picture is mirrored, 0 to 1.
        generator: Source of the random numbers, on the pictures' device.

    Shapes: images (N, C, H, W); returns the same.

    Raises:
        ValueError: If the pictures are not (N, C, H, W), or ``p`` is no probability.

    Example:
        >>> random_flip(torch.tensor([[[[1, 2, 3]]]]), p=1)
        tensor([[[[3, 2, 1]]]])
    """
    _check_images(images)
    _check_share("p", p)
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < p
    return torch.where(mirrored, images.flip(-1), images)


def color_jitter(
    images: Tensor,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each picture brighter or darker, with more or less contrast and colour, by its own random amounts, in this order.

    Args:
        images: Pictures, 0 dark to 1 bright; so is what is returned.
        brightness: Largest change of the factor on every pixel: 0.4 for 0.6 to 1.4.
        contrast: The same for the distance of every pixel from the picture's mean grey.
        saturation: The same for its distance from the grey of the pixel; changes nothing in grey pictures.
        generator: Source of the random numbers, on the pictures' device.

    Shapes: images (N, 1 or 3, H, W) float; returns the same.

    Raises:
        ValueError: If the pictures have other shapes, or a change is not between 0 and 1.

    Example:
        >>> images = torch.rand(5, 3, 8, 6)
        >>> color_jitter(images, brightness=0.4, contrast=0.4, saturation=0.4).shape
        torch.Size([5, 3, 8, 6])
    """
    _check_images(images)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images must have 1 channel or 3, got {tuple(images.shape)}")
    for name, change in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        _check_share(name, change)

    def factor(change: float) -> Tensor:
        return 1 + (torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) * 2 - 1) * change

    def grey(images: Tensor) -> Tensor:  # the weights of red, green and blue of ITU-R BT.601
        if images.shape[1] == 1:
            return images
        return (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)

    images = (images * factor(brightness)).clamp(0, 1)
    mean = grey(images).mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * factor(contrast)).clamp(0, 1)
    return (grey(images) + (images - grey(images)) * factor(saturation)).clamp(0, 1)


def cutout(images: Tensor, size: int, *, generator: torch.Generator | None = None) -> Tensor:
    """A square at a random place of each picture set to 0; near the border a part of it lies outside.

    Args:
        images: Pictures.
        size: Side of the square, in pixels.
        generator: Source of the random numbers, on the pictures' device.

    Shapes: images (N, C, H, W); returns the same.

    Raises:
        ValueError: If the pictures are not (N, C, H, W), or ``size`` is negative.

    Example:
        >>> int((cutout(torch.ones(1, 1, 9, 9), 2) == 0).sum()) in (1, 2, 4)
        True

    Source: T. DeVries, G. Taylor, https://arxiv.org/abs/1708.04552, 2017.
    """
    _check_images(images)
    if size < 0:
        raise ValueError(f"size must not be negative, got {size}")

    def cut(length: int) -> Tensor:
        middle = torch.randint(length, (len(images), 1), generator=generator, device=images.device)
        place = torch.arange(length, device=images.device) - (middle - size // 2)
        return (place >= 0) & (place < size)  # (N, length)

    square = cut(images.shape[2]).unsqueeze(2) & cut(images.shape[3]).unsqueeze(1)  # (N, H, W)
    return images.masked_fill(square.unsqueeze(1), 0)


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, *, alpha: float = 0.2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Each picture mixed with another of the batch, and so are their labels.

    Args:
        images: Pictures.
        labels: Index of the class of each.
        num_classes: How many classes there are, K.
        alpha: The share of the other picture is drawn from Beta(alpha, alpha); small values mix little.
        generator: Source of the random numbers, on the CPU.

    Shapes: images (N, ...) float, labels (N,) int64; returns (N, ...) and probabilities (N, K), which
        `torch.nn.functional.cross_entropy` takes as they are.

    Raises:
        ValueError: If there are not as many labels as pictures, a label is no class, or ``alpha`` is not positive.

    Example:
        >>> images, y = mixup(torch.rand(5, 3, 8, 6), torch.tensor([0, 1, 2, 0, 1]), 3)
        >>> y.shape, bool((y.sum(1) - 1).abs().max() < 1e-6)
        (torch.Size([5, 3]), True)

    Source: H. Zhang et al., https://arxiv.org/abs/1710.09412, 2018.
    """
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be ({len(images)},), one for each picture, got {tuple(labels.shape)}")
    if alpha <= 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    # Beta from two gamma variables, which torch draws with a generator; one share for each picture
    shape = torch.full((2, len(images)), alpha, dtype=torch.float64)
    gamma = torch._standard_gamma(shape, generator=generator)
    share = (gamma[0] / gamma.sum(0)).to(images)  # (N,)
    other = torch.randperm(len(images), generator=generator).to(images.device)
    sure = F.one_hot(labels, num_classes).to(images.dtype)  # refuses a label that is no class
    mixed = torch.lerp(images, images[other], share.view(-1, *[1] * (images.dim() - 1)))
    return mixed, torch.lerp(sure, sure[other], share.unsqueeze(1))


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got {tuple(images.shape)}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
