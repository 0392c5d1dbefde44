"""Losses that more than one model is trained with.

Chapter: chapters/03-convolutional-networks.ipynb
"""

from torch import Tensor
from torch.nn import functional as F


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0) -> Tensor:
    """Binary cross-entropy of each logit, with less weight the better it is already: (1 - p_t)^gamma.

    A detector sees thousands of easy background places for each object; at ``gamma`` 0 their many small losses
    outweigh the few large ones. Here p_t is the probability given to the right answer.

    Args:
        logits: Before the sigmoid.
        targets: 0 or 1, or between.
        alpha: Weight of the ones, 1 - ``alpha`` that of the zeros; None for equal weights.
        gamma: At least 0.

    Shapes:
        All the same (...); returns (...): the caller chooses what to divide the sum by.

    Raises:
        ValueError: If the shapes differ, or ``alpha`` or ``gamma`` is out of range.

    Source:
        Lin et al. (2017), https://arxiv.org/abs/1708.02002, equation 5.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 2.0])
        >>> sigmoid_focal_loss(logits, torch.ones(2), alpha=None)  # unsure: a quarter of log 2; rather sure: hardly any
        tensor([0.1733, 0.0018])
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same shape")
    if gamma < 0 or (alpha is not None and not 0 <= alpha <= 1):
        raise ValueError(f"gamma must be at least 0 and alpha from 0 to 1 or None, got {gamma=} and {alpha=}")
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    loss = loss * (p + targets - 2 * p * targets) ** gamma  # 1 - p_t
    return loss if alpha is None else loss * (alpha * targets + (1 - alpha) * (1 - targets))
