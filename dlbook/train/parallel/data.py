"""Data parallelism by hand: the same weights everywhere, each process its share of the batch, gradients averaged.

What `torch.nn.parallel.DistributedDataParallel` does, without its overlap of computing and sending. Li et al. (2020),
PyTorch distributed, https://arxiv.org/abs/2006.15704.

Chapter: chapters/05-training-and-optimization.ipynb
"""

import torch
import torch.distributed as dist
from torch import nn


@torch.no_grad()
def same_weights(model: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first. In place.

    Example:
        >>> from dlbook.train.parallel.launch import launch
        >>> def first():
        ...     model = nn.Linear(1, 1, bias=False)
        ...     nn.init.constant_(model.weight, dist.get_rank() + 5)
        ...     same_weights(model)
        ...     return model.weight.item()
        >>> launch(first, processes=2)
        [5.0, 5.0]
    """
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor, src=0)


@torch.no_grad()
def average_gradients(model: nn.Module) -> int:
    """Replace each gradient by its mean over the processes. In place, between ``backward()`` and the optimiser's step.

    Shares of equal size then give the gradient of the whole batch, since a mean of means of equally many is their mean.
    All gradients go as one message: many small ones would each wait for the network.

    Args:
        model: Every process has the same parameters, and gradients for the same ones.

    Returns:
        Bytes of the message.

    Raises:
        ValueError: If no parameter has a gradient.

    Example:
        >>> from dlbook.train.parallel.launch import launch
        >>> def mean():
        ...     model = nn.Linear(1, 1, bias=False)
        ...     model(torch.tensor([[2.0 + 4 * dist.get_rank()]])).sum().backward()
        ...     average_gradients(model)
        ...     return model.weight.grad.item()
        >>> launch(mean, processes=2)
        [4.0, 4.0]
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        raise ValueError("no parameter has a gradient: call backward() first")
    message = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(message)
    message /= dist.get_world_size()
    for gradient, part in zip(gradients, torch.split(message, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    return message.numel() * message.element_size()
