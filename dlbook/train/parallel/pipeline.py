"""Pipeline parallelism by hand: each process holds some of the layers, micro-batches go through them one after another.

GPipe: Huang et al. (2019), https://arxiv.org/abs/1811.06965. One forward, one backward (1F1B): Narayanan et al. (2019),
PipeDream, https://doi.org/10.1145/3341301.3359646, flushed as in Narayanan et al. (2021),
https://arxiv.org/abs/2104.04473.

Chapter: chapters/05-training-and-optimization.ipynb

Letters: P stages, one a process; M micro-batches, pieces of a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Action(NamedTuple):
    """What a stage does with a micro-batch: ``Action("forward", 0)`` or ``Action("backward", 0)``."""

    kind: str
    micro: int


Schedule = list[Action]


def gpipe(stage: int, stages: int, micros: int) -> Schedule:
    """All micro-batches forward, then all backward. A stage keeps the activations of all M.

    Args:
        stage: Which one, from 0.
        stages: How many, P.
        micros: Micro-batches, M.

    Raises:
        ValueError: If there is no such stage, or no micro-batch.

    Example:
        >>> [f"{kind[0]}{micro}" for kind, micro in gpipe(0, stages=2, micros=3)]
        ['f0', 'f1', 'f2', 'b0', 'b1', 'b2']
    """
    _check(stage, stages, micros)
    return [Action(kind, micro) for kind in ("forward", "backward") for micro in range(micros)]


def one_forward_one_backward(stage: int, stages: int, micros: int) -> Schedule:
    """Begin the way back as early as possible: a stage keeps the activations of at most P - stage micro-batches.

    The time is GPipe's; the memory does not grow with M.

    Args, Raises: as `gpipe`.

    Example:
        >>> [f"{kind[0]}{micro}" for kind, micro in one_forward_one_backward(0, stages=2, micros=3)]
        ['f0', 'f1', 'b0', 'f2', 'b1', 'b2']
    """
    _check(stage, stages, micros)
    ahead = min(stages - stage, micros)  # forward passes before the first backward
    actions = [Action("forward", micro) for micro in range(ahead)]
    for micro in range(micros):
        actions.append(Action("backward", micro))
        if micro + ahead < micros:
            actions.append(Action("forward", micro + ahead))
    return actions


def timetable(schedules: list[Schedule], forward: float = 1.0, backward: float = 2.0) -> list[list[float]]:
    """When each action of each stage begins, if messages take no time and stages wait only for one another.

    Args:
        schedules: One for each stage.
        forward: Time of a micro-batch forward through one stage.
        backward: And back.

    Returns:
        Starting times, in the order of the schedules.

    Raises:
        ValueError: If the stages would wait for each other for ever.

    Example:
        The bubble, idle time as a share of the time, is (P - 1) / (M + P - 1):

        >>> begins = timetable([gpipe(stage, stages=3, micros=4) for stage in range(3)])
        >>> end = max(times[-1] for times in begins) + 2
        >>> round(1 - 4 * (1 + 2) / end, 3), round((3 - 1) / (4 + 3 - 1), 3)
        (0.333, 0.333)
    """
    takes = {"forward": forward, "backward": backward}
    ends: dict[tuple[int, Action], float] = {}
    begins: list[list[float]] = [[] for _ in schedules]
    last = len(schedules) - 1
    while any(len(done) < len(schedule) for done, schedule in zip(begins, schedules, strict=True)):
        before = len(ends)
        for stage, schedule in enumerate(schedules):
            if len(begins[stage]) == len(schedule):
                continue
            action = schedule[len(begins[stage])]
            needs = [(stage, schedule[len(begins[stage]) - 1])] if begins[stage] else []
            if action.kind == "forward" and stage > 0:
                needs.append((stage - 1, action))
            if action.kind == "backward":
                needs.append((stage, Action("forward", action.micro)) if stage == last else (stage + 1, action))
            if all(need in ends for need in needs):
                begin = max((ends[need] for need in needs), default=0.0)
                begins[stage].append(begin)
                ends[stage, action] = begin + takes[action.kind]
        if len(ends) == before:
            raise ValueError("the stages wait for each other: no schedule can go on")
    return begins


def run_pipeline(
    layers: nn.Module,
    schedule: Schedule,
    x: Tensor,
    y: Tensor,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    *,
    between: tuple[int, ...],
) -> Tensor:
    """One batch through the pipeline; every process calls it with its own layers and its own schedule.

    Afterwards the parameters have the gradients of the whole batch added to them, as after ``backward()`` in one process.

    Args:
        layers: Those of this stage.
        schedule: This stage's actions.
        x: The batch; only the first stage looks at more than its length.
        y: The targets; only the last stage looks at them.
        loss_fn: ``loss_fn(outputs, y)``, a mean over the examples.
        between: Shape of what goes from stage to stage, without the batch.

    Shapes:
        x (B, ...), y (B, ...); between the stages (B / M, *between).

    Returns:
        The loss of the batch, in all processes.

    Raises:
        ValueError: If the micro-batches do not divide the batch.
    """
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    micros = 1 + max(action.micro for action in schedule)
    if len(x) % micros:
        raise ValueError(f"{micros} micro-batches do not divide a batch of {len(x)}")
    xs, ys = x.chunk(micros), y.chunk(micros)
    kept: dict[int, tuple[Tensor, Tensor]] = {}  # what came in and what went out, until the way back
    sending: list[tuple[dist.Work | None, Tensor]] = []  # a message's memory has to live until it has left
    loss = x.new_zeros((), dtype=torch.get_default_dtype())
    for kind, micro in schedule:
        if kind == "forward":
            came = xs[micro] if rank == 0 else _receive(x, (len(xs[micro]), *between), rank - 1).requires_grad_()
            out = layers(came)
            if rank == last:
                out = loss_fn(out, ys[micro]) / micros
                loss += out.detach()
            else:
                sending.append((dist.isend(out.detach(), rank + 1), out))
            kept[micro] = came, out
        else:
            came, out = kept.pop(micro)
            torch.autograd.backward(out, None if rank == last else _receive(x, out.shape, rank + 1))
            if rank > 0:
                assert came.grad is not None  # it asked for one
                sending.append((dist.isend(came.grad, rank - 1), came.grad))
    for work, _ in sending:
        assert work is not None  # the group holds this process
        work.wait()
    dist.broadcast(loss, src=last)
    return loss


def _receive(like: Tensor, shape: tuple[int, ...], source: int) -> Tensor:
    came = torch.empty(shape, device=like.device, dtype=torch.get_default_dtype())
    dist.recv(came, source)
    return came


def _check(stage: int, stages: int, micros: int) -> None:
    if not 0 <= stage < stages or micros < 1:
        raise ValueError(f"stage must be 0 to {stages - 1} and micros at least 1, got {stage} and {micros}")
