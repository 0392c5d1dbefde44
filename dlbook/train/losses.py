"""Losses: what a network is asked for, from their definitions.

For classes, for numbers, and for embeddings, of which only is known which belong together. Each gives the mean over what
it compares, and takes logarithms of sums of exponentials in the way that cannot overflow.

Chapter: chapters/05-training-and-optimization.ipynb

Beside these: the focal loss of independent yes-or-no answers is `dlbook.layers.losses.sigmoid_focal_loss`, the losses of
masks are in `dlbook.train.segmentation`.

Letters for shapes in this file:
    N  examples    K  classes    D  numbers in an embedding
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Minus the logarithm of the probability that was given to the right class.

    With probabilities y of the classes, and a share ε of them handed out evenly (label smoothing)::

        loss = -Σ_k ((1 - ε) y_k + ε / K) log softmax(z)_k

    Args:
        logits: A score z for every class, before softmax.
        targets: Index of the right class, or probabilities y, such as `dlbook.data.augment.mixup` gives.
        label_smoothing: ε, 0 to 1.

    Shapes: logits (N, K) or (N, K, ...), targets (N) or (N, ...) int64, or as the logits; returns ().

    Raises:
        ValueError: If the shapes do not go together, or ``label_smoothing`` is out of range.

    Example:
        >>> logits = torch.tensor([[1000.0, 0.0], [0.0, 0.0]])  # the exponential of 1000 is no float
        >>> cross_entropy(logits, torch.tensor([0, 1]))  # (0 + log 2) / 2
        tensor(0.3466)

    Source: label smoothing: C. Szegedy et al., https://arxiv.org/abs/1512.00567, 2016, section 7.
    """
    if logits.ndim < 2:
        raise ValueError(f"logits must be (examples, classes, ...), got {tuple(logits.shape)}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
    log_p = log_softmax(logits)  # (N, K, ...)
    if targets.is_floating_point():
        _same_shape(logits, targets)
        right = -(targets * log_p).sum(1)  # (N, ...)
    else:
        if targets.shape != logits.shape[:1] + logits.shape[2:]:
            raise ValueError(f"targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}")
        right = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1)  # (N, ...)
    if not label_smoothing:
        return right.mean()
    return ((1 - label_smoothing) * right - label_smoothing * log_p.mean(1)).mean()


def log_softmax(logits: Tensor) -> Tensor:
    """log(exp(z_k) / Σ_j exp(z_j)) over dimension 1; the largest z is taken off first, so that nothing overflows.

    Example:
        >>> log_softmax(torch.tensor([[1000.0, 1000.0]]))
        tensor([[-0.6931, -0.6931]])
    """
    z = logits - logits.detach().amax(1, keepdim=True)  # changes nothing in theory; exp(z) is at most 1 then
    return z - z.exp().sum(1, keepdim=True).log()


def mse_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error: (output - target)².

    Args:
        outputs: Of the network.
        targets: What they should be.

    Shapes: both (...), the same; returns ().

    Raises:
        ValueError: If the shapes differ: (N, 1) and (N) would be spread to (N, N) without a word.

    Example:
        >>> mse_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]))
        tensor(4.5000)
    """
    _same_shape(outputs, targets)
    return (outputs - targets).square().mean()


def huber_loss(outputs: Tensor, targets: Tensor, *, delta: float = 1.0) -> Tensor:
    """Half the squared error near 0, and growing like its size from ``delta`` on: an outlier pulls no more than others.

    Args:
        outputs: Of the network.
        targets: What they should be.
        delta: Error from which on the gradient stays the same.

    Shapes: both (...), the same; returns ().

    Raises:
        ValueError: If the shapes differ, or ``delta`` is not positive.

    Example:
        >>> huber_loss(torch.tensor([0.5, 9.0]), torch.zeros(2))  # (0.5² / 2 + 9 - 1/2) / 2
        tensor(4.3125)

    Source: P. Huber, https://doi.org/10.1214/aoms/1177703732, 1964.
    """
    _same_shape(outputs, targets)
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    error = (outputs - targets).abs()
    return torch.where(error <= delta, 0.5 * error.square(), delta * (error - 0.5 * delta)).mean()


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Cross-entropy with less weight the better an example is known already: -(1 - p)^γ log p, p of the right class.

    Args:
        logits: A score for every class, before softmax.
        targets: Index of the right class.
        gamma: γ; at 0 it is the cross-entropy.

    Shapes: logits (N, K) or (N, K, ...), targets (N) or (N, ...) int64; returns ().

    Raises:
        ValueError: If the shapes do not go together, or ``gamma`` is negative.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([1]))  # unsure: a quarter of log 2
        tensor(0.1733)

    Source: T. Lin et al., https://arxiv.org/abs/1708.02002, 2017, equation 4, for more than two classes.
    """
    if logits.ndim < 2 or targets.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(f"targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}")
    if not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    log_p = log_softmax(logits).gather(1, targets.unsqueeze(1)).squeeze(1)  # (N, ...)
    if gamma == 0:
        return -log_p.mean()
    missing = -torch.expm1(log_p)  # 1 - p, exact for p near 1
    # The power's slope at 0 is infinite for γ below 1; the whole loss has none there, as log p is 0 then.
    return -(missing.clamp(min=torch.finfo(log_p.dtype).tiny) ** gamma * log_p).mean()


def nt_xent(one: Tensor, other: Tensor, *, temperature: float = 0.5) -> Tensor:
    """The contrastive loss of SimCLR: of two views of N pictures, find the other view of each among the 2N - 1 others.

    For a view i and its other j, with cosines as similarities::

        loss_i = -log( exp(cos(i, j) / τ) / Σ_{k ≠ i} exp(cos(i, k) / τ) )

    Args:
        one: Embeddings of one view of each picture, of any length.
        other: Embeddings of the other view, in the same order.
        temperature: τ; the smaller, the more the nearest of the wrong ones count.

    Shapes: both (N, D); returns ().

    Raises:
        ValueError: If the shapes are others or differ, or ``temperature`` is not positive.

    Example:
        >>> views = torch.eye(2)
        >>> nt_xent(views, views, temperature=1.0)  # -log(e / (e + 2))
        tensor(0.5514)

    Source: T. Chen et al., https://arxiv.org/abs/2002.05709, 2020, equation 1.
    """
    _embeddings(one, other, temperature)
    n = len(one)
    similar = _cosines(torch.cat([one, other])) / temperature  # (2N, 2N)
    similar = similar.masked_fill(_diagonal(similar), -torch.inf)
    partner = torch.arange(2 * n, device=one.device).roll(n)
    return (similar.logsumexp(1) - similar.gather(1, partner.unsqueeze(1)).squeeze(1)).mean()


def info_nce(queries: Tensor, keys: Tensor, *, temperature: float = 0.1, symmetric: bool = False) -> Tensor:
    """Find the key of each query among all N keys: cross-entropy over cosines.

    Args:
        queries: Embeddings, of any length.
        keys: Embeddings; the one at the same place is the right one, the others of the batch are the wrong ones.
        temperature: What the cosines are divided by.
        symmetric: Whether each key has to find its query as well, and the mean is taken, as in CLIP.

    Shapes: both (N, D); returns ().

    Raises:
        ValueError: If the shapes are others or differ, or ``temperature`` is not positive.

    Example:
        >>> info_nce(torch.eye(3), torch.eye(3), temperature=1.0)  # -log(e / (e + 2))
        tensor(0.5514)

    Source: A. van den Oord, Y. Li, O. Vinyals, https://arxiv.org/abs/1807.03748, 2018, equation 4; symmetric:
    A. Radford et al., https://arxiv.org/abs/2103.00020, 2021.
    """
    _embeddings(queries, keys, temperature)
    similar = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).mT / temperature  # (N, N)
    right = torch.arange(len(queries), device=queries.device)
    loss = cross_entropy(similar, right)
    return (loss + cross_entropy(similar.mT, right)) / 2 if symmetric else loss


def triplet_loss(anchors: Tensor, positives: Tensor, negatives: Tensor, *, margin: float = 1.0) -> Tensor:
    """How far the one that belongs to the anchor is from being nearer than the one that does not, by a margin.

    ::

        loss = max(0, |a - p| - |a - n| + margin)

    Args:
        anchors: Embeddings a.
        positives: Embeddings p of what belongs together with them.
        negatives: Embeddings n of what does not.
        margin: By how much farther these should be.

    Shapes: all (N, D); returns ().

    Raises:
        ValueError: If the shapes are others or differ, or ``margin`` is not positive.

    Example:
        >>> triplet_loss(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 5.5]]))
        tensor(0.5000)

    Source: F. Schroff, D. Kalenichenko, J. Philbin, https://arxiv.org/abs/1503.03832, 2015, there with squared
    distances; as `torch.nn.functional.triplet_margin_loss` here.
    """
    for others in (positives, negatives):
        _embeddings(anchors, others, 1.0)
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    near, far = F.pairwise_distance(anchors, positives), F.pairwise_distance(anchors, negatives)  # (N,)
    return (near - far + margin).clamp(min=0).mean()


def supervised_contrastive(embeddings: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """`nt_xent` with labels: all others of the same class are to be found.

    For an example i, with P(i) the others of its class::

        loss_i = -1 / |P(i)| Σ_{p in P(i)} log( exp(cos(i, p) / τ) / Σ_{k ≠ i} exp(cos(i, k) / τ) )

    The mean is over the examples that have another of their class; it is 0 if there is none.

    Args:
        embeddings: Of any length; several views of a picture are several rows.
        labels: Index of the class of each.
        temperature: τ.

    Shapes: embeddings (N, D), labels (N); returns ().

    Raises:
        ValueError: If the shapes are others, or ``temperature`` is not positive.

    Example:
        >>> supervised_contrastive(torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1]), temperature=1.0)
        tensor(0.5514)

    Source: P. Khosla et al., https://arxiv.org/abs/2004.11362, 2020, equation 2.
    """
    _embeddings(embeddings, embeddings, temperature)
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(f"labels must be ({len(embeddings)},), one for each embedding, got {tuple(labels.shape)}")
    similar = _cosines(embeddings) / temperature  # (N, N)
    itself = _diagonal(similar)
    log_p = similar - similar.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    same = (labels.unsqueeze(1) == labels) & ~itself  # (N, N)
    count = same.sum(1)  # (N,)
    # A lone example has an infinite log_p where there is nothing else: zeros by choice, not by multiplication.
    loss = -torch.where(same, log_p, 0.0).sum(1) / count.clamp(min=1)
    return loss.sum() / (count > 0).sum().clamp(min=1)


def _cosines(embeddings: Tensor) -> Tensor:
    unit = F.normalize(embeddings, dim=1)
    return unit @ unit.mT  # (N, N)


def _diagonal(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)


def _same_shape(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} must have the same shape")


def _embeddings(one: Tensor, other: Tensor, temperature: float) -> None:
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(f"embeddings must both be (N, D), got {tuple(one.shape)} and {tuple(other.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
