"""Lion: every parameter moves by the same amount, only its sign is learned from the gradients.

X. Chen et al., Symbolic Discovery of Optimization Algorithms, https://arxiv.org/abs/2302.06675, 2023, algorithm 2.

Chapter: chapters/05-training-and-optimization.ipynb

Letters, as in the paper:
    p  parameter    g  its gradient    m  mean of g    c  what the sign is taken of
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlbook.train.optimizers.base import Optimizer, Params, State, Together, gradients, share


class Lion(Optimizer):
    """The sign of a mean of the gradients; one number to remember for each parameter, where Adam has two.

    With learning rate γ and decoupled weight decay λ::

        c = β1 m + (1 - β1) g
        p ← p - γ (sign(c) + λ p)
        m ← β2 m + (1 - β2) g

    A step of Lion is longer than one of Adam, whose entries are mostly below γ: the paper takes learning rates 3 to 10
    times smaller, and weight decays as many times larger.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate γ: how far each parameter moves in a step.
        betas: β1 for the step, β2 for what is remembered.
        weight_decay: λ.
        maximize: Whether to climb.
        foreach: See `Optimizer`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> p = torch.tensor([3.0, -2.0, 1.0], requires_grad=True)
        >>> p.grad = torch.tensor([50.0, 0.01, 0.0])
        >>> Lion([p], lr=0.1).step()
        >>> p.detach()
        tensor([ 2.9000, -2.1000,  1.0000])
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, foreach=foreach)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        for number, beta in enumerate(options["betas"], 1):
            share(f"beta{number}", beta)

    def single(self, p: Tensor, g: Tensor, state: State, options: Mapping[str, Any]) -> None:
        lr, (beta1, beta2) = options["lr"], options["betas"]
        if options["maximize"]:
            g = -g
        if not state:
            state["exp_avg"] = torch.zeros_like(p)
        m = state["exp_avg"]
        c = m.lerp(g, 1 - beta1)
        p.mul_(1 - lr * options["weight_decay"]).add_(c.sign_(), alpha=-lr)
        m.lerp_(g, 1 - beta2)

    def foreach(self, some: Together, options: Mapping[str, Any]) -> None:
        lr, (beta1, beta2) = options["lr"], options["betas"]
        if some.first:
            for state, p in zip(some.states, some.params, strict=True):
                state["exp_avg"] = torch.zeros_like(p)
        grads, m = gradients(some, {**options, "weight_decay": 0.0}), some.of("exp_avg")
        c = torch._foreach_lerp(m, grads, 1 - beta1)
        torch._foreach_sign_(c)
        if options["weight_decay"]:
            torch._foreach_mul_(some.params, 1 - lr * options["weight_decay"])
        torch._foreach_add_(some.params, c, alpha=-lr)
        torch._foreach_lerp_(m, grads, 1 - beta2)
