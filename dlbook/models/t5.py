"""T5: a pre-norm encoder and decoder without biases, with RMSNorm and a learned bias for each distance.

Raffel et al. (2020), Exploring the limits of transfer learning with a unified text-to-text transformer,
https://arxiv.org/abs/1910.10683.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    S  tokens of the source    T  tokens of the target    D  width    N  heads    V  vocabulary
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.cache import DecoderCache, KVCache
from dlbook.layers.convert import rename
from dlbook.layers.decoder import EncoderDecoder, check_tokens
from dlbook.layers.feedforward import FeedForward
from dlbook.layers.multi_head import MultiHeadAttention
from dlbook.layers.position import T5Bias


@dataclass(frozen=True)
class T5Config:
    """What makes one T5 different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        width: Features of a token, D.
        num_layers: Blocks of the encoder, and of the decoder.
        num_heads: Heads, N.
        head_size: Width of a head, whatever the width of a token.
        hidden: Hidden units of the feed-forward layers.
        num_buckets: Numbers that are learned for distances, a multiple of 4.
        max_distance: From here on, in tokens, all distances are one.
        dropout: Probability that a feature of the embedding, a branch or a hidden layer, or a weight of attention, is
            left out while training; T5 was trained with 0.1.
        eps: What RMSNorm adds to the mean square.

    Raises:
        ValueError: If a number is not positive, or dropout is no probability.
    """

    vocab_size: int = 32128
    width: int = 512
    num_layers: int = 6
    num_heads: int = 8
    head_size: int = 64
    hidden: int = 2048
    num_buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "head_size", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


SIZES = {
    # Section 3.7 of the paper; the vocabulary is filled up to a multiple of 128.
    "t5_small": T5Config(),
    "t5_base": T5Config(width=768, num_layers=12, num_heads=12, hidden=3072),
    "t5_large": T5Config(width=1024, num_layers=24, num_heads=16, hidden=4096),
    "t5_3b": T5Config(width=1024, num_layers=24, num_heads=32, head_size=128, hidden=16384),
    "t5_11b": T5Config(width=1024, num_layers=24, num_heads=128, head_size=128, hidden=65536),
    # For two cores: letters instead of words; a quarter of the width and half of the depth.
    "t5_mini": T5Config(128, 128, 3, 4, 32, 512),
    "t5_tiny": T5Config(128, 32, 2, 2, 16, 64),
}


class T5Block(nn.Module):
    """Residual block, pre-norm; of the decoder if ``cross``, which adds the second line::

        x = x + attention(norm1(x))
        x = x + attention to the context(norm2(x))
        x = x + feedforward(norm3(x))

    Queries are not divided by sqrt(K): their weights start that much smaller.

    Args:
        config: Sizes.
        cross: Whether the block is the decoder's, which looks at a context and not at what comes later.

    Shapes:
        x: (B, T, D).
        bias: (N, T, T), added to the scores.
        context: (B, S, D).
        valid, context_valid: (B, T) and (B, S) bool, False at padding.
        returns: (B, T, D).

    Example:
        >>> import torch
        >>> T5Block(SIZES["t5_tiny"])(torch.zeros(3, 5, 32), torch.zeros(2, 5, 5)).shape
        torch.Size([3, 5, 32])
    """

    def __init__(self, config: T5Config, *, cross: bool = False) -> None:
        super().__init__()
        width, num_heads, head_size, rate = config.width, config.num_heads, config.head_size, config.dropout
        self.norm1 = nn.RMSNorm(width, eps=config.eps)
        self.attention = MultiHeadAttention(
            width, num_heads, head_size=head_size, causal=cross, bias=False, scale=1.0, dropout=rate
        )
        self.norm2 = nn.RMSNorm(width, eps=config.eps) if cross else None
        self.cross = (
            MultiHeadAttention(width, num_heads, head_size=head_size, cross=True, bias=False, scale=1.0, dropout=rate)
            if cross
            else None
        )
        self.norm3 = nn.RMSNorm(width, eps=config.eps)
        self.feedforward = FeedForward(width, config.hidden, activation="relu", bias=False, dropout=rate)
        self.drop = nn.Dropout(rate) if rate else nn.Identity()

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        context_valid: Tensor | None = None,
        caches: tuple[KVCache | None, KVCache | None] = (None, None),
    ) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), mask=bias, valid=valid, cache=caches[0]))
        if self.cross is not None and self.norm2 is not None:
            x = x + self.drop(self.cross(self.norm2(x), context, valid=context_valid, cache=caches[1]))
        y: Tensor = x + self.drop(self.feedforward(self.norm3(x)))
        return y


class T5(EncoderDecoder):
    """Encoder and decoder, with one embedding for both and for the logits.

    Weights start as published: embeddings at a standard deviation of 1, matrices at 1 / sqrt(features that go in),
    queries at that divided by sqrt(K).

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        source: (B, S) int64.
        target: (B, T) int64, to be continued: token 0, then the text.
        source_valid, target_valid: bool, of the same shapes, False at padding.
        returns: logits (B, T, V) of what follows each token of the target.

    Raises:
        ValueError: If tokens are not whole numbers of two axes.

    Example:
        >>> model = T5(SIZES["t5_tiny"])
        >>> source, target = torch.tensor([[5, 3, 8, 2]]), torch.tensor([[0, 7, 7]])
        >>> logits = model(source, target)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> step, cache = model.step(target[:, 0], model.start(source))
        >>> torch.allclose(step, logits[:, 0], atol=1e-4)
        True
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder_bias, self.decoder_bias = (
            T5Bias(
                config.num_heads,
                num_buckets=config.num_buckets,
                max_distance=config.max_distance,
                bidirectional=both,
                width=config.width,
            )
            for both in (True, False)
        )
        self.encoder = nn.ModuleList(T5Block(config) for _ in range(config.num_layers))
        self.decoder = nn.ModuleList(T5Block(config, cross=True) for _ in range(config.num_layers))
        self.encoder_norm = nn.RMSNorm(config.width, eps=config.eps)
        self.decoder_norm = nn.RMSNorm(config.width, eps=config.eps)
        self.drop = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        nn.init.normal_(self.embedding.weight)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, MultiHeadAttention):
                    queries = (
                        module.q.weight if module.cross else module.qkv.weight[: config.num_heads * config.head_size]
                    )
                    queries *= config.head_size**-0.5

    def encode(self, source: Tensor, valid: Tensor | None = None) -> Tensor:
        check_tokens(source, valid, name="source")
        x = self.drop(self.embedding(source))  # (B, S, D)
        bias = self.encoder_bias(source.shape[1])  # (N, S, S)
        for block in self.encoder:
            x = block(x, bias, valid=valid)
        y: Tensor = self.drop(self.encoder_norm(x))
        return y

    def decode(
        self,
        tokens: Tensor,
        context: Tensor,
        context_valid: Tensor | None = None,
        valid: Tensor | None = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        check_tokens(tokens, valid)
        past = 0
        if cache is not None:
            past, valid = len(cache), cache.see(valid, tokens.shape[1])
        x = self.drop(self.embedding(tokens))  # (B, T, D)
        bias = self.decoder_bias(tokens.shape[1], past + tokens.shape[1])  # (N, T, past + T)
        for i, block in enumerate(self.decoder):
            x = block(x, bias, context, valid, context_valid, (None, None) if cache is None else cache.pair(i))
        y: Tensor = self.drop(self.decoder_norm(x))
        return y

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features * self.config.width**-0.5, self.embedding.weight)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.T5ForConditionalGeneration`` (of the first version of T5) under this module's names.

    Args:
        state_dict: What its ``state_dict()`` gives, or a file of it; its head is its embedding.

    Example:
        >>> list(convert_transformers({"encoder.block.0.layer.1.DenseReluDense.wi.weight": torch.zeros(4, 3)}))
        ['encoder.0.feedforward.expand.weight']
    """
    kept = {n: t for n, t in state_dict.items() if "embed_tokens" not in n and n != "lm_head.weight"}
    stacks = {
        "SelfAttention.qkv": ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v"),
        "EncDecAttention.kv": ("EncDecAttention.k", "EncDecAttention.v"),
    }
    names = {
        r"^(\w+)\.block\.0.*relative_attention_bias": r"\1_bias.table", r"\.final_layer_norm": "_norm",
        r"encoder(\.block\.\d+)\.layer\.1\.layer_norm": r"encoder\1.norm3", r"layer\.0\.layer_norm": "norm1",
        r"layer\.1\.layer_norm": "norm2", r"layer\.2\.layer_norm": "norm3", r"\.block": "", r"\.layer\.\d": "",
        "SelfAttention": "attention", "EncDecAttention": "cross", r"\.o\.": ".out.", "DenseReluDense": "feedforward",
        "wi": "expand", "wo": "reduce", "shared": "embedding",
    }  # fmt: skip
    return rename(kept, stacks, names)
