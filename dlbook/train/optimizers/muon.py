"""Muon: the momentum of a matrix, replaced by the nearest matrix whose singular values are all about 1.

K. Jordan et al., https://kellerjordan.github.io/posts/muon/, 2024. The second scale of the learning rate:
J. Liu et al., Muon is Scalable for LLM Training, https://arxiv.org/abs/2502.16982, 2025.

Chapter: chapters/05-training-and-optimization.ipynb

Letters:
    G  matrix to be orthogonalised    a, b, c  coefficients of the polynomial    m  mean of the gradients
    R  rows    S  columns    N  matrices of one shape
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from dlbook.train.optimizers.base import Optimizer, Params, State, Together, at_least_0, gradients, share

#: Steep at 0, so that small singular values grow fast; the price is that none settles at 1 exactly.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
#: Numbers in the largest matrix that a CPU multiplies faster together with others of its shape.
STACKED_ON_CPU = 2**14


def orthogonalize(
    G: Tensor,
    steps: int = 5,
    *,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = 1e-7,
    dtype: torch.dtype | None = torch.bfloat16,
) -> Tensor:
    """U V^T of the singular value decomposition G = U S V^T, roughly: the Newton-Schulz iteration, products only.

    Each step maps every singular value s to a s + b s³ + c s⁵ and leaves U and V alone; after five steps with the default
    coefficients, those above 0.01 times the norm of G are between 0.68 and 1.14.

    Args:
        G: Matrices.
        steps: Steps of the iteration, 0 to 99.
        coefficients: a, b and c.
        eps: Smallest norm that a matrix is divided by.
        dtype: To compute in: bfloat16 is enough and fast on a GPU; None for that of ``G``.

    Shapes: G (..., R, S); returns the same.

    Raises:
        ValueError: If G is no matrix, or the number of steps is out of range.

    Example:
        >>> G = torch.diag(torch.tensor([5.0, 3.0, 0.5]))
        >>> orthogonalize(G, steps=30, coefficients=(1.5, -0.5, 0.0), dtype=None).diagonal()  # these converge, slowly
        tensor([1., 1., 1.])
    """
    if G.ndim < 2:
        raise ValueError(f"G must be (..., rows, columns), got {tuple(G.shape)}")
    if not 0 <= steps < 100:
        raise ValueError(f"steps must be from 0 to 99, got {steps}")
    a, b, c = coefficients
    tall = G.shape[-2] > G.shape[-1]
    X = G if dtype is None else G.to(dtype)
    X = X.mT if tall else X  # the product below is then the smaller of the two, (R, R) with R <= S
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)  # no singular value above 1
    for _ in range(steps):
        A = X @ X.mT  # (..., R, R)
        X = _add_product(X, _add_product(A, A, A, b, c), X, a, 1)  # a X + (b A + c A²) X
    return (X.mT if tall else X).to(G.dtype)


def _add_product(M: Tensor, A: Tensor, B: Tensor, beta: float, alpha: float) -> Tensor:
    """beta M + alpha A B, in one kernel and rounded once."""
    if M.ndim == 2:
        return torch.addmm(M, A, B, beta=beta, alpha=alpha)
    flat = (X.reshape(-1, *X.shape[-2:]) for X in (M, A, B))
    return torch.baddbmm(*flat, beta=beta, alpha=alpha).view(M.shape)


class Muon(Optimizer):
    """Moves a matrix equally far in all directions that its momentum has, strong and weak ones.

    With learning rate γ, momentum μ and decoupled weight decay λ::

        m ← μ m + (1 - μ) g
        p ← (1 - γ λ) p - γ r · orthogonalize(m)      Nesterov: of μ m + (1 - μ) g

    For the matrices between hidden layers. Embeddings, the last layer, biases and norms want another optimiser, such as
    `AdamW`: give each its own parameters.

    Args:
        params: Matrices, or groups of them.
        lr: Learning rate γ.
        weight_decay: λ.
        momentum: Share μ of the mean that stays.
        nesterov: Whether to look ahead.
        ns_coefficients: Coefficients of `orthogonalize`.
        eps: Smallest norm that a matrix is divided by.
        ns_steps: Steps of `orthogonalize`.
        adjust_lr_fn: Scale r of the step of a matrix (R, S): "original" (and None) is √max(1, R / S), "match_rms_adamw"
            is 0.2 √max(R, S), with which learning rates found for AdamW fit.
        maximize: Whether to climb.
        dtype: To orthogonalise in; None for the parameters' own, which a CPU is faster in.
        foreach: See `Optimizer`: here, matrices of one shape are orthogonalised together.

    Raises:
        ValueError: If a parameter is no matrix, or an option is out of range.

    Example:
        >>> p = torch.zeros(2, 2, requires_grad=True)
        >>> p.grad = torch.tensor([[5.0, 0.0], [0.0, 0.5]])
        >>> Muon([p], lr=0.1, dtype=None).step()
        >>> bool(((p.diagonal() + 0.1).abs() < 0.04).all())  # -0.1 in both directions, roughly
        True
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None,
        *,
        maximize: bool = False,
        dtype: torch.dtype | None = torch.bfloat16,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "maximize": maximize,
            "dtype": dtype,
        }
        super().__init__(params, defaults, foreach=foreach)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        share("momentum", options["momentum"])
        at_least_0("eps", options["eps"])
        if not 0 <= options["ns_steps"] < 100:
            raise ValueError(f"ns_steps must be from 0 to 99, got {options['ns_steps']}")
        if len(options["ns_coefficients"]) != 3:
            raise ValueError(f"ns_coefficients must be three numbers, got {options['ns_coefficients']}")
        if options["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"adjust_lr_fn must be original or match_rms_adamw, got {options['adjust_lr_fn']!r}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim != 2:
                raise ValueError(f"Muon takes matrices, got a parameter of shape {tuple(p.shape)}: give it to AdamW")

    def single(self, p: Tensor, g: Tensor, state: State, options: Mapping[str, Any]) -> None:
        lr, momentum = options["lr"], options["momentum"]
        if options["maximize"]:
            g = -g
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        m = state["momentum_buffer"].lerp_(g, 1 - momentum)
        update = g.lerp(m, momentum) if options["nesterov"] else m
        update = self._orthogonal(update, options)
        p.mul_(1 - lr * options["weight_decay"]).add_(update, alpha=-lr * _scale(p, options["adjust_lr_fn"]))

    def foreach(self, some: Together, options: Mapping[str, Any]) -> None:
        lr, momentum = options["lr"], options["momentum"]
        if some.first:
            for state, p in zip(some.states, some.params, strict=True):
                state["momentum_buffer"] = torch.zeros_like(p)
        grads, m = gradients(some, {**options, "weight_decay": 0.0}), some.of("momentum_buffer")
        torch._foreach_lerp_(m, grads, 1 - momentum)
        updates = list(torch._foreach_lerp(grads, m, momentum)) if options["nesterov"] else m
        if options["weight_decay"]:
            torch._foreach_mul_(some.params, 1 - lr * options["weight_decay"])
        for shape in {p.shape for p in some.params}:
            here = [i for i, p in enumerate(some.params) if p.shape == shape]
            these = [updates[i] for i in here]
            if these[0].is_cpu and these[0].numel() > STACKED_ON_CPU:
                these = [self._orthogonal(update, options) for update in these]
            else:
                these = list(self._orthogonal(torch.stack(these), options))  # (N, R, S) in between
            params = [some.params[i] for i in here]
            torch._foreach_add_(params, these, alpha=-lr * _scale(params[0], options["adjust_lr_fn"]))

    @staticmethod
    def _orthogonal(update: Tensor, options: Mapping[str, Any]) -> Tensor:
        return orthogonalize(
            update,
            options["ns_steps"],
            coefficients=options["ns_coefficients"],
            eps=options["eps"],
            dtype=options["dtype"],
        )


def _scale(p: Tensor, rule: str | None) -> float:
    """By how much the step of a matrix is longer, so that its entries come out alike whatever its shape."""
    rows, columns = p.shape
    return 0.2 * math.sqrt(max(rows, columns)) if rule == "match_rms_adamw" else math.sqrt(max(1, rows / columns))
