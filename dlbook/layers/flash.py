"""FlashAttention: exact attention in blocks, which never holds the square of weights.

Dao et al. (2022), FlashAttention, https://arxiv.org/abs/2205.14135, with the order of loops and the bookkeeping of Dao
(2023), FlashAttention-2, https://arxiv.org/abs/2307.08691. The softmax that goes along one block at a time is that of
Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867.

Chapter: chapters/06-transformers.ipynb

This is the algorithm for reading, in plain PyTorch. On a GPU its gain is that a block stays in fast memory from the first
product to the last, which only a kernel of one's own or `torch.nn.functional.scaled_dot_product_attention` does. What
shows here too is the memory: it grows with the length, not with its square.

Letters for shapes in this file:
    T  queries    S  keys and values    K  width of a query and of a key    V  width of a value    R, C  of a block
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dlbook.layers.operands import without_autocast


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, rows: int = 128, columns: int = 128
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, one block of the scores at a time, forward and backward.

    A row of scores arrives in blocks. With the largest score m so far, the sum l of exp(score - m) and the sum o of the
    values weighted so, the next block s with its values v changes them to ::

        m' = max(m, max s)      l' = l exp(m - m') + sum exp(s - m')      o' = o exp(m - m') + exp(s - m') v

    and o / l at the end is the softmax's mean of the values, the same numbers as in one go. Only that and m + log l are
    kept; the backward pass computes each block of weights again, exp(s - m - log l), which is cheaper than to keep them.

    Inputs of half precision are computed with in float32 and the result is rounded once. Gradients can be taken once.

    Args:
        q: What each token looks for.
        k: What each token is found by.
        v: What each token hands over.
        causal: Whether query i sees only keys 0 to i.
        rows: Queries in a block, R.
        columns: Keys in a block, C. At most R x C scores exist at a time, for each element of a batch and head.

    Shapes:
        q: (..., T, K).
        k: (..., S, K).
        v: (..., S, V).
        returns: (..., T, V).

    Raises:
        ValueError: If the shapes or the types do not fit together, there is no key, or a block is empty.

    Example:
        >>> q, k, v = torch.randn(3, 2, 5, 4).unbind()
        >>> whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        >>> torch.allclose(flash_attention(q, k, v, causal=True, rows=2, columns=3), whole, atol=1e-6)
        True
    """
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[:-2] != k.shape[:-2] or k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            f"expected q (..., T, K), k (..., S, K) and v (..., S, V), got {tuple(q.shape)}, {tuple(k.shape)} and "
            f"{tuple(v.shape)}"
        )
    if q.shape[-1] != k.shape[-1] or not k.shape[-1] or not k.shape[-2]:
        raise ValueError(
            f"expected queries and keys of the same width, and a key, got {tuple(q.shape)}, {tuple(k.shape)}"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(f"all must be floating-point numbers of one type, got {q.dtype}, {k.dtype} and {v.dtype}")
    if rows < 1 or columns < 1:
        raise ValueError(f"blocks must have rows and columns, got {rows=} and {columns=}")
    out, _ = _Flash.apply(q, k, v, causal, rows, columns)  # type: ignore[no-untyped-call]
    assert isinstance(out, Tensor)
    return out


class _Flash(torch.autograd.Function):
    """Both passes; the second result, log of each row's sum of exp(score), is for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])  # (..., T, V)
        log_sum = q.new_empty(q.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))  # (..., T)
        with without_autocast(q):
            for i in _blocks(q.shape[-2], rows):
                q_i = _wide(q[..., i, :]) / math.sqrt(q.shape[-1])  # (..., R, K)
                m = q_i.new_full((*q_i.shape[:-1], 1), -math.inf)  # (..., R, 1)
                l = torch.zeros_like(m)  # noqa: E741
                o = q_i.new_zeros(*q_i.shape[:-1], v.shape[-1])  # (..., R, V)
                for j in _seen(i, k.shape[-2], columns, causal):
                    s = _scores(q_i, _wide(k[..., j, :]), i, j, causal)  # (..., R, C)
                    m_new = torch.maximum(m, s.amax(-1, keepdim=True))
                    p = torch.exp(s - m_new)
                    shrink = torch.exp(m - m_new)  # 0 at the first block, where m is -inf
                    l = l * shrink + p.sum(-1, keepdim=True)  # noqa: E741
                    o = o * shrink + p @ _wide(v[..., j, :])
                    m = m_new
                out[..., i, :] = o / l
                log_sum[..., i] = (m + l.log()).squeeze(-1)
        return out, log_sum

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.causal, ctx.rows, ctx.columns = inputs
        ctx.save_for_backward(q, k, v, *output)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 6
        q, k, v, out, log_sum = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        dq, dk, dv = (torch.zeros_like(x, dtype=log_sum.dtype) for x in (q, k, v))
        with without_autocast(q):
            # The softmax's gradient takes from each weight's what the weighted mean of its row is; that is dO . O.
            delta = (_wide(grad_out) * out).sum(-1, keepdim=True)  # (..., T, 1)
            for i in _blocks(q.shape[-2], ctx.rows):
                q_i, do_i = _wide(q[..., i, :]) * scale, _wide(grad_out[..., i, :])
                for j in _seen(i, k.shape[-2], ctx.columns, ctx.causal):
                    k_j, v_j = _wide(k[..., j, :]), _wide(v[..., j, :])
                    p = torch.exp(_scores(q_i, k_j, i, j, ctx.causal) - log_sum[..., i].unsqueeze(-1))  # (..., R, C)
                    dv[..., j, :] += p.mT @ do_i
                    ds = p * (do_i @ v_j.mT - delta[..., i, :])  # (..., R, C)
                    dq[..., i, :] += ds @ k_j
                    dk[..., j, :] += ds.mT @ q_i
        return (dq * scale).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None


def _scores(q: Tensor, k: Tensor, i: slice, j: slice, causal: bool) -> Tensor:
    """A block of scores; -inf where a query may not look."""
    s = q @ k.mT  # (..., R, C)
    if causal and j.stop - 1 > i.start:  # on the diagonal
        query, key = torch.arange(i.start, i.stop, device=s.device), torch.arange(j.start, j.stop, device=s.device)
        s = s.masked_fill(key > query.unsqueeze(1), -math.inf)
    return s


def _seen(i: slice, keys: int, columns: int, causal: bool) -> Iterator[slice]:
    """The blocks of keys that some query of a block sees; key 0, which all see, is in the first one."""
    return _blocks(min(i.stop, keys) if causal else keys, columns)


def _blocks(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
