"""Means over seeds and the intervals that say how far to trust them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its confidence interval.

    Args:
        mean: The average.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: How many seeds it rests on.
        confidence: How often, over many repetitions, such an interval holds the true mean.

    Raises:
        ValueError: If a number is not finite, the mean lies outside the interval, or ``n`` is not positive.

    Example:
        >>> print(Estimate(mean=0.9412, low=0.9391, high=0.9433, n=5))
        0.9412 (95 % interval 0.9391 to 0.9433, 5 seeds)
    """

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.mean, self.low, self.high))):
            raise ValueError(f"an estimate needs finite numbers, got {self.mean}, {self.low} to {self.high}")
        if not self.low <= self.mean <= self.high or self.n < 1:
            raise ValueError(f"not an estimate: {self.mean} within {self.low} to {self.high} from n={self.n}")

    def __str__(self) -> str:
        return self.text()

    def text(self, unit: str = "") -> str:
        """Return the estimate in words, the mean followed by its unit."""
        mean, low, high = rounded((self.mean, self.low, self.high), self.high - self.low)
        seeds = f"{self.n} seed{'s' if self.n > 1 else ''}"
        return f"{with_unit(mean, unit)} ({100 * self.confidence:g} % interval {low} to {high}, {seeds})"


def estimate(values: Iterable[float], confidence: float = 0.95) -> Estimate:
    """Return the mean of repeated measurements with Student's t interval.

    With mean m, sample standard deviation s and n values the interval is m ± t s / √n, where t is the quantile of
    Student's distribution with n - 1 degrees of freedom that leaves (1 - confidence) / 2 above it. It assumes
    independent, roughly normal values: one number per seed, never one per epoch.

    Args:
        values: At least two numbers, one for each seed.
        confidence: Between 0 and 1.

    Raises:
        ValueError: If there are fewer than two values, one is not finite, or the confidence is not within 0 and 1.

    Example:
        >>> print(estimate([0.93, 0.95, 0.94]))
        0.940 (95 % interval 0.915 to 0.965, 3 seeds)
    """
    from scipy.special import stdtrit

    x = np.asarray([float(v) for v in values])
    if len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"an interval needs at least two finite numbers, got {x.tolist()}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    mean = float(x.mean())
    half = float(stdtrit(len(x) - 1, (1 + confidence) / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Estimate(mean, mean - half, mean + half, len(x), confidence)


def rounded(numbers: Sequence[float], width: float) -> list[str]:
    """Write numbers with as many digits as their uncertainty deserves: two of the interval's width.

    Args:
        numbers: All are given the same number of decimals.
        width: Of the interval; zero gives six significant digits.

    Example:
        >>> rounded([0.94117, 0.9391, 0.94333], width=0.0042)
        ['0.9412', '0.9391', '0.9433']
        >>> rounded([3.2e-16, 3.1e-16, 3.3e-16], width=2e-17)
        ['3.20e-16', '3.10e-16', '3.30e-16']
    """
    if width <= 0:
        return [f"{number:.6g}" for number in numbers]
    last = math.floor(math.log10(width)) - 1  # decimal place of the last digit shown
    first = math.floor(math.log10(max(map(abs, numbers))))
    if last < -6 or first > 6:
        return [f"{number:.{max(first - last, 1)}e}" for number in numbers]
    return [f"{number:.{max(-last, 0)}f}" for number in numbers]


def with_unit(number: str, unit: str) -> str:
    """Write a number with its unit, if it has one."""
    return f"{number} {unit}".rstrip()
