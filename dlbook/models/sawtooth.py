"""Sawtooth network: the tent map composed with itself, and an exact count of the linear pieces of any ReLU network.

The function on which depth beats width: Telgarsky (2015), https://arxiv.org/abs/1509.08101, and Telgarsky (2016),
https://arxiv.org/abs/1602.04485. Counting pieces: Pascanu, Montufar & Bengio (2014), https://arxiv.org/abs/1312.6098,
and Montufar et al. (2014), https://arxiv.org/abs/1402.1869.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Letters in this file:
    N  inputs in a batch      k  depth: hidden layers, compositions of the tent
    n  units of one layer     P  linear pieces so far
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn


class Sawtooth(nn.Module):
    """The tent map applied ``depth`` times, as a ReLU network with two units in each hidden layer.

    On [0, 1] the tent rises from 0 to 1 and falls back to 0, and each layer folds the interval once more::

        tent(x) = 2 relu(x) - 4 relu(x - 1/2)        network = tent o tent o ... o tent      (depth times)

    The result has exactly 2^depth linear pieces on [0, 1] and 6 depth + 1 weights. All weights are powers of two. They
    are kept in float64, because every layer doubles the rounding error of its input; the output comes back in the
    dtype of the input.

    Args:
        depth: Hidden layers, k.

    Shapes:
        x: (N, 1) float.
        returns: (N, 1), dtype and device of ``x``.

    Raises:
        ValueError: If ``depth`` is not positive, or ``x`` is not (N, 1).

    Example:
        >>> network = Sawtooth(depth=2)
        >>> network(torch.tensor([[0.0], [0.25], [0.375], [0.5], [0.75], [1.0]])).squeeze(1).tolist()
        [0.0, 1.0, 0.5, 0.0, 1.0, 0.0]
        >>> count_pieces(network.layers, 0, 1)
        4
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be positive, got {depth}")
        self.depth = depth
        self.layers = nn.Sequential()
        for layer in range(depth):
            self.layers.append(nn.Linear(1 if layer == 0 else 2, 2, dtype=torch.float64))
            self.layers.append(nn.ReLU())
        self.layers.append(nn.Linear(2, 1, dtype=torch.float64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights: both units of a layer see the tent of the layer before, one of them moved by a half."""
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        tent = torch.tensor([2.0, -4.0], dtype=torch.float64)
        with torch.no_grad():
            linears[0].weight.fill_(1.0)  # (2, 1): the first layer sees x itself
            for linear in linears[1:]:
                linear.weight.copy_(tent.expand_as(linear.weight))  # (2, 2), and (1, 2) for the output
            for linear in linears[:-1]:
                linear.bias.copy_(torch.tensor([0.0, -0.5]))  # (2,)
            linears[-1].bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != 1:
            raise ValueError(f"x must be (batch, 1), got {tuple(x.shape)}")
        weight = next(self.layers.parameters())
        y: Tensor = self.layers(x.to(weight.dtype))  # (N, 1) -> (N, 2) -> ... -> (N, 1)
        return y.to(x.dtype)


def sawtooth(x: Tensor, depth: int) -> Tensor:
    """What `Sawtooth` computes on [0, 1], from a formula: a wave of 2^depth straight pieces between 0 and 1.

    Args:
        x: Any shape, values in [0, 1].
        depth: How often the tent is composed with itself.

    Example:
        >>> sawtooth(torch.tensor([0.0, 0.125, 0.25, 0.5, 1.0]), depth=2).tolist()
        [0.0, 0.5, 1.0, 0.0, 0.0]
    """
    place = (2**depth * x) % 2  # where in its tooth: 0 at the left foot, 1 at the tip, 2 at the right foot
    return torch.minimum(place, 2 - place)


def max_pieces(widths: Iterable[int]) -> int:
    """The most linear pieces that a ReLU network of one input and one output can have: the product of (n + 1).

    A unit switches at most once on each piece that reaches it, so a layer of n units turns P pieces into at most
    P + n P = (n + 1) P.

    Args:
        widths: Units of each hidden layer.

    Example:
        >>> max_pieces([7]), max_pieces([2, 2, 2])
        (8, 27)
    """
    return math.prod(width + 1 for width in widths)


def error_floor(depth: int, pieces: int) -> float:
    """A proved lower bound on the mean absolute distance on [0, 1] between the sawtooth and any function of few pieces.

    ``1/8 - (pieces + 1) / 2^(depth + 2)``, and 0 where that is negative. The constant 1/2 has distance 1/4.

    Args:
        depth: Of the sawtooth, which has 2^depth pieces.
        pieces: Linear pieces that the other continuous function has at most.

    Example:
        >>> error_floor(depth=6, pieces=7)
        0.09375
    """
    return max(0.0, 1 / 8 - (pieces + 1) / 2.0 ** (depth + 2))


def count_pieces(network: nn.Module, low: float, high: float) -> int:
    """How many linear pieces a ReLU network has on [low, high]: exactly, without rounding and without a grid.

    Neighbouring pieces of equal slope count once.

    Args:
        network: `torch.nn.Linear` and `torch.nn.ReLU` in any order inside (nested) `torch.nn.Sequential`, of one input
            to one output.
        low: Left end of the interval.
        high: Right end of the interval.

    Raises:
        ValueError: If the interval is empty, the network has another kind of layer, weights that are not finite, or not
            one input and one output.

    Example:
        >>> count_pieces(nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1)), -1, 1)
        1
    """
    return len(breakpoints(network, low, high)) + 1


def breakpoints(network: nn.Module, low: float, high: float) -> list[Fraction]:
    """The places strictly between ``low`` and ``high`` where the slope of a ReLU network changes, exactly and in order.

    On each piece every unit is ``slope x + offset``. Both numbers are kept as whole numbers times a common power of two
    (every float is one), and the places as fractions, so nothing is rounded.

    Args:
        network: As for `count_pieces`.
        low: Left end of the interval.
        high: Right end of the interval.

    Raises:
        ValueError: As for `count_pieces`.

    Example:
        >>> breakpoints(Sawtooth(depth=1).layers, 0, 1)
        [Fraction(1, 2)]
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the interval must be bounded and not empty, got [{low}, {high}]")
    layers = list(_flat(network))
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if not linears or linears[0].in_features != 1 or linears[-1].out_features != 1:
        raise ValueError("the network must lead from one input to one output")
    bits = max(_fraction_bits(layer) for layer in linears)

    edges = [Fraction(low), Fraction(high)]  # P + 1 places
    slopes = np.array([[1]], dtype=object)  # (n, P) whole numbers, to be divided by 2^scale
    offsets = np.array([[0]], dtype=object)  # (n, P)
    scale = 0
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight = _integers(layer.weight, bits)  # (n', n)
            slopes, offsets = weight @ slopes, weight @ offsets  # (n', P)
            if layer.bias is not None:
                offsets = offsets + _integers(layer.bias, bits + scale)[:, None]
            scale += bits
        else:
            edges, slopes, offsets = _relu(edges, slopes, offsets)
    return [edge for edge, a, b in zip(edges[1:], slopes[0], slopes[0, 1:], strict=False) if a != b]


def _relu(
    edges: list[Fraction], slopes: np.ndarray, offsets: np.ndarray
) -> tuple[list[Fraction], np.ndarray, np.ndarray]:
    """Split the pieces where a unit crosses zero, then set the units that are negative there to zero."""
    cut_edges, parent = [edges[0]], []
    for p, (left, right) in enumerate(pairwise(edges)):
        zeros = {Fraction(-b, a) for a, b in zip(slopes[:, p], offsets[:, p], strict=True) if a != 0}
        places = [*sorted(zero for zero in zeros if left < zero < right), right]
        cut_edges += places
        parent += [p] * len(places)
    middles = [(left + right) / 2 for left, right in pairwise(cut_edges)]
    above = np.array([middle.numerator for middle in middles], dtype=object)  # (P',)
    below = np.array([middle.denominator for middle in middles], dtype=object)  # (P',)
    slopes, offsets = slopes[:, parent], offsets[:, parent]  # (n, P) -> (n, P')
    active = slopes * above + offsets * below > 0  # the sign of slope * middle + offset
    return cut_edges, np.where(active, slopes, 0), np.where(active, offsets, 0)


def _flat(network: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested stacks in the order in which they run."""
    if isinstance(network, nn.Sequential):
        for layer in network:
            yield from _flat(layer)
    elif isinstance(network, nn.Linear | nn.ReLU):
        yield network
    else:
        raise ValueError(f"only Linear, ReLU and Sequential can be counted, got {type(network).__name__}")


def _numbers(tensor: Tensor) -> Sequence[float]:
    numbers: list[float] = tensor.detach().double().flatten().tolist()
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a network whose weights are not finite has no pieces to count")
    return numbers


def _fraction_bits(layer: nn.Linear) -> int:
    """How many binary digits after the point the weights of a layer need."""
    return max(number.as_integer_ratio()[1].bit_length() - 1 for p in layer.parameters() for number in _numbers(p))


def _integers(tensor: Tensor, bits: int) -> np.ndarray:
    """``tensor * 2^bits`` in Python's whole numbers, which never overflow: same shape."""
    whole = [num * 2**bits // den for num, den in (number.as_integer_ratio() for number in _numbers(tensor))]
    return np.array(whole, dtype=object).reshape(tensor.shape)
