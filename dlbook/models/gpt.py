"""GPT-2: a pre-norm decoder with learned positions and GELU; the embedding also gives the logits.

Radford et al. (2019), Language models are unsupervised multitask learners,
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    L  length    S  tokens seen, those remembered included    D  width    V  vocabulary
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.cache import DecoderCache, KVCache
from dlbook.layers.decoder import Decoder, check_tokens, places
from dlbook.layers.feedforward import FeedForward
from dlbook.layers.multi_head import MultiHeadAttention


@dataclass(frozen=True)
class GPTConfig:
    """What makes one GPT different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        width: Features of a token, D.
        num_layers: Blocks.
        num_heads: Heads; must divide the width.
        context: The longest sequence, in tokens.
        bias: Whether products and normalisations have a bias.
        dropout: Probability that a feature is left out while training: of the embedding, of a branch, of attention.
            GPT-2 was trained with 0.1.
        hidden: Hidden units of the feed-forward layers; 4 D if 0.

    Raises:
        ValueError: If a number is not positive, the heads do not divide the width, or dropout is no probability.
    """

    vocab_size: int = 50257
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    context: int = 1024
    bias: bool = True
    dropout: float = 0.0
    hidden: int = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide width={self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


SIZES = {
    # Table 2 of the paper (layers, width); heads of 64, as in the released weights.
    "gpt2": GPTConfig(),
    "gpt2_medium": GPTConfig(width=1024, num_layers=24, num_heads=16),
    "gpt2_large": GPTConfig(width=1280, num_layers=36, num_heads=20),
    "gpt2_xl": GPTConfig(width=1600, num_layers=48, num_heads=25),
    # For two cores: an alphabet instead of words; a sixth of the width and a third of the depth.
    "gpt_mini": GPTConfig(vocab_size=128, width=128, num_layers=4, num_heads=4, context=64),
    "gpt_tiny": GPTConfig(vocab_size=128, width=32, num_layers=2, num_heads=2, context=64),
}


class GPTBlock(nn.Module):
    """Residual block, pre-norm::

        x = x + attention(norm1(x))        x = x + feedforward(norm2(x))

    Args:
        width: Features of a token, D.
        num_heads: Heads.
        hidden: Hidden units of the feed-forward layer; 4 D if 0.
        bias: Whether products and normalisations have a bias.
        dropout: Probability that a feature is left out while training.

    Shapes:
        x: (B, L, D).
        valid: (B, S) bool, False at padding.
        returns: (B, L, D).

    Raises:
        ValueError: If the heads do not divide the width, or x has another shape.

    Example:
        >>> import torch
        >>> GPTBlock(width=12, num_heads=3)(torch.zeros(2, 5, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(self, width: int, num_heads: int, *, hidden: int = 0, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.width = width
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = MultiHeadAttention(width, num_heads, causal=True, bias=bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.feedforward = FeedForward(width, hidden, activation="gelu_tanh", bias=bias)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, valid: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        if x.ndim != 3 or x.shape[2] != self.width:
            raise ValueError(f"x must be (batch, length, {self.width}), got {tuple(x.shape)}")
        x = x + self.drop(self.attention(self.norm1(x), valid=valid, cache=cache))
        y: Tensor = x + self.drop(self.feedforward(self.norm2(x)))
        return y


class GPT(Decoder):
    """Language model: embeddings of token and position, blocks, normalisation, and the embedding again for the logits.

    Weights start at a standard deviation of 0.02; what each branch adds to the sum of all at that divided by the root of
    the number of branches.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        tokens: (B, L) int64.
        valid: (B, L) bool, False at padding, which nobody looks at; left padding for generation.
        returns: logits (B, L, V) of what follows each token.

    Raises:
        ValueError: If tokens are not (B, L) whole numbers, or longer than the context.

    Example:
        >>> import torch
        >>> model = GPT(SIZES["gpt_tiny"])
        >>> tokens = torch.tensor([[5, 3, 8]])
        >>> logits = model(tokens)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> first, cache = model.step(tokens[:, 0])
        >>> second, cache = model.step(tokens[:, 1], cache)
        >>> torch.allclose(second, logits[:, 1], atol=1e-5)
        True
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.drop = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.blocks = nn.ModuleList(
            GPTBlock(config.width, config.num_heads, hidden=config.hidden, bias=config.bias, dropout=config.dropout)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width, bias=config.bias)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                branch = name.endswith(("attention.out.weight", "feedforward.reduce.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.num_layers) if branch else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.logits(self.features(tokens, valid))

    def features(self, tokens: Tensor, valid: Tensor | None = None, cache: DecoderCache | None = None) -> Tensor:
        check_tokens(tokens, valid, context=self.config.context)
        length, past = tokens.shape[1], 0 if cache is None else len(cache)
        if cache is not None:
            valid = cache.see(valid, length)  # (B, S)
        table = self.position.weight
        position = table[past : past + length] if valid is None else table[places(valid, past)]  # (..., L, D)
        x = self.drop(self.embedding(tokens) + position)  # (B, L, D)
        for i, block in enumerate(cast(list[GPTBlock], self.blocks)):
            x = block(x, valid, None if cache is None else cache.layers[i])
        y: Tensor = self.norm(x)
        return y

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.GPT2LMHeadModel`` under this module's names, and in the layout of ``nn.Linear``.

    Args:
        state_dict: What ``GPT2LMHeadModel.state_dict()`` gives, or a file of it; its head is its embedding.

    Example:
        >>> import torch
        >>> converted = convert_transformers({"h.0.attn.c_attn.weight": torch.zeros(3, 9)})
        >>> {name: tensor.shape for name, tensor in converted.items()}
        {'blocks.0.attention.qkv.weight': torch.Size([9, 3])}
    """
    names = {
        "transformer.": "", "wte": "embedding", "wpe": "position", "h.": "blocks.", "ln_1": "norm1", "ln_2": "norm2",
        "ln_f": "norm", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out",
        "mlp.c_fc": "feedforward.expand", "mlp.c_proj": "feedforward.reduce",
    }  # fmt: skip
    converted = {}
    for name, tensor in state_dict.items():
        if name == "lm_head.weight" or name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # the embedding, and masks that old files hold
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            tensor = tensor.t()
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        converted[name] = tensor
    return converted
