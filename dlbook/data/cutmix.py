"""A rectangle of each picture comes from another one, and so does that share of its label.

S. Yun et al., CutMix, https://arxiv.org/abs/1905.04899, 2019. Beside `mixup` and `cutout` in `dlbook.data.augment`.

Chapter: chapters/05-training-and-optimization.ipynb

Letters for shapes in this file:
    N  pictures    C  channels    H  rows    W  columns    K  classes
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cutmix(
    images: Tensor, labels: Tensor, num_classes: int, *, alpha: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A rectangle of each picture replaced by what another picture of the batch has there.

    Its sides have the ratio of the picture's; near the border a part of it lies outside, and the labels are mixed by what
    is left of it, pixel by pixel.

    Args:
        images: Pictures.
        labels: Index of the class of each.
        num_classes: How many classes there are, K.
        alpha: The share of the other picture is drawn from Beta(alpha, alpha); 1 for all shares alike.
        generator: Source of the random numbers, on the CPU.

    Shapes: images (N, C, H, W), labels (N,) int64; returns (N, C, H, W) and probabilities (N, K), which
        `torch.nn.functional.cross_entropy` takes as they are.

    Raises:
        ValueError: If the pictures are not (N, C, H, W), there are not as many labels, or ``alpha`` is not positive.

    Example:
        >>> images, y = cutmix(torch.rand(5, 3, 8, 6), torch.tensor([0, 1, 2, 0, 1]), 3)
        >>> images.shape, y.shape, bool((y.sum(1) - 1).abs().max() < 1e-6)
        (torch.Size([5, 3, 8, 6]), torch.Size([5, 3]), True)
    """
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got {tuple(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be ({len(images)},), one for each picture, got {tuple(labels.shape)}")
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    n, _, height, width = images.shape
    # Beta from two gamma variables, which torch draws with a generator; one share for each picture
    gamma = torch._standard_gamma(torch.full((2, n), alpha, dtype=torch.float64), generator=generator)
    side = (gamma[0] / gamma.sum(0)).sqrt()  # (N,), of the rectangle, by that of the picture

    def cut(length: int) -> Tensor:
        """Which rows, or columns, are in the rectangle."""
        middle = torch.rand(n, generator=generator, dtype=torch.float64) * length
        start, end = ((middle + sign * side * length / 2).round() for sign in (-1, 1))
        place = torch.arange(length)
        return (place >= start.unsqueeze(1)) & (place < end.unsqueeze(1))  # (N, length)

    rows, columns = cut(height), cut(width)
    share = (rows.double().mean(1) * columns.double().mean(1)).to(images)  # (N,), of what lies within the picture
    other = torch.randperm(n, generator=generator).to(images.device)
    inside = (rows.to(images.device).unsqueeze(2) & columns.to(images.device).unsqueeze(1)).unsqueeze(1)  # (N, 1, H, W)
    sure = F.one_hot(labels, num_classes).to(images.dtype)  # refuses a label that is no class
    return torch.where(inside, images[other], images), torch.lerp(sure, sure[other], share.unsqueeze(1))
