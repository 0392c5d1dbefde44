"""Normalisation from its definitions: over the batch, over an example, over groups of its channels, without the mean.

All do the same: take off a mean, divide by a standard deviation, then scale and shift by what is learned. They differ in
the numbers that mean and deviation are taken over. Names, defaults and state dicts are those of `torch.nn`, whose own
kernels are faster; the book's models use those.

Chapter: chapters/05-training-and-optimization.ipynb

Letters for shapes in this file:
    N  examples    C  channels    ...  places, such as rows and columns
"""

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Mean and variance of each channel over the batch and all places; in evaluation, those of training.

    ::

        y = (x - mean) / √(var + ε) · weight + bias

    The running variance is that of an infinite batch, with n - 1 below; the one divided by here has n below.

    Args:
        num_features: Channels C.
        eps: ε.
        momentum: Share of each new batch in the running statistics; None for the mean of all batches.
        affine: Whether to learn weight and bias.

    Shapes:
        x: (N, C) or (N, C, ...); returns the same.

    Raises:
        ValueError: If a size is out of range, ``x`` has other channels, or there is one number for a channel in training,
            which has no variance.

    Example:
        >>> y = BatchNorm(3)(torch.randn(5, 3, 4, 2) * 7 + 1)
        >>> bool(y.mean((0, 2, 3)).abs().max() < 1e-5), y.var((0, 2, 3), correction=0)
        (True, tensor([1.0000, 1.0000, 1.0000], grad_fn=<VarBackward0>))

    Source: S. Ioffe, C. Szegedy, https://arxiv.org/abs/1502.03167, 2015, algorithms 1 and 2.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be from 0 to 1 or None, got {momentum}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"x must be (batch, {self.num_features}, ...), got {tuple(x.shape)}")
        if self.training:
            dims = [0, *range(2, x.ndim)]
            mean, var = x.mean(dims), x.var(dims, correction=0)  # (C,)
            self._remember(mean.detach(), var.detach(), count=x.numel() // self.num_features)
        else:
            mean, var = self.running_mean, self.running_var
        y = (x - _channels(mean, x)) / _channels(var + self.eps, x).sqrt()
        return _scale(y, self.weight, self.bias)

    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        if count < 2:
            raise ValueError("in training, a channel needs more than one number: one has no variance")
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked.to(mean) if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (var * (count / (count - 1)) - self.running_var)


class LayerNorm(nn.Module):
    """Mean and variance of each example over its last dimensions: nothing depends on the batch, nothing on the mode.

    Args:
        normalized_shape: The last dimensions, or the only one.
        eps: ε, added to the variance.

    Shapes:
        x: (..., *normalized_shape); returns the same.

    Raises:
        ValueError: If the last dimensions of ``x`` are others.

    Example:
        >>> y = LayerNorm(4)(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        >>> y.detach()
        tensor([[-1.3416, -0.4472,  0.4472,  1.3416]])

    Source: J. Ba, J. Kiros, G. Hinton, https://arxiv.org/abs/1607.06450, 2016.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = nn.Parameter(torch.ones(self.normalized_shape))
        self.bias = nn.Parameter(torch.zeros(self.normalized_shape))

    def forward(self, x: Tensor) -> Tensor:
        dims = _last(x, self.normalized_shape)
        mean, var = x.mean(dims, keepdim=True), x.var(dims, correction=0, keepdim=True)
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


class GroupNorm(nn.Module):
    """Mean and variance of each example over a group of its channels and all places.

    One group is a layer norm over channels and places; as many groups as channels is instance norm.

    Args:
        num_groups: Groups.
        num_channels: Channels C, the same number in each group.
        eps: ε, added to the variance.

    Shapes:
        x: (N, C) or (N, C, ...); returns the same.

    Raises:
        ValueError: If the groups do not divide the channels, or ``x`` has other channels.

    Example:
        >>> y = GroupNorm(2, 6)(torch.randn(5, 6, 4, 3) * 7 + 1)
        >>> y.unflatten(1, (2, 3)).var((2, 3, 4), correction=0).shape  # (N, groups): all of them 1
        torch.Size([5, 2])

    Source: Y. Wu, K. He, https://arxiv.org/abs/1803.08494, 2018.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ValueError(f"num_groups={num_groups} does not divide num_channels={num_channels}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"x must be (batch, {self.num_channels}, ...), got {tuple(x.shape)}")
        groups = x.reshape(len(x), self.num_groups, -1)  # (N, groups, C / groups · places)
        mean, var = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        y = ((groups - mean) / (var + self.eps).sqrt()).view(x.shape)
        return _scale(y, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Layer norm without the mean and without the bias: divided by the root of the mean square.

    Args:
        normalized_shape: The last dimensions, or the only one.
        eps: ε, added to the mean square; None for the smallest number that changes 1 in the input's dtype.

    Shapes:
        x: (..., *normalized_shape); returns the same.

    Raises:
        ValueError: If the last dimensions of ``x`` are others.

    Example:
        >>> RMSNorm(2)(torch.tensor([[3.0, 4.0]])).detach()  # / √12.5
        tensor([[0.8485, 1.1314]])

    Source: B. Zhang, R. Sennrich, https://arxiv.org/abs/1910.07467, 2019.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float | None = None) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = nn.Parameter(torch.ones(self.normalized_shape))

    def forward(self, x: Tensor) -> Tensor:
        dims = _last(x, self.normalized_shape)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return x / (x.square().mean(dims, keepdim=True) + eps).sqrt() * self.weight


def _shape(normalized_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"normalized_shape must hold sizes of at least 1, got {normalized_shape}")
    return shape


def _last(x: Tensor, shape: tuple[int, ...]) -> list[int]:
    """The last dimensions, which have to be those of ``shape``."""
    if tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"the last dimensions of x must be {shape}, got {tuple(x.shape)}")
    return list(range(-len(shape), 0))


def _channels(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as (C, 1, ...), to go with (N, C, ...)."""
    return values.view(-1, *[1] * (x.ndim - 2))


def _scale(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is None or bias is None:
        return y
    return y * _channels(weight, y) + _channels(bias, y)
