"""What attention remembers, so that a new token costs no work on the old ones.

Shazeer (2019), https://arxiv.org/abs/1911.02150, on what reading it costs.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    T  new tokens    S  tokens held    G  heads of keys and values    K  width of a head    D  width of a token
"""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of the tokens that one layer has seen, so that a new token costs no work on the old ones.

    The memory is taken at the first `append`, in its dtype and on its device, and doubled whenever it is full: a copy at
    every token would cost as much as the tokens squared. Meant for ``torch.no_grad``.

    Args:
        limit: Most tokens that it takes.
        capacity: Tokens to take memory for at first.

    Raises:
        ValueError: If more than ``limit`` tokens come, or keys of another shape.

    Example:
        >>> cache, k = KVCache(limit=4), torch.ones(1, 2, 3, 5)
        >>> keys, values = cache.append(k, k)
        >>> keys, values = cache.append(k[:, :, :1], k[:, :, :1])
        >>> keys.shape, len(cache)
        (torch.Size([1, 2, 4, 5]), 4)
        >>> cache.append(k, k)
        Traceback (most recent call last):
            ...
        ValueError: a context of 4 tokens is full: 4 are there, 3 more came
    """

    def __init__(self, limit: int, capacity: int = 0) -> None:
        if limit < 1 or capacity < 0:
            raise ValueError(f"limit must be positive, capacity not negative, got {limit=} and {capacity=}")
        self.limit, self.capacity, self.length = limit, min(capacity, limit), 0
        self._keys: Tensor | None = None  # (B, G, capacity, K)
        self._values: Tensor | None = None

    def __len__(self) -> int:
        return self.length

    @property
    def keys(self) -> Tensor | None:
        """What is held, (B, G, S, K); None before the first token."""
        return None if self._keys is None else self._keys[:, :, : self.length]

    @property
    def values(self) -> Tensor | None:
        """What is held, (B, G, S, K); None before the first token."""
        return None if self._values is None else self._values[:, :, : self.length]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, G, T, K); returns all, (B, G, S, K)."""
        start, end = self.length, self.length + k.shape[2]
        if end > self.limit:
            raise ValueError(f"a context of {self.limit} tokens is full: {start} are there, {k.shape[2]} more came")
        if self._keys is None or self._values is None or end > self._keys.shape[2]:
            self.capacity = min(self.limit, max(self.capacity, end if start == 0 else 2 * end))
            self._keys, self._values = self._larger(self._keys, k), self._larger(self._values, v)
        if self._keys.shape[:2] != k.shape[:2] or self._keys.shape[3] != k.shape[3]:
            raise ValueError(f"the cache holds {tuple(self._keys.shape)}, got keys {tuple(k.shape)}")
        self._keys[:, :, start:end] = k
        self._values[:, :, start:end] = v
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _larger(self, old: Tensor | None, new: Tensor) -> Tensor:
        taken = new.new_empty((*new.shape[:2], self.capacity, new.shape[3]) if old is None else
                              (*old.shape[:2], self.capacity, old.shape[3]))  # fmt: skip
        if old is not None:
            taken[:, :, : self.length] = old[:, :, : self.length]
        return taken

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and {self.length}, got {length}")
        self.length = length

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may come several times."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[rows], self._values[rows]


class DecoderCache:
    """What a whole decoder remembers: a `KVCache` for each layer, which tokens are padding, what an encoder said.

    Args:
        num_layers: Layers.
        limit: Most tokens that it takes.
        capacity: Tokens to take memory for at first.

    Example:
        >>> cache = DecoderCache(num_layers=2, limit=8)
        >>> cache.see(torch.tensor([[False, True, True]]), length=3)
        tensor([[False,  True,  True]])
        >>> len(cache)  # tokens that the layers hold; none has appended any yet
        0
    """

    def __init__(self, num_layers: int, limit: int, capacity: int = 0) -> None:
        self.layers = [KVCache(limit, capacity) for _ in range(num_layers)]
        self.cross = [KVCache(2**31) for _ in range(num_layers)]  # of the encoder's output, where there is one
        self.limit = limit
        self.valid: Tensor | None = None  # (B, S)
        self.context: Tensor | None = None  # the encoder's output (B, S', D), where there is one
        self.context_valid: Tensor | None = None  # (B, S')

    def __len__(self) -> int:
        return self.layers[0].length

    def see(self, valid: Tensor | None, length: int) -> Tensor | None:
        """Note which of ``length`` new tokens count, (B, T); returns it for all, (B, S), or None if all do."""
        held = len(self)
        if held + length > self.limit:
            raise ValueError(f"a context of {self.limit} tokens is full: {held} are there, {length} more came")
        if valid is not None:
            before = valid.new_ones(valid.shape[0], held) if self.valid is None else self.valid[:, :held]
            self.valid = torch.cat([before, valid], dim=1)
        elif self.valid is not None:
            before = self.valid[:, :held]
            self.valid = torch.cat([before, before.new_ones(before.shape[0], length)], dim=1)
        return self.valid

    def pair(self, layer: int) -> tuple[KVCache, KVCache]:
        """What a layer remembers of the text itself, and of the encoder's output."""
        return self.layers[layer], self.cross[layer]

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        for layer in self.layers:
            layer.truncate(length)

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may come several times."""
        for layer in (*self.layers, *self.cross):
            layer.select(rows)
        self.valid, self.context, self.context_valid = (
            None if part is None else part[rows] for part in (self.valid, self.context, self.context_valid)
        )
