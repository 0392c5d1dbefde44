"""LLaMA, 1 to 3: a pre-norm decoder with rotary positions, RMSNorm, SwiGLU, no biases, and queries that share keys.

Touvron et al. (2023), https://arxiv.org/abs/2302.13971; LLaMA 2: https://arxiv.org/abs/2307.09288; Grattafiori et al.
(2024), The Llama 3 herd of models, https://arxiv.org/abs/2407.21783.

Chapters: chapters/06-transformers.ipynb; chapters/04-recurrent-networks.ipynb (to compare with)

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
from dlbook.layers.convert import rename
from dlbook.layers.decoder import Decoder, check_tokens, places
from dlbook.layers.feedforward import SwiGLU
from dlbook.layers.multi_head import MultiHeadAttention
from dlbook.layers.position import Rotary, RotaryScaling, half_from_interleaved


@dataclass(frozen=True)
class LlamaConfig:
    """What makes one LLaMA different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        width: Features of a token, D.
        num_layers: Blocks.
        num_heads: Heads of queries; must divide the width.
        num_kv_heads: Heads of keys and values, each shared by several of queries; as many as those if 0.
        hidden: Hidden units of the feed-forward layers; 8 D / 3, rounded up, if 0.
        context: The longest sequence, in tokens.
        rope_base: Base of the rotary positions.
        rope_scaling: How positions are stretched for longer texts.
        eps: What RMSNorm adds to the mean square.
        tied: Whether the embedding also gives the logits.

    Raises:
        ValueError: If a number is not positive or one does not divide the other.
    """

    vocab_size: int = 32000
    width: int = 4096
    num_layers: int = 32
    num_heads: int = 32
    num_kv_heads: int = 0
    hidden: int = 11008
    context: int = 2048
    rope_base: float = 10000.0
    rope_scaling: RotaryScaling | None = None
    eps: float = 1e-5
    tied: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "context", "rope_base"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width={self.width} is no even number for each of num_heads={self.num_heads}")
        if self.num_kv_heads < 0 or (self.num_kv_heads and self.num_heads % self.num_kv_heads):
            raise ValueError(f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}")


_LONG = 131072
_EIGHT, _THIRTY_TWO = RotaryScaling(8), RotaryScaling(32)
_70B = {"width": 8192, "num_layers": 80, "num_heads": 64, "num_kv_heads": 8}
_THREE = {"vocab_size": 128256, "rope_base": 500000.0}

SIZES = {
    # Table 2 of the first paper (width, heads, layers); hidden units as in the released weights.
    "llama_7b": LlamaConfig(eps=1e-6),
    "llama_13b": LlamaConfig(width=5120, num_layers=40, num_heads=40, hidden=13824, eps=1e-6),
    "llama_33b": LlamaConfig(width=6656, num_layers=60, num_heads=52, hidden=17920, eps=1e-6),
    "llama_65b": LlamaConfig(width=8192, num_layers=80, num_heads=64, hidden=22016),
    # LLaMA 2, table 1: twice the context; the largest shares keys.
    "llama2_7b": LlamaConfig(context=4096),
    "llama2_13b": LlamaConfig(width=5120, num_layers=40, num_heads=40, hidden=13824, context=4096),
    "llama2_70b": LlamaConfig(**_70B, hidden=28672, context=4096),  # type: ignore[arg-type]
    # LLaMA 3, table 3; the first release reads 8,192 tokens, 3.1 and later 131,072.
    "llama3_8b": LlamaConfig(128256, hidden=14336, num_kv_heads=8, context=8192, rope_base=500000.0),
    "llama3_70b": LlamaConfig(**_70B, **_THREE, hidden=28672, context=8192),  # type: ignore[arg-type]
    "llama3.1_8b": LlamaConfig(
        128256, hidden=14336, num_kv_heads=8, context=_LONG, rope_base=500000.0, rope_scaling=_EIGHT
    ),
    "llama3.1_70b": LlamaConfig(**_70B, **_THREE, hidden=28672, context=_LONG, rope_scaling=_EIGHT),  # type: ignore[arg-type]
    "llama3.1_405b": LlamaConfig(
        128256, 16384, 126, 128, 8, 53248, context=_LONG, rope_base=500000.0, rope_scaling=_EIGHT
    ),
    # LLaMA 3.2, by the configuration that comes with the weights.
    "llama3.2_1b": LlamaConfig(
        128256, 2048, 16, 32, 8, 8192, context=_LONG, rope_base=500000.0, rope_scaling=_THIRTY_TWO, tied=True
    ),
    "llama3.2_3b": LlamaConfig(
        128256, 3072, 28, 24, 8, 8192, context=_LONG, rope_base=500000.0, rope_scaling=_THIRTY_TWO, tied=True
    ),
    # For two cores: an alphabet instead of words, a 32nd of the width, an eighth of the depth; two queries share a key.
    "llama_mini": LlamaConfig(128, 128, 4, 4, 2, hidden=0, context=256),
    "llama_tiny": LlamaConfig(128, 32, 2, 4, 2, hidden=0, context=128),
}


class LlamaBlock(nn.Module):
    """Residual block, pre-norm::

        x = x + attention(norm1(x))        x = x + feedforward(norm2(x))

    Args:
        width: Features of a token, D.
        num_heads: Heads of queries.
        num_kv_heads: Heads of keys and values; as many as those of queries if 0.
        hidden: Hidden units; 8 D / 3, rounded up, if 0.
        rotary: Positions, shared by the blocks of a model; a block on its own makes them.
        context: The longest sequence of a block on its own.
        eps: What RMSNorm adds to the mean square.

    Shapes:
        x: (B, L, D).
        valid: (B, S) bool, False at padding.
        positions: (B, L) int64; counted if left out.
        returns: (B, L, D).

    Raises:
        ValueError: If sizes do not fit, x has another shape, or is longer than the context.

    Example:
        >>> import torch
        >>> block = LlamaBlock(width=12, num_heads=3)
        >>> x = torch.randn(2, 5, 12)
        >>> y, cache = block.step(x[:, 0])
        >>> z, cache = block.step(x[:, 1], cache)
        >>> torch.allclose(z, block(x)[:, 1], atol=1e-5)
        True
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_kv_heads: int = 0,
        hidden: int = 0,
        rotary: Rotary | None = None,
        context: int = 2048,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        rotary = Rotary(width // num_heads, context) if rotary is None else rotary
        self.width, self.context = width, rotary.context
        self.norm1 = nn.RMSNorm(width, eps=eps)
        self.attention = MultiHeadAttention(
            width, num_heads, num_kv_heads=num_kv_heads, causal=True, bias=False, rotary=rotary
        )
        self.norm2 = nn.RMSNorm(width, eps=eps)
        self.feedforward = SwiGLU(width, hidden)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, positions: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        if x.ndim != 3 or x.shape[2] != self.width:
            raise ValueError(f"x must be (batch, length, {self.width}), got {tuple(x.shape)}")
        x = x + self.attention(self.norm1(x), valid=valid, positions=positions, cache=cache)
        y: Tensor = x + self.feedforward(self.norm2(x))
        return y

    def read(self, x: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Any number of steps (B, L, D) at once, behind those of a cache, which is changed and returned."""
        cache = KVCache(self.context) if cache is None else cache
        return (self(x, cache=cache) if x.shape[1] else x), cache

    def step(self, x: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """One step (B, D), behind those of a cache, which is changed and returned."""
        if x.ndim != 2:
            raise ValueError(f"x must be (batch, width), got {tuple(x.shape)}")
        y, cache = self.read(x.unsqueeze(1), cache)
        return y.squeeze(1), cache


class Llama(Decoder):
    """Language model: embedding, blocks, normalisation, logits.

    Weights start at a standard deviation of 0.02; what each branch adds to the sum of all at that divided by the root of
    the number of branches, as in GPT-2, since the paper does not say.

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
        >>> model = Llama(SIZES["llama_tiny"])
        >>> tokens = torch.tensor([[5, 3, 8]])
        >>> logits = model(tokens)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> first, cache = model.step(tokens[:, 0])
        >>> second, cache = model.step(tokens[:, 1], cache)
        >>> torch.allclose(second, logits[:, 1], atol=1e-5)
        True
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        rotary = Rotary(
            config.width // config.num_heads, config.context, base=config.rope_base, scaling=config.rope_scaling
        )
        self.blocks = nn.ModuleList(
            LlamaBlock(
                config.width,
                config.num_heads,
                num_kv_heads=config.num_kv_heads,
                hidden=config.hidden,
                rotary=rotary,
                eps=config.eps,
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.RMSNorm(config.width, eps=config.eps)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                branch = name.endswith(("attention.out.weight", "feedforward.reduce.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.num_layers) if branch else 0.02)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.logits(self.features(tokens, valid))

    def features(self, tokens: Tensor, valid: Tensor | None = None, cache: DecoderCache | None = None) -> Tensor:
        check_tokens(tokens, valid, context=self.config.context)
        length = tokens.shape[1]
        if cache is not None:
            valid = cache.see(valid, length)  # (B, S)
        positions = None
        if valid is not None:
            positions = places(valid, valid.shape[1] - length)
        x = self.embedding(tokens)  # (B, L, D)
        for i, block in enumerate(cast(list[LlamaBlock], self.blocks)):
            x = block(x, valid, positions, None if cache is None else cache.layers[i])
        y: Tensor = self.norm(x)
        return y

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight if self.head is None else self.head.weight)


def convert_transformers(state_dict: Mapping[str, Tensor], *, tied: bool = False) -> dict[str, Tensor]:
    """Weights of ``transformers.LlamaForCausalLM`` under this module's names.

    Args:
        state_dict: What ``LlamaForCausalLM.state_dict()`` gives, or a file of it.
        tied: Whether the configuration ties the logits to the embedding.

    Example:
        >>> import torch
        >>> list(convert_transformers({"model.layers.0.self_attn.o_proj.weight": torch.zeros(3, 3)}))
        ['blocks.0.attention.out.weight']
    """
    kept = {n: t for n, t in state_dict.items() if not (tied and n == "lm_head.weight") and "rotary_emb" not in n}
    stacks = {"qkv": ("q_proj", "k_proj", "v_proj")}
    names = {
        r"^model\.": "", "embed_tokens": "embedding", "layers": "blocks", "input_layernorm": "norm1",
        "post_attention_layernorm": "norm2", "self_attn": "attention", "o_proj": "out", "mlp": "feedforward",
        "gate_proj": "gate", "up_proj": "up", "down_proj": "reduce", "lm_head": "head",
    }  # fmt: skip
    return rename(kept, stacks, names)


def convert_meta(state_dict: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Weights of the files that Meta published (``consolidated.00.pth``), whose rotary pairs are neighbours.

    Args:
        state_dict: What a file holds.
        config: Says how many heads there are.

    Example:
        >>> import torch
        >>> list(convert_meta({"layers.0.ffn_norm.weight": torch.zeros(3)}, SIZES["llama_7b"]))
        ['blocks.0.norm2.weight']
    """
    heads = {"wq": config.num_heads, "wk": config.num_kv_heads or config.num_heads}
    kept = {}
    for name, tensor in state_dict.items():
        part = name.split(".")[-2]
        if part != "rope" and not (config.tied and part == "output"):
            kept[name] = half_from_interleaved(tensor, heads[part]) if part in heads else tensor
    names = {
        "tok_embeddings": "embedding", "layers": "blocks", "attention_norm": "norm1", "ffn_norm": "norm2", "wo": "out",
        "feed_forward": "feedforward", "w1": "gate", "w2": "reduce", "w3": "up", "output": "head",
    }  # fmt: skip
    return rename(kept, {"qkv": ("wq", "wk", "wv")}, names)
