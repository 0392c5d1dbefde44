"""Numbers of any kind (lists, arrays, tensors on any device) as NumPy arrays, checked once for all plots.

Chapter: all.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_array(values: Any, name: str) -> NDArray[Any]:
    """``values`` as a NumPy array that no longer hangs on a device or a gradient.

    Args:
        values: A tensor, an array, or a sequence of numbers or of tensors with one element each.
        name: What the values are called in an error.

    Raises:
        ValueError: If there are none, or they are no numbers.

    Example:
        >>> as_array([1, 2.5], "y")
        array([1. , 2.5])
    """
    if isinstance(values, list | tuple):
        values = [_detached(value) for value in values]
    array = np.asarray(_detached(values))
    if array.size == 0:
        raise ValueError(f"{name} is empty, shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold numbers, got {array.dtype}: {str(values)[:60]}")
    return array


def as_vector(values: Any, name: str, length: int | None = None) -> NDArray[Any]:
    """``values`` as an array with one axis, of ``length`` if that is given.

    Raises:
        ValueError: If there is more than one axis, or the length is another.

    Example:
        >>> as_vector([1, 2], "y", length=3)
        Traceback (most recent call last):
        ValueError: y has 2 values where 3 belong
    """
    array = as_array(values, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} values where {length} belong")
    return array


def _detached(values: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()  # NumPy has no bfloat16
