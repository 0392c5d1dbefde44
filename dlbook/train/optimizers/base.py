"""What all optimisers here share: groups of parameters, checks, and up to three ways to compute one and the same step.

    single   one parameter after the other, in the lines of the paper: to be read
    foreach  all parameters at once, by PyTorch's operations on lists of tensors: few launches on a GPU
    fused    one kernel that reads and writes each number once, for SGD, Adam and AdamW: the fastest

Options, their defaults and the state bear the names of `torch.optim`, so that a state dict of either side fits the other.

Chapter: chapters/05-training-and-optimization.ipynb

Letters in this folder:
    p  parameter, θ in the papers    g  its gradient
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


@dataclass
class Together:
    """Parameters that one call may handle: on one device, of one dtype, all with a state or all without one.

    Attributes:
        params: The parameters.
        grads: Gradient of each.
        states: What the optimiser remembers of each.
        first: Whether this is the first step of all of them, their states empty.
    """

    params: list[Tensor]
    grads: list[Tensor]
    states: list[State]
    first: bool

    def of(self, name: str) -> list[Tensor]:
        """The tensors of that name, one for each parameter."""
        return [state[name] for state in self.states]


class Optimizer(torch.optim.Optimizer):
    """Base of the optimisers: an heir writes `single` and `foreach`, perhaps `fused`.

    Args:
        params: Parameters, or groups of them: dicts with "params" and the options that differ from the defaults.
        defaults: Options of all groups; "lr" and "weight_decay" are among them.
        foreach: True for the lists of tensors, False for one parameter after the other; by default the fastest way.
        fused: True for the one kernel, where there is one.

    Raises:
        ValueError: If an option is out of its range in any group, or a parameter or gradient is not dense and real.
    """

    def __init__(
        self, params: Params, defaults: dict[str, Any], *, foreach: bool | None = None, fused: bool | None = None
    ) -> None:
        super().__init__(params, defaults | {"foreach": foreach, "fused": fused})

    def check(self, options: Mapping[str, Any]) -> None:
        """Complain about options out of range; heirs check theirs as well.

        Raises:
            ValueError: If one is.
        """
        lr = options["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"lr must be one number, got a tensor {tuple(lr.shape)}")
        at_least_0("lr", float(lr))
        at_least_0("weight_decay", options["weight_decay"])
        if options["foreach"] and options["fused"]:
            raise ValueError("foreach and fused are two ways to do the same: ask for one of them")
        if options["fused"] and type(self).fused is Optimizer.fused:
            raise ValueError(f"{type(self).__name__} has no fused kernel: leave fused out")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; see `torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: If an option is out of range, or a parameter is not of real numbers.
        """
        self.check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                raise ValueError(f"parameters must be of real numbers, got {p.dtype} of shape {tuple(p.shape)}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a state dict of torch.optim does not have all of our options
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters that have a gradient, once.

        Args:
            closure: Computes the loss anew, with gradients; called first.

        Returns:
            What ``closure`` returns.

        Raises:
            ValueError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            options = {**group, "lr": float(group["lr"])}  # a learning rate on a GPU makes it wait here
            for some in self._sort(group["params"]):
                self._way(some, options)(some, options)
        return loss

    def _sort(self, params: list[Tensor]) -> Iterable[Together]:
        sorted_: dict[tuple[torch.device, torch.dtype, bool], Together] = {}
        for p in params:
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise ValueError(f"the gradient of a parameter {tuple(p.shape)} is sparse, only dense ones can be used")
            first = not self.state[p]
            some = sorted_.setdefault((p.device, p.dtype, first), Together([], [], [], first))
            some.params.append(p)
            some.grads.append(p.grad)
            some.states.append(self.state[p])
        return sorted_.values()

    def _way(self, some: Together, options: Mapping[str, Any]) -> Callable[[Together, Mapping[str, Any]], None]:
        """The fastest way, if nothing else was asked for."""
        if options["fused"] or (options["fused"] is options["foreach"] is None):
            has_kernel = type(self).fused is not Optimizer.fused and some.params[0].device.type in ("cpu", "cuda")
            if has_kernel and self._in_step(some):
                return self.fused
        return self._one_by_one if options["foreach"] is False else self.foreach

    def _in_step(self, some: Together) -> bool:
        """Whether gradient and state lie in memory as the parameter does: a kernel that runs along all takes it so."""
        return all(
            p.stride() == g.stride() and all(s.stride() == p.stride() for s in state.values() if s.ndim == p.ndim != 0)
            for p, g, state in zip(some.params, some.grads, some.states, strict=True)
        )

    def _one_by_one(self, some: Together, options: Mapping[str, Any]) -> None:
        for p, g, state in zip(some.params, some.grads, some.states, strict=True):
            self.single(p, g, state, options)

    @abstractmethod
    def single(self, p: Tensor, g: Tensor, state: State, options: Mapping[str, Any]) -> None:
        """Change one parameter and its state, in place."""

    @abstractmethod
    def foreach(self, some: Together, options: Mapping[str, Any]) -> None:
        """The same for many at once."""

    def fused(self, some: Together, options: Mapping[str, Any]) -> None:
        """The same by one kernel; heirs that have none leave this as it is, and it is never called."""
        raise NotImplementedError


def gradients(some: Together, options: Mapping[str, Any]) -> list[Tensor]:
    """What all optimisers but AdamW, Lion and Muon start from: the gradients, of ``maximize`` and L2 penalty as well."""
    grads = some.grads
    if options["maximize"]:
        grads = list(torch._foreach_neg(grads))
    if options["weight_decay"]:
        grads = list(torch._foreach_add(grads, some.params, alpha=options["weight_decay"]))
    return grads


def at_least_0(name: str, value: float) -> None:
    """Complain about an option that is negative, infinite or NaN.

    Raises:
        ValueError: If it is.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def share(name: str, value: float) -> None:
    """Complain about an option that is not from 0 up to but not including 1.

    Raises:
        ValueError: If it is not.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
