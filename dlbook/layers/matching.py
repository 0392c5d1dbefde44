"""Which object each box of a detector learns, and which boxes are drawn to learn from.

Ren et al. (2015), https://arxiv.org/abs/1506.01497, section 3.1.2. All sizes are fixed: what does not count is masked, so
that nothing waits for the GPU.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    N  boxes of an image    M  rows for objects    n  samples of an image
"""

import torch
from torch import Tensor

from dlbook.layers.boxes import overlaps


def match(boxes: Tensor, y: Tensor, *, low: float, high: float, at_least_one: bool = False) -> tuple[Tensor, Tensor]:
    """Which object each box stands for: label 1 where IoU is at least ``high``, 0 where below ``low``, -1 between.

    Args:
        boxes: Anchors that all images share, or proposals of each image.
        y: Rows [class, x1, y1, x2, y2], class -1 where a row is empty.
        low: IoU, 0 to 1.
        high: IoU, at least ``low``.
        at_least_one: The boxes that overlap an object most have label 1 whatever their IoU, so that none is left out.

    Shapes:
        ``boxes`` (N, 4) or (B, N, 4), ``y`` (B, M, 5) with M >= 1; returns labels and rows of y, both (B, N).

    Example:
        >>> y = torch.tensor([[[3.0, 0, 0, 10, 10]]])
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]])
        >>> match(boxes, y, low=0.3, high=0.7)[0]
        tensor([[ 1, -1,  0]])
    """
    iou = overlaps(y[..., 1:], boxes).masked_fill((y[..., 0] < 0).unsqueeze(-1), -1.0)  # (B, M, N)
    best, rows = iou.max(1)
    labels = (best >= high).long() - ((best >= low) & (best < high)).long()
    if at_least_one:
        most = iou.amax(2, keepdim=True)  # (B, M, 1)
        labels = labels.masked_fill(((iou == most) & (most > 0)).any(1), 1)
    return labels, rows


def sample(labels: Tensor, count: int, share: float, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw ``count`` boxes of each image: at most a ``share`` of them with label 1, the rest with label 0.

    Args:
        labels: From `match`; what has -1 is never drawn.
        count: Fewer count where there are not as many.
        share: 0 to 1.
        generator: Source of the draws; PyTorch's own for the device if left out.

    Shapes:
        ``labels`` (B, N); returns indices (B, n), those with label 1 first, and which of them count (B, n).

    Example:
        >>> index, drawn = sample(torch.tensor([[0, 1, -1, 1, 1, 0]]), 4, 0.25, torch.Generator().manual_seed(0))
        >>> drawn, int(index[0, 0]) in (1, 3, 4), sorted(index[0, 1:3].tolist())
        (tensor([[ True,  True,  True, False]]), True, [0, 5])
    """
    device = labels.device if generator is None else generator.device
    noise = torch.rand(labels.shape, generator=generator, device=device).to(labels.device)
    most = noise.masked_fill(labels != 1, -1.0).topk(min(int(count * share), labels.shape[1])).indices
    chosen = torch.zeros_like(labels, dtype=torch.bool).scatter(1, most, True) & (labels == 1)
    rank = torch.where(chosen, noise + 2, noise.masked_fill(labels != 0, -1.0))  # label 1 first
    rank, index = rank.topk(min(count, labels.shape[1]))
    return index, rank >= 0
