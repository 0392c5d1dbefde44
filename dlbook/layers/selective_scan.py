"""The selective state space of Mamba: a linear recurrence whose factors depend on the input.

Gu & Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, https://arxiv.org/abs/2312.00752,
sections 3.2 and 3.3.

Each of D channels has a state of N numbers, stepped by::

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t        y_t = C_t h_t

where dt, B and C come from the input: a small dt_t keeps the state, a large one replaces it. The factor exp(dt A) is
that of a system whose input is held constant during dt (the paper's equation 4); dt B is what the same equation gives
for B when dt A is small, and what the authors' code takes. `readable` is these lines,
on top of `dlbook.layers.scan`; it keeps arrays of B L N D numbers. `selective_scan` goes through the sequence in blocks
that stay in the processor's cache, keeps one state a block, and computes the others again for the gradient, as the
paper's kernel does for a GPU's memory (section 3.3.2). `dlbook.layers.scan_triton` has such a kernel.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length    D  channels    N  numbers in a channel's state    T  steps in a block
    (As arguments, A, B and C are the paper's matrices.)
"""

from typing import Any

import torch
from torch import Tensor

from dlbook.layers.operands import check_shapes, widened, without_autocast
from dlbook.layers.scan import chunked, has_kernel, scan

#: Numbers in a block of states: half a megabyte in float32, so that a few of them fit into a core's own cache.
BLOCK = 2**17


def readable(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The equations, for reading and for compilers, which fuse them by themselves.

    Args, Shapes, Raises: as for `selective_scan`, which gives the same numbers and gradients.
    """
    dtype = x.dtype
    x, dt, A, B, C, h0 = _checked(x, dt, A, B, C, h0)
    a = torch.exp(dt.unsqueeze(2) * A.t())  # (B, L, N, D)
    b = (dt * x).unsqueeze(2) * B.unsqueeze(3)  # (B, L, N, D)
    h = scan(a, b, h0)
    y = (C.unsqueeze(3) * h).sum(2)  # (B, L, D); no product of matrices, which autocast would round
    return y.to(dtype), h[:, -1] if h.shape[1] else h0


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = C_t h_t with h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t. Its gradients cannot be differentiated again.

    On a GPU this is a kernel, where Triton is installed; without it, on other devices and within compilers it is
    `readable`. float16 and bfloat16 are computed in float32,
    because every step would round.

    Args:
        x: Input of each channel.
        dt: Step sizes, positive.
        A: Rates, negative, so that the state decays.
        B: How the input enters the state.
        C: How the state is read.
        h0: State before the first step; 0 if left out.

    Shapes:
        x, dt: (B, L, D).
        A: (D, N).
        B, C: (B, L, N).
        h0: (B, N, D).
        returns: y (B, L, D), and the last state (B, N, D), which is float32 where x is float16 or bfloat16.

    Raises:
        ValueError: If shapes do not fit one another, or numbers are not real floating-point ones.

    Example:
        >>> x, dt, A = torch.ones(1, 3, 1), torch.ones(1, 3, 1), torch.tensor([[-1.0]])
        >>> y, h = selective_scan(x, dt, A, torch.ones(1, 3, 1), torch.full((1, 3, 1), 2.0))
        >>> y.flatten(), h.flatten()  # 2, 2 (1 + 1/e), 2 (1 + 1/e + 1/e^2)
        (tensor([2.0000, 2.7358, 3.0064]), tensor([1.5032]))
    """
    if torch.compiler.is_compiling():
        return readable(x, dt, A, B, C, h0)
    dtype = x.dtype
    x, dt, A, B, C, h0 = _checked(x, dt, A, B, C, h0)
    if has_kernel(x):
        from dlbook.layers.scan_triton import SelectiveScan

        y, h = SelectiveScan.apply(x, dt, A, B, C, h0)  # type: ignore[no-untyped-call]
    elif x.device.type == "cpu":
        with without_autocast(x):
            y, h = _SelectiveScan.apply(x, dt, A, B, C, h0)  # type: ignore[no-untyped-call]
    else:
        y, h = readable(x, dt, A, B, C, h0)
    return y.to(dtype), h


class _SelectiveScan(torch.autograd.Function):
    """In blocks of T steps; within a block the axes are (T, B, N, D), so that each step is contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        A = A.t().contiguous()  # (N, D)
        x, dt, B, C = (part.transpose(0, 1) for part in (x, dt, B, C))  # (L, B, ...)
        h, starts, ys = h0, [], []
        for block in _blocks(len(x), h0):
            starts.append(h)
            _, states = _states(x[block], dt[block], A, B[block], h)
            ys.append((C[block].unsqueeze(2) @ states).squeeze(2))  # (T, B, D)
            h = states[-1].clone()  # without the rest of the block
        ctx.save_for_backward(x, dt, A, B, C, *starts)
        return torch.cat([x[:0], *ys]).transpose(0, 1), h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_h: Tensor) -> tuple[Tensor, ...]:
        with without_autocast(grad_y):  # which may be on where the gradient is asked for
            return _gradients(ctx.saved_tensors, grad_y, grad_h)


def _gradients(saved: tuple[Tensor, ...], grad_y: Tensor, grad_h: Tensor) -> tuple[Tensor, ...]:
    """With g_t the gradient of all that follows with respect to h_t, a scan back in time::

    g_t = C_t grad y_t + a_{t+1} g_{t+1}     a_t = exp(dt_t A)     u_t = dt_t x_t
    grad C_t = h_t grad y_t    grad B_t = g_t u_t    grad u_t = B_t g_t    grad (dt_t A) = g_t a_t h_{t-1}
    """
    x, dt, A, B, C, *starts = saved
    grad_y = grad_y.transpose(0, 1)  # (L, B, D)
    grad_x, grad_dt, grad_B, grad_C = (torch.empty_like(part) for part in (x, dt, B, C))
    grad_A = torch.zeros_like(A)
    for block, start in zip(reversed(_blocks(len(x), grad_h)), reversed(starts), strict=True):
        a, h = _states(x[block], dt[block], A, B[block], start)
        grad_C[block] = (h @ grad_y[block].unsqueeze(3)).squeeze(3)
        g = C[block].unsqueeze(3) * grad_y[block].unsqueeze(2)  # (T, B, N, D)
        g[-1] += grad_h
        chunked(a[1:], g[:-1], g[-1], backwards=True, out=g[:-1])
        grad_h = a[0] * g[0]  # for the block before
        grad_B[block] = (g @ (dt[block] * x[block]).unsqueeze(3)).squeeze(3)
        grad_u = (B[block].unsqueeze(2) @ g).squeeze(2)  # (T, B, D)
        grad_x[block] = grad_u * dt[block]
        exponent = a.mul_(g)
        exponent[1:] *= h[:-1]
        exponent[0] *= start
        grad_dt[block] = torch.addcmul((exponent * A).sum(2), grad_u, x[block])
        grad_A += exponent.mul_(dt[block].unsqueeze(2)).sum((0, 1))
    first = (part.transpose(0, 1) for part in (grad_x, grad_dt, grad_B, grad_C))
    grad_x, grad_dt, grad_B, grad_C = first
    return grad_x, grad_dt, grad_A.t(), grad_B, grad_C, grad_h


def _states(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Factors and states of a block, (T, B, N, D) both."""
    a = (dt.unsqueeze(2) * A).exp_()
    h = (dt * x).unsqueeze(2) * B.unsqueeze(3)
    return a, chunked(a, h, start, out=h)


def _blocks(length: int, state: Tensor) -> list[slice]:
    """Cuts the time where a block of states has about BLOCK numbers, but not below 4 steps."""
    steps = max(4, BLOCK // max(1, state.numel()))
    return [slice(start, start + steps) for start in range(0, length, steps)]


def _checked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All in one precision, with a state."""
    if x.ndim != 3 or A.ndim != 2:
        raise ValueError(
            f"x must be (batch, length, channels) and A (channels, N), got {tuple(x.shape)}, {tuple(A.shape)}"
        )
    (batch, length, channels), n = x.shape, A.shape[1]
    state = batch, n, channels
    shapes = {"dt": x.shape, "A": (channels, n), "B": (batch, length, n), "C": (batch, length, n), "h0": state}
    check_shapes(shapes, {"dt": dt, "A": A, "B": B, "C": C, "h0": h0})
    x, dt, A, B, C = widened(x, dt, A, B, C)
    return x, dt, A, B, C, x.new_zeros(state) if h0 is None else widened(x, h0)[1]
