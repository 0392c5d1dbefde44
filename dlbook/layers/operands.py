"""What the recurrences of chapter 4 do with their arguments before they compute: check them, and compute precisely.

Every step of a recurrence rounds what the step before rounded; so all of them compute in float32 at least, whatever
they are given and whatever autocast would do.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def check_shapes(expected: Mapping[str, Sequence[int]], given: Mapping[str, Tensor | None]) -> None:
    """Complain about the first tensor that has another shape; None is none.

    Args:
        expected: Shapes by the arguments' names.
        given: The arguments.

    Raises:
        ValueError: If a shape differs.

    Example:
        >>> check_shapes({"A": (2, 3)}, {"A": torch.zeros(2, 3)})
        >>> check_shapes({"A": (2, 3)}, {"A": torch.zeros(3, 2)})
        Traceback (most recent call last):
            ...
        ValueError: A must be (2, 3), got (3, 2)
    """
    for name, shape in expected.items():
        tensor = given[name]
        if tensor is not None and tensor.shape != tuple(shape):
            raise ValueError(f"{name} must be {tuple(shape)}, got {tuple(tensor.shape)}")


def check_tokens(tokens: Tensor, ndim: int, state: Sequence[object] | None, blocks: int) -> None:
    """Complain unless a language model can read these tokens from this state.

    Args:
        tokens: What should be whole numbers.
        ndim: 2 for sequences, 1 for one token of each.
        state: What each block remembers; None is nothing.
        blocks: How many the model has.

    Shapes: tokens (B, L) or (B,).

    Raises:
        ValueError: If the tokens have another rank or are no whole numbers, or the state is one of another model.

    Example:
        >>> check_tokens(torch.tensor([[5, 3, 8]]), 2, None, 4)
        >>> check_tokens(torch.tensor([5, 3, 8]), 2, None, 4)
        Traceback (most recent call last):
            ...
        ValueError: tokens must be (batch, length) whole numbers, got (3,) of torch.int64
    """
    if tokens.ndim != ndim or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        wanted = "(batch, length)" if ndim == 2 else "(batch,)"
        raise ValueError(f"tokens must be {wanted} whole numbers, got {tuple(tokens.shape)} of {tokens.dtype}")
    if state is not None and len(state) != blocks:
        raise ValueError(f"state must have a part for each of {blocks} blocks, got {len(state)}")


def widened(first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All in the precision of the first, but float32 at least.

    Raises:
        ValueError: If one holds no real floating-point numbers: whole ones would be cut, complex ones halved.

    Example:
        >>> [x.dtype for x in widened(torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float64))]
        [torch.float32, torch.float32]
    """
    tensors = first, *others
    if not all(x.is_floating_point() for x in tensors):
        raise ValueError(f"all must be floating-point numbers, got {', '.join(str(x.dtype) for x in tensors)}")
    dtype = torch.promote_types(first.dtype, torch.float32)
    return tuple(x.to(dtype) for x in tensors)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """In it, products of matrices on the device of x keep the precision of their operands.

    Example:
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(x):
        ...     (x @ x).dtype
        torch.float32
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
