"""BART: a post-norm encoder and decoder with learned positions and GELU, trained to mend damaged text.

Lewis et al. (2020), https://arxiv.org/abs/1910.13461.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    S  tokens of the source    T  tokens of the target    D  width    V  vocabulary
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.cache import DecoderCache
from dlbook.layers.convert import rename
from dlbook.layers.decoder import EncoderDecoder, check_tokens, places
from dlbook.layers.post_norm import DecoderBlock, EncoderBlock

#: The tables of positions have two rows that nothing uses, since the authors' code counts from behind the padding's.
OFFSET = 2


@dataclass(frozen=True)
class BartConfig:
    """What makes one BART different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        width: Features of a token, D.
        num_layers: Blocks of the encoder, and of the decoder.
        num_heads: Heads; must divide the width.
        hidden: Hidden units of the feed-forward layers.
        context: The longest sequence, in tokens.
        dropout: Probability that a feature of an embedding or a branch is left out while training; BART was trained
            with 0.1.

    Raises:
        ValueError: If a number is not positive, the heads do not divide the width, or dropout is no probability.
    """

    vocab_size: int = 50265
    width: int = 768
    num_layers: int = 6
    num_heads: int = 12
    hidden: int = 3072
    context: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "hidden", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide width={self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


SIZES = {
    # Sections 2.1 and 4.1 of the paper; hidden units and heads as in the released weights.
    "bart_base": BartConfig(),
    "bart_large": BartConfig(width=1024, num_layers=12, num_heads=16, hidden=4096),
    # For two cores: letters instead of words; a sixth of the width and half of the depth.
    "bart_mini": BartConfig(128, 128, 3, 4, 512, context=128),
    "bart_tiny": BartConfig(128, 32, 2, 2, 64, context=64),
}


class Bart(EncoderDecoder):
    """Encoder and decoder, with one embedding for both and for the logits.

    Weights start at a standard deviation of 0.02, biases at 0.

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
        >>> model = Bart(SIZES["bart_tiny"])
        >>> source, target = torch.tensor([[5, 3, 8, 2]]), torch.tensor([[2, 7, 7]])
        >>> logits = model(source, target)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> step, cache = model.step(target[:, 0], model.start(source))
        >>> torch.allclose(step, logits[:, 0], atol=1e-5)
        True
    """

    bias: Tensor

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.width, config.num_heads, config.hidden
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder_position = nn.Embedding(config.context + OFFSET, config.width)
        self.decoder_position = nn.Embedding(config.context + OFFSET, config.width)
        self.encoder_norm = nn.LayerNorm(config.width)  # of the embeddings
        self.decoder_norm = nn.LayerNorm(config.width)
        self.drop = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.encoder = nn.ModuleList(
            EncoderBlock(*sizes, activation="gelu", dropout=config.dropout) for _ in range(config.num_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(*sizes, activation="gelu", dropout=config.dropout) for _ in range(config.num_layers)
        )
        self.register_buffer("bias", self.embedding.weight.new_zeros(config.vocab_size))  # of the logits; not learned
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def encode(self, source: Tensor, valid: Tensor | None = None) -> Tensor:
        check_tokens(source, valid, context=self.config.context, name="source")
        position = self.encoder_position.weight[OFFSET : OFFSET + source.shape[1]]  # (S, D)
        x = self.drop(self.encoder_norm(self.embedding(source) + position))  # (B, S, D)
        for block in self.encoder:
            x = block(x, valid)
        y: Tensor = x
        return y

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
        table = self.decoder_position.weight[OFFSET:]
        position = table[past : past + tokens.shape[1]] if valid is None else table[places(valid, past)]
        x = self.drop(self.decoder_norm(self.embedding(tokens) + position))  # (B, T, D)
        for i, block in enumerate(self.decoder):
            x = block(x, context, valid, context_valid, (None, None) if cache is None else cache.pair(i))
        y: Tensor = x
        return y

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight, self.bias)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.BartForConditionalGeneration`` under this module's names.

    Args:
        state_dict: What its ``state_dict()`` gives, or a file of it; its head is its embedding.

    Example:
        >>> import torch
        >>> list(convert_transformers({"model.encoder.layers.0.fc1.weight": torch.zeros(4, 3)}))
        ['encoder.0.feedforward.expand.weight']
    """
    kept = {
        name: tensor.squeeze(0) if name == "final_logits_bias" else tensor
        for name, tensor in state_dict.items()
        if "embed_tokens" not in name and name != "lm_head.weight"
    }
    stacks = {
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "encoder_attn.kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    }
    names = {
        r"^model\.": "", r"\.embed_positions": "_position", r"\.layernorm_embedding": "_norm",
        "self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2",
        r"(encoder\.layers\.\d+)\.final_layer_norm": r"\1.norm2", "final_layer_norm": "norm3", r"\.layers": "",
        "self_attn": "attention", "encoder_attn": "cross", "q_proj": "q", "out_proj": "out",
        "fc1": "feedforward.expand", "fc2": "feedforward.reduce", "shared": "embedding", "final_logits_bias": "bias",
    }  # fmt: skip
    return rename(kept, stacks, names)
