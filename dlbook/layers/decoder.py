"""What all decoders do alike: look at their input, read on behind a cache, go one step.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    L  length    S  tokens seen, those remembered included    D  width    V  vocabulary
"""

from typing import Any

import torch
from torch import Tensor, nn

from dlbook.layers.cache import DecoderCache


def check_tokens(tokens: Tensor, valid: Tensor | None = None, *, context: int = 0, name: str = "tokens") -> None:
    """Complain unless ``tokens`` are whole numbers (B, L), at most ``context`` long (any if 0), ``valid`` alike.

    Raises:
        ValueError: Says what came and what was expected.

    Example:
        >>> check_tokens(torch.zeros(2, 5))
        Traceback (most recent call last):
            ...
        ValueError: tokens must be (batch, length) whole numbers, got (2, 5) of torch.float32
    """
    if tokens.ndim != 2 or tokens.is_floating_point():
        raise ValueError(f"{name} must be (batch, length) whole numbers, got {tuple(tokens.shape)} of {tokens.dtype}")
    if context and tokens.shape[1] > context:
        raise ValueError(f"{tokens.shape[1]} tokens are more than the context of {context}")
    if valid is not None and (valid.shape != tokens.shape or valid.dtype != torch.bool):
        raise ValueError(f"valid must be {tuple(tokens.shape)} bool, as {name}, got {tuple(valid.shape)} {valid.dtype}")


def places(valid: Tensor, past: int = 0) -> Tensor:
    """Position of each token from ``past`` on, (B, L), if padding, where ``valid`` (B, S) is False, takes none.

    Example:
        >>> places(torch.tensor([[False, False, True, True, True]]))
        tensor([[0, 0, 0, 1, 2]])
    """
    return (valid.cumsum(dim=1) - 1).clamp(min=0)[:, past:]


class Decoder(nn.Module):
    """A model that says what follows each token; a child has ``features`` and ``logits``.

    Its ``config`` has ``vocab_size`` and ``num_layers``, and ``context`` where there is a longest sequence.
    """

    config: Any

    def features(self, tokens: Tensor, valid: Tensor | None = None, cache: DecoderCache | None = None) -> Tensor:
        """What the last layer gives, (B, L, D), for tokens (B, L) behind those of a cache, which is changed."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """From (..., D) to (..., V)."""
        raise NotImplementedError

    def read(
        self, tokens: Tensor, cache: DecoderCache | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, DecoderCache]:
        """Any number of tokens (B, L), behind those of a cache, which is changed; returns logits (B, L, V) and it.

        ``valid`` (B, L) is False at padding.
        """
        if cache is None:
            cache = DecoderCache(self.config.num_layers, getattr(self.config, "context", 2**31))
        if tokens.ndim == 2 and tokens.shape[1] == 0:
            return next(self.parameters()).new_zeros(tokens.shape[0], 0, self.config.vocab_size), cache
        return self.logits(self.features(tokens, valid, cache)), cache

    def step(self, tokens: Tensor, cache: DecoderCache | None = None) -> tuple[Tensor, DecoderCache]:
        """One token (B,) of each sequence, behind those of a cache, which is changed; returns logits (B, V) and it."""
        if tokens.ndim != 1:
            raise ValueError(f"tokens must be (batch,) whole numbers, got {tuple(tokens.shape)} of {tokens.dtype}")
        logits, cache = self.read(tokens.unsqueeze(1), cache)
        return logits.squeeze(1), cache


class EncoderDecoder(Decoder):
    """A decoder that also looks at what an encoder made of another sequence; a child has ``encode`` and ``decode``.

    ``start`` reads the source once; ``read``, ``step`` and the functions of `dlbook.generate` go on from its cache.
    """

    def encode(self, source: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the encoder makes of tokens (B, S), (B, S, D)."""
        raise NotImplementedError

    def decode(
        self,
        tokens: Tensor,
        context: Tensor,
        context_valid: Tensor | None = None,
        valid: Tensor | None = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """What the decoder makes of tokens (B, L) and the encoder's output (B, S, D), (B, L, D)."""
        raise NotImplementedError

    def forward(
        self, source: Tensor, target: Tensor, source_valid: Tensor | None = None, target_valid: Tensor | None = None
    ) -> Tensor:
        return self.logits(self.decode(target, self.encode(source, source_valid), source_valid, target_valid))

    def start(self, source: Tensor, valid: Tensor | None = None) -> DecoderCache:
        """Read a source (B, S), ``valid`` (B, S) being False at its padding; returns a cache to write from."""
        cache = DecoderCache(self.config.num_layers, getattr(self.config, "context", 2**31))
        cache.context, cache.context_valid = self.encode(source, valid), valid
        return cache

    def features(self, tokens: Tensor, valid: Tensor | None = None, cache: DecoderCache | None = None) -> Tensor:
        """What the decoder makes of tokens (B, L), behind those of a cache that `start` made."""
        if cache is None or cache.context is None:
            raise ValueError("no source has been read: begin with cache = model.start(source)")
        return self.decode(tokens, cache.context, cache.context_valid, valid, cache)
