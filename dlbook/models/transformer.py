"""Transformer (2017): a post-norm encoder and decoder with sinusoidal positions and one embedding for all.

Vaswani et al. (2017), Attention is all you need, https://arxiv.org/abs/1706.03762.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    S  tokens of the source    T  tokens of the target    D  width    V  vocabulary
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.cache import DecoderCache
from dlbook.layers.convert import rename
from dlbook.layers.decoder import EncoderDecoder, check_tokens, places
from dlbook.layers.position import sinusoidal
from dlbook.layers.post_norm import DecoderBlock, EncoderBlock


@dataclass(frozen=True)
class TransformerConfig:
    """What makes one Transformer different from another.

    Attributes:
        vocab_size: Kinds of tokens, V, of source and target together.
        width: Features of a token, D.
        num_layers: Blocks of the encoder, and of the decoder.
        num_heads: Heads; must divide the width.
        hidden: Hidden units of the feed-forward layers.
        context: The longest sequence, in tokens; nothing is learned for it.
        dropout: Probability that a feature of an embedding or a branch is left out while training.

    Raises:
        ValueError: If a number is not positive, the heads do not divide the width, or dropout is no probability.
    """

    vocab_size: int = 37000
    width: int = 512
    num_layers: int = 6
    num_heads: int = 8
    hidden: int = 2048
    context: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "hidden", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % 2 or self.width % self.num_heads:
            raise ValueError(f"width={self.width} is odd, or num_heads={self.num_heads} does not divide it")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


SIZES = {
    # Table 3 of the paper, for English to German: about 37,000 kinds of tokens in both.
    "transformer_base": TransformerConfig(dropout=0.1),
    "transformer_big": TransformerConfig(width=1024, num_heads=16, hidden=4096, dropout=0.3),
    # For two cores: letters instead of words; a quarter of the width and half of the depth.
    "transformer_mini": TransformerConfig(128, 128, 3, 4, 512, context=128, dropout=0.1),
    "transformer_tiny": TransformerConfig(128, 32, 2, 2, 64, context=64),
}


class Transformer(EncoderDecoder):
    """Encoder and decoder, as in figure 1 of the paper.

    Embeddings start at a standard deviation of 1 / sqrt(D), since they are multiplied by sqrt(D); matrices as Xavier
    uniform.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        source: (B, S) int64.
        target: (B, T) int64, to be continued: a start token, then the text.
        source_valid, target_valid: bool, of the same shapes, False at padding.
        returns: logits (B, T, V) of what follows each token of the target.

    Raises:
        ValueError: If tokens are not whole numbers of two axes, or longer than the context.

    Example:
        >>> import torch
        >>> model = Transformer(SIZES["transformer_tiny"])
        >>> source, target = torch.tensor([[5, 3, 8, 2]]), torch.tensor([[1, 7, 7]])
        >>> logits = model(source, target)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> step, cache = model.step(target[:, 0], model.start(source))
        >>> torch.allclose(step, logits[:, 0], atol=1e-5)
        True
    """

    waves: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.width, config.num_heads, config.hidden
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.register_buffer("waves", sinusoidal(config.context, config.width), persistent=False)
        self.drop = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.encoder = nn.ModuleList(EncoderBlock(*sizes, dropout=config.dropout) for _ in range(config.num_layers))
        self.decoder = nn.ModuleList(DecoderBlock(*sizes, dropout=config.dropout) for _ in range(config.num_layers))
        for name, parameter in self.named_parameters():
            if "feedforward" in name:
                nn.init.xavier_uniform_(parameter) if parameter.ndim == 2 else nn.init.zeros_(parameter)

    def embed(self, tokens: Tensor, positions: Tensor | slice) -> Tensor:
        """Token and position, (B, T, D)."""
        x: Tensor = self.embedding(tokens) * math.sqrt(self.config.width) + self.waves[positions]
        x = self.drop(x)
        return x

    def encode(self, source: Tensor, valid: Tensor | None = None) -> Tensor:
        check_tokens(source, valid, context=self.config.context, name="source")
        x = self.embed(source, slice(source.shape[1]))  # (B, S, D)
        for block in self.encoder:
            x = block(x, valid)
        return x

    def decode(
        self,
        tokens: Tensor,
        context: Tensor,
        context_valid: Tensor | None = None,
        valid: Tensor | None = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        check_tokens(tokens, valid, context=self.config.context)
        past = 0
        if cache is not None:
            past, valid = len(cache), cache.see(valid, tokens.shape[1])
        x = self.embed(tokens, slice(past, past + tokens.shape[1]) if valid is None else places(valid, past))
        for i, block in enumerate(self.decoder):
            x = block(x, context, valid, context_valid, (None, None) if cache is None else cache.pair(i))
        return x

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight)


def convert_torch(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the blocks of ``torch.nn.Transformer`` (which knows no tokens) under this module's names.

    Its encoder and decoder end in normalisations that the paper does not have; make it with ``custom_encoder`` and
    ``custom_decoder`` without them.

    Example:
        >>> import torch
        >>> list(convert_torch({"encoder.layers.0.linear1.bias": torch.zeros(3)}))
        ['encoder.0.feedforward.expand.bias']
    """
    split = {}
    for name, tensor in state_dict.items():
        if "multihead_attn.in_proj" in name:
            width = len(tensor) // 3
            split[name.replace("in_proj_", "q.")] = tensor[:width]
            split[name.replace("in_proj_", "kv.")] = tensor[width:]
        else:
            split[name] = tensor
    names = {
        r"\.layers": "", "self_attn": "attention", "multihead_attn": "cross", "in_proj_": "qkv.", "out_proj": "out",
        "linear1": "feedforward.expand", "linear2": "feedforward.reduce",
    }  # fmt: skip
    return rename(split, {}, names)
