"""Schedules: what the learning rate is multiplied by at each step.

A schedule is a function of the step, so that it can be drawn and compared before anything is trained. PyTorch's
`LambdaLR` makes a scheduler of it, which `fit` steps after every step of the optimiser::

    scheduler = LambdaLR(optimizer, Cosine(steps=1000, warmup=100))

Chapter: chapters/05-training-and-optimization.ipynb

Letters:
    t  step, from 0    lr  learning rate of the optimiser, the peak of the schedule
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """A straight rise from 0 to 1, then 1 for ever.

    Early gradients point far off: the weights are random, and an adaptive optimiser knows their squares from a few steps
    only. Small steps at first do less harm.

    Args:
        warmup: Steps until 1 is reached.

    Raises:
        ValueError: If ``warmup`` is negative.

    Example:
        >>> [Constant(warmup=4)(t) for t in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

    Source: P. Goyal et al., https://arxiv.org/abs/1706.02677, 2017.
    """

    warmup: int = 0

    def __post_init__(self) -> None:
        _at_least(0, warmup=self.warmup)

    def __call__(self, t: int) -> float:
        return t / self.warmup if t < self.warmup else 1.0


@dataclass(frozen=True)
class Linear:
    """Warm-up, then a straight way down.

    Args:
        steps: Steps in all; what comes after them is as low as the last.
        warmup: Steps of the rise from 0.
        final: Share of the learning rate that is left at the end.

    Raises:
        ValueError: If the warm-up takes longer than all steps, or a number is out of range.

    Example:
        >>> [Linear(steps=6, warmup=2)(t) for t in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_way_down(self.steps, self.warmup, self.final)

    def __call__(self, t: int) -> float:
        if t < self.warmup:
            return t / self.warmup
        return self.final + (1 - self.final) * (1 - _done(t, self.warmup, self.steps))


@dataclass(frozen=True)
class Cosine:
    """Warm-up, then half a cosine down: slow at first, slow at the end.

    Args:
        steps: Steps in all; what comes after them is as low as the last.
        warmup: Steps of the rise from 0.
        final: Share of the learning rate that is left at the end.

    Raises:
        ValueError: If the warm-up takes longer than all steps, or a number is out of range.

    Example:
        >>> [round(Cosine(steps=6, warmup=2)(t), 2) for t in range(7)]
        [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]

    Source: I. Loshchilov, F. Hutter, https://arxiv.org/abs/1608.03983, 2017.
    """

    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_way_down(self.steps, self.warmup, self.final)

    def __call__(self, t: int) -> float:
        if t < self.warmup:
            return t / self.warmup
        return _cosine(1.0, self.final, _done(t, self.warmup, self.steps))


@dataclass(frozen=True)
class CosineRestarts:
    """Warm-up, then half cosines down, each followed by a jump back to 1.

    Args:
        period: Steps of the first way down.
        multiply: How many times longer each is than the one before.
        warmup: Steps of the rise from 0.
        final: Share of the learning rate that a way down would end at; the jump comes instead.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> [round(CosineRestarts(period=2, multiply=2)(t), 2) for t in range(7)]
        [1.0, 0.5, 1.0, 0.85, 0.5, 0.15, 1.0]

    Source: I. Loshchilov, F. Hutter, https://arxiv.org/abs/1608.03983, 2017, equation 5.
    """

    period: int
    multiply: int = 1
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _at_least(1, period=self.period, multiply=self.multiply)
        _at_least(0, warmup=self.warmup)
        _share(final=self.final)

    def __call__(self, t: int) -> float:
        if t < self.warmup:
            return t / self.warmup
        t, period = t - self.warmup, self.period
        if self.multiply == 1:
            return _cosine(1.0, self.final, t % period / period)
        while t >= period:
            t, period = t - period, period * self.multiply
        return _cosine(1.0, self.final, t / period)


@dataclass(frozen=True)
class OneCycle:
    """Up to a learning rate that would be too high for long, and far down again, in one training.

    Half a cosine (or a straight line) up from 1 / ``divide``, another down to 1 / (``divide`` · ``divide_final``).

    Args:
        steps: Steps in all, at least 2.
        rise: Share of them on the way up.
        divide: How many times lower than the peak it starts.
        divide_final: How many times lower than the start it ends.
        linear: Whether both ways are straight.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> [round(OneCycle(steps=7, rise=0.5, divide=10, linear=True)(t), 2) for t in range(7)]
        [0.1, 0.46, 0.82, 0.86, 0.57, 0.29, 0.0]

    Source: L. Smith, N. Topin, https://arxiv.org/abs/1708.07120, 2018.
    """

    steps: int
    rise: float = 0.3
    divide: float = 25.0
    divide_final: float = 1e4
    linear: bool = False

    def __post_init__(self) -> None:
        _at_least(2, steps=self.steps)
        _share(rise=self.rise)
        _at_least(1, divide=self.divide, divide_final=self.divide_final)

    def __call__(self, t: int) -> float:
        bottom = 1 / self.divide
        return self._between(t, bottom, 1.0, bottom / self.divide_final)

    def momentum(self, t: int, low: float = 0.85, high: float = 0.95) -> float:
        """The momentum that goes with it: lowest where the learning rate is highest."""
        return self._between(t, high, low, high)

    def _between(self, t: int, start: float, peak: float, end: float) -> float:
        move = _line if self.linear else _cosine
        top, last = self.rise * self.steps - 1, self.steps - 1  # may lie between two steps, even below the first
        if t <= top:
            return move(start, peak, t / top if top > 0 else 1.0)
        return move(peak, end, min(1.0, (t - top) / (last - top)))


@dataclass(frozen=True)
class InverseSquareRoot:
    """Warm-up, then as one over the root of the step: no end has to be known.

    Args:
        warmup: Steps of the rise from 0.
        timescale: Steps after the warm-up until 1 / √2 is reached; ``warmup`` if left out, which is the schedule of the
            first Transformer.

    Raises:
        ValueError: If ``warmup`` is negative, or no positive timescale is there.

    Example:
        >>> [round(InverseSquareRoot(warmup=2)(t), 2) for t in range(9)]
        [0.0, 0.5, 1.0, 0.82, 0.71, 0.63, 0.58, 0.53, 0.5]

    Source: A. Vaswani et al., https://arxiv.org/abs/1706.03762, 2017, equation 3.
    """

    warmup: int
    timescale: float | None = None

    def __post_init__(self) -> None:
        _at_least(0, warmup=self.warmup)
        if not (self.warmup if self.timescale is None else self.timescale) > 0:
            raise ValueError(f"timescale must be positive, got {self.timescale}, with warmup={self.warmup}")

    def __call__(self, t: int) -> float:
        if t < self.warmup:
            return t / self.warmup
        scale = self.warmup if self.timescale is None else self.timescale
        return 1 / math.sqrt(1 + (t - self.warmup) / scale)


@dataclass(frozen=True)
class WarmupStableDecay:
    """Warm-up, a long plateau, a short way down, which can be taken from any point of the plateau.

    Args:
        warmup: Steps of the rise from 0.
        stable: Steps at 1.
        decay: Steps of the way down.
        final: Share of the learning rate that is left at the end.
        linear: Whether the way down is straight; else it is half a cosine.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> [WarmupStableDecay(warmup=2, stable=2, decay=4, linear=True)(t) for t in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    Source: S. Hu et al., MiniCPM, https://arxiv.org/abs/2404.06395, 2024, equation 1.
    """

    warmup: int
    stable: int
    decay: int
    final: float = 0.0
    linear: bool = False

    def __post_init__(self) -> None:
        _at_least(0, warmup=self.warmup, stable=self.stable)
        _at_least(1, decay=self.decay)
        _share(final=self.final)

    def __call__(self, t: int) -> float:
        if t < self.warmup:
            return t / self.warmup
        start = self.warmup + self.stable
        done = min(1.0, max(0.0, (t - start) / self.decay))
        return (_line if self.linear else _cosine)(1.0, self.final, done)


def _line(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _done(t: int, warmup: int, steps: int) -> float:
    """Share of the way down that is behind, 1 at the end and after it."""
    return min(1.0, (t - warmup) / max(1, steps - warmup))


def _check_way_down(steps: int, warmup: int, final: float) -> None:
    _at_least(1, steps=steps)
    _at_least(0, warmup=warmup)
    _share(final=final)
    if warmup > steps:
        raise ValueError(f"warmup must not take longer than all {steps} steps, got {warmup}")


def _at_least(least: float, **numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"{name} must be at least {least}, got {number}")


def _share(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {number}")
