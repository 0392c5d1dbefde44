"""The scans of `dlbook.layers.scan` and `dlbook.layers.selective_scan` as Triton kernels, for NVIDIA and AMD GPUs.

Each program of a kernel goes through time for a few channels, T steps at a time. Within T steps it is an associative scan
on the chip; from one T to the next it hands on a state in registers. So every number is read and written once.

The selective scan never stores its B L N D states (section 3.3.2 of the paper, https://arxiv.org/abs/2312.00752): going
forward it keeps one state every T steps, going backward it computes the others again from those.

The kernels need the package triton, which PyTorch for CUDA brings. `scan` and `selective_scan` take them by themselves.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length    D  channels    N  numbers in a channel's state    T  steps at a time    C  times T steps
    W  channels of one program    P, Q  axes beside time
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dlbook.layers.operands import without_autocast

try:
    import triton
    import triton.language as tl
except ImportError:  # then this module can be imported, as any of the package, and read
    triton, tl = SimpleNamespace(jit=lambda function: function), SimpleNamespace(constexpr=int)

#: Steps and channels of one program of `linear_scan`.
STEPS, CHANNELS = 64, 32
#: Steps of `selective_scan`, T, and about how many numbers of a state and T steps one program holds, T N W.
SELECTIVE_STEPS, HELD = 16, 4096


@triton.jit
def _then(a, b, a_next, b_next):
    """First h -> a h + b, then h -> a' h + b'."""
    return a_next * a, a_next * b + b_next


@triton.jit
def _linear_scan(
    a_ptr, b_ptr, h0_ptr, h_ptr, length, width, a_t, a_p, a_q, b_t, b_p, b_q, s_p, s_q, h_t, h_p, h_q,
    STARTED: tl.constexpr, BACKWARDS: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    groups = tl.cdiv(width, W)
    p = (tl.program_id(0) // groups).to(tl.int64)
    q = (tl.program_id(0) % groups).to(tl.int64) * W + tl.arange(0, W)
    t = tl.arange(0, T)[:, None].to(tl.int64)
    beside = q < width
    a_ptr, b_ptr, h_ptr = a_ptr + p * a_p + q * a_q, b_ptr + p * b_p + q * b_q, h_ptr + p * h_p + q * h_q
    carry = tl.zeros([W], dtype=h_ptr.dtype.element_ty)
    if STARTED:
        carry = tl.load(h0_ptr + p * s_p + q * s_q, mask=beside, other=0.0)
    for first in range(0, length, T):
        step = first + t
        there = (step < length) & beside[None, :]
        if BACKWARDS:
            step = length - 1 - step
        a = tl.load(a_ptr[None, :] + step * a_t, mask=there, other=1.0)
        b = tl.load(b_ptr[None, :] + step * b_t, mask=there, other=0.0)
        goes_on = t == 0
        if not STARTED:
            goes_on &= first > 0  # the first factor of all has nothing to act on, whatever it is
        b = tl.where(goes_on, b + a * carry[None, :], b)
        _, h = tl.associative_scan((a, b), 0, _then)
        tl.store(h_ptr[None, :] + step * h_t, h, mask=there)
        carry = tl.sum(tl.where(t == T - 1, h, 0.0), axis=0)


def linear_scan(a: Tensor, b: Tensor, h0: Tensor | None = None, *, backwards: bool = False) -> Tensor:
    """What `dlbook.layers.scan.chunked` gives, along the first axis and without gradients.

    Args, Shapes: as there; a and b of the same shape, float32 or float64, anywhere in memory.
    """
    if not b.numel():
        return torch.empty_like(b)
    shape, length = b.shape, b.shape[0]
    sides = (shape[1] if b.ndim > 2 else 1, -1)  # P, Q
    a, b = a.reshape(length, *sides), b.reshape(length, *sides)
    h = torch.empty_like(b)
    state = b[0] if h0 is None else h0.reshape(sides)  # not read if there is none
    p, q = h.shape[1:]
    with _on(h):
        _linear_scan[(p * triton.cdiv(q, CHANNELS),)](
            a, b, state, h, length, q, *a.stride(), *b.stride(), *state.stride(), *h.stride(),
            STARTED=h0 is not None, BACKWARDS=backwards, T=STEPS, W=CHANNELS,
        )  # fmt: skip
    return h.reshape(shape)


@triton.jit
def _rows(ptr, block, step, length, size, column, there):
    """Steps of a tensor (B, L, size), 0 where there are none."""
    offsets = (block * length + step)[:, None] * size + column[None, :]
    return tl.load(ptr + offsets, mask=((step >= 0) & (step < length))[:, None] & there[None, :], other=0.0)


@triton.jit
def _keep_rows(ptr, block, step, length, size, column, there, value):
    offsets = (block * length + step)[:, None] * size + column[None, :]
    tl.store(ptr + offsets, value, mask=(step < length)[:, None] & there[None, :])


@triton.jit
def _inputs(x_ptr, dt_ptr, b_ptr, rates, batch, step, length, width, size, d, n, is_d, is_n):
    """x and dt (T, W), B (T, N, 1), the factors of the state and what is added to it (T, N, W).

    Where there is no step, dt is 0: the factor is 1, and nothing is added.
    """
    x, dt = _rows(x_ptr, batch, step, length, width, d, is_d), _rows(dt_ptr, batch, step, length, width, d, is_d)
    b = _rows(b_ptr, batch, step, length, size, n, is_n)[:, :, None]
    return x, dt, b, tl.exp(dt[:, None, :] * rates[None, :, :]), b * (dt * x)[:, None, :]


@triton.jit
def _selective_forward(
    x_ptr, dt_ptr, a_ptr, b_ptr, c_ptr, h0_ptr, y_ptr, starts_ptr, length, width, size,
    T: tl.constexpr, N: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0).to(tl.int64)
    d, n, t = tl.program_id(1).to(tl.int64) * W + tl.arange(0, W), tl.arange(0, N).to(tl.int64), tl.arange(0, T)
    is_d, is_n = d < width, n < size
    inner = n[:, None] * width + d[None, :]  # (N, W), within a state
    is_state = is_n[:, None] & is_d[None, :]
    rates = tl.load(a_ptr + inner, mask=is_state, other=0.0)
    h = tl.load(h0_ptr + batch * size * width + inner, mask=is_state, other=0.0)
    chunks = tl.cdiv(length, T)
    for chunk in range(0, chunks):
        step = chunk * T + t.to(tl.int64)
        tl.store(starts_ptr + (batch * (chunks + 1) + chunk) * size * width + inner, h, mask=is_state)
        _, _, _, a, added = _inputs(x_ptr, dt_ptr, b_ptr, rates, batch, step, length, width, size, d, n, is_d, is_n)
        added = tl.where((t == 0)[:, None, None], added + a * h[None, :, :], added)
        _, states = tl.associative_scan((a, added), 0, _then)
        y = tl.sum(_rows(c_ptr, batch, step, length, size, n, is_n)[:, :, None] * states, axis=1)
        _keep_rows(y_ptr, batch, step, length, width, d, is_d, y)
        h = tl.sum(tl.where((t == T - 1)[:, None, None], states, 0.0), axis=0)
    tl.store(starts_ptr + (batch * (chunks + 1) + chunks) * size * width + inner, h, mask=is_state)


@triton.jit
def _selective_backward(
    x_ptr, dt_ptr, a_ptr, b_ptr, c_ptr, starts_ptr, grad_y_ptr, grad_h_ptr,
    grad_x_ptr, grad_dt_ptr, grad_a_ptr, grad_b_ptr, grad_c_ptr, grad_h0_ptr, length, width, size,
    T: tl.constexpr, N: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The equations of `dlbook.layers.selective_scan._gradients`, T steps at a time from the end."""
    batch, group = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    d, n, t = group * W + tl.arange(0, W), tl.arange(0, N).to(tl.int64), tl.arange(0, T)
    is_d, is_n = d < width, n < size
    inner = n[:, None] * width + d[None, :]
    is_state = is_n[:, None] & is_d[None, :]
    own = batch * size * width + inner
    rates = tl.load(a_ptr + inner, mask=is_state, other=0.0)
    g_later = tl.load(grad_h_ptr + own, mask=is_state, other=0.0)  # a_{t+1} g_{t+1}, from the steps that follow
    grad_rates = tl.zeros([N, W], dtype=rates.dtype)
    chunks = tl.cdiv(length, T)
    part = group * tl.num_programs(0) + batch  # the sums over channels are finished outside, always in the same order
    first, last = (t == 0)[:, None, None], (t == T - 1)[:, None, None]
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        step = chunk * T + t.to(tl.int64)
        h = tl.load(starts_ptr + (batch * (chunks + 1) + chunk) * size * width + inner, mask=is_state, other=0.0)
        x, dt, b, a, added = _inputs(x_ptr, dt_ptr, b_ptr, rates, batch, step, length, width, size, d, n, is_d, is_n)

        # the states before each step: a scan of the inputs one step earlier, which starts with h
        _, _, _, a_before, before = _inputs(
            x_ptr, dt_ptr, b_ptr, rates, batch, step - 1, length, width, size, d, n, is_d, is_n
        )
        _, before = tl.associative_scan((a_before, tl.where(first, h[None, :, :], before)), 0, _then)
        kept = a * before

        # g: a scan from the end, which starts with what the later steps hand over
        grad_y = _rows(grad_y_ptr, batch, step, length, width, d, is_d)[:, None, :]  # (T, 1, W)
        g = _rows(c_ptr, batch, step, length, size, n, is_n)[:, :, None] * grad_y
        dt_after = _rows(dt_ptr, batch, step + 1, length, width, d, is_d)
        a_after = tl.exp(dt_after[:, None, :] * rates[None, :, :])
        _, g = tl.associative_scan((a_after, tl.where(last, g + g_later[None, :, :], g)), 0, _then, reverse=True)
        g_later = tl.sum(tl.where(first, a * g, 0.0), axis=0)

        exponent = g * kept
        grad_u = tl.sum(b * g, axis=1)  # (T, W)
        grad_dt = tl.sum(exponent * rates[None, :, :], axis=1) + grad_u * x
        grad_rates += tl.sum(exponent * dt[:, None, :], axis=0)
        _keep_rows(grad_x_ptr, batch, step, length, width, d, is_d, grad_u * dt)
        _keep_rows(grad_dt_ptr, batch, step, length, width, d, is_d, grad_dt)
        _keep_rows(grad_b_ptr, part, step, length, size, n, is_n, tl.sum(g * (dt * x)[:, None, :], axis=2))
        _keep_rows(grad_c_ptr, part, step, length, size, n, is_n, tl.sum((kept + added) * grad_y, axis=2))
    tl.store(grad_a_ptr + own, grad_rates, mask=is_state)
    tl.store(grad_h0_ptr + own, g_later, mask=is_state)


class SelectiveScan(torch.autograd.Function):
    """`dlbook.layers.selective_scan.selective_scan` on checked arguments of one precision, float32 or float64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, h0 = (part.contiguous() for part in (x, dt, A.t(), B, C, h0))
        batch, length, width = x.shape
        sizes = _sizes(h0)
        y = torch.empty_like(x)
        starts = h0.new_empty(batch, triton.cdiv(length, sizes["T"]) + 1, *h0.shape[1:])  # (B, C + 1, N, D)
        if h0.numel():
            with _on(x):
                _selective_forward[batch, triton.cdiv(width, sizes["W"])](
                    x, dt, A, B, C, h0, y, starts, length, width, h0.shape[1], **sizes
                )
        ctx.save_for_backward(x, dt, A, B, C, starts)
        return y, starts[:, -1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_h: Tensor) -> tuple[Tensor, ...]:
        x, dt, A, B, C, starts = ctx.saved_tensors
        grad_y, grad_h = grad_y.contiguous(), grad_h.contiguous()
        batch, length, width = x.shape
        sizes = _sizes(grad_h)
        groups = triton.cdiv(width, sizes["W"])
        grad_x, grad_dt, grad_h0 = torch.empty_like(x), torch.empty_like(dt), grad_h.clone()
        grad_A = torch.zeros_like(grad_h)  # (B, N, D), of each row of the batch
        grad_B, grad_C = (part.new_zeros(groups, *part.shape) for part in (B, C))  # of some channels each
        if grad_h.numel():
            with _on(x), without_autocast(x):
                _selective_backward[batch, groups](
                    x, dt, A, B, C, starts, grad_y, grad_h, grad_x, grad_dt, grad_A, grad_B, grad_C, grad_h0,
                    length, width, grad_h.shape[1], **sizes,
                )  # fmt: skip
        return grad_x, grad_dt, grad_A.sum(0).t(), grad_B.sum(0), grad_C.sum(0), grad_h0


def _sizes(state: Tensor) -> dict[str, int]:
    """T, N and W of a program, powers of 2, for states (B, N, D)."""
    n = triton.next_power_of_2(max(1, state.shape[1]))
    width = min(HELD // (SELECTIVE_STEPS * n), triton.next_power_of_2(max(1, state.shape[2])))
    return {"T": SELECTIVE_STEPS, "N": n, "W": max(1, width)}


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Kernels start on the current GPU, which need not be that of x; the interpreter knows none."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
