"""Multi-head attention in all its forms: to itself or to another sequence, masked, with few keys, turned, remembered.

Vaswani et al. (2017), https://arxiv.org/abs/1706.03762. Grouped queries: Ainslie et al. (2023),
https://arxiv.org/abs/2305.13245. Sliding window: Beltagy et al. (2020), https://arxiv.org/abs/2004.05150. The same in five
lines: `dlbook.layers.attention.attention`.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    T  tokens that look    S  tokens that are looked at: T, those of the context, or also those remembered
    D  width of a token    N  heads    G  heads of keys and values, N unless queries share them    K  width of a head
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.cache import KVCache
from dlbook.layers.position import Rotary, distances


def visible(
    length: int, total: int, device: torch.device, *, causal: bool = False, window: int = 0, valid: Tensor | None = None
) -> Tensor | None:
    """Which tokens may be looked at; None if all.

    Args:
        length: Tokens that look, T.
        total: Tokens that are looked at, S; if causal or in a window, the last T of them are those that look.
        device: Where the answer is made.
        causal: Whether what comes later is hidden.
        window: Tokens in sight, itself among them: this many back and, unless causal, this many ahead; all if 0.
        valid: False where a token that could be looked at is padding.

    Shapes:
        valid: (B, S) bool.
        returns: (T, S) bool, or (B, 1, T, S) with ``valid``; in it T is 1 where all see the same.

    Example:
        >>> visible(3, 3, torch.device("cpu"), causal=True, window=2).int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [0, 1, 1]], dtype=torch.int32)
    """
    mask = None
    if (causal and length > 1) or (window and total > 1):
        distance = distances(length, total, device)
        mask = distance <= 0 if causal else distance < window
        if window:
            mask = mask & (distance > -window)
    if valid is not None:
        mask = valid[:, None, None, :] if mask is None else mask & valid[:, None, None, :]  # (B, 1, T, S)
    return mask


class MultiHeadAttention(nn.Module):
    """Attention to the sequence itself or, with ``cross``, to another one; in N heads.

    ::

        q, k, v = x W_q, c W_k, c W_v  with c = x, or the context        head_n = softmax(q_n k_n^T / sqrt(K)) v_n
        y = [head_1, ..., head_N] W_o

    A token that may look at nothing, such as one of a row that is all padding, takes over 0 and not NaN. Weights start
    as Xavier uniform (each of the projections on its own), biases at 0.

    Args:
        width: Features of a token, D.
        num_heads: Heads, N.
        num_kv_heads: Heads of keys and values, G, each shared by N / G of the queries; N if 0.
        head_size: Width of a head, K; D / N if 0.
        cross: Whether keys and values come from another sequence.
        causal: Whether what comes later is hidden.
        window: Tokens in sight, itself among them; all if 0.
        bias: Whether queries, keys and values have a bias.
        out_bias: Whether the output has one; as ``bias`` if None.
        rotary: Turns queries and keys by their positions; several layers can share it.
        scale: What the products are multiplied by; 1 / sqrt(K) if None.
        dropout: Probability that a weight of attention is left out while training.

    Shapes:
        x: (B, T, D).
        context: (B, S, D), with ``cross`` only; may be left out where a cache holds its keys.
        mask: broadcasts to (B, N, T, S); added to the scores or, if boolean, True where a token may look.
        valid: (B, S) bool, False where a token that could be looked at is padding.
        positions: (T,) or (B, T) int64, for ``rotary``; counted from what the cache holds if left out.
        cache: a `KVCache`, which gets x's keys and values, or with ``cross`` those of the context at the first call.
        returns: (B, T, D).

    Raises:
        ValueError: If sizes do not fit one another, or an input has another shape or comes without need.

    Example:
        >>> layer = MultiHeadAttention(width=12, num_heads=4, num_kv_heads=2, causal=True, rotary=Rotary(3 + 1, 16),
        ...                            head_size=4)
        >>> x, cache = torch.randn(2, 5, 12), KVCache(limit=16)
        >>> y = layer(x)
        >>> steps = [layer(token, cache=cache) for token in x.split(1, dim=1)]
        >>> torch.allclose(torch.cat(steps, dim=1), y, atol=1e-5)
        True
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_kv_heads: int = 0,
        head_size: int = 0,
        cross: bool = False,
        causal: bool = False,
        window: int = 0,
        bias: bool = True,
        out_bias: bool | None = None,
        rotary: Rotary | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or width < 1 or (width % num_heads and not head_size):
            raise ValueError(f"num_heads={num_heads} does not divide width={width}")
        num_kv_heads = num_kv_heads or num_heads
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(f"num_kv_heads={num_kv_heads} does not divide num_heads={num_heads}")
        if min(window, head_size) < 0 or not 0 <= dropout < 1:
            raise ValueError(f"{window=} and {head_size=} must not be negative, dropout={dropout} within 0 and 1")
        if cross and (causal or window or rotary is not None):
            raise ValueError(
                "tokens of another sequence have no place in this one: cross excludes causal, window, rotary"
            )
        self.width, self.num_heads, self.num_kv_heads = width, num_heads, num_kv_heads
        self.head_size = head_size or width // num_heads
        self.cross, self.causal, self.window, self.rotary = cross, causal, window, rotary
        self.scale, self.dropout = scale, dropout
        queries, keys = num_heads * self.head_size, num_kv_heads * self.head_size
        if cross:
            self.q = nn.Linear(width, queries, bias=bias)
            self.kv = nn.Linear(width, 2 * keys, bias=bias)
            parts = [self.q.weight, *self.kv.weight.chunk(2)]
        else:
            self.qkv = nn.Linear(width, queries + 2 * keys, bias=bias)  # one product instead of three
            parts = list(torch.split(self.qkv.weight, [queries, keys, keys]))
        self.out = nn.Linear(queries, width, bias=bias if out_bias is None else out_bias)
        for weight in (*parts, self.out.weight):
            nn.init.xavier_uniform_(weight)
        for linear in self.children():
            if isinstance(linear, nn.Linear) and linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        valid: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        q, k, v = self.heads(x, context, positions, cache)
        allowed, nothing, whole = None, None, False
        alone = mask is None and valid is None and not 0 < self.window < k.shape[2]
        if self.causal and alone and q.shape[2] == k.shape[2] > 1:
            whole = True  # kernels know this mask, and leave out the work that it hides
        else:
            k, v, mask, valid = self._in_sight(q.shape[2], k, v, mask, valid)
            allowed, nothing = self._mask(q, k, mask, valid)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=allowed,
            is_causal=whole,
            scale=self.scale,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )  # fmt: skip  (B, N, T, K)
        if nothing is not None:
            y = y.masked_fill(nothing, 0.0)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))  # (B, T, D)
        return out

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        valid: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """How much each head of each token takes over from each other, (B, N, T, S); what the fused kernel hides."""
        q, k, _ = self.heads(x, context, positions)
        scale = self.head_size**-0.5 if self.scale is None else self.scale
        scores = q @ k.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1).mT * scale  # (B, N, T, S)
        allowed, nothing = self._mask(q, k, mask, valid)
        if allowed is not None:
            hide = allowed.dtype == torch.bool
            scores = scores.masked_fill(~allowed, -torch.inf) if hide else scores + allowed
        weights = scores.softmax(dim=-1)
        return weights if nothing is None else weights.masked_fill(nothing, 0.0)

    def heads(
        self,
        x: Tensor,
        context: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, T, K), keys and values (B, G, S, K), turned and with those remembered."""
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(f"x must be (batch, tokens, {self.width}), got {tuple(x.shape)}")
        N, G, K = self.num_heads, self.num_kv_heads, self.head_size
        if self.cross:
            q = self.q(x).unflatten(-1, (N, K)).transpose(1, 2)  # (B, N, T, K)
            if cache is not None and cache.keys is not None and cache.values is not None:
                return q, cache.keys, cache.values
            if context is None or context.ndim != 3 or context.shape[::2] != (x.shape[0], self.width):
                shape = None if context is None else tuple(context.shape)
                raise ValueError(f"context must be ({x.shape[0]}, tokens, {self.width}), got {shape}")
            k, v = self.kv(context).unflatten(-1, (2 * G, K)).transpose(1, 2).chunk(2, dim=1)  # (B, G, S, K)
            return (q, k, v) if cache is None else (q, *cache.append(k, v))
        if context is not None:
            raise ValueError("a context came, but the layer was made without cross=True")
        qkv = self.qkv(x).unflatten(-1, (N + 2 * G, K)).transpose(1, 2)  # (B, N + 2 G, T, K)
        if self.rotary is None:
            q, k, v = qkv.split([N, G, G], dim=1)
        else:
            qk, v = qkv.split([N + G, G], dim=1)
            q, k = self.rotary(qk, 0 if cache is None else cache.length, positions).split([N, G], dim=1)
        return (q, k, v) if cache is None else (q, *cache.append(k, v))

    def _in_sight(
        self, length: int, k: Tensor, v: Tensor, mask: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Without the keys that lie beyond the window of all that look."""
        sight = self.window + length - 1
        if not (self.causal and self.window and sight < k.shape[2]):
            return k, v, mask, valid
        mask = mask if mask is None or mask.shape[-1] == 1 else mask[..., -sight:]
        return k[:, :, -sight:], v[:, :, -sight:], mask, None if valid is None else valid[:, -sight:]

    def _mask(
        self, q: Tensor, k: Tensor, mask: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The mask for the kernel, and which tokens may look at nothing; those see all there, instead of NaN."""
        if valid is not None and (valid.shape != (q.shape[0], k.shape[2]) or valid.dtype != torch.bool):
            raise ValueError(f"valid must be ({q.shape[0]}, {k.shape[2]}) bool, got {tuple(valid.shape)} {valid.dtype}")
        window = self.window if self.window < k.shape[2] else 0
        allowed = visible(q.shape[2], k.shape[2], q.device, causal=self.causal, window=window, valid=valid)
        if mask is not None and mask.dtype == torch.bool:
            allowed = mask if allowed is None else mask & allowed
        nothing = None
        if allowed is not None and (valid is not None or mask is not None):
            nothing = ~allowed.any(dim=-1, keepdim=True)  # (..., T, 1)
            allowed = allowed | nothing
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(q.dtype)
            allowed = mask if allowed is None else mask.masked_fill(~allowed, -torch.inf)
        return allowed, nothing
