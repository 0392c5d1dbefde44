"""Losses and measures for a class at every pixel.

Letters for shapes: N pictures, K classes, H rows, W columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_loss(logits: Tensor, masks: Tensor, *, smooth: float = 1.0) -> Tensor:
    """1 - the soft Dice coefficient, mean over the classes.

    For a class with probabilities p and a mask m of zeros and ones, over all pixels of the batch::

        Dice = (2 sum(p m) + smooth) / (sum(p) + sum(m) + smooth)

    A small class counts as much as a large one, which cross-entropy, a mean over pixels, does not give.

    Args:
        logits: A score for every class at every pixel.
        masks: Index of the right class.
        smooth: Pixels added above and below, so that a class that is nowhere is no division by 0.

    Shapes: logits (N, K, H, W), masks (N, H, W) int64; returns ().

    Raises:
        ValueError: If the shapes do not go together.

    Example:
        >>> masks = torch.tensor([[[0, 1], [1, 1]]])
        >>> sure = F.one_hot(masks, 2).movedim(-1, 1) * 100.0
        >>> dice_loss(sure, masks).item(), round(dice_loss(-sure, masks, smooth=0).item(), 3)
        (0.0, 1.0)

    Source: F. Milletari, N. Navab, S. Ahmadi, https://arxiv.org/abs/1606.04797, 2016 (there with squares below).
    """
    _check_masks(logits, masks)
    p = logits.float().softmax(1)  # sums over many pixels: in float32 also under autocast
    m = F.one_hot(masks, logits.shape[1]).movedim(-1, 1).to(p.dtype)  # (N, K, H, W)
    both, either = (p * m).sum((0, 2, 3)), p.sum((0, 2, 3)) + m.sum((0, 2, 3))  # (K,)
    return 1 - ((2 * both + smooth) / (either + smooth)).mean()


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus `dice_loss`: the one has good gradients early, the other minds small classes.

    Shapes: logits (N, K, H, W), masks (N, H, W) int64; returns ().

    Raises:
        ValueError: If the shapes do not go together.
    """
    return F.cross_entropy(logits, masks) + dice_loss(logits, masks)


@dataclass(frozen=True, eq=False)
class SegmentationScores:
    """How well predicted masks fit the right ones; NaN for a class that is in neither.

    Attributes:
        iou: Intersection over union of each class, 0 to 1, over all pixels together.
        dice: Twice the intersection over the sum of both, 0 to 1; the F1 score of a pixel.
        boundary: F1 score of the border of each class: a border pixel counts as found if the other border passes within
            ``tolerance`` pixels of it.
        accuracy: Share of the pixels whose class is right.

    Shapes: ``iou``, ``dice``, ``boundary`` (K,).
    """

    iou: Tensor
    dice: Tensor
    boundary: Tensor
    accuracy: float


def segmentation_scores(
    predicted: Tensor, masks: Tensor, num_classes: int, *, tolerance: int = 1
) -> SegmentationScores:
    """Compare predicted masks with the right ones, over all pictures together.

    Args:
        predicted: Predicted class of every pixel.
        masks: Its right class.
        num_classes: How many classes there are, K.
        tolerance: Largest distance of two borders that count as one, in pixels, along rows or columns.

    Shapes: predicted and masks (N, H, W) int64.

    Raises:
        ValueError: If the shapes differ, a class is out of range, or there is no pixel.

    Example:
        >>> masks = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
        >>> scores = segmentation_scores(masks.flip(1), masks, 2)
        >>> scores.iou.tolist(), scores.accuracy
        ([1.0, 1.0], 1.0)

    Source: for the boundary G. Csurka et al., What is a good evaluation measure for semantic segmentation?, 2013.
    """
    if predicted.shape != masks.shape or masks.dim() != 3 or masks.numel() == 0:
        raise ValueError(
            f"masks must be two of (N, H, W), not empty, got {tuple(predicted.shape)}, {tuple(masks.shape)}"
        )
    for name, part in (("predicted", predicted), ("masks", masks)):
        if part.min() < 0 or part.max() >= num_classes:
            raise ValueError(f"{name} has classes from {part.min()} to {part.max()}, and there are {num_classes}")
    pairs = (masks * num_classes + predicted).flatten().bincount(minlength=num_classes**2)
    confusion = pairs.view(num_classes, num_classes).double()  # rows: right class, columns: predicted class
    hits, sums = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)  # (K,)
    boundary = [_boundary_score(predicted == k, masks == k, tolerance) for k in range(num_classes)]
    accuracy = (hits.sum() / confusion.sum()).item()
    return SegmentationScores(hits / (sums - hits), 2 * hits / sums, torch.stack(boundary), accuracy)


def _boundary_score(predicted: Tensor, mask: Tensor, tolerance: int) -> Tensor:
    """F1 score of the borders of two masks (N, H, W) bool."""
    borders = [_border(part) for part in (predicted, mask)]
    thick = [_grown(border, tolerance) for border in borders]
    found = [(border & other).sum().double() for border, other in zip(borders, reversed(thick), strict=True)]
    precision, recall = (hits / border.sum() for hits, border in zip(found, borders, strict=True))
    if not borders[0].any() or not borders[1].any():  # NaN if both are empty, 0 if one is
        return torch.full((), torch.nan if not (borders[0].any() or borders[1].any()) else 0.0, dtype=torch.float64)
    return torch.nan_to_num(2 * precision * recall / (precision + recall))


def _border(mask: Tensor) -> Tensor:
    """Pixels of the mask with one of their eight neighbours outside; beyond the picture counts as inside."""
    return mask & _grown(~mask, 1)


def _grown(mask: Tensor, by: int) -> Tensor:
    return F.max_pool2d(mask.float().unsqueeze(1), 2 * by + 1, 1, by).squeeze(1) > 0


def _check_masks(logits: Tensor, masks: Tensor) -> None:
    if logits.dim() != 4 or masks.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits (N, K, H, W) and masks (N, H, W) must match, got {tuple(logits.shape)}, {tuple(masks.shape)}"
        )
