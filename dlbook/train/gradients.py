"""A guard against gradients that are not finite: one such step, and all weights are NaN for ever.

Chapter: chapters/05-training-and-optimization.ipynb
"""

from typing import Any, Literal

import torch
from torch import Tensor


class GradientGuard:
    """Looks at all gradients before each step of an optimiser, of this book or of `torch.optim`.

    It keeps itself in the optimiser, so that nothing else changes, `fit` included. A step that is skipped is no step: no
    weight, no momentum, no weight decay, no count moves. Where a closure computes the gradients within the step, they come
    too late to be seen. Waits for a GPU once a step.

    Args:
        optimizer: To be guarded.
        on_bad: "raise" an error at the first gradient that is not finite, or "skip" the step and count it.
        most_in_a_row: When skipping, after how many steps without a good one between them it is an error nevertheless.

    Attributes:
        skipped: Steps that were left out.

    Raises:
        ValueError: If an argument is out of range; from the step, if a gradient is not finite.

    Example:
        >>> p = torch.zeros(2, requires_grad=True)
        >>> optimizer = torch.optim.SGD([p], lr=0.1)
        >>> guard = GradientGuard(optimizer, on_bad="skip")
        >>> for g in ([1.0, 2.0], [float("nan"), 1.0]):
        ...     p.grad = torch.tensor(g)
        ...     optimizer.step()
        >>> p.detach(), guard.skipped
        (tensor([-0.1000, -0.2000]), 1)
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, on_bad: Literal["raise", "skip"] = "raise", most_in_a_row: int = 10
    ) -> None:
        if on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad must be raise or skip, got {on_bad!r}")
        if most_in_a_row < 1:
            raise ValueError(f"most_in_a_row must be at least 1, got {most_in_a_row}")
        self.on_bad, self.most_in_a_row = on_bad, most_in_a_row
        self.skipped = self._in_a_row = 0
        self._hook = optimizer.register_step_pre_hook(self._look)

    def remove(self) -> None:
        """Let the optimiser step without a look again."""
        self._hook.remove()

    def _look(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if finite([p.grad for p in params]):
            self._in_a_row = 0
            return
        if self.on_bad == "raise":
            raise ValueError(f"{_describe(optimizer)}: the weights are still good")
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        if self._in_a_row > self.most_in_a_row:
            raise ValueError(f"{_describe(optimizer)}, for {self._in_a_row} steps in a row: the weights are still good")
        for p in params:
            p.grad = None  # for every optimiser: nothing to do here


def finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers are finite: one pass over each tensor, and one look at the result.

    Example:
        >>> finite([torch.ones(3), torch.tensor([1.0, float("inf")])])
        False
    """
    filled = [tensor.detach() for tensor in tensors if tensor.numel()]
    if not filled:
        return True
    # The largest size is NaN or infinite if any number is; the sum of squares could overflow where all are finite.
    largest = torch._foreach_norm(filled, float("inf"))
    dtype = torch.float64 if any(one.dtype == torch.float64 for one in largest) else torch.float32
    return bool(torch.stack([one.to(largest[0].device, dtype) for one in largest]).isfinite().all())


def _describe(optimizer: torch.optim.Optimizer) -> str:
    """Which gradient it is; looked for only when one is known to be there."""
    for number, group in enumerate(optimizer.param_groups):
        for place, p in enumerate(group["params"]):
            if p.grad is not None and not finite([p.grad]):
                name = group["param_names"][place] if "param_names" in group else f"{place} of group {number}"
                bad = int((~p.grad.isfinite()).sum())
                return f"the gradient of parameter {name}, {tuple(p.shape)}, has {bad} of {p.numel()} values not finite"
    raise AssertionError("asked to describe gradients that are all finite")
