"""RMSprop: each gradient divided by its own root mean square of late.

T. Tieleman, G. Hinton, Neural Networks for Machine Learning, lecture 6.5,
https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf, 2012; centred: A. Graves,
https://arxiv.org/abs/1308.0850, 2013.

Chapter: chapters/05-training-and-optimization.ipynb

Letters:
    p  parameter    g  its gradient    v  mean square of g    m  mean of g    b  momentum buffer
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlbook.train.optimizers.base import Optimizer, Params, State, Together, at_least_0, gradients, share


class RMSprop(Optimizer):
    """Steps of about the same size for every parameter, whatever the scale of its gradient.

    With learning rate γ, momentum μ and L2 penalty λ::

        g ← g + λ p
        v ← α v + (1 - α) g²          centred: v - m², where m ← α m + (1 - α) g
        b ← μ b + g / (√v + ε)
        p ← p - γ b

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate γ.
        alpha: Share α of the mean that stays.
        eps: Added to the root, ε: how small a gradient may be and still be scaled up.
        weight_decay: Strength λ of the L2 penalty.
        momentum: Share μ of the steps before that is added.
        centered: Whether to divide by the standard deviation instead.
        maximize: Whether to climb.
        foreach: See `Optimizer`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> p = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> p.grad = torch.tensor([50.0, 0.01])
        >>> RMSprop([p], lr=0.1).step()
        >>> p.detach()  # 0.1 / √(1 - 0.99) in both directions
        tensor([ 2.0000, -3.0000])
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults, foreach=foreach)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        share("alpha", options["alpha"])
        at_least_0("eps", options["eps"])
        at_least_0("momentum", options["momentum"])

    def _begin(self, state: State, p: Tensor, options: Mapping[str, Any]) -> None:
        state["step"] = torch.tensor(0.0)  # counted for torch.optim, which keeps it as well
        state["square_avg"] = torch.zeros_like(p)
        if options["momentum"]:
            state["momentum_buffer"] = torch.zeros_like(p)
        if options["centered"]:
            state["grad_avg"] = torch.zeros_like(p)

    def single(self, p: Tensor, g: Tensor, state: State, options: Mapping[str, Any]) -> None:
        lr, alpha, momentum = options["lr"], options["alpha"], options["momentum"]
        if not state:
            self._begin(state, p, options)
        state["step"] += 1
        if options["maximize"]:
            g = -g
        if options["weight_decay"]:
            g = g.add(p, alpha=options["weight_decay"])
        v = state["square_avg"].mul_(alpha).addcmul_(g, g, value=1 - alpha)
        if options["centered"]:
            m = state["grad_avg"].lerp_(g, 1 - alpha)
            v = v.addcmul(m, m, value=-1)
        root = v.sqrt().add_(options["eps"])
        if momentum:
            b = state["momentum_buffer"].mul_(momentum).addcdiv_(g, root)
            p.add_(b, alpha=-lr)
        else:
            p.addcdiv_(g, root, value=-lr)

    def foreach(self, some: Together, options: Mapping[str, Any]) -> None:
        lr, alpha, momentum = options["lr"], options["alpha"], options["momentum"]
        if some.first:
            for state, p in zip(some.states, some.params, strict=True):
                self._begin(state, p, options)
        torch._foreach_add_(some.of("step"), 1)
        grads, v = gradients(some, options), some.of("square_avg")
        torch._foreach_mul_(v, alpha)
        torch._foreach_addcmul_(v, grads, grads, value=1 - alpha)
        if options["centered"]:
            m = some.of("grad_avg")
            torch._foreach_lerp_(m, grads, 1 - alpha)
            root = torch._foreach_addcmul(v, m, m, value=-1)
            torch._foreach_sqrt_(root)
        else:
            root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, options["eps"])
        if momentum:
            b = some.of("momentum_buffer")
            torch._foreach_mul_(b, momentum)
            torch._foreach_addcdiv_(b, grads, root)
            torch._foreach_add_(some.params, b, alpha=-lr)
        else:
            torch._foreach_addcdiv_(some.params, grads, root, value=-lr)
