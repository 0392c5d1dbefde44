"""Batches of tensors that fit in memory.

Indexing a tensor that already lies on the training device is several times faster than a `DataLoader` that fetches
rows one at a time and stacks them (``benchmarks/bench_batches.py`` measures it), and it needs no worker processes.

Shapes: N examples, B examples in a batch.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Batches:
    """Go through ``(x, y)`` in batches, in a fresh random order every epoch if asked.

    Args:
        x: Inputs, the first axis counts the examples.
        y: Targets, as many as ``x``.
        batch_size: Examples in a batch; the last one is smaller when it does not divide the number of examples.
        shuffle: Draw a new order for every pass.
        generator: Where the order is drawn from, on the CPU; None takes PyTorch's global one.
        device: Where the tensors are moved, once, when the object is made; None leaves them.
        drop_last: Leave a smaller last batch out.
        rank: Where several processes train together: which of them this is, from 0.
        world_size: How many they are. Each batch is dealt out to them, so that a share has ``batch_size / world_size``
            examples, rounded up or down. All need the same ``x`` and ``y`` and generators seeded alike.

    Shapes:
        ``x`` (N, ...), ``y`` (N, ...); each batch or share of it (B, ...), (B, ...).

    Raises:
        ValueError: If there is no example, the lengths differ, ``batch_size`` is below 1, ``drop_last`` would leave no
            batch, or the batches cannot be shared.

    Example:
        >>> batches = Batches(torch.arange(10.0).view(5, 2), torch.arange(5), batch_size=2)
        >>> len(batches), [len(y) for x, y in batches]
        (3, [2, 2, 1])
        >>> [y.tolist() for x, y in Batches(torch.zeros(7, 2), torch.arange(7), batch_size=4, rank=1, world_size=2)]
        [[1, 3], [5]]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(x) != len(y):
            raise ValueError(f"x has {len(x)} examples and y has {len(y)}")
        if len(x) == 0:
            raise ValueError("there are no examples to make batches of")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if drop_last and len(x) < batch_size:
            raise ValueError(f"drop_last leaves no batch: {len(x)} examples are fewer than batch_size={batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be 0 to world_size - 1, got rank={rank} and world_size={world_size}")
        if world_size > 1 and shuffle and generator is None:
            raise ValueError(f"for {world_size} processes to draw the same order, each needs a generator seeded alike")
        smallest = batch_size if drop_last else len(x) % batch_size or batch_size
        if smallest < world_size:
            raise ValueError(
                f"{world_size} processes cannot share a batch of {smallest} examples: take another batch_size than "
                f"{batch_size}, or drop_last=True"
            )
        self.x, self.y = x.to(device), y.to(device)
        self.batch_size, self.shuffle, self.generator, self.drop_last = batch_size, shuffle, generator, drop_last
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        full, rest = divmod(len(self.x), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.shuffle:
            pieces = (torch.split(part, self.batch_size)[: len(self)] for part in (self.x, self.y))
            for x, y in zip(*pieces, strict=True):
                yield x[self.rank :: self.world_size], y[self.rank :: self.world_size]
            return
        # Drawn on the CPU, so that the order is the same whatever the device.
        order = torch.randperm(len(self.x), generator=self.generator).to(self.x.device)
        for rows in torch.split(order, self.batch_size)[: len(self)]:
            share = rows[self.rank :: self.world_size]
            yield self.x.index_select(0, share), self.y.index_select(0, share)

    def state_dict(self) -> dict[str, Any]:
        """What the next passes depend on: taken between two epochs, it brings back the same orders."""
        state: dict[str, Any] = {"examples": len(self.x), "batch_size": self.batch_size, "shuffle": self.shuffle}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the object that gave ``state`` would have.

        Raises:
            ValueError: If that object had other examples, another batch size or another source of randomness.
        """
        mine = self.state_dict()
        differing = [
            f"{key} {state.get(key)!r} there, {mine.get(key)!r} here"
            for key in ("examples", "batch_size", "shuffle")
            if state.get(key) != mine[key]
        ]
        if ("generator" in state) != ("generator" in mine):
            differing.append("only one of the two has a generator of its own")
        if differing:
            raise ValueError(f"these batches are not the ones of the saved state: {'; '.join(differing)}")
        if self.generator is not None:
            self.generator.set_state(state["generator"])
