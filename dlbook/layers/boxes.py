"""Boxes on images: how much they overlap, and how they are coded against anchors.

A box is [x1, y1, x2, y2] in pixels: left, top, right, bottom edge, so that its width is x2 - x1.

Ren et al. (2015), https://arxiv.org/abs/1506.01497 (anchors, coding); Rezatofighi et al. (2019),
https://arxiv.org/abs/1902.09630 (GIoU).

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    N, M  boxes     A  anchors of one cell     H, W  rows and columns     ...  any dimensions in front, such as a batch
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: A decoded box is at most this many times as large as its anchor; in the exponent, so that it cannot overflow.
MAX_LOG_SCALE = math.log(1000 / 16)


def check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    """Look at the values of boxes; on a GPU this waits for them, so training steps leave it out.

    Raises:
        ValueError: If the last dimension is not 4, a number is not finite, or a box has a negative size.

    Example:
        >>> check_boxes(torch.tensor([[2.0, 0.0, 1.0, 5.0]]))
        Traceback (most recent call last):
        ValueError: boxes must have x1 <= x2 and y1 <= y2, got [2.0, 0.0, 1.0, 5.0]
    """
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must be (..., 4), got {tuple(boxes.shape)}")
    rows = boxes.detach().reshape(-1, 4)
    if not (finite := rows.isfinite().all(-1)).all():
        raise ValueError(f"{name} must be finite, got {rows[~finite][0].tolist()}")
    if (negative := (rows[:, 2:] < rows[:, :2]).any(-1)).any():
        raise ValueError(f"{name} must have x1 <= x2 and y1 <= y2, got {rows[negative][0].tolist()}")


def check_targets(y: Tensor, num_classes: int) -> None:
    """Look at the values of what a detector is trained on, once, before training.

    Args:
        y: A row [class, x1, y1, x2, y2] for each object, in pixels; class -1 where a row is empty.
        num_classes: Classes are 0 to ``num_classes`` - 1.

    Shapes:
        ``y`` (B, M, 5); an image may have no object, and M may be 0.

    Raises:
        ValueError: If the shape, a class or the box of an object is not so.

    Example:
        >>> check_targets(torch.tensor([[[3.0, 10, 20, 30, 40], [-1, 0, 0, 0, 0]]]), num_classes=4)
    """
    if y.ndim != 3 or y.shape[-1] != 5:
        raise ValueError(f"targets must be (images, objects, 5), got {tuple(y.shape)}")
    labels = y[..., 0]
    if (wrong := (labels != labels.round()) | (labels < -1) | (labels >= num_classes)).any():
        found = labels[wrong][0].item()
        raise ValueError(f"a class must be a whole number from 0 to {num_classes - 1}, or -1, got {found}")
    boxes = y[labels >= 0][:, 1:]
    check_boxes(boxes, "boxes of objects")
    if (flat := (boxes[:, 2:] <= boxes[:, :2]).any(-1)).any():
        raise ValueError(f"boxes of objects must have a positive size, got {boxes[flat][0].tolist()}")


def precise(x: Tensor) -> Tensor:
    """``x`` in float32 at least: half precision knows no tenths of pixels beyond 256 and ties many scores."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def areas(boxes: Tensor) -> Tensor:
    """Area of each box, in square pixels.

    Shapes:
        ``boxes`` (..., 4); returns (...).

    Example:
        >>> areas(torch.tensor([[0.0, 0.0, 2.0, 3.0]]))
        tensor([6.])
    """
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of ``a`` with every box of ``b``, 0 to 1.

    Two boxes without any area have 0, even when they are the same.

    Shapes:
        ``a`` (..., N, 4), ``b`` (..., M, 4); returns (..., N, M).

    Raises:
        ValueError: If a box is not finite or has a negative size (`overlaps` is the same without that check).

    Example:
        >>> iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2], [5, 5, 6, 6]]))
        tensor([[0.3333, 0.0000]])
    """
    check_boxes(a)
    check_boxes(b)
    return overlaps(a, b)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """`iou` without a look at the values, for training steps: nothing waits for the GPU."""
    intersection, union = _intersection_and_union(a.unsqueeze(-2), b.unsqueeze(-3))  # each (..., N, M)
    return intersection / (union + (union == 0))


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized intersection over union of every box of ``a`` with every one of ``b``, -1 to 1.

    IoU minus the share of the smallest box around both that neither covers: it also tells far from near where the two
    do not overlap at all, and IoU is 0 for both.

    Shapes:
        ``a`` (..., N, 4), ``b`` (..., M, 4); returns (..., N, M).

    Raises:
        ValueError: If a box is not finite or has a negative size.

    Example:
        >>> giou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1], [3, 0, 4, 1]]))
        tensor([[ 0.0000, -0.5000]])
    """
    check_boxes(a)
    check_boxes(b)
    return _giou(a.unsqueeze(-2), b.unsqueeze(-3))


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU of each predicted box and the target in the same place, 0 to 2.

    Shapes:
        ``predicted`` and ``target`` (..., 4); returns (...).

    Example:
        >>> giou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 1, 1]]))
        tensor([0.])
    """
    return 1 - _giou(predicted, target)


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of each box of ``a`` and the one of ``b`` that broadcasting puts beside it."""
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    intersection = width.clamp(min=0) * height.clamp(min=0)
    return intersection, areas(a) + areas(b) - intersection


def _giou(a: Tensor, b: Tensor) -> Tensor:
    intersection, union = _intersection_and_union(a, b)
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    around = width * height
    return intersection / (union + (union == 0)) - (around - union) / (around + (around == 0))


@dataclass(frozen=True)
class BoxCoder:
    """What a detector predicts instead of a box: how it differs from its anchor, free of the anchor's size.

    With centres (x, y) and sizes (w, h), those of the anchor with index a::

        tx = wx (x - xa) / wa    ty = wy (y - ya) / ha    tw = ww log(w / wa)    th = wh log(h / ha)

    Args:
        weights: (wx, wy, ww, wh); (10, 10, 5, 5) brings the four to about the same spread in the box head.

    Example:
        >>> coder = BoxCoder((10, 10, 5, 5))
        >>> anchors, boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10]])
        >>> coder.encode(boxes, anchors), coder.decode(coder.encode(boxes, anchors), anchors)
        (tensor([[5., 0., 0., 0.]]), tensor([[ 5.,  0., 15., 10.]]))
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.weights) != 4 or not min(self.weights) > 0:
            raise ValueError(f"weights must be four positive numbers, got {self.weights}")

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes and anchors of positive size, both (..., 4), to deltas (..., 4)."""
        wx, wy, ww, wh = self.weights
        x, y, w, h = _centres_and_sizes(boxes)
        xa, ya, wa, ha = _centres_and_sizes(anchors)
        deltas = wx * (x - xa) / wa, wy * (y - ya) / ha, ww * torch.log(w / wa), wh * torch.log(h / ha)
        return torch.stack(deltas, dim=-1)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Deltas and anchors, both (..., 4), to boxes (..., 4)."""
        wx, wy, ww, wh = self.weights
        tx, ty, tw, th = deltas.unbind(-1)
        xa, ya, wa, ha = _centres_and_sizes(anchors)
        x, y = tx / wx * wa + xa, ty / wy * ha + ya
        w = torch.exp((tw / ww).clamp(max=MAX_LOG_SCALE)) * wa
        h = torch.exp((th / wh).clamp(max=MAX_LOG_SCALE)) * ha
        return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=-1)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1
    return x1 + w / 2, y1 + h / 2, w, h


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box that lies on an image of that many pixels.

    Shapes:
        ``boxes`` (..., 4); returns the same.

    Example:
        >>> clip(torch.tensor([[-5.0, 2.0, 50.0, 40.0]]), height=30, width=60)
        tensor([[ 0.,  2., 50., 30.]])
    """
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)  # each (..., 2)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors around (0, 0), of whole pixels to either side: for each ratio, each size.

    Args:
        sizes: Square roots of their areas, in pixels.
        ratios: Height over width.

    Shapes:
        returns (A, 4).

    Example:
        >>> cell_anchors(sizes=(32,), ratios=(0.5, 1.0))
        tensor([[-23., -11.,  23.,  11.],
                [-16., -16.,  16.,  16.]])
    """
    size, ratio = torch.as_tensor(sizes, dtype=torch.float32), torch.as_tensor(ratios, dtype=torch.float32)
    if not (len(size) and len(ratio) and (size > 0).all() and (ratio > 0).all()):
        raise ValueError(f"sizes and ratios must be positive, got {tuple(sizes)} and {tuple(ratios)}")
    root = ratio.sqrt().unsqueeze(1)
    w, h = (size / root).flatten(), (size * root).flatten()  # each (A,)
    return (torch.stack((-w, -h, w, h), dim=1) / 2).round()


def grid_anchors(cell: Tensor, rows: int, columns: int, stride: tuple[int, int]) -> Tensor:
    """The anchors of one cell, moved to every cell of a feature map.

    Args:
        cell: From `cell_anchors`; the result is on its device.
        stride: Pixels from one cell to the next, down and to the right.

    Shapes:
        ``cell`` (A, 4); returns (rows * columns * A, 4), row by row, the anchors of a cell side by side.

    Example:
        >>> grid_anchors(cell_anchors((4,), (1.0,)), rows=1, columns=2, stride=(8, 8))
        tensor([[-2., -2.,  2.,  2.],
                [ 6., -2., 10.,  2.]])
    """
    y = torch.arange(rows, device=cell.device, dtype=cell.dtype) * stride[0]
    x = torch.arange(columns, device=cell.device, dtype=cell.dtype) * stride[1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=-1)  # (H, W, 4)
    return (shifts.unsqueeze(2) + cell).flatten(0, 2)  # (H * W * A, 4)
