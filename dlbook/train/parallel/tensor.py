"""Tensor parallelism by hand: one linear layer cut into pieces, each process holds one.

Shoeybi et al. (2019), Megatron-LM, https://arxiv.org/abs/1909.08053, section 3. Cut by columns, then by rows, a
two-layer perceptron needs one sum over the processes on the way forward and one on the way back.

Chapter: chapters/05-training-and-optimization.ipynb

Letters for shapes in this file:
    I  in_features    O  out_features    P  processes
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class ColumnLinear(nn.Module):
    """Some of the outputs of a linear layer: y_p = x W_p^T + b_p, with the rows W_p of the weight.

    (In the paper's letters, y = x A, these are columns of A.) The input is the same in all processes, the output
    different. On the way back each process knows only its share of the gradient of x, so the shares are summed.

    Args:
        whole: The layer to cut; this process copies its piece.

    Shapes: x (..., I); returns (..., O / P).

    Raises:
        ValueError: If the processes do not divide O.

    Example:
        >>> from dlbook.train.parallel.launch import launch
        >>> def half():
        ...     return ColumnLinear(nn.Linear(3, 4))(torch.zeros(5, 3)).shape
        >>> launch(half, processes=2)
        [torch.Size([5, 2]), torch.Size([5, 2])]
    """

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(_piece(whole.weight, 0, "out_features"))
        self.bias = None if whole.bias is None else nn.Parameter(_piece(whole.bias, 0, "out_features"))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(_SumBackward.apply(x), self.weight, self.bias)  # type: ignore[no-untyped-call]


class RowLinear(nn.Module):
    """A linear layer on inputs that are spread over the processes: y = sum_p x_p W_p^T + b, W_p columns of the weight.

    Args:
        whole: The layer to cut; this process copies its piece, and the bias, which is added once, after the sum.

    Shapes: x (..., I / P); returns (..., O), the same in all processes.

    Raises:
        ValueError: If the processes do not divide I.

    Example:
        >>> from dlbook.train.parallel.launch import launch
        >>> def half():
        ...     return RowLinear(nn.Linear(4, 3))(torch.zeros(5, 2)).shape
        >>> launch(half, processes=2)
        [torch.Size([5, 3]), torch.Size([5, 3])]
    """

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(_piece(whole.weight, 1, "in_features"))
        self.bias = None if whole.bias is None else nn.Parameter(whole.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _SumForward.apply(F.linear(x, self.weight))  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


def _piece(tensor: Tensor, dim: int, what: str) -> Tensor:
    """This process's share of a parameter."""
    size = dist.get_world_size()
    if tensor.shape[dim] % size:
        raise ValueError(f"{size} processes do not divide {what}={tensor.shape[dim]}")
    return tensor.detach().chunk(size, dim)[dist.get_rank()].clone()


class _SumBackward(torch.autograd.Function):
    """The paper's f: forward nothing, backward the sum over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad


class _SumForward(torch.autograd.Function):
    """The paper's g: forward the sum over the processes, backward nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad
