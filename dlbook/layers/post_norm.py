"""Blocks of a Transformer as first published: the sum of input and branch is normalised (post-norm).

Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, section 3.1; BERT and BART are made of them too. Later decoders
normalise what goes into a branch (pre-norm), so that a path without any normalisation leads through all blocks; they
train without the slow start that post-norm needs: Xiong et al. (2020), https://arxiv.org/abs/2002.04745.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    T  tokens    S  tokens of the context    D  width
"""

from torch import Tensor, nn

from dlbook.layers.cache import KVCache
from dlbook.layers.feedforward import FeedForward
from dlbook.layers.multi_head import MultiHeadAttention


class EncoderBlock(nn.Module):
    """Residual block, post-norm::

        x = norm1(x + attention(x))        x = norm2(x + feedforward(x))

    Args:
        width: Features of a token, D.
        num_heads: Heads.
        hidden: Hidden units of the feed-forward layer; 4 D if 0.
        activation: One of `dlbook.layers.feedforward.ACTIVATIONS`.
        dropout: Probability that a feature of a branch is left out while training.
        attention_dropout: Probability that a weight of attention is.
        eps: What the normalisations add to the variance.

    Shapes:
        x: (B, T, D).
        valid: (B, T) bool, False at padding.
        returns: (B, T, D).

    Example:
        >>> import torch
        >>> EncoderBlock(width=12, num_heads=3)(torch.zeros(2, 5, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int = 0,
        *,
        activation: str = "relu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, num_heads, dropout=attention_dropout)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.feedforward = FeedForward(width, hidden, activation=activation)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x, valid=valid)))
        y: Tensor = self.norm2(x + self.drop(self.feedforward(x)))
        return y


class DecoderBlock(nn.Module):
    """Residual block that also looks at a context, post-norm::

        x = norm1(x + attention(x))    x = norm2(x + attention to the context(x))    x = norm3(x + feedforward(x))

    Args:
        As `EncoderBlock`.

    Shapes:
        x: (B, T, D).
        context: (B, S, D).
        valid: (B, T) bool, with the tokens that the cache holds, False at padding.
        context_valid: (B, S) bool, False at padding.
        returns: (B, T, D).

    Example:
        >>> import torch
        >>> DecoderBlock(width=12, num_heads=3)(torch.zeros(2, 5, 12), torch.zeros(2, 7, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int = 0,
        *,
        activation: str = "relu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, num_heads, causal=True, dropout=attention_dropout)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.cross = MultiHeadAttention(width, num_heads, cross=True, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.feedforward = FeedForward(width, hidden, activation=activation)
        self.norm3 = nn.LayerNorm(width, eps=eps)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        valid: Tensor | None = None,
        context_valid: Tensor | None = None,
        caches: tuple[KVCache | None, KVCache | None] = (None, None),
    ) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x, valid=valid, cache=caches[0])))
        x = self.norm2(x + self.drop(self.cross(x, context, valid=context_valid, cache=caches[1])))
        y: Tensor = self.norm3(x + self.drop(self.feedforward(x)))
        return y
