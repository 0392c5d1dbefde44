"""Which learning rate to take: the range test.

L. Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186, 2017.

Chapter: chapters/05-training-and-optimization.ipynb
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from dlbook.train.loop import Batch, BatchMean


@dataclass(frozen=True)
class RateSweep:
    """What `sweep_learning_rates` found.

    Attributes:
        rates: Learning rates that were tried, rising.
        losses: Mean loss at each over the steps so far, which forgets.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def steepest(self) -> float:
        """The learning rate at which the loss falls fastest, on a logarithmic axis: a good first choice."""
        slopes = [b - a for a, b in zip(self.losses[:-2], self.losses[2:], strict=True)]
        return self.rates[1 + slopes.index(min(slopes))]


def sweep_learning_rates(
    model: nn.Module,
    data: Iterable[Batch],
    loss_fn: BatchMean,
    optimizer: torch.optim.Optimizer,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    forget: float = 0.1,
) -> RateSweep:
    """The learning-rate range test: train with a rate that grows at every step, and watch the loss.

    It stops early when the loss is four times its lowest, or not finite. Model, optimiser and modes are put back as they
    were; what batches draw at random is drawn.

    Args:
        model: On the device that it is to be trained on.
        data: Batches ``(x, y)``, gone through again and again.
        loss_fn: ``loss_fn(model(x), y)`` gives the mean loss over the examples of a batch.
        optimizer: Holds the parameters of the model.
        low: First learning rate.
        high: Last one.
        steps: How many are tried, in equal ratios; at least 3.
        forget: Share of each new loss in the mean; 1 for the losses themselves.

    Raises:
        ValueError: If the rates do not rise from above 0, ``steps`` or ``forget`` is out of range, ``data`` is empty, or
            the loss is not finite within the first three steps.

    Example:
        >>> x = torch.linspace(-1, 1, 12).unsqueeze(1)
        >>> model = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sweep = sweep_learning_rates(model, [(x, 3 * x)], nn.functional.mse_loss, optimizer, low=1e-3, high=100)
        >>> 0.01 < sweep.steepest < 1
        True

    Source: L. Smith, https://arxiv.org/abs/1506.01186, 2017, section 3.3.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"learning rates must rise from above 0, got low={low} and high={high}")
    if steps < 3:
        raise ValueError(f"steps must be at least 3, got {steps}")
    if not 0 < forget <= 1:
        raise ValueError(f"forget must be above 0 and at most 1, got {forget}")
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    was_training = {module: module.training for module in model.modules()}
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    try:
        model.train()
        for number, (x, y) in enumerate(islice(_again(data), steps)):
            rate = low * (high / low) ** (number / (steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _step(model, x, y, loss_fn, optimizer)
            mean += forget * (loss - mean)
            smooth = mean / (1 - (1 - forget) ** (number + 1))  # the mean starts at 0, as Adam's do
            if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
    finally:
        model.load_state_dict(kept[0])
        optimizer.load_state_dict(kept[1])
        optimizer.zero_grad()
        for module, mode in was_training.items():
            module.training = mode
    if len(losses) < 3:
        raise ValueError(
            f"the loss was four times its lowest or not finite after {len(losses)} steps: take a lower low"
        )
    return RateSweep(tuple(rates), tuple(losses))


def _again(data: Iterable[Batch]) -> Iterable[Batch]:
    """The batches that hold an example, again and again, drawn anew each time."""
    for _ in cycle([None]):
        empty = True
        for batch in data:
            if len(batch[1]):
                empty = False
                yield batch
        if empty:
            raise ValueError("data is empty: it gave no example")


def _step(model: nn.Module, x: Tensor, y: Tensor, loss_fn: BatchMean, optimizer: torch.optim.Optimizer) -> float:
    device = next(model.parameters()).device
    optimizer.zero_grad()
    loss = loss_fn(model(x.to(device)), y.to(device))
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no hints here
    optimizer.step()
    return loss.item()  # waits for the GPU: the next step may be the last
