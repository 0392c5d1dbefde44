"""Checks of what a caller hands over, on shapes alone, so that they cost nothing and a model stays exportable.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    H  rows    W  columns
"""

from torch import Tensor


def check_images(x: Tensor, in_channels: int, smallest: int = 1) -> None:
    """Complain unless ``x`` is a batch of pictures that a network with ``in_channels`` can take.

    Args:
        x: What should be pictures.
        in_channels: Channels that the network was made for.
        smallest: Fewest rows, and fewest columns, that leave something after all strides and poolings.

    Shapes: x (B, C, H, W).

    Raises:
        ValueError: If ``x`` has another rank, other channels, or is too small.

    Example:
        >>> import torch
        >>> check_images(torch.zeros(5, 3, 28, 30), in_channels=3)
        >>> check_images(torch.zeros(5, 28, 30), in_channels=3)
        Traceback (most recent call last):
            ...
        ValueError: images must be (batch, 3, height, width), got (5, 28, 30)
    """
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(f"images must be (batch, {in_channels}, height, width), got {tuple(x.shape)}")
    if min(x.shape[2:]) < smallest:
        raise ValueError(f"images must be at least {smallest} x {smallest} pixels, got {tuple(x.shape)}")
