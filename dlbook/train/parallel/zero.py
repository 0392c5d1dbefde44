"""ZeRO: instead of the same numbers in every process, each keeps a share of them.

Rajbhandari et al. (2020), ZeRO: memory optimizations toward training trillion parameter models,
https://arxiv.org/abs/1910.02054. Stage 1 by hand; stages 2 and 3 are what ``fully_shard`` of PyTorch does.

Chapter: chapters/05-training-and-optimization.ipynb
"""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def bytes_per_process(parameters: float, processes: int, stage: int) -> float:
    """Memory for weights, gradients and Adam's state in mixed precision, with activations left out.

    Per parameter 2 bytes of weight, 2 of gradient (both 16-bit) and 12 for the optimiser: weight, mean and mean square
    in 32 bits. Stage 1 shares out the 12, stage 2 the gradients too, stage 3 all.

    Args:
        parameters: Of the whole model.
        processes: That share them.
        stage: 0 (all in every process) to 3.

    Returns:
        Bytes in each process.

    Raises:
        ValueError: If the stage is not 0 to 3, or there is no process.

    Example:
        The paper's example, 7.5 billion parameters on 64 GPUs, in GB:

        >>> [round(bytes_per_process(7.5e9, 64, stage) / 1e9, 1) for stage in range(4)]
        [120.0, 31.4, 16.6, 1.9]
    """
    if stage not in range(4) or processes < 1:
        raise ValueError(f"stage must be 0 to 3 and processes at least 1, got {stage} and {processes}")
    kinds = {1: 12, 2: 2, 3: 2}  # the stage from which it is shared: optimiser, gradients, weights
    return parameters * sum(size / (processes if stage >= first else 1) for first, size in kinds.items())


class ZeroOptimizer:
    """Stage 1 by hand: gradients are averaged, each process updates its share of the weights, the shares go around.

    All parameters are seen as one long vector, which is cut into P equal shares (the last one filled up with zeros).
    The optimiser of a process holds one share, and so does its state.

    Args:
        parameters: Of the model, the same in all processes.
        make: Makes the optimiser for a share, such as ``lambda share: torch.optim.AdamW(share, lr=1e-3)``. It must treat
            every number alike, as SGD and Adam do; one that looks at whole matrices, such as Muon, cannot be cut so.

    Raises:
        ValueError: If there are no parameters, or of different types.

    Example:
        >>> from dlbook.train.parallel.launch import launch
        >>> def step():
        ...     model = nn.Linear(2, 1, bias=False)
        ...     nn.init.ones_(model.weight)
        ...     optimizer = ZeroOptimizer(model.parameters(), lambda share: torch.optim.SGD(share, lr=0.5))
        ...     model(torch.tensor([[1.0, 2.0]])).sum().backward()
        ...     optimizer.step()
        ...     return model.weight.tolist()
        >>> launch(step, processes=2)
        [[[0.5, 0.0]], [[0.5, 0.0]]]
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        self.parameters = list(parameters)
        if len({p.dtype for p in self.parameters}) != 1:
            raise ValueError(f"parameters must be of one type, got {[p.dtype for p in self.parameters]}")
        self.share = nn.Parameter(self._shares(self.parameters)[dist.get_rank()].clone())
        self.optimizer = make([self.share])

    @torch.no_grad()
    def step(self) -> None:
        """One update of all parameters, from the gradients that this process has."""
        gradients = self._shares([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters])
        mine = torch.empty_like(self.share)
        dist.reduce_scatter(mine, list(gradients))  # each gets the sum of its share, and of no other
        self.share.grad = mine / dist.get_world_size()
        self.optimizer.step()
        together = torch.empty_like(gradients)  # (P, share)
        dist.all_gather(list(together), self.share.detach())
        flat = together.view(-1)[: sum(p.numel() for p in self.parameters)]
        for parameter, piece in zip(
            self.parameters, torch.split(flat, [p.numel() for p in self.parameters]), strict=True
        ):
            parameter.copy_(piece.view_as(parameter))

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _shares(self, tensors: Iterable[Tensor]) -> Tensor:
        """The numbers of all tensors in P rows of equal length."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        size = dist.get_world_size()
        return nn.functional.pad(flat, (0, -len(flat) % size)).view(size, -1)
