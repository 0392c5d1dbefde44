"""The sum over all processes, written out as messages between neighbours on a ring.

P. Patarasuk, X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009,
https://doi.org/10.1016/j.jpdc.2008.09.002.

Chapter: chapters/05-training-and-optimization.ipynb

Letters: P processes, N numbers in the tensor.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def ring_all_reduce(x: Tensor) -> int:
    """Replace ``x`` by its sum over all processes; every process calls it with a tensor of the same shape.

    The tensor is cut into P parts. In P - 1 rounds each process hands a part to its right neighbour and adds what comes
    from the left (reduce-scatter): afterwards it holds one part summed up. In P - 1 more rounds the sums go around
    (all-gather). No process sends or receives more than 2 (P - 1) / P of the tensor, however many there are.

    ``torch.distributed.all_reduce`` gives the same and is faster; this one is for reading and for counting.

    Args:
        x: Changed in place.

    Shapes: any, contiguous.

    Returns:
        Bytes that this process sent.

    Raises:
        ValueError: If ``x`` is not contiguous.

    Example:
        >>> from dlbook.train.parallel.launch import launch
        >>> def count():
        ...     x = torch.tensor([1.0, 2.0])
        ...     return ring_all_reduce(x), x
        >>> launch(count, processes=1)
        [(0, tensor([1., 2.]))]
    """
    if not x.is_contiguous():
        raise ValueError(f"x must be contiguous, got strides {x.stride()} for {tuple(x.shape)}")
    size, rank = dist.get_world_size(), dist.get_rank()
    parts = list(x.view(-1).tensor_split(size))  # P parts, the first ones one number longer where P does not divide N
    sent = 0
    for step in range(size - 1):  # after step s, part rank - s - 1 holds the sum of s + 2 processes
        sent += _pass_on(parts[(rank - step) % size], parts[(rank - step - 1) % size], add=True)
    for step in range(size - 1):
        sent += _pass_on(parts[(rank + 1 - step) % size], parts[(rank - step) % size], add=False)
    return sent


def _pass_on(out: Tensor, into: Tensor, *, add: bool) -> int:
    """Send one part to the right while one comes from the left, which is added or taken over."""
    size, rank = dist.get_world_size(), dist.get_rank()
    arrived = torch.empty_like(into)
    sending = dist.isend(out, (rank + 1) % size)
    dist.recv(arrived, (rank - 1) % size)
    assert sending is not None  # the group holds this process
    sending.wait()
    into.copy_(into + arrived if add else arrived)
    return out.numel() * out.element_size()
