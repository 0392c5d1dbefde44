"""One seed for all sources of chance.

`seed_all` is called once, by `dlbook.start`. Code that draws numbers takes its own generator, made by `generator`,
so that one more draw in one place does not change the draws in another.
"""

import random

import numpy as np
import torch

LARGEST = 2**32 - 1  # numpy's legacy generator takes no more


def seed_all(seed: int) -> None:
    """Seed Python's random, numpy's global generator and torch on every device.

    Args:
        seed: A whole number from 0 to 2**32 - 1.

    Raises:
        ValueError: If the seed is not such a number.

    Example:
        >>> seed_all(3)
        >>> first = torch.rand(2)
        >>> seed_all(3)
        >>> torch.equal(torch.rand(2), first)
        True
    """
    check(seed)
    random.seed(seed)
    # Libraries such as scikit-learn draw from numpy's global generator unless they are told otherwise.
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)  # every device: cpu, cuda, mps


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of its own for one purpose, say the order of batches.

    Args:
        seed: A whole number from 0 to 2**32 - 1.
        device: Where the numbers will be drawn; torch wants the generator to live there too.

    Raises:
        ValueError: If the seed is not such a number.

    Example:
        >>> torch.randperm(4, generator=generator(0)).tolist() == torch.randperm(4, generator=generator(0)).tolist()
        True
    """
    check(seed)
    return torch.Generator(device).manual_seed(seed)


def check(seed: int) -> None:
    """Refuse what is not a seed.

    Raises:
        ValueError: If the seed is not a whole number from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST:
        raise ValueError(f"seed must be a whole number from 0 to {LARGEST}, got {seed!r}")
