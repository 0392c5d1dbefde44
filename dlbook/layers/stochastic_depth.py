"""Stochastic depth: a residual block is left out at random while training, for each example on its own.

Huang, Sun, Liu, Sedra & Weinberger (2016), https://arxiv.org/abs/1603.09382. Also called drop path.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch
"""

import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Set a residual branch to 0 with probability ``rate`` for each example, and scale what stays by 1 / (1 - rate).

    The mean over many draws is the branch itself, so evaluation leaves it alone::

        y = x + drop(branch(x))

    Args:
        rate: Probability that an example loses the branch, from 0 up to but not including 1.
        generator: Source of the random numbers, on the device of the input; PyTorch's own if left out.

    Shapes:
        x: (B, ...); returns the same.

    Raises:
        ValueError: If the rate is not in [0, 1).

    Example:
        >>> drop = StochasticDepth(0.5, generator=torch.Generator().manual_seed(2))
        >>> drop(torch.ones(5, 2)).tolist()
        [[2.0, 2.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0], [2.0, 2.0]]
        >>> drop.eval()(torch.ones(1, 2)).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, rate: float = 0.0, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        shape = (len(x),) + (1,) * (x.ndim - 1)  # (B, 1, ...)
        kept = torch.rand(shape, generator=self.generator, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def rising_rates(last: float, depth: int) -> list[float]:
    """Rates for the blocks of a network, from 0 at the first to ``last`` at the last: early blocks matter more.

    Args:
        last: Rate of the last block.
        depth: Number of blocks.

    Example:
        >>> rising_rates(0.2, 3)
        [0.0, 0.1, 0.2]
    """
    return [last * block / max(depth - 1, 1) for block in range(depth)]
