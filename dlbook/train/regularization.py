"""Against learning the training set by heart: penalties, averages of weights, flat minima, stopping in time.

What works inside of a network is in `dlbook.layers` (`dropout`, `stochastic_depth`, `normalization`), what works on
pictures and labels in `dlbook.data` (`augment`, `cutmix`), label smoothing in `dlbook.train.losses.cross_entropy`.

Chapter: chapters/05-training-and-optimization.ipynb

Letters:
    λ  strength of a penalty    ρ  how far SAM looks
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlbook.train.history import History


def l2_penalty(params: Iterable[Tensor], strength: float) -> Tensor:
    """λ / 2 times the sum of the squares, whose gradient is λ p.

    For plain SGD the same as weight decay λ; an adaptive optimiser divides this gradient by the size of the others, which
    `AdamW` does not do to its decay.

    Args:
        params: What should stay small.
        strength: λ, at least 0.

    Returns:
        What is added to the loss, ().

    Raises:
        ValueError: If ``strength`` is negative, or there is no parameter.

    Example:
        >>> l2_penalty([torch.tensor([1.0, 2.0])], 0.5)
        tensor(1.2500)
    """
    squares = [p.square().sum() for p in params]
    if not strength >= 0:
        raise ValueError(f"strength must be at least 0, got {strength}")
    if not squares:
        raise ValueError("there is no parameter to keep small")
    return 0.5 * strength * torch.stack(squares).sum()


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimiser: weights decay, biases and the scales and shifts of norms do not.

    Args:
        model: Whose parameters that require a gradient are taken, in two groups: at least two dimensions, fewer.
        weight_decay: For the first group; 0 for the second.

    Raises:
        ValueError: If ``weight_decay`` is negative.

    Example:
        >>> model = nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3))
        >>> [len(group["params"]) for group in decay_groups(model, 0.1)]
        [1, 3]
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
    params = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def moving_average(model: nn.Module, optimizer: torch.optim.Optimizer, decay: float = 0.999) -> AveragedModel:
    """A copy of the model whose weights are an exponential mean over the steps: the noise of the last ones averages out.

    After each step of the optimiser::

        mean ← decay · mean + (1 - decay) · weight          (the weight itself after the first)

    PyTorch's `AveragedModel` does it; here, the optimiser calls it, so that `fit` needs not know. Buffers, such as the
    running statistics of batch norm, are those of the model.

    Args:
        model: To be averaged.
        optimizer: Of the model.
        decay: Share of the mean that stays; it looks back over about 1 / (1 - decay) steps.

    Returns:
        The averaged model, in evaluation mode, to be called like the other; its ``module`` is the copy itself.

    Raises:
        ValueError: If ``decay`` is not in [0, 1).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> mean = moving_average(model, optimizer, decay=0.5)
        >>> for weight in (1.0, 2.0, 4.0):
        ...     _ = model.weight.data.fill_(weight)
        ...     optimizer.step()
        >>> mean.module.weight.item()  # ((1 + 2) / 2 + 4) / 2
        2.75

    Source: B. Polyak, A. Juditsky, https://doi.org/10.1137/0330046, 1992, for the mean; A. Tarvainen, H. Valpola,
    https://arxiv.org/abs/1703.01780, 2017, for this one.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    mean = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no hints here
    average = AveragedModel(model, multi_avg_fn=mean).eval()
    optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
    return average


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation: the gradient is taken where the loss is worst nearby.

    With g the gradient of all parameters together, a step of any optimiser uses the gradient found at::

        p + ρ g / |g|

    It costs two gradients a step. What a forward pass changes, such as running statistics, it changes twice.

    Args:
        optimizer: Does the step; its groups, state, and state dict are also this one's.
        rho: ρ, how far away the loss is looked at.

    Raises:
        ValueError: If ``rho`` is not positive, or `step` gets no closure.

    Example:
        >>> p = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> optimizer = SAM(torch.optim.SGD([p], lr=0.1), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = 0.5 * p.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure)  # the loss where it was, and 0.1 · (p + 0.5 p / |p|) less
        tensor(12.5000)
        >>> p.detach()
        tensor([2.6700, 3.5600])

    Source: P. Foret et al., https://arxiv.org/abs/2010.01412, 2021, algorithm 1.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rho: float = 0.05) -> None:
        if not rho > 0:
            raise ValueError(f"rho must be positive, got {rho}")
        super().__init__(optimizer.param_groups, {})
        self.base, self.rho = optimizer, rho
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state, self.defaults = self.base.param_groups, self.base.state, self.base.defaults

    def state_dict(self) -> dict[str, Any]:
        """That of the optimiser inside."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what either of the two gave."""
        self.base.load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Look at the worst place nearby, then step.

        Args:
            closure: Zeroes the gradients, computes the loss, calls its ``backward`` and returns it. Called twice.

        Returns:
            The loss where the parameters were.

        Raises:
            ValueError: If there is no closure.
        """
        if closure is None:
            raise ValueError(
                "SAM needs two gradients a step: pass step a closure that computes the loss and its gradient"
            )
        with torch.enable_grad():
            loss = closure()
        loss = loss.detach() if isinstance(loss, Tensor) else loss
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if params:
            norms = torch._foreach_norm([p.grad for p in params])
            norm = torch.stack([one.to(norms[0].device) for one in norms]).norm()
            here = [p.clone() for p in params]  # adding and taking off again would leave rounding behind
            for p in params:
                p.add_(p.grad * (self.rho / (norm + 1e-12)).to(p))
            with torch.enable_grad():
                closure()
            for p, old in zip(params, here, strict=True):
                p.copy_(old)
        self.base.step()
        return loss


class EarlyStopping:
    """Tells when the validation loss has not become better for a while, and keeps the weights that were best.

    Args:
        patience: Epochs without an improvement before it stops, at least 1.
        model: Whose best weights are kept; none if left out.
        metric: Name in the history.
        larger_is_better: For an accuracy, say.
        min_delta: How much better counts as better.

    Attributes:
        best: The best number so far.
        best_epoch: When it was measured, from 1; 0 before the first.

    Raises:
        ValueError: If an argument is out of range, or the history has no such metric.

    Example:
        >>> stopping, history = EarlyStopping(patience=2), History()
        >>> for loss in (0.9, 0.5, 0.6, 0.7):
        ...     history.append(val_loss=loss)
        ...     print(stopping(history), end=" ")
        False False False True
        >>> stopping.best_epoch
        2

    Source: L. Prechelt, Early Stopping - But When?, https://doi.org/10.1007/3-540-49430-8_3, 1998.
    """

    def __init__(
        self,
        patience: int = 5,
        *,
        model: nn.Module | None = None,
        metric: str = "val_loss",
        larger_is_better: bool = False,
        min_delta: float = 0.0,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1 epoch, got {patience}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be at least 0, got {min_delta}")
        self.patience, self.model, self.metric = patience, model, metric
        self.sign, self.min_delta = (-1 if larger_is_better else 1), min_delta
        self.best, self.best_epoch = self.sign * math.inf, 0
        self.best_weights: dict[str, Tensor] = {}

    def __call__(self, history: History) -> bool:
        """Look at the last epoch; True if training should stop."""
        if self.metric not in history:
            raise ValueError(f"the history has no {self.metric!r}, only {sorted(history)}")
        value = history[self.metric][-1]
        if self.sign * (self.best - value) > self.min_delta:  # never for NaN
            self.best, self.best_epoch = value, history.epochs
            if self.model is not None:
                self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return history.epochs - self.best_epoch >= self.patience

    def restore(self) -> None:
        """Give the model its best weights back.

        Raises:
            ValueError: If none were kept.
        """
        if self.model is None or not self.best_weights:
            raise ValueError("no weights were kept: pass the model, and call this after an epoch")
        self.model.load_state_dict(self.best_weights)
