"""The training loop that the book writes out once, then reuses.

Several processes train together where the model is in `torch.nn.parallel.DistributedDataParallel`: each goes through
its share of every batch, and the steps and the numbers reported are those of the whole batches.

Letters: N examples in an epoch, B examples in a batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from dlbook.device import Precision, autocast
from dlbook.train.checkpoint import TrainingState
from dlbook.train.history import History
from dlbook.train.processes import Processes, unwrapped

Batch = tuple[Tensor, Tensor]
BatchMean = Callable[[Tensor, Tensor], Tensor]  # (outputs, y) -> mean over the examples of the batch


def fit(
    model: nn.Module,
    data: Iterable[Batch],
    loss_fn: BatchMean,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    val_data: Iterable[Batch] | None = None,
    metrics: Mapping[str, BatchMean] | None = None,
    scheduler: LRScheduler | None = None,
    max_grad_norm: float | None = None,
    accumulate: int = 1,
    precision: Precision = "float32",
    compile: bool = False,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[History], object] | None = None,
) -> History:
    """Train ``model`` in place, on the device it is on, and return what was measured.

    Args:
        model: Any module that takes one tensor; its parameters change, its mode (train or eval) is put back. In
            `DistributedDataParallel`, all processes call ``fit`` alike, each with its share of the data, such as
            `dlbook.data.batches.Batches` gives it; shares of a batch may differ in size. (Batch normalisation sees
            one share only.)
        data: Batches ``(x, y)``, gone through once an epoch; one without examples is passed over.
        loss_fn: ``loss_fn(model(x), y)`` gives the mean loss over the examples of a batch.
        optimizer: Already holds the parameters to train.
        epochs: Passes over ``data`` in all, those of a resumed checkpoint included; at least 1.
        val_data: Batches to measure after each epoch, recorded as ``val_loss`` and ``val_<name of the metric>``.
        metrics: What to measure on ``val_data`` beside the loss, such as ``{"accuracy": accuracy}``.
        scheduler: Stepped after every optimiser step (not every epoch).
        max_grad_norm: Clip the 2-norm of all gradients together to this.
        accumulate: Batches whose gradients make one optimiser step. Weighted by their sizes, so the step is that of
            one large batch, also where fewer or smaller batches are left at the end. (Batch normalisation still sees
            the small batches.)
        precision: "float32", "bfloat16" or "float16" (mixed, by autocast; "float16" also scales the loss).
        compile: Run the model through `torch.compile`; worth its start-up time on a GPU.
        checkpoint: File written after every epoch. Where it exists already, training goes on from it, on the CPU to
            the same bits as without the interruption. See `dlbook.train.checkpoint`. The first of several processes
            writes it.
        on_epoch: Called with the history after every epoch, when its checkpoint is on disk; of several processes in
            the first only.

    Shapes:
        ``x`` (B, ...) and ``y`` (B, ...), whatever ``model`` and ``loss_fn`` take.

    Raises:
        ValueError: If an argument does not fit, ``data`` gives no example, or several processes have different
            numbers of batches or a model each.
        FloatingPointError: If a loss is not finite at the end of an epoch; the checkpoint of the epoch before stays.

    Example:
        >>> x = torch.linspace(-1, 1, 12).unsqueeze(1)
        >>> model = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> history = fit(model, [(x, 3 * x)], nn.functional.mse_loss, optimizer, epochs=40)
        >>> round(model.weight.item(), 2), len(history["loss"])
        (3.0, 40)
    """
    _check(epochs, accumulate, max_grad_norm, val_data, metrics)
    unwrapped(model)  # refuses what several processes cannot train
    device = _device(model)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    state = TrainingState(model, optimizer, scheduler, scaler, data, History())
    if checkpoint is not None:
        state.resume(checkpoint, epochs)
    history = state.history
    net = cast(nn.Module, torch.compile(model)) if compile else model
    was_training = model.training
    try:
        for epoch in range(history.epochs + 1, epochs + 1):
            net.train()
            numbers = {"loss": _train_epoch(net, state, loss_fn, max_grad_norm, accumulate, precision)}
            if val_data is not None:
                measured = evaluate(net, val_data, loss_fn, metrics, precision=precision)
                numbers |= {f"val_{name}": number for name, number in measured.items()}
            _check_finite(epoch, numbers)
            history.append(**numbers)
            if checkpoint is not None:
                state.save(checkpoint)
            if on_epoch is not None and Processes(model).rank == 0:
                on_epoch(history)
    finally:
        model.train(was_training)
    return history


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Iterable[Batch],
    loss_fn: BatchMean,
    metrics: Mapping[str, BatchMean] | None = None,
    *,
    precision: Precision = "float32",
) -> dict[str, float]:
    """Mean loss and metrics over ``data``, in evaluation mode; the mode is put back.

    Args:
        model: Any module that takes one tensor. In `DistributedDataParallel`, all processes call ``evaluate``.
        data: Batches ``(x, y)``, of several processes each its share; one without examples is passed over.
        loss_fn: ``loss_fn(model(x), y)`` gives the mean loss over the examples of a batch.
        metrics: Names and functions ``(outputs, y)`` that give a mean over the examples of a batch.
        precision: As for `fit`.

    Returns:
        ``{"loss": ..., <name>: ...}``, each example of all processes weighing the same.

    Raises:
        ValueError: If ``data`` gives no example.

    Example:
        >>> from dlbook.train.metrics import accuracy
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
        >>> evaluate(nn.Identity(), [(x[:3], y[:3]), (x[3:], y[3:])], nn.functional.cross_entropy, {"accuracy": accuracy})
        {'loss': 0.99..., 'accuracy': 0.75}
    """
    device = _device(model)
    functions = {"loss": loss_fn, **(metrics or {})}
    means = {name: _Mean() for name in functions}
    was_training = model.training
    model.eval()
    try:
        for x, y in _filled(data):
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            with autocast(device, precision):
                outputs = model(x)
                for name, function in functions.items():
                    means[name].add(function(outputs, y), len(y))
    finally:
        model.train(was_training)
    processes = Processes(model)
    return {name: mean.value(processes) for name, mean in means.items()}


class _Mean:
    """Mean over the examples, of the means of batches that may differ in size.

    The values stay on their device until the end: asking for each one would make every batch wait for the GPU.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.sizes: list[int] = []

    def add(self, value: Tensor, size: int) -> None:
        self.values.append(value.detach())
        self.sizes.append(size)

    def value(self, processes: Processes) -> float:
        if not self.values:
            raise ValueError("data is empty: it gave no example")
        values: list[float] = torch.stack(self.values).tolist()  # the one wait
        total = sum(value * size for value, size in zip(values, self.sizes, strict=True))
        total, examples = processes.add_up(total, sum(self.sizes))
        return total / examples


def _train_epoch(
    net: nn.Module,
    state: TrainingState,
    loss_fn: BatchMean,
    max_grad_norm: float | None,
    accumulate: int,
    precision: Precision,
) -> float:
    """One pass over the data; the mean loss of its examples, each at the time it was trained on."""
    device = _device(net)
    processes = Processes(net)
    mean = _Mean()
    for group, size in _groups(state.data, accumulate, processes):
        state.optimizer.zero_grad()
        for x, y in group:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            with autocast(device, precision):
                loss = loss_fn(net(x), y)
            weight = len(y) * processes.size / size  # DistributedDataParallel takes the mean over the processes
            share = loss if weight == 1 else loss * weight
            state.scaler.scale(share).backward()  # type: ignore[no-untyped-call]  # torch has no hints here
            mean.add(loss, len(y))
        _step(state, max_grad_norm)
    return mean.value(processes)


def _step(state: TrainingState, max_grad_norm: float | None) -> None:
    """Clip, let the optimiser step, then the scheduler (unless float16 overflowed and the step was left out)."""
    scaler, optimizer = state.scaler, state.optimizer
    if max_grad_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_grad_norm)
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    if state.scheduler is not None and scaler.get_scale() >= scale:
        state.scheduler.step()


def _filled(data: Iterable[Batch]) -> Iterator[Batch]:
    """The batches that hold an example: over none there is no mean."""
    return (batch for batch in data if len(batch[1]))


def _groups(data: Iterable[Batch], count: int, processes: Processes) -> Iterator[tuple[list[Batch], float]]:
    """The batches for each step, and how many examples all processes together have in them."""
    batches = _filled(data)
    while True:
        group = list(islice(batches, count))
        size, together = processes.add_up(sum(len(y) for _, y in group), len(group))
        if together != processes.size * len(group):
            raise ValueError(
                f"this process has {len(group)} batches for a step and all {processes.size} together have "
                f"{together:.0f}: give each the same number of batches, none of them empty"
            )
        if not group:
            return
        yield group, size


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _check(
    epochs: int,
    accumulate: int,
    max_grad_norm: float | None,
    val_data: Iterable[Batch] | None,
    metrics: Mapping[str, BatchMean] | None,
) -> None:
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be above 0, got {max_grad_norm}")
    if metrics and val_data is None:
        raise ValueError(f"metrics {sorted(metrics)} are measured on val_data, and there is none")


def _check_finite(epoch: int, numbers: Mapping[str, float]) -> None:
    for name in ("loss", "val_loss"):
        if not math.isfinite(numbers.get(name, 0.0)):
            raise FloatingPointError(
                f"{name} is {numbers[name]} in epoch {epoch}: the learning rate may be too high, or the data may hold "
                "values that are not finite"
            )
