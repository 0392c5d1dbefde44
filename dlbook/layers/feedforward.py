"""Feed-forward layers of a Transformer: the same small network for each token on its own.

ReLU: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, section 3.3. GELU: Hendrycks & Gimpel (2016),
https://arxiv.org/abs/1606.08415. SwiGLU: Shazeer (2020), https://arxiv.org/abs/2002.05202.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    D  width of a token    H  hidden units
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: GPT-2 and T5 1.1 approximate the normal distribution of GELU by tanh; CLIP by a logistic curve.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
}


class FeedForward(nn.Module):
    """y = W_2 activation(W_1 x + b_1) + b_2.

    Args:
        width: Features of a token, D.
        hidden: Hidden units, H; 4 D if 0.
        activation: One of `ACTIVATIONS`.
        bias: Whether both products have a bias.
        dropout: Probability that a hidden unit is left out while training.

    Shapes: x (..., D); returns the same.

    Raises:
        ValueError: If a size is not positive or the activation is unknown.

    Example:
        >>> FeedForward(width=6)(torch.zeros(2, 5, 6)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(
        self, width: int, hidden: int = 0, *, activation: str = "gelu", bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width < 1 or hidden < 0:
            raise ValueError(f"sizes must be positive, got {width=} and {hidden=}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        self.expand = nn.Linear(width, hidden or 4 * width, bias=bias)
        self.reduce = nn.Linear(hidden or 4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reduce(self.dropout(ACTIVATIONS[self.activation](self.expand(x))))
        return y


class SwiGLU(nn.Module):
    """y = W_2 (silu(W_g x) * W_u x): half of the hidden units open or close the others.

    Three matrices instead of two, so two thirds of the hidden units cost as much: LLaMA takes 8 D / 3, rounded up.

    Args:
        width: Features of a token, D.
        hidden: Hidden units, H; 8 D / 3, rounded up to a multiple of 8, if 0.
        bias: Whether the products have a bias.

    Shapes: x (..., D); returns the same.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> layer = SwiGLU(width=6)
        >>> layer(torch.zeros(2, 5, 6)).shape, layer.reduce.in_features
        (torch.Size([2, 5, 6]), 16)
    """

    def __init__(self, width: int, hidden: int = 0, *, bias: bool = False) -> None:
        super().__init__()
        if width < 1 or hidden < 0:
            raise ValueError(f"sizes must be positive, got {width=} and {hidden=}")
        hidden = hidden or -(-8 * width // 24) * 8
        # Not stacked as one: halves of a product are not contiguous, which costs more than the second product does.
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.reduce = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reduce(F.silu(self.gate(x)) * self.up(x))
        return y
