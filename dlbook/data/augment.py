"""Random changes to pictures that keep what they show, on whole batches of tensors and on any device.

A network that sees each digit a little turned, shifted and bent in every epoch learns what may change without the digit
becoming another one.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Source: Simard, Steinkraus & Platt (2003), https://doi.org/10.1109/ICDAR.2003.1227801.

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
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got {tuple(images.shape)}")
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
