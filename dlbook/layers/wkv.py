"""WKV, by which RWKV looks back: a mean of all values so far, weighted by their keys and by how long ago they were.

Version 4: Peng et al. (2023), RWKV: reinventing RNNs for the Transformer era, https://arxiv.org/abs/2305.13048, section
3.1.2 and appendix D. Version 6: Peng et al. (2024), Eagle and Finch, https://arxiv.org/abs/2404.05892, section 4.2.

Each version stands here as the recurrence, for reading and for one step at a time, and in a parallel form that gives the
same numbers and gradients. All is computed in float32 or float64, because every step would round.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length    D  channels    N  heads    K  width of a key    V  width of a value
    C  chunks    T  steps in a chunk
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dlbook.layers.scan import scan

#: Numerator, denominator, and the logarithm by whose exponential both were divided; each (B, D).
State4 = tuple[Tensor, Tensor, Tensor]

NEVER = -1e38  # logarithm of the weight of what was not seen; -inf would give NaN when subtracted from itself


def wkv4_sequential(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State4 | None = None) -> tuple[Tensor, State4]:
    """Version 4, one step after the other.

    ::

        y_t = (sum_{i<t} exp(k_i - (t - 1 - i) w) v_i + exp(u + k_t) v_t) / (the same without v)

    Numerator and denominator are kept divided by the exponential of the largest exponent so far, which would overflow.
    It cancels, so it is a constant for the gradient.

    Args, Shapes, Raises: as for `wkv4`.
    """
    dtype = v.dtype
    w, u, k, v, (numerator, denominator, largest) = _checked4(w, u, k, v, state)
    outputs = []
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):  # each (B, D)
        top = torch.maximum(largest, u + k_t).detach()
        past, now = torch.exp(largest - top), torch.exp(u + k_t - top)
        outputs.append((past * numerator + now * v_t) / (past * denominator + now))
        top = torch.maximum(largest - w, k_t).detach()
        past, now = torch.exp(largest - w - top), torch.exp(k_t - top)
        numerator, denominator, largest = past * numerator + now * v_t, past * denominator + now, top
    y = torch.stack(outputs, 1) if outputs else v
    return y.to(dtype), (numerator, denominator, largest)


def wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State4 | None = None) -> tuple[Tensor, State4]:
    """Version 4 at all steps at once.

    The largest exponent so far at step t is that of k_i + i w, less t w; with it, numerator and denominator are linear
    recurrences, solved by `dlbook.layers.scan.scan`.

    Args:
        w: By how much the logarithm of a weight falls with every step; positive.
        u: What the present step has in addition to its key.
        k: Keys, logarithms of weights.
        v: Values.
        state: As returned for the steps before; nothing if left out.

    Shapes:
        w, u: (D,).
        k, v: (B, L, D).
        returns: y (B, L, D) in the dtype of v, and the state behind the last step.

    Raises:
        ValueError: If shapes do not fit one another.

    Example:
        >>> k, v = torch.zeros(1, 3, 1), torch.tensor([[[1.0], [2], [3]]])
        >>> y, state = wkv4(torch.zeros(1), torch.zeros(1), k, v)  # all weigh the same
        >>> y.flatten()
        tensor([1.0000, 1.5000, 2.0000])
    """
    dtype = v.dtype
    w, u, k, v, (numerator, denominator, largest) = _checked4(w, u, k, v, state)
    if k.shape[1] == 0:
        return v.to(dtype), (numerator, denominator, largest)
    with torch.no_grad():
        t = torch.arange(k.shape[1] + 1, device=k.device, dtype=k.dtype).unsqueeze(1) * w  # (L + 1, D)
        exponents = torch.cat([largest.unsqueeze(1), k], 1) + t  # (B, L + 1, D)
        tops = exponents.cummax(1).values - t
    before, after = tops[:, :-1], tops[:, 1:]  # the largest exponent without and with step t
    weight = torch.exp(k - after)
    factor = torch.exp(before - w - after)
    start = torch.stack([numerator, denominator], 1)  # (B, 2, D)
    sums = scan(factor.unsqueeze(2), torch.stack([weight * v, weight], 2), start)  # (B, L, 2, D)
    earlier = torch.cat([start.unsqueeze(1), sums[:, :-1]], 1)
    top = torch.maximum(before, u + k).detach()
    past, now = torch.exp(before - top), torch.exp(u + k - top)  # (B, L, D)
    y = (past * earlier[:, :, 0] + now * v) / (past * earlier[:, :, 1] + now)
    return y.to(dtype), (sums[:, -1, 0], sums[:, -1, 1], after[:, -1])


def wkv6_sequential(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, u: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Version 6, one step after the other: each head's state is a matrix, and how fast it decays depends on the input.

    ::

        y_t = r_t (S_{t-1} + diag(u) k_t^T v_t)        S_t = diag(w_t) S_{t-1} + k_t^T v_t

    Args, Shapes, Raises: as for `wkv6`.
    """
    dtype = v.dtype
    r, k, v, log_w, u, s = _checked6(r, k, v, log_w, u, state)
    outputs = []
    for r_t, k_t, v_t, w_t in zip(r.unbind(1), k.unbind(1), v.unbind(1), log_w.exp().unbind(1), strict=True):
        kv = k_t.unsqueeze(3) * v_t.unsqueeze(2)  # (B, N, K, V)
        outputs.append((r_t.unsqueeze(3) * (s + u.unsqueeze(2) * kv)).sum(2))  # (B, N, V)
        s = w_t.unsqueeze(3) * s + kv
    y = torch.stack(outputs, 1) if outputs else v
    return y.to(dtype), s


def wkv6(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, u: Tensor, state: Tensor | None = None, *, chunk: int = 8
) -> tuple[Tensor, Tensor]:
    """Version 6 in chunks: within a chunk as attention, between chunks as a recurrence.

    With W_t the sum of log w from the chunk's start to step t, step i < t counts by exp(W_{t-1} - W_i), and what the
    chunk began with by exp(W_{t-1}). Only such differences are exponentiated, never above 0, so nothing overflows
    however fast the state decays. The states at the ends of the chunks are a scan.

    Args:
        r: What is looked for, "receptance".
        k: Keys.
        v: Values.
        log_w: Logarithm of the factor by which each row of the state decays, at most 0.
        u: Weight of the present step.
        state: S before the first step; 0 if left out.
        chunk: Steps in a chunk, T. Time and memory of a step grow with T K and with K V / T.

    Shapes:
        r, k, log_w: (B, L, N, K).
        v: (B, L, N, V).
        u: (N, K).
        state: (B, N, K, V).
        returns: y (B, L, N, V) in the dtype of v, and the last state.

    Raises:
        ValueError: If shapes do not fit one another, or the chunk is not positive.

    Example:
        >>> r = k = torch.ones(1, 3, 1, 1)
        >>> y, state = wkv6(r, k, torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), torch.ones(1, 1))
        >>> y.flatten(), state.item()  # without decay: sums
        (tensor([1., 3., 6.]), 6.0)
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    dtype, length = v.dtype, v.shape[1]
    r, k, v, log_w, u, start = _checked6(r, k, v, log_w, u, state)
    if length == 0:
        return v.to(dtype), start
    filled = (0, 0, 0, 0, 0, -length % chunk)  # with steps that change nothing
    # (B, C, N, T, ...)
    r, k, v, log_w = (
        F.pad(x, filled).unflatten(1, (-1, chunk)).transpose(2, 3)  # type: ignore[no-untyped-call]
        for x in (r, k, v, log_w)
    )
    total = log_w.cumsum(3)  # W, (B, C, N, T, K)
    so_far = total - log_w  # W_{t-1}

    # within: (B, C, N, T, T, K), the step that looks, the step seen
    later = torch.ones(chunk, chunk, dtype=torch.bool, device=r.device).triu().unsqueeze(2)
    decay = (so_far.unsqueeze(4) - total.unsqueeze(3)).masked_fill(later, NEVER).exp()
    scores = (r.unsqueeze(4) * k.unsqueeze(3) * decay).sum(5)
    scores = scores + torch.diag_embed((r * u.unsqueeze(1) * k).sum(4))  # (B, C, N, T, T)
    y = scores @ v  # (B, C, N, T, V)

    # between: what each chunk adds to the state, and how much of the state it leaves
    end = total[:, :, :, -1:]  # (B, C, N, 1, K)
    added = (k * (end - total).exp()).mT @ v  # (B, C, N, K, V)
    states = scan(end.exp().mT, added, start)
    starts = torch.cat([start.unsqueeze(1), states[:, :-1]], 1)
    y = y + (r * so_far.exp()) @ starts
    y = y.transpose(2, 3).flatten(1, 2)[:, :length]  # (B, L, N, V)
    return y.to(dtype), states[:, -1]


def _checked4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State4 | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, State4]:
    """All in one precision, with a state."""
    if k.ndim != 3 or v.shape != k.shape or w.shape != k.shape[2:] or u.shape != k.shape[2:]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (w, u, k, v))
        raise ValueError(f"w and u must be (channels,), k and v (batch, length, channels), got {shapes}")
    dtype = torch.promote_types(k.dtype, torch.float32)
    zeros = k.new_zeros(k.shape[0], k.shape[2], dtype=dtype)
    if state is None:
        state = zeros, zeros, zeros + NEVER
    elif len(state) != 3 or any(part.shape != zeros.shape for part in state):
        shapes = ", ".join(str(tuple(part.shape)) for part in state)
        raise ValueError(f"state must be three times {tuple(zeros.shape)}, got {shapes}")
    numerator, denominator, largest = (part.to(dtype) for part in state)
    return w.to(dtype), u.to(dtype), k.to(dtype), v.to(dtype), (numerator, denominator, largest)


def _checked6(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, u: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All in one precision, with a state."""
    same = k.ndim == 4 and v.ndim == 4 and k.shape == r.shape == log_w.shape
    if not same or v.shape[:3] != k.shape[:3] or u.shape != k.shape[2:]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (r, k, v, log_w, u))
        raise ValueError(f"r, k, v and log_w must be (batch, length, heads, width), u (heads, width), got {shapes}")
    shape = (k.shape[0], *k.shape[2:], v.shape[3])
    if state is not None and state.shape != shape:
        raise ValueError(f"state must be {shape}, got {tuple(state.shape)}")
    dtype = torch.promote_types(k.dtype, torch.float32)
    state = k.new_zeros(shape, dtype=dtype) if state is None else state
    r, k, v, log_w, u, state = (x.to(dtype) for x in (r, k, v, log_w, u, state))
    return r, k, v, log_w, u, state
