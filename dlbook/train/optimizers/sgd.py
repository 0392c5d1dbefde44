"""Stochastic gradient descent: plain, with momentum, with Nesterov's momentum.

Momentum: B. Polyak, https://doi.org/10.1016/0041-5553(64)90137-5, 1964. In deep learning, Nesterov's as well:
I. Sutskever et al., https://proceedings.mlr.press/v28/sutskever13.html, 2013.

Chapter: chapters/05-training-and-optimization.ipynb

Letters:
    p  parameter    g  its gradient    b  momentum buffer
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlbook.train.optimizers.base import Optimizer, Params, State, Together, at_least_0, gradients


class SGD(Optimizer):
    """Steps against the gradient, or against a sum over the gradients so far that forgets.

    With learning rate γ, momentum μ, dampening τ and L2 penalty λ::

        g ← g + λ p
        b ← μ b + (1 - τ) g           (b = g at the first step)
        p ← p - γ b                   Nesterov: p - γ (g + μ b)

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate γ.
        momentum: Share μ of the buffer that stays; 0 for plain SGD.
        dampening: Share τ of each gradient that is left out of the buffer.
        weight_decay: Strength λ of the L2 penalty.
        nesterov: Whether to look ahead: as if the gradient were taken where the momentum leads.
        maximize: Whether to climb.
        foreach: See `Optimizer`.
        fused: See `Optimizer`.

    Raises:
        ValueError: If an option is out of range, or ``nesterov`` comes without momentum or with dampening.

    Example:
        >>> p = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> optimizer = SGD([p], lr=0.1, momentum=0.9)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     p.square().sum().backward()
        ...     optimizer.step()
        >>> bool(p.abs().max() < 1e-3)
        True
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, foreach=foreach, fused=fused)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        at_least_0("momentum", options["momentum"])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(
                "nesterov needs momentum and no dampening, got "
                f"momentum={options['momentum']} and dampening={options['dampening']}"
            )

    def single(self, p: Tensor, g: Tensor, state: State, options: Mapping[str, Any]) -> None:
        lr, momentum = options["lr"], options["momentum"]
        if options["maximize"]:
            g = -g
        if options["weight_decay"]:
            g = g.add(p, alpha=options["weight_decay"])
        if momentum:
            if "momentum_buffer" in state:
                b = state["momentum_buffer"].mul_(momentum).add_(g, alpha=1 - options["dampening"])
            else:
                b = state["momentum_buffer"] = g.clone()
            g = g.add(b, alpha=momentum) if options["nesterov"] else b
        p.add_(g, alpha=-lr)

    def foreach(self, some: Together, options: Mapping[str, Any]) -> None:
        lr, momentum = options["lr"], options["momentum"]
        grads = gradients(some, options)
        if momentum:
            if some.first:
                for state, g in zip(some.states, grads, strict=True):
                    state["momentum_buffer"] = g.clone()
            else:
                torch._foreach_mul_(some.of("momentum_buffer"), momentum)
                torch._foreach_add_(some.of("momentum_buffer"), grads, alpha=1 - options["dampening"])
            if options["nesterov"]:  # in two parts: nothing to allocate, and the gradients stay as they are
                torch._foreach_add_(some.params, grads, alpha=-lr)
                torch._foreach_add_(some.params, some.of("momentum_buffer"), alpha=-lr * momentum)
                return
            grads = some.of("momentum_buffer")
        torch._foreach_add_(some.params, grads, alpha=-lr)

    def fused(self, some: Together, options: Mapping[str, Any]) -> None:
        if options["momentum"] and some.first:
            for state, p in zip(some.states, some.params, strict=True):
                state["momentum_buffer"] = torch.empty_like(p)  # the kernel fills it
        torch._fused_sgd_(
            some.params,
            some.grads,
            some.of("momentum_buffer") if options["momentum"] else [],
            is_first_step=some.first,
            **{name: options[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")},
        )
