"""How large random weights must start, derived from what a layer does to the size of a signal.

A layer computes z = W h with h = phi(z_before), with n inputs and weights of variance gain**2 / n. When the entries of
z_before are standard normal, the mean square of z is  gain**2 * E[phi(u)**2]  (forward), and the mean square of the
gradient is multiplied by  gain**2 * E[phi'(u)**2]  on its way back (backward), where u is a standard normal number.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Sources: Glorot & Bengio (2010), He et al. (2015), https://arxiv.org/abs/1502.01852.
"""

import math

import numpy as np
import torch
from torch import nn

from dlbook.layers import activations


def signal_factors(activation: str, gain: float = 1.0) -> tuple[float, float]:
    """What one wide layer multiplies the mean square of the signal and of the gradient by.

    Args:
        activation: A name that :func:`dlbook.layers.activations.derivative` knows.
        gain: Weights have the variance gain**2 / inputs.

    Returns:
        The forward factor ``gain**2 * E[phi(u)**2]`` and the backward factor ``gain**2 * E[phi'(u)**2]`` for a standard
        normal u, by Gauss-Legendre quadrature on either side of 0, where ReLU has its kink.

    Raises:
        ValueError: If the activation is unknown.

    Example:
        >>> forward, backward = signal_factors("relu", gain=2**0.5)
        >>> round(forward, 9), round(backward, 9)  # He et al. (2015): both are kept
        (1.0, 1.0)
    """
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(120))
    u = torch.cat([6 * nodes - 6, 6 * nodes + 6])
    weights_of_u = torch.cat([6 * weights, 6 * weights]) * torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    backward = (activations.derivative(activation, u) ** 2 * weights_of_u).sum().item()  # first: it checks the name
    forward = (getattr(activations, activation)(u) ** 2 * weights_of_u).sum().item()
    return gain**2 * forward, gain**2 * backward


def matched_gain(activation: str) -> float:
    """The gain at which a wide layer keeps the mean square of its signal: sqrt(2) for ReLU.

    Example:
        >>> round(matched_gain("relu"), 6), round(matched_gain("tanh"), 3)
        (1.414214, 1.593)
    """
    return 1 / math.sqrt(signal_factors(activation)[0])


@torch.no_grad()
def init_linear(
    linear: nn.Linear, scheme: str, activation: str = "relu", generator: torch.Generator | None = None
) -> None:
    """Draw the weights of a linear layer in place and set its bias to 0.

    Args:
        linear: The layer, with weights (outputs, inputs).
        scheme: ``"xavier"`` (Glorot & Bengio: variance 2 / (inputs + outputs)), ``"he"`` (variance 2 / inputs) or
            ``"matched"`` (variance ``matched_gain(activation)**2 / inputs``, which is He's for ReLU).
        activation: The activation that comes before the layer; only ``"matched"`` looks at it.
        generator: Source of the random numbers, on the weights' device.

    Raises:
        ValueError: If the scheme is none of the three, or the activation is unknown.
    """
    outputs, inputs = linear.weight.shape
    if scheme == "xavier":
        std = math.sqrt(2 / (inputs + outputs))
    elif scheme == "he":
        std = math.sqrt(2 / inputs)
    elif scheme == "matched":
        std = matched_gain(activation) / math.sqrt(inputs)
    else:
        raise ValueError(f"scheme must be 'xavier', 'he' or 'matched', got {scheme!r}")
    linear.weight.normal_(0.0, std, generator=generator)
    if linear.bias is not None:
        linear.bias.zero_()
