"""Several processes that train one model together, each on its share of every batch.

``torchrun`` starts them, `torch.distributed.init_process_group` lets them find one another, and
`torch.nn.parallel.DistributedDataParallel` averages their gradients. Here is what else they have to agree on. All of it
goes from CPU to CPU (by gloo, which ``init_process_group()`` without a backend sets up beside NCCL), so no GPU waits.
"""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class Processes:
    """Those that train this model: all where it is in a `DistributedDataParallel`, else this one alone.

    Args:
        model: What is trained, compiled or not.

    Attributes:
        size: How many they are.
        rank: Which of them this one is, from 0.

    Example:
        >>> alone = Processes(nn.Linear(3, 2))
        >>> alone.size, alone.rank, alone.add_up(5, 7), alone.gather("here")
        (1, 0, [5, 7], ['here'])
    """

    def __init__(self, model: nn.Module) -> None:
        together = any(isinstance(module, DistributedDataParallel) for module in model.modules())
        self.size, self.rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)

    def add_up(self, *numbers: float) -> list[float]:
        """Each number summed over the processes."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums)
        total: list[float] = sums.tolist()
        return total

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """The value of the process of rank 0."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without `DistributedDataParallel` around it, whose weights have the names that they have alone.

    Raises:
        ValueError: If there are several processes and each would train a model of its own.
    """
    if isinstance(model, DistributedDataParallel):
        inside: nn.Module = model.module
        return inside
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and Processes(model).size == 1:
        raise ValueError(
            f"{dist.get_world_size()} processes run, and each would train a model of its own: "
            "put the model into torch.nn.parallel.DistributedDataParallel"
        )
    return model
