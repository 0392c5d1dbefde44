"""Bump network: one wide hidden layer, written down instead of trained, that follows a given function.

The constructive half of the universal approximation theorem (Cybenko 1989, https://doi.org/10.1007/BF02551274;
Hornik 1991, https://doi.org/10.1016/0893-6080(91)90009-T) for functions of one number on a bounded interval.

Chapter: chapters/02-neural-network-fundamentals.ipynb

Letters in this file:
    N  inputs in a batch      n  bumps (cells of the interval)
    h  width of one cell, (high - low) / n
    L  Lipschitz constant: |f(x) - f(y)| <= L |x - y|
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "sigmoid"]
Function = Callable[[Tensor], Tensor]

MAX_BUMPS = 2**17
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
_GRID_POINTS = 20_001
_GRID_BLOCK = 2**23  # hidden values in memory at once while a fine grid is measured: 64 MB


class BumpNetwork(nn.Module):
    """One hidden layer between a number and a number, with weights that a formula gives.

    The network adds up bumps, one for each cell of the interval. Neighbouring bumps share their flanks, so that a bump
    costs one hidden unit. With c_i for the height at the i-th place::

        relu:     g(x) = c_0 + sum_i (slope_i - slope_{i-1}) relu(x - x_i)         hats: straight lines through the c_i
        sigmoid:  g(x) = c_0 + sum_i (c_i - c_{i-1}) sigmoid(steepness (x - x_i))  steps: height of the nearest cell

    The weights are kept in float64, because the slopes of a rough function are large and cancel; the output comes back
    in the dtype of the input. ``network.float()`` makes it a float32 network throughout.

    Args:
        num_units: Hidden units. Weights start as `torch.nn.Linear` leaves them; `approximate` and `for_error` set them.
        activation: "relu" or "sigmoid".

    Shapes:
        x: (N, 1) float.
        returns: (N, 1), dtype and device of ``x``.

    Raises:
        ValueError: If ``num_units`` is not positive, the activation is unknown, or ``x`` is not (N, 1).

    Example:
        >>> network = BumpNetwork.approximate(torch.sin, 0.0, math.pi, num_bumps=64)
        >>> x = torch.linspace(0, math.pi, 5).unsqueeze(1)
        >>> bool((network(x) - torch.sin(x)).abs().max() < 1e-3)
        True
    """

    def __init__(self, num_units: int, activation: Activation = "relu") -> None:
        super().__init__()
        if num_units < 1:
            raise ValueError(f"num_units must be positive, got {num_units}")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be 'relu' or 'sigmoid', got {activation!r}")
        self.num_units = num_units
        self.activation = activation
        self.hidden = nn.Linear(1, num_units, dtype=torch.float64)
        self.output = nn.Linear(num_units, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != 1:
            raise ValueError(f"x must be (batch, 1), got {tuple(x.shape)}")
        y: Tensor = self.layers(x.to(self.hidden.weight.dtype))  # (N, 1) -> (N, n) -> (N, 1)
        return y.to(x.dtype)

    @property
    def layers(self) -> nn.Sequential:
        """The same network as a plain stack, which `dlbook.models.sawtooth.count_pieces` can read."""
        return nn.Sequential(self.hidden, _ACTIVATIONS[self.activation](), self.output)

    @classmethod
    def approximate(
        cls,
        f: Function,
        low: float,
        high: float,
        num_bumps: int,
        *,
        activation: Activation = "relu",
        steepness: float = 40.0,
    ) -> "BumpNetwork":
        """The network with ``num_bumps`` equal cells on [low, high]; nothing is trained.

        Args:
            f: The function to follow, elementwise on a float64 tensor: (n,) -> (n,).
            low: Left end of the interval.
            high: Right end of the interval.
            num_bumps: Cells of the interval, and hidden units.
            activation: "relu" (hats) or "sigmoid" (steps).
            steepness: For "sigmoid" only: how much the argument of a sigmoid grows from one end of a cell to the other.

        Raises:
            ValueError: If the interval is empty or unbounded, ``num_bumps`` or ``steepness`` is not positive, or ``f``
                gives a value that is not finite or a tensor of another shape.
        """
        _check_interval(low, high)
        if num_bumps < 1:
            raise ValueError(f"num_bumps must be positive, got {num_bumps}")
        if not steepness > 0:
            raise ValueError(f"steepness must be positive, got {steepness}")
        network = cls(num_bumps, activation)
        h = (high - low) / num_bumps
        edges = torch.linspace(low, high, num_bumps + 1, dtype=torch.float64)  # (n + 1,)
        if activation == "relu":
            heights = _values(f, edges)  # (n + 1,)
            slopes = heights.diff() / edges.diff()  # (n,)
            changes = slopes.diff(prepend=torch.zeros(1, dtype=torch.float64))  # (n,): the first unit brings slope_0
            network._set_weights(1.0, edges[:-1], changes, heights[0])
        else:
            heights = _values(f, (edges[:-1] + edges[1:]) / 2)  # (n,): the middles of the cells
            steps = heights.diff(prepend=heights[:1])  # (n,): the first is 0, nothing steps at the left end
            network._set_weights(steepness / h, edges[:-1], steps, heights[0])
        return network

    @classmethod
    def for_error(
        cls,
        f: Function,
        low: float,
        high: float,
        error: float,
        *,
        lipschitz: float | None = None,
        curvature: float | None = None,
        activation: Activation = "relu",
        steepness: float = 40.0,
    ) -> "BumpNetwork":
        """A network whose largest error on [low, high] is at most ``error``.

        With ``lipschitz`` or ``curvature`` the number of bumps comes from `error_bound`, and the error is *proved* for
        every x of the interval (up to rounding in float64). With neither, the bumps are doubled until the error
        *measured* by `sup_error` on a fine grid is small enough: nothing is promised between the grid's points.

        Args:
            f: The function to follow, elementwise on a float64 tensor: (n,) -> (n,).
            low: Left end of the interval.
            high: Right end of the interval.
            error: The largest error wanted, in the units of ``f``.
            lipschitz: A number L with abs(f(x) - f(y)) <= L abs(x - y) on the interval.
            curvature: A number M with abs(f''(x)) <= M on the interval; for "relu" only.
            activation: "relu" (hats) or "sigmoid" (steps).
            steepness: As in `approximate`.

        Raises:
            ValueError: If ``error`` is not positive, or more than `MAX_BUMPS` bumps would be needed.

        Example:
            >>> network = BumpNetwork.for_error(torch.abs, -1.0, 1.0, 0.01, lipschitz=1.0)
            >>> network.num_units, bool(sup_error(network, torch.abs, -1.0, 1.0) <= 0.01)
            (100, True)
        """
        if not error > 0:
            raise ValueError(f"error must be positive, got {error}")
        _check_interval(low, high)
        if lipschitz is None and curvature is None:
            num_bumps = 1
            while num_bumps <= MAX_BUMPS:
                network = cls.approximate(f, low, high, num_bumps, activation=activation, steepness=steepness)
                if sup_error(network, f, low, high) <= error:
                    return network
                num_bumps *= 2
            raise ValueError(f"{MAX_BUMPS} bumps do not bring the measured error below {error}")
        one = error_bound(
            high - low, lipschitz=lipschitz, curvature=curvature, activation=activation, steepness=steepness
        )
        ratio = one / error  # the bound falls like 1 / n with a Lipschitz constant, like 1 / n^2 with a curvature
        num_bumps = max(1, math.ceil(ratio if curvature is None else math.sqrt(ratio)))
        if num_bumps > MAX_BUMPS:
            raise ValueError(f"an error of {error} would need {num_bumps} bumps, more than {MAX_BUMPS}")
        return cls.approximate(f, low, high, num_bumps, activation=activation, steepness=steepness)

    def _set_weights(self, inner: float, places: Tensor, outer: Tensor, offset: Tensor) -> None:
        """Set the weights to ``offset + sum_i outer_i activation(inner (x - places_i))``."""
        with torch.no_grad():
            self.hidden.weight.fill_(inner)  # (n, 1)
            self.hidden.bias.copy_(-inner * places)  # (n,)
            self.output.weight.copy_(outer.unsqueeze(0))  # (n,) -> (1, n)
            self.output.bias.copy_(offset)


def error_bound(
    cell: float,
    *,
    lipschitz: float | None = None,
    curvature: float | None = None,
    activation: Activation = "relu",
    steepness: float = 40.0,
) -> float:
    """The proved largest error of a bump network with cells of width ``cell`` (h).

    ``L h / 2`` for hats, ``M h^2 / 8`` for hats on a function with abs(f'') <= M, and ``L h (1/2 + 2 ln 2 / steepness)``
    for steps: a step rounds to the middle of a cell after adding logistic noise, whose mean size is 2 ln 2 h / steepness.

    Args:
        cell: Width of one cell, h.
        lipschitz: Lipschitz constant L of the function.
        curvature: Largest second derivative M of the function; for "relu" only.
        activation: "relu" or "sigmoid".
        steepness: As in `BumpNetwork.approximate`.

    Raises:
        ValueError: If not exactly one of ``lipschitz`` and ``curvature`` is given, or a curvature with "sigmoid".

    Example:
        >>> error_bound(0.1, lipschitz=2.0)
        0.1
    """
    if lipschitz is not None and curvature is None:
        noise = 0.0 if activation == "relu" else 2 * math.log(2) / steepness
        return lipschitz * cell * (0.5 + noise)
    if curvature is not None and lipschitz is None:
        if activation != "relu":
            raise ValueError(f"a curvature gives no better bound for steps: activation={activation!r}, use lipschitz=")
        return curvature * cell**2 / 8
    raise ValueError(f"give one of lipschitz and curvature, got {lipschitz=} and {curvature=}")


@torch.no_grad()
def sup_error(network: nn.Module, f: Function, low: float, high: float, points: int = _GRID_POINTS) -> float:
    """The largest distance between ``network`` and ``f`` on an even grid over [low, high]: a measurement, not a proof.

    Args:
        network: A module (N, 1) -> (N, 1).
        f: Elementwise function on a float64 tensor.
        low: Left end of the interval.
        high: Right end of the interval.
        points: Points of the grid.

    Example:
        >>> sup_error(nn.Identity(), torch.zeros_like, -1.0, 2.0)
        2.0
    """
    weights = next(network.parameters(), torch.empty(0, dtype=torch.float64))
    x = torch.linspace(low, high, points, dtype=torch.float64)  # (P,)
    target = _values(f, x)
    block = max(1, _GRID_BLOCK // max(1, weights.numel()))  # rows whose hidden layer fits into memory
    worst = 0.0
    for start in range(0, points, block):
        rows = slice(start, start + block)
        y = network(x[rows].to(weights).unsqueeze(1)).squeeze(1)  # (block,)
        worst = max(worst, (y.to(target) - target[rows]).abs().max().item())
    return worst


def _check_interval(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the interval must be bounded and not empty, got [{low}, {high}]")


def _values(f: Function, x: Tensor) -> Tensor:
    """``f`` on ``x``, checked: (n,) -> (n,) and finite."""
    y = f(x)
    if y.shape != x.shape:
        raise ValueError(f"f must work elementwise, got shape {tuple(y.shape)} from {tuple(x.shape)}")
    if not bool(y.isfinite().all()):
        raise ValueError(f"f is not finite at x = {x[~y.isfinite()][0].item()}")
    return y.double()
