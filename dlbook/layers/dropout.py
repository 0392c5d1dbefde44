"""Dropout: numbers, or whole channels, are set to 0 at random while training.

Whole residual branches: `dlbook.layers.stochastic_depth`.

Chapter: chapters/05-training-and-optimization.ipynb

Letters for shapes in this file:
    N  examples    C  channels
"""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Set each number to 0 with probability ``p``, and scale what stays by 1 / (1 - p).

    The mean over many draws is the input itself, so evaluation leaves it alone.

    Args:
        p: Probability, from 0 up to but not including 1.
        generator: Source of the random numbers, on the device of the input; PyTorch's own if left out, and then on a CPU
            to the same numbers as `torch.nn.Dropout`.

    Shapes:
        x: (...); returns the same.

    Raises:
        ValueError: If ``p`` is not in [0, 1).

    Example:
        >>> drop = Dropout(0.5, generator=torch.Generator().manual_seed(0))
        >>> sorted(drop(torch.ones(1000)).unique().tolist())
        [0.0, 2.0]
        >>> drop.eval()(torch.ones(3)).tolist()
        [1.0, 1.0, 1.0]

    Source: N. Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html, 2014.
    """

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), got {p}")
        self.p = p
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return self._drop(x, x.shape)

    def _drop(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Draw one number for each entry of ``shape``, which goes with ``x``."""
        if not self.training or self.p == 0:
            return x
        kept = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p, generator=self.generator)
        return x * (kept / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class SpatialDropout(Dropout):
    """Set whole channels of each example to 0: neighbouring pixels are so alike that one tells what another was.

    Args:
        p: Probability that a channel is left out, from 0 up to but not including 1.
        generator: As for `Dropout`; the same numbers as `torch.nn.Dropout1d` to `Dropout3d`.

    Shapes:
        x: (N, C, ...); returns the same.

    Raises:
        ValueError: If ``p`` is not in [0, 1), or ``x`` has no places beside its channels.

    Example:
        >>> drop = SpatialDropout(0.5, generator=torch.Generator().manual_seed(0))
        >>> sorted(set(drop(torch.ones(50, 3, 4, 4)).mean((2, 3)).flatten().tolist()))
        [0.0, 2.0]

    Source: J. Tompson et al., https://arxiv.org/abs/1411.4280, 2015.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3:
            raise ValueError(f"x must be (batch, channels, places, ...), got {tuple(x.shape)}")
        return self._drop(x, torch.Size([*x.shape[:2], *[1] * (x.ndim - 2)]))  # (N, C, 1, ...)
