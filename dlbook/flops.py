"""Floating-point operations of a forward pass, counted while it runs.

Chapter: chapters/03-convolutional-networks.ipynb

A multiplication with its addition counts as 2, so a product of (M, K) and (K, N) matrices has 2 M K N. Papers on vision
often count it as 1 and call that FLOPs, or MACs: their numbers are half of these.

What counts are convolutions (grouped, dilated and transposed ones too), products of matrices and attention. Biases,
activations, normalisation, softmax, pooling and additions do not: together they are a few in a hundred operations of
usual networks, though more of their time. torch.utils.flop_counter leaves out the same, and also, in PyTorch 2.13, the
CPU's fused attention, which it counts as 0; on the meta device both agree. Fused recurrent layers are not counted.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def count_flops(model: nn.Module, x: Tensor) -> int:
    """Floating-point operations of ``model(x)`` for the whole batch, a multiplication with its addition counted as 2.

    The model runs once without gradients, in the mode it is in. On the meta device that costs neither time nor memory.

    Args:
        model: Any module that takes one tensor.
        x: An input, on the model's device.

    Shapes: x (B, ...), whatever ``model`` takes.

    Example:
        >>> count_flops(nn.Linear(5, 3), torch.zeros(7, 5))  # 2 * 7 * 5 * 3
        210
        >>> count_flops(nn.Conv2d(4, 6, 3, padding=1), torch.zeros(1, 4, 8, 8))  # 2 * 64 places * 6 * 4 * 9
        27648
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would run a whole Transformer layer as one operation
    try:
        with torch.no_grad(), FlopCounter() as counter:
            model(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    total: int = counter.total
    return total


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no hints here
    """Within ``with FlopCounter() as counter:``, add up the operations of everything that PyTorch runs.

    PyTorch breaks each layer down into a few dozen basic operations ("aten"); this sees each one with its inputs and
    outputs, whatever module, function or operator it came from.

    Attributes:
        total: Operations so far.
        by_operation: The same for each kind of operation.

    Example:
        >>> with FlopCounter() as counter:
        ...     _ = torch.zeros(2, 3) @ torch.zeros(3, 4)
        >>> counter.total, counter.by_operation
        (48, {'mm': 48})
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_operation: dict[str, int] = {}

    @property
    def total(self) -> int:
        return sum(self.by_operation.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operation = func.overloadpacket
        if operation not in COUNTS:
            with self:  # in inference mode some operations arrive whole; what they are made of may count
                out = func.decompose(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {})) if out is NotImplemented else out
        out = func(*args, **(kwargs or {}))
        name = operation.__name__
        self.by_operation[name] = self.by_operation.get(name, 0) + COUNTS[operation](args, out)
        return out


def _matmul(left: int) -> Callable[[tuple[Any, ...], Any], int]:
    """2 M K N, times the batch: each number of the result is a sum over the K columns of the left factor."""
    return lambda args, out: 2 * prod(out.shape) * int(args[left].shape[-1])


def _convolution(args: tuple[Any, ...], out: Any) -> int:
    """Each number of the result sums over a kernel; transposed, each number of the input is spread over one."""
    x, weight, transposed = args[0], args[1], args[6]
    # (channels out, channels in / groups, kernel) or, transposed, (channels in, channels out / groups, kernel)
    count: int = 2 * prod((x if transposed else out).shape) * prod(weight.shape[1:])
    return count


def _attention(args: tuple[Any, ...], out: Any) -> int:
    """Queries times keys, then weights times values; what a mask hides counts too, as most kernels compute it."""
    query, key, value = args[:3]  # (..., T, K), (..., S, K), (..., S, V)
    count: int = 2 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return count


#: Operation: how to count it, from its arguments and its result.
COUNTS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    aten.mm: _matmul(0),
    aten.bmm: _matmul(0),
    aten.addmm: _matmul(1),
    aten.baddbmm: _matmul(1),
    aten.mv: _matmul(0),
    aten.addmv: _matmul(1),
    aten.dot: lambda args, out: 2 * int(args[0].numel()),
    aten.linear: _matmul(0),
    aten.convolution: _convolution,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
}
