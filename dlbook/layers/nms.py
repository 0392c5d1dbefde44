"""Non-maximum suppression: of boxes that overlap, the best one stays.

Felzenszwalb et al. (2010), https://doi.org/10.1109/TPAMI.2009.167, section 5, in the greedy form that detectors use.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    N  boxes of an image    K  classes    D  detections of an image    ...  any dimensions in front
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dlbook.layers.boxes import check_boxes, precise


class Detections(NamedTuple):
    """What a detector found in a batch, the best first; as many rows for each image, so that batches can be joined.

    Shapes:
        ``boxes`` (B, D, 4) in pixels, ``scores`` (B, D) 0 to 1, ``labels`` (B, D) int64, -1 where a row is empty.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def best_boxes(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
) -> Detections:
    """From all that a detector proposes to what it says: the best boxes of each class that do not overlap.

    Args:
        boxes: In pixels, for each class or for all of them.
        scores: Of each box for each class, 0 to 1.
        score_threshold: Only scores above it count.
        iou_threshold: Of two boxes of a class with an IoU above it, the better one stays.
        max_detections: D; the rows that are not needed are empty. Ten times as many of the best scores are looked at,
            which bounds the time.

    Shapes:
        ``boxes`` (B, N, 4) or (B, N, K, 4), ``scores`` (B, N, K); returns `Detections`.

    Example:
        >>> boxes, scores = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10]]]), torch.tensor([[[0.1, 0.7], [0.2, 0.9]]])
        >>> found = best_boxes(boxes, scores, score_threshold=0.3, iou_threshold=0.5, max_detections=2)
        >>> found.scores, found.labels
        (tensor([[0.9000, 0.0000]]), tensor([[ 1, -1]]))
    """
    B, N, K = scores.shape
    if boxes.ndim == 3:
        boxes = boxes.unsqueeze(2).expand(B, N, K, 4)
    flat = precise(scores.detach()).flatten(1)  # (B, N * K)
    flat = flat.masked_fill(~(flat > score_threshold), -math.inf)
    flat, index = flat.topk(min(10 * max_detections, N * K))  # (B, C)
    labels = index % K
    boxes = precise(boxes.detach()).flatten(1, 2).gather(1, index.unsqueeze(-1).expand(-1, -1, 4))  # (B, C, 4)
    keep = nms_mask(boxes, flat, iou_threshold, labels)
    flat, index = flat.masked_fill(~keep, -math.inf).topk(min(max_detections, flat.shape[1]))  # (B, D)
    empty = flat == -math.inf
    return Detections(
        boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)).masked_fill(empty.unsqueeze(-1), 0.0),
        flat.masked_fill(empty, 0.0),
        labels.gather(1, index).masked_fill(empty, -1),
    )


def nms(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """Non-maximum suppression: of boxes that overlap, the best one stays.

    By definition: go through the boxes from the best score down (of equal scores, the one that comes first), and keep
    a box unless it overlaps one kept before by an IoU above ``threshold``.

    Args:
        boxes: Of one image, in pixels.
        scores: Of any range.
        threshold: IoU, 0 to 1.
        labels: Boxes of different classes do not suppress one another; one class where it is left out.

    Shapes:
        ``boxes`` (N, 4), ``scores`` and ``labels`` (N,); returns the indices of the boxes that stay, best first.

    Raises:
        ValueError: If shapes do not fit, a box has a negative size, or a number is not finite.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
        >>> nms(boxes, torch.tensor([0.8, 0.9, 0.1]), threshold=0.5)
        tensor([1, 2])
    """
    if boxes.ndim != 2 or scores.shape != boxes.shape[:1] or (labels is not None and labels.shape != scores.shape):
        shapes = [None if part is None else tuple(part.shape) for part in (boxes, scores, labels)]
        raise ValueError(f"boxes (N, 4), scores (N,) and labels (N,) were expected, got {shapes}")
    check_boxes(boxes)
    if not (finite := scores.isfinite()).all():
        raise ValueError(f"scores must be finite, got {scores[~finite][0].item()}")
    keep = nms_mask(boxes, scores, threshold, labels)
    order = scores.argsort(descending=True, stable=True)
    return order[keep[order]]


def nms_mask(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """`nms` of a batch of images at once, without a look at the values: which boxes stay.

    Sorted by score, box j stays unless a box i < j that stays overlaps it. Starting with all boxes, each round asks
    that of all of them at once. After round r the first r boxes have their final answer, for theirs depends only on
    boxes before them, and once a round changes nothing all answers are final; a handful of rounds is the rule.

    Args:
        scores: -inf marks a row that is empty: it neither stays nor suppresses.

    Shapes:
        ``boxes`` (..., N, 4), ``scores`` and ``labels`` (..., N); returns (..., N) bool.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
        >>> nms_mask(boxes, torch.tensor([0.8, 0.9, 0.1]), threshold=0.5)
        tensor([False,  True,  True])
    """
    with torch.no_grad():
        order = scores.argsort(dim=-1, descending=True, stable=True)
        boxes = boxes.gather(-2, order.unsqueeze(-1).expand_as(boxes))
        filled = scores.gather(-1, order) > -math.inf
        if labels is not None:
            labels = labels.gather(-1, order)
        suppresses = _suppresses(boxes, threshold, labels)  # (..., N, N)
        keep = filled
        while True:
            hits = (keep.to(suppresses.dtype).unsqueeze(-2) @ suppresses).squeeze(-2)  # (..., N)
            settled = filled & (hits == 0)
            if torch.equal(settled, keep):
                return torch.zeros_like(keep).scatter(-1, order, keep)
            keep = settled


def _suppresses(boxes: Tensor, threshold: float, labels: Tensor | None, rows: int = 128) -> Tensor:
    """1 where box i would suppress box j > i, else 0: ``overlaps(boxes, boxes) > threshold`` above the diagonal.

    Some rows at a time and mostly in place, because most of the time would go into touching fresh memory. The operations
    and their order are those of `overlaps`, so the numbers are the same to the last bit.

    Shapes: ``boxes`` (..., N, 4), ``labels`` (..., N); returns (..., N, N).
    """
    x1, y1, x2, y2 = boxes.movedim(-1, 0).contiguous()  # each (..., N)
    area = (x2 - x1) * (y2 - y1)
    result = boxes.new_zeros(*boxes.shape[:-1], boxes.shape[-2])
    for i in range(0, boxes.shape[-2], rows):
        left, top, right, bottom, own = (part[..., i : i + rows, None] for part in (x1, y1, x2, y2, area))
        x1_, y1_, x2_, y2_, other = (part[..., None, i:] for part in (x1, y1, x2, y2, area))
        width = torch.minimum(right, x2_).sub_(torch.maximum(left, x1_))
        height = torch.minimum(bottom, y2_).sub_(torch.maximum(top, y1_))
        intersection = width.clamp_(min=0).mul_(height.clamp_(min=0))
        union = torch.add(own, other, out=height).sub_(intersection)
        above = intersection.div_(union).gt_(threshold)  # 0 / 0 is above nothing
        if labels is not None:
            above *= labels[..., i : i + rows, None] == labels[..., None, i:]
        result[..., i : i + rows, i:] = above.triu_(1)
    return result
