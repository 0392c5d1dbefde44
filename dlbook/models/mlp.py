"""Multilayer perceptron: linear layers with an activation between them.

Rosenblatt (1958) had the neuron, Rumelhart et al. (1986) trained the layers, https://doi.org/10.1038/323533a0.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Letters for shapes in this file:
    B  batch    I  inputs    O  outputs
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.init import init_linear

#: The fused kernels; :mod:`dlbook.layers.activations` has the same functions for reading.
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}


class MLP(nn.Module):
    """h = activation(W h + b), layer after layer; the last layer has no activation.

    Args:
        sizes: Width of the input, of each hidden layer, and of the output: ``(784, 256, 10)``.
        activation: ``"relu"``, ``"leaky_relu"``, ``"sigmoid"``, ``"tanh"``, ``"gelu"`` or ``"silu"``.
        init: ``"matched"`` (keeps the size of the signal whatever the activation), ``"xavier"`` or ``"he"``.
        dropout: Share of the hidden units that are set to 0 while training.
        generator: Source of the first weights, on the CPU; PyTorch's own if left out.

    Shapes:
        x: (B, I), or (B, ...) with I elements for each example, which are flattened.
        returns: (B, O); logits when it is trained with cross-entropy.

    Raises:
        ValueError: If there are fewer than two sizes, one is not positive, the activation is unknown, or ``x`` does
            not have I elements for each example.

    Example:
        >>> model = MLP((784, 256, 10), activation="gelu")
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
        >>> sum(p.numel() for p in model.parameters())
        203530
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        init: str = "matched",
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must be two or more positive numbers, got {tuple(sizes)}")
        if activation not in KERNELS:
            raise ValueError(f"activation must be one of {', '.join(KERNELS)}, got {activation!r}")
        self.inputs = sizes[0]
        self.activation = activation
        self.dropout = dropout
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        for linear in self.layers:
            assert isinstance(linear, nn.Linear)
            init_linear(linear, init, activation, generator)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1:].numel() != self.inputs:
            raise ValueError(f"x must be (batch, ...) with {self.inputs} elements each, got {tuple(x.shape)}")
        h = x.flatten(1)  # (B, I)
        for linear in self.layers[:-1]:
            h = KERNELS[self.activation](linear(h))
            h = F.dropout(h, self.dropout, self.training)
        logits: Tensor = self.layers[-1](h)  # (B, O)
        return logits
