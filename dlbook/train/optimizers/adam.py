"""Adam: momentum, and a step size for every parameter; AdamW: with weight decay beside the gradient.

Adam: D. Kingma, J. Ba, https://arxiv.org/abs/1412.6980, 2015. AdamW: I. Loshchilov, F. Hutter,
https://arxiv.org/abs/1711.05101, 2019. AMSGrad: S. Reddi, S. Kale, S. Kumar, https://arxiv.org/abs/1904.09237, 2018.

Chapter: chapters/05-training-and-optimization.ipynb

Letters, as in the papers:
    p  parameter    g  its gradient    m  mean of g    v  mean of g²    t  step, from 1
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlbook.train.optimizers.base import Optimizer, Params, State, Together, at_least_0, gradients, share


class Adam(Optimizer):
    """Divides the mean of the gradients by the root of the mean of their squares.

    With learning rate γ and L2 penalty λ::

        g ← g + λ p
        m ← β1 m + (1 - β1) g         v ← β2 v + (1 - β2) g²
        p ← p - γ · m / (1 - β1^t) / (√(v / (1 - β2^t)) + ε)

    Both means start at 0; dividing by 1 - β^t makes them means of the t gradients seen.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate γ: about how far a parameter moves in a step.
        betas: Shares β1 and β2 of the two means that stay.
        eps: Added to the root, ε.
        weight_decay: Strength λ of the L2 penalty; in `AdamW`, share γ λ of each parameter that is lost in a step.
        amsgrad: Whether to divide by the largest v so far instead of the last.
        maximize: Whether to climb.
        foreach: See `Optimizer`.
        fused: See `Optimizer`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> p = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> p.grad = torch.tensor([50.0, 0.01])
        >>> Adam([p], lr=0.1).step()
        >>> p.detach()  # at first a step of 0.1, whatever the gradient
        tensor([ 2.9000, -2.1000])
    """

    decoupled = False  # whether weight decay stays out of the gradient

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults, foreach=foreach, fused=fused)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        for number, beta in enumerate(options["betas"], 1):
            share(f"beta{number}", beta)
        at_least_0("eps", options["eps"])

    def _begin(self, state: State, p: Tensor, options: Mapping[str, Any]) -> None:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(p)
        state["exp_avg_sq"] = torch.zeros_like(p)
        if options["amsgrad"]:
            state["max_exp_avg_sq"] = torch.zeros_like(p)

    def single(self, p: Tensor, g: Tensor, state: State, options: Mapping[str, Any]) -> None:
        lr, (beta1, beta2), decay = options["lr"], options["betas"], options["weight_decay"]
        if not state:
            self._begin(state, p, options)
        state["step"] += 1
        t = float(state["step"])
        if options["maximize"]:
            g = -g
        if self.decoupled:
            p.mul_(1 - lr * decay)
        elif decay:
            g = g.add(p, alpha=decay)
        m = state["exp_avg"].lerp_(g, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        if options["amsgrad"]:
            v = torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        root = v.sqrt().div_((1 - beta2**t) ** 0.5).add_(options["eps"])
        p.addcdiv_(m, root, value=-lr / (1 - beta1**t))

    def foreach(self, some: Together, options: Mapping[str, Any]) -> None:
        lr, (beta1, beta2), decay = options["lr"], options["betas"], options["weight_decay"]
        self._count(some, options, torch.device("cpu"))  # where counting does not make a GPU wait
        steps = [float(step) for step in some.of("step")]
        if self.decoupled:
            grads = gradients(some, {**options, "weight_decay": 0.0})
            if decay:
                torch._foreach_mul_(some.params, 1 - lr * decay)
        else:
            grads = gradients(some, options)
        m, v = some.of("exp_avg"), some.of("exp_avg_sq")
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)
        if options["amsgrad"]:
            torch._foreach_maximum_(some.of("max_exp_avg_sq"), v)
            v = some.of("max_exp_avg_sq")
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, [(1 - beta2**t) ** 0.5 for t in steps])
        torch._foreach_add_(root, options["eps"])
        torch._foreach_addcdiv_(some.params, m, root, [-lr / (1 - beta1**t) for t in steps])

    def fused(self, some: Together, options: Mapping[str, Any]) -> None:
        self._count(some, options, some.params[0].device)  # the kernel reads the steps there
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        kernel(
            some.params,
            some.grads,
            some.of("exp_avg"),
            some.of("exp_avg_sq"),
            some.of("max_exp_avg_sq") if options["amsgrad"] else [],
            some.of("step"),
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            **{name: options[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")},
        )

    def _count(self, some: Together, options: Mapping[str, Any], device: torch.device) -> None:
        for state, p in zip(some.states, some.params, strict=True):
            if some.first:
                self._begin(state, p, options)
            if state["step"].device != device:  # new, or left there by the other way
                state["step"] = state["step"].to(device)
        torch._foreach_add_(some.of("step"), 1)


class AdamW(Adam):
    """Adam whose weight decay does not go through the means.

    In place of the penalty's gradient λ p, each parameter loses a share of itself, the same for all of them::

        p ← (1 - γ λ) p

    Where Adam divides a penalty's gradient by √v, it shrinks least those parameters whose loss is steepest.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate γ.
        betas: Shares β1 and β2 of the two means that stay.
        eps: Added to the root, ε.
        weight_decay: λ.
        amsgrad: Whether to divide by the largest v so far instead of the last.
        maximize: Whether to climb.
        foreach: See `Optimizer`.
        fused: See `Optimizer`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> p = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> p.grad = torch.zeros(2)
        >>> AdamW([p], lr=0.1, weight_decay=0.5).step()
        >>> p.detach()
        tensor([ 2.8500, -1.9000])
    """

    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, foreach=foreach, fused=fused)
