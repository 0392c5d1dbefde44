"""Multi-head self-attention: every token looks at every other and takes over a weighted mean of what they hold.

Vaswani et al. (2017), Attention is all you need, https://arxiv.org/abs/1706.03762, sections 3.2.1 and 3.2.2.

Chapters: chapters/03-convolutional-networks.ipynb (pictures cut into patches)

Letters for shapes in this file:
    B  batch    T  tokens    D  width of a token    N  heads    K  width of a head, D / N
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, written out.

    Same numbers as ``torch.nn.functional.scaled_dot_product_attention``, which is faster because it need not keep the
    (T, T) weights; this one is for reading, and for whoever wants to see the weights.

    Args:
        q: What each token looks for.
        k: What each token is found by.
        v: What each token hands over.
        mask: Added to the scores before the softmax, or, if boolean, True where a token may look.

    Shapes:
        q, k, v: (..., T, K).
        mask: broadcasts to (..., T, T).
        returns: (..., T, K).

    Example:
        >>> q, k, v = torch.randn(3, 2, 5, 4).unbind()
        >>> torch.allclose(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), atol=1e-6)
        True
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1) @ v  # (..., T, K)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, in several heads that each see a part of the width.

    ::

        q, k, v = x W_q, x W_k, x W_v        head_n = attention(q_n, k_n, v_n)
        y = [head_1, ..., head_N] W_o

    Weights start as Xavier uniform (each of the three projections on its own), biases at 0.

    Args:
        width: Features of a token, D.
        num_heads: Heads, N; must divide the width.
        bias: Whether the four projections have a bias.

    Shapes:
        x: (B, T, D).
        mask: as in `attention`, broadcasts to (B, N, T, T).
        returns: (B, T, D).

    Raises:
        ValueError: If the heads do not divide the width, or ``x`` is not (B, T, width).

    Example:
        >>> layer = SelfAttention(width=6, num_heads=2)
        >>> layer(torch.zeros(4, 5, 6)).shape
        torch.Size([4, 5, 6])
    """

    def __init__(self, width: int, num_heads: int, *, bias: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or width < 1 or width % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide width={width}")
        self.width = width
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)  # one product instead of three
        self.out = nn.Linear(width, width, bias=bias)
        for weight in (*self.qkv.weight.chunk(3), self.out.weight):
            nn.init.xavier_uniform_(weight)
        if bias:
            nn.init.zeros_(self.qkv.bias)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(f"x must be (batch, tokens, {self.width}), got {tuple(x.shape)}")
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, N, T, K)
        y: Tensor = self.out(heads.transpose(1, 2).flatten(2))  # (B, T, D)
        return y
