"""State-space duality of Mamba-2: one map of sequences, computed as a recurrence, as attention, or as both in turns.

Dao & Gu (2024), Transformers are SSMs, https://arxiv.org/abs/2405.21060, sections 3 to 6.

Mamba-2 lets a head's whole state decay by one number a_t = exp(dt_t A), where Mamba has one for each entry. Then the
recurrence h_t = a_t h_{t-1} + dt_t B_t x_t, y_t = C_t h_t written out is linear attention with a mask that decays::

    y_t = sum_{i <= t} (C_t . B_i) (a_{i+1} ... a_t) dt_i x_i

`ssd_scan` takes time and memory that grow with L, in arrays of L N P numbers; `ssd_quadratic` takes products of matrices
that grow with L^2; `ssd` is quadratic within chunks and a scan between them, and takes the best of both.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length    H  heads    P  width of a head    N  size of the state for each of the P
    K  chunks    T  steps in a chunk
    (As arguments, A, B and C are the paper's.)
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dlbook.layers.operands import check_shapes, widened, without_autocast
from dlbook.layers.scan import scan


def ssd_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The recurrence. Args, Shapes, Raises: as for `ssd`."""
    dtype = x.dtype
    x, dt, A, B, C, h0 = _checked(x, dt, A, B, C, h0)
    a = torch.exp(dt * A)[..., None, None]  # (B, L, H, 1, 1)
    u = dt.unsqueeze(3) * x  # (B, L, H, P)
    h = scan(a, B[:, :, None, :, None] * u.unsqueeze(3), h0)  # (B, L, H, N, P)
    y = (C[:, :, None, :, None] * h).sum(3)  # (B, L, H, P)
    return y.to(dtype), h[:, -1] if h.shape[1] else h0


def ssd_quadratic(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Attention without a softmax, from a state of 0. Args, Shapes, Raises: as for `ssd`; returns y alone."""
    dtype = x.dtype
    x, dt, A, B, C, _ = _checked(x, dt, A, B, C, None)
    mask = _decay((dt * A).cumsum(1).mT)  # (B, H, L, L)
    with without_autocast(x):
        scores = (C @ B.mT).unsqueeze(1) * mask
        y = scores @ (dt.unsqueeze(3) * x).transpose(1, 2)  # (B, H, L, P)
    return y.transpose(1, 2).to(dtype)


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None = None, *, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Quadratic within chunks of T steps, a scan of the states between them.

    A later step of the chunk counts 0 times, so NaN reaches back to its chunk's first step.

    Args:
        x: Input of each head.
        dt: Step sizes, positive.
        A: Rate of each head, negative, so that the state decays.
        B: How the input enters the state; keys, in the language of attention.
        C: How the state is read; queries.
        h0: State before the first step; 0 if left out.
        chunk: Steps in a chunk, T.

    float16 and bfloat16 are computed in float32, and y is given back in the dtype of x.

    Shapes:
        x: (B, L, H, P).
        dt: (B, L, H).
        A: (H,).
        B, C: (B, L, N), the same for all heads.
        h0: (B, H, N, P).
        returns: y (B, L, H, P), and the last state (B, H, N, P).

    Raises:
        ValueError: If shapes do not fit one another, numbers are not real floating-point ones, or the chunk is not
            positive.

    Example:
        >>> x, dt, ones = torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1), torch.ones(1, 3, 1)
        >>> y, h = ssd(x, dt, torch.tensor([-1.0]), ones, ones, chunk=2)
        >>> y.flatten(), h.flatten()  # 1, 1 + 1/e, 1 + 1/e + 1/e^2
        (tensor([1.0000, 1.3679, 1.5032]), tensor([1.5032]))
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    dtype = x.dtype
    x, dt, A, B, C, h0 = _checked(x, dt, A, B, C, h0)
    if x.shape[1] == 0:
        return x.to(dtype), h0
    with without_autocast(x):
        y, h = _in_chunks(dt.unsqueeze(3) * x, (dt * A).unsqueeze(3), B, C, h0, chunk)
    return y.to(dtype), h


def _in_chunks(u: Tensor, exponent: Tensor, B: Tensor, C: Tensor, h0: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """h_t = exp(exponent_t) h_{t-1} + B_t u_t, y_t = C_t h_t, with u (B, L, H, P) and exponent (B, L, H, 1)."""
    length = u.shape[1]
    filled = -length % chunk  # with steps that change nothing
    u, exponent = (_chunks(F.pad(part, (0, 0, 0, 0, 0, filled)), chunk).transpose(2, 3) for part in (u, exponent))
    B, C = (_chunks(F.pad(part, (0, 0, 0, filled)), chunk) for part in (B, C))  # (B, K, T, N)
    total = exponent.squeeze(4).cumsum(3)  # (B, K, H, T), logarithm of all decay since the chunk's start

    y = ((C @ B.mT).unsqueeze(2) * _decay(total)) @ u  # (B, K, H, T, P), of what the chunk itself reads
    until_end = (total[..., -1:] - total).exp().unsqueeze(4)
    added = B.mT.unsqueeze(2) @ (until_end * u)  # (B, K, H, N, P)
    states = scan(total[..., -1].exp()[..., None, None], added, h0)
    starts = torch.cat([h0.unsqueeze(1), states[:, :-1]], 1)
    y = y + total.exp().unsqueeze(4) * (C.unsqueeze(2) @ starts)
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[:, -1]  # (B, L, H, P)


def _decay(total: Tensor) -> Tensor:
    """exp(total_t - total_i) for i <= t, else 0; never of a positive number, so nothing overflows."""
    length = total.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool, device=total.device).triu(1)
    return (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(later, -torch.inf).exp()


def _chunks(x: Tensor, steps: int) -> Tensor:
    chunks: Tensor = x.unflatten(1, (-1, steps))  # type: ignore[no-untyped-call]
    return chunks


def _checked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All in one precision, with a state."""
    if x.ndim != 4 or B.ndim != 3:
        raise ValueError(
            f"x must be (batch, length, heads, P) and B (batch, length, N), got {tuple(x.shape)}, {tuple(B.shape)}"
        )
    (batch, length, heads, width), n = x.shape, B.shape[2]
    state = batch, heads, n, width
    shapes = {
        "dt": (batch, length, heads), "A": (heads,), "B": (batch, length, n), "C": (batch, length, n), "h0": state,
    }  # fmt: skip
    check_shapes(shapes, {"dt": dt, "A": A, "B": B, "C": C, "h0": h0})
    x, dt, A, B, C = widened(x, dt, A, B, C)
    return x, dt, A, B, C, x.new_zeros(state) if h0 is None else widened(x, h0)[1]
