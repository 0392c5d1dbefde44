"""Activation functions from their definitions, with their derivatives.

The lines below are for reading: each is the textbook formula, arranged so that it neither overflows nor loses digits.
Models call PyTorch's fused kernels (:mod:`torch.nn.functional`); the tests prove that both agree.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Sources:
    ReLU: Nair & Hinton (2010). Leaky ReLU: Maas et al. (2013). GELU: Hendrycks & Gimpel (2016),
    https://arxiv.org/abs/1606.08415. SiLU: Elfwing et al. (2018), also known as swish.
"""

import math

import torch
from torch import Tensor


def relu(x: Tensor) -> Tensor:
    """Rectified linear unit, max(0, x); its slope at 0 is taken as 0.

    Shapes: any, kept.

    Example:
        >>> relu(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([0., 0., 3.])
    """
    return torch.where(x <= 0, torch.zeros_like(x), x)  # not x * (x > 0): that turns -inf into NaN


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where it is positive and ``slope`` times x elsewhere, so that no unit is without a gradient.

    Shapes: any, kept.

    Example:
        >>> leaky_relu(torch.tensor([-2.0, 3.0]), slope=0.1)
        tensor([-0.2000,  3.0000])
    """
    return torch.where(x > 0, x, slope * x)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function 1 / (1 + exp(-x)), from 0 to 1.

    The exponential is only ever taken of a number that is not positive, so it cannot overflow. Written as the textbook
    has it, x = -1e4 gives the right value and a gradient of NaN (infinity over infinity).

    Shapes: any, kept.

    Example:
        >>> sigmoid(torch.tensor([-1e4, 0.0, 1e4]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    z = torch.exp(torch.where(x >= 0, -x, x))  # exp(-|x|), with a slope at 0 that autograd gets right
    return torch.where(x >= 0, 1 / (1 + z), z / (1 + z))


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent (exp(x) - exp(-x)) / (exp(x) + exp(-x)), from -1 to 1.

    ``expm1(u) = exp(u) - 1`` keeps the digits that ``2 * sigmoid(2 * x) - 1`` would lose near 0.

    Shapes: any, kept.

    Example:
        >>> tanh(torch.tensor([-1e4, 0.0, 1e4]))
        tensor([-1.,  0.,  1.])
    """
    t = torch.expm1(torch.where(x >= 0, -2 * x, 2 * x))  # exp(-2|x|) - 1, from -1 to 0
    return torch.where(x >= 0, -t, t) / (t + 2)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, x times the probability that a standard normal number is below x.

    Args:
        x: Input.
        approximate: ``"none"`` for the definition, ``"tanh"`` for the approximation that GPT-2 was trained with.

    Shapes: any, kept.

    Raises:
        ValueError: If ``approximate`` is neither of the two.

    Example:
        >>> gelu(torch.tensor([-1e4, 0.0, 1.0]))
        tensor([-0.0000, 0.0000, 0.8413])
    """
    if approximate == "none":
        return 0.5 * x * torch.erfc(-x / math.sqrt(2))  # erfc(-u) = 1 + erf(u), without cancelling in the left tail
    if approximate == "tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")


def silu(x: Tensor) -> Tensor:
    """Sigmoid linear unit (swish), x * sigmoid(x).

    Shapes: any, kept.

    Example:
        >>> silu(torch.tensor([-1e4, 0.0, 1.0]))
        tensor([-0.0000, 0.0000, 0.7311])
    """
    return x * sigmoid(x)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Logarithm of :func:`softmax`, without ever forming a probability that has rounded to 0.

    Shapes: any, kept; along ``dim`` the exponentials add up to 1.

    Example:
        >>> log_softmax(torch.tensor([1e4, 0.0]))
        tensor([     0., -10000.])
    """
    shifted = x - x.detach().amax(dim, keepdim=True) if x.numel() else x  # all moved together: softmax stays the same
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x_i) / sum_j exp(x_j): positive numbers along ``dim`` that add up to 1.

    Shapes: any, kept.

    Example:
        >>> softmax(torch.tensor([1e4, 1e4, -1e4]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    shifted = x - x.detach().amax(dim, keepdim=True) if x.numel() else x  # the largest is 0: no overflow
    exponentials = shifted.exp()
    return exponentials / exponentials.sum(dim, keepdim=True)


def derivative(name: str, x: Tensor) -> Tensor:
    """Derivative of an elementwise activation at x, by its formula and not by automatic differentiation.

    Args:
        name: ``"relu"``, ``"leaky_relu"``, ``"sigmoid"``, ``"tanh"``, ``"gelu"`` or ``"silu"``.
        x: Where to take it.

    Shapes: any, kept.

    Raises:
        ValueError: If the name is none of these.

    Example:
        >>> derivative("sigmoid", torch.tensor([0.0]))
        tensor([0.2500])
    """
    if name == "relu":
        return (x > 0).to(x.dtype)
    if name == "leaky_relu":
        return torch.where(x > 0, torch.ones_like(x), 0.01)
    if name == "sigmoid":
        return sigmoid(x) * sigmoid(-x)  # 1 - sigmoid(x) = sigmoid(-x), exact where the left side rounds to 0
    if name == "tanh":
        return 4 * sigmoid(2 * x) * sigmoid(-2 * x)  # 1 - tanh(x)**2, likewise
    if name == "gelu":
        density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return 0.5 * torch.erfc(-x / math.sqrt(2)) + x * density
    if name == "silu":
        return sigmoid(x) * (1 + x * sigmoid(-x))
    raise ValueError(f"no derivative for {name!r}: it must be relu, leaky_relu, sigmoid, tanh, gelu or silu")
