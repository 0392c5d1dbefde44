"""BERT: a post-norm encoder with learned positions that fills gaps, and so learns to read in both directions.

Devlin et al. (2019), https://arxiv.org/abs/1810.04805.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    L  length    D  width    V  vocabulary    K  classes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.convert import rename
from dlbook.layers.decoder import check_tokens
from dlbook.layers.post_norm import EncoderBlock


@dataclass(frozen=True)
class BertConfig:
    """What makes one BERT different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        width: Features of a token, D.
        num_layers: Blocks.
        num_heads: Heads; must divide the width.
        hidden: Hidden units of the feed-forward layers.
        context: The longest sequence, in tokens.
        num_kinds: Kinds of segments, such as question and answer.
        dropout: Probability that a feature of the embedding or of a branch, or a weight of attention, is left out while
            training; BERT was trained with 0.1.
        eps: What the normalisations add to the variance.

    Raises:
        ValueError: If a number is not positive, the heads do not divide the width, or dropout is no probability.
    """

    vocab_size: int = 30522
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    hidden: int = 3072
    context: int = 512
    num_kinds: int = 2
    dropout: float = 0.0
    eps: float = 1e-12

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "hidden", "context", "num_kinds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide width={self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


SIZES = {
    # Section 3 of the paper.
    "bert_base": BertConfig(),
    "bert_large": BertConfig(width=1024, num_layers=24, num_heads=16, hidden=4096),
    # For two cores: letters instead of words; a sixth of the width and a third of the depth.
    "bert_mini": BertConfig(128, 128, 4, 4, 512, context=128),
    "bert_tiny": BertConfig(128, 32, 2, 2, 64, context=64),
}


class Bert(nn.Module):
    """The encoder: embeddings of token, position and segment, then blocks.

    Weights start at a standard deviation of 0.02, biases at 0.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        tokens: (B, L) int64.
        kinds: (B, L) int64, the segment of each token; all 0 if left out.
        valid: (B, L) bool, False at padding.
        returns: features (B, L, D).

    Raises:
        ValueError: If tokens are not (B, L) whole numbers, or longer than the context.

    Example:
        >>> model = Bert(SIZES["bert_tiny"])
        >>> features = model(torch.tensor([[5, 3, 8]]))
        >>> features.shape, model.pooled(features).shape
        (torch.Size([1, 3, 32]), torch.Size([1, 32]))
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.kind = nn.Embedding(config.num_kinds, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.drop = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.blocks = nn.ModuleList(
            EncoderBlock(
                config.width, config.num_heads, config.hidden, activation="gelu", dropout=config.dropout,
                attention_dropout=config.dropout, eps=config.eps,
            )
            for _ in range(config.num_layers)
        )  # fmt: skip
        self.pool = nn.Linear(config.width, config.width)
        _start(self)

    def forward(self, tokens: Tensor, kinds: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        check_tokens(tokens, valid, context=self.config.context)
        kind = self.kind.weight[0] if kinds is None else self.kind(kinds)  # (B, L, D)
        x: Tensor = self.embedding(tokens) + kind + self.position.weight[: tokens.shape[1]]
        x = self.drop(self.norm(x))
        for block in cast(list[EncoderBlock], self.blocks):
            x = block(x, valid)
        return x

    def pooled(self, features: Tensor) -> Tensor:
        """tanh of a linear map of what became of the first token, (B, D); learned by predicting the next sentence."""
        return torch.tanh(self.pool(features[:, 0]))


class BertMaskedLM(nn.Module):
    """Says which token stands at each place, those included that `hide_tokens` took away.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        tokens, kinds, valid: as `Bert`.
        returns: logits (B, L, V).

    Example:
        >>> BertMaskedLM(SIZES["bert_tiny"])(torch.tensor([[5, 3, 8]])).shape
        torch.Size([1, 3, 128])
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = Bert(config)
        del self.bert.pool  # of another task
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        _start(self)

    def forward(self, tokens: Tensor, kinds: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        x = self.norm(F.gelu(self.dense(self.bert(tokens, kinds, valid))))  # (B, L, D)
        return F.linear(x, self.bert.embedding.weight, self.bias)


class BertClassifier(nn.Module):
    """Says of which class a text is, by its first token.

    Args:
        config: One of `SIZES`, or your own.
        num_classes: Classes, K.

    Shapes:
        tokens, kinds, valid: as `Bert`.
        returns: logits (B, K).

    Raises:
        ValueError: If there is no class.

    Example:
        >>> BertClassifier(SIZES["bert_tiny"], num_classes=5)(torch.tensor([[5, 3, 8]])).shape
        torch.Size([1, 5])
    """

    def __init__(self, config: BertConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        self.bert = Bert(config)
        self.drop = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.head = nn.Linear(config.width, num_classes)
        _start(self)

    def forward(self, tokens: Tensor, kinds: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.drop(self.bert.pooled(self.bert(tokens, kinds, valid))))
        return logits


def _start(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def hide_tokens(
    tokens: Tensor,
    mask_token: int,
    vocab_size: int,
    *,
    rate: float = 0.15,
    valid: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """What BERT learns from: some tokens are chosen; 80 % of them become the mask, 10 % another token, 10 % stay.

    Args:
        tokens: Text.
        mask_token: The token that stands for a gap.
        vocab_size: Kinds of tokens, V.
        rate: Probability that a token is chosen.
        valid: False where no token may be chosen.
        generator: Source of chance, on the device of the tokens.

    Shapes:
        tokens, valid: (B, L).
        returns: tokens (B, L), and what was there where they were chosen, elsewhere -100, which
            ``torch.nn.functional.cross_entropy`` leaves out.

    Raises:
        ValueError: If the rate is no probability.

    Example:
        >>> hide_tokens(torch.tensor([[5, 3, 8]]), mask_token=0, vocab_size=10, rate=0.0)
        (tensor([[5, 3, 8]]), tensor([[-100, -100, -100]]))
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be within 0 and 1, got {rate}")
    draws = torch.rand(2, *tokens.shape, device=tokens.device, generator=generator)
    chosen = draws[0] < rate
    if valid is not None:
        chosen = chosen & valid
    others = torch.randint(vocab_size, tokens.shape, device=tokens.device, generator=generator)
    hidden = torch.where(chosen & (draws[1] < 0.8), mask_token, tokens)
    hidden = torch.where(chosen & (draws[1] >= 0.9), others, hidden)
    return hidden, tokens.masked_fill(~chosen, -100)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.BertModel`` for `Bert`, or of ``BertForMaskedLM`` for `BertMaskedLM`.

    Args:
        state_dict: What their ``state_dict()`` gives.

    Example:
        >>> list(convert_transformers({"bert.encoder.layer.0.output.dense.bias": torch.zeros(3)}))
        ['bert.blocks.0.feedforward.reduce.bias']
    """
    kept = {n: t for n, t in state_dict.items() if not n.endswith(("position_ids", "decoder.weight", "decoder.bias"))}
    names = {
        r"embeddings\.word_embeddings": "embedding", r"embeddings\.position_embeddings": "position",
        r"embeddings\.token_type_embeddings": "kind", r"embeddings\.LayerNorm": "norm", r"encoder\.layer": "blocks",
        r"attention\.self": "attention", r"attention\.output\.dense": "attention.out",
        r"attention\.output\.LayerNorm": "norm1", r"intermediate\.dense": "feedforward.expand",
        r"output\.dense": "feedforward.reduce", r"output\.LayerNorm": "norm2", r"pooler\.dense": "pool",
        r"cls\.predictions\.transform\.": "", r"cls\.predictions\.": "", "^LayerNorm": "norm",
    }  # fmt: skip
    return rename(kept, {"qkv": ("query", "key", "value")}, names)
