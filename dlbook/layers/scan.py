"""Scans: what a recurrence needs is not one step after the other, only an operation that may be bracketed at will.

Blelloch (1990), Prefix sums and their applications, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf; for linear
recurrences Martin & Cundy (2018), https://arxiv.org/abs/1709.04057.

The linear recurrence h_t = a_t h_{t-1} + b_t is a chain of maps h -> a h + b, and maps may be composed in any order of
brackets. Mamba and RWKV stand on it.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    L  length    C  chunks    K  steps in a chunk
"""

import importlib.util
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Elements = tuple[Tensor, ...]

#: Steps in a chunk, K. On a CPU 8 to 32 take the same time.
CHUNK = 16


def scan_sequential(a: Tensor, b: Tensor, h0: Tensor | None = None, *, dim: int = 1) -> Tensor:
    """h_t = a_t h_{t-1} + b_t, one step after the other: for reading, and to compare with.

    Args, Shapes, Raises: as for `scan`, which gives the same numbers and gradients faster.

    Example:
        >>> scan_sequential(torch.tensor([2.0, 2, 2]), torch.tensor([1.0, 1, 1]), dim=0)
        tensor([1., 3., 7.])
    """
    a, b, h = _checked(a, b, h0, dim)
    steps = []
    for a_t, b_t in zip(a.unbind(dim), b.unbind(dim), strict=True):
        h = b_t if h is None else a_t * h + b_t
        steps.append(h)
    return torch.stack(steps, dim) if steps else b


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None, *, dim: int = 1) -> Tensor:
    """h_t = a_t h_{t-1} + b_t at all t, in a number of steps that grows with the logarithm of the length.

    The sequence is cut into chunks of K steps. All chunks go through their K steps side by side, each as if it started
    from 0, and keep the product of their a; what the chunks end with is again such a recurrence, C = L / K long, solved
    in the same way; its solution, times the products, is what each chunk had not seen. That is K log_K L steps.

    On a GPU this is one kernel, where Triton is installed. The gradients are one more scan, backwards; only a and h are
    kept for it. There is no division and no logarithm, so
    a may be 0, negative or complex.

    Args:
        a: Factor at each step.
        b: What is added at each step.
        h0: State before the first step; 0 if left out.
        dim: Which axis is time.

    float16 and bfloat16 are computed in float32, because every step would round, and given back in their own dtype.

    Shapes:
        a, b: (..., L, ...), any number of axes; a and b broadcast to each other, but for L.
        h0: the shape of both without L, or what broadcasts to it.
        returns: (..., L, ...), all states.

    Raises:
        ValueError: If a and b differ in length, number of axes or dtype, are bool, or shapes do not fit one another.

    Example:
        >>> scan(torch.tensor([2.0, 2, 2]), torch.tensor([1.0, 1, 1]), dim=0)
        tensor([1., 3., 7.])
        >>> scan(torch.full((2, 5, 1), 0.5), torch.ones(2, 5, 3)).shape
        torch.Size([2, 5, 3])
    """
    a, b, h0 = _checked(a, b, h0, dim)
    if b.shape[dim] == 0:
        return a + b  # nothing, which depends on both nevertheless
    dtype = b.dtype
    if dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
        h0 = None if h0 is None else h0.float()
    a, b = a.movedim(dim, 0), b.movedim(dim, 0)  # (L, ...)
    h: Tensor
    if torch.compiler.is_compiling():  # compilers cannot follow writing into parts, and fuse what is written out anyway
        b = b if h0 is None else torch.cat([torch.addcmul(b[:1], a[:1], h0), b[1:]])
        h = associative_scan(linear, (a, b), dim=0)[1]
    else:
        h = _Scan.apply(a, b, h0, False)  # type: ignore[no-untyped-call]
    return h.movedim(0, dim).to(dtype)


class _Scan(torch.autograd.Function):
    """The recurrence along the first axis, forwards or backwards in time; its gradients are one the other way.

    With g_t the gradient of all that follows with respect to h_t::

        g_t = grad_t + conj(a_{t+1}) g_{t+1}        grad a_t = g_t conj(h_{t-1})        grad b_t = g_t
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, h0: Tensor | None, backwards: bool) -> Tensor:
        if has_kernel(b):
            from dlbook.layers.scan_triton import linear_scan

            return linear_scan(a, b, h0, backwards=backwards)
        return chunked(a, b, h0, backwards=backwards)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, h0, ctx.backwards = inputs
        ctx.save_for_backward(a, output, h0)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """torch.func's axis becomes one more beside the others, right behind time."""
        a, b, h0 = (
            x
            if x is None
            else x.unsqueeze(at).expand(*x.shape[:at], info.batch_size, *x.shape[at:])
            if where is None
            else x.movedim(where, at)
            for x, where, at in zip(inputs[:3], in_dims[:3], (1, 1, 0), strict=True)
        )
        return _Scan.apply(a, b, h0, inputs[3]), 1  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, h, h0 = ctx.saved_tensors
        a = a.conj()
        front, rear = slice(None, -1), slice(1, None)
        g: Tensor = grad
        before, early = (rear, slice(-1, None)) if ctx.backwards else (front, slice(None, 1))
        if len(grad) > 1 and ctx.backwards:
            g = _Scan.apply(a[front], grad[rear], grad[0], False)  # type: ignore[no-untyped-call]
            g = torch.cat([grad[:1], g])
        elif len(grad) > 1:
            g = _Scan.apply(a[rear], grad[front], grad[-1], True)  # type: ignore[no-untyped-call]
            g = torch.cat([g, grad[-1:]])
        grad_a = grad_h0 = None
        if ctx.needs_input_grad[0]:
            first = torch.zeros_like(h[:1]) if h0 is None else h0.unsqueeze(0)
            last = torch.cat([h[before], first] if ctx.backwards else [first, h[before]])  # h_{t-1}
            grad_a = g * last.conj()
        if ctx.needs_input_grad[2]:
            grad_h0 = (a[early] * g[early]).squeeze(0)
        return grad_a, g, grad_h0, None


def has_kernel(x: Tensor) -> bool:
    """Whether a kernel of `dlbook.layers.scan_triton` computes on x: real numbers on a GPU that Triton knows.

    Example:
        >>> has_kernel(torch.zeros(3))
        False
    """
    return (
        x.is_cuda
        and x.dtype in (torch.float32, torch.float64)
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(x.device) >= (7, 5)  # a T4, or newer
    )


def chunked(
    a: Tensor, b: Tensor, h0: Tensor | None = None, *, backwards: bool = False, out: Tensor | None = None
) -> Tensor:
    """The recurrence along the first axis in chunks, without gradients; `scan` adds these and all checks.

    Args:
        a, b, h0: As for `scan`, but all of the full shape.
        backwards: Whether to start at the end: h_t = a_t h_{t+1} + b_t.
        out: Where to write, which may be b itself.

    Shapes: a, b (L, ...), h0 (...); returns (L, ...).

    Example:
        >>> chunked(torch.tensor([2.0, 2, 2]), torch.tensor([1.0, 1, 1]), backwards=True)
        tensor([7., 3., 1.])
    """
    h = torch.empty_like(b) if out is None else out
    length = b.shape[0]
    if length <= CHUNK:
        _within(a, b, h0, h, backwards)
        return h
    rest = length % CHUNK  # steps before the first whole chunk; they go first
    first, whole = slice(0, rest), slice(rest, None)
    if backwards:
        first, whole = slice(length - rest, None), slice(0, length - rest)
    if rest:
        _within(a[first], b[first], h0, h[first], backwards)
        h0 = h[first][0 if backwards else -1]

    # (K, C, ...)
    a, b, h_chunks = (
        x[whole].unflatten(0, (-1, CHUNK)).transpose(0, 1)  # type: ignore[no-untyped-call]
        for x in (a, b, h)
    )
    _within(a, b, None, h_chunks, backwards)
    product = torch.empty_like(a)  # of all factors since the chunk's start
    order = slice(None, None, -1) if backwards else slice(None)
    products, factors = product.unbind()[order], a.unbind()[order]
    products[0].copy_(factors[0])
    for (before, after), factor in zip(pairwise(products), factors[1:], strict=True):
        torch.mul(before, factor, out=after)
    ends = chunked(products[-1], h_chunks.unbind()[order][-1], h0, backwards=backwards)  # (C, ...)
    earlier, later = (slice(1, None), slice(None, -1)) if backwards else (slice(None, -1), slice(1, None))
    h_chunks[:, later].addcmul_(product[:, later], ends[earlier])
    if h0 is not None:
        start = -1 if backwards else 0
        h_chunks[:, start].addcmul_(product[:, start], h0)
    return h


def _within(a: Tensor, b: Tensor, h0: Tensor | None, h: Tensor, backwards: bool) -> None:
    """One step after the other along the first axis, into ``h``."""
    order = slice(None, None, -1) if backwards else slice(None)
    steps = (x.unbind()[order] for x in (a, b, h))  # much cheaper than to ask for each by its index
    for a_t, b_t, h_t in zip(*steps, strict=True):
        if h0 is None:
            h_t.copy_(b_t)
        else:
            torch.addcmul(b_t, a_t, h0, out=h_t)
        h0 = h_t


def linear(left: Elements, right: Elements) -> Elements:
    """First h -> a h + b, then h -> a' h + b': the map h -> a' a h + a' b + b'.

    Example:
        >>> linear((torch.tensor(2.0), torch.tensor(1.0)), (torch.tensor(3.0), torch.tensor(5.0)))
        (tensor(6.), tensor(8.))
    """
    (a, b), (a_next, b_next) = left, right
    return a_next * a, a_next * b + b_next


def associative_scan(
    combine: Callable[[Elements, Elements], Elements], elements: Elements, *, dim: int = 1
) -> Elements:
    """x_1, x_1 o x_2, x_1 o x_2 o x_3, ... for any operation o that is associative.

    Pairs of neighbours are combined, the scan of the pairs (half as long) gives every second result, and one more
    combination each of the others: 2 L combinations in 2 log2 L calls. Gradients are those of the calls.

    Args:
        combine: The operation on all positions at once: ``combine(left, right)``, tuples of tensors like ``elements``.
            Must be associative, (x o y) o z = x o (y o z), and need not be commutative.
        elements: The x_t, each a tuple of one or more tensors.
        dim: Which axis is time.

    Shapes: each tensor (..., L, ...), as long as the others; the results have the same shapes.

    Raises:
        ValueError: If there is no tensor, or their lengths differ.

    Example:
        >>> associative_scan(lambda x, y: (torch.maximum(x[0], y[0]),), (torch.tensor([2, 1, 3, 0]),), dim=0)
        (tensor([2, 2, 3, 3]),)
        >>> a, b = torch.full((1, 5), 2.0), torch.ones(1, 5)
        >>> associative_scan(linear, (a, b))[1]
        tensor([[ 1.,  3.,  7., 15., 31.]])
    """
    lengths = [_length(x, dim) for x in elements]
    if len(set(lengths)) != 1:
        raise ValueError(f"elements must be one or more tensors of one length, got lengths {lengths}")
    results = _pairs(combine, tuple(x.movedim(dim, 0) for x in elements), lengths[0])
    return tuple(x.movedim(0, dim) for x in results)


def _pairs(combine: Callable[[Elements, Elements], Elements], x: Elements, length: int) -> Elements:
    if length < 2:
        return x
    pairs = combine(tuple(part[0 : length - 1 : 2] for part in x), tuple(part[1::2] for part in x))
    second = _pairs(combine, pairs, length // 2)  # results 2, 4, 6, ...
    first = tuple(part[:1] for part in x)
    if length > 2:
        left = tuple(part[: (length - 1) // 2] for part in second)
        others = combine(left, tuple(part[2::2] for part in x))  # results 3, 5, 7, ...
        first = tuple(torch.cat(both) for both in zip(first, others, strict=True))
    return tuple(_interleave(*both) for both in zip(first, second, strict=True))


def _interleave(first: Tensor, second: Tensor) -> Tensor:
    """first[0], second[0], first[1], ...; first may be one longer."""
    together = torch.stack([first[: len(second)], second], 1).flatten(0, 1)
    return torch.cat([together, first[len(second) :]])


def _length(x: Tensor, dim: int) -> int:
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"no axis {dim} in shape {tuple(x.shape)}")
    return x.shape[dim]


def _checked(a: Tensor, b: Tensor, h0: Tensor | None, dim: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """All three expanded to one shape."""
    if a.ndim != b.ndim or _length(a, dim) != _length(b, dim):
        raise ValueError(f"a and b must have as many axes and steps, got {tuple(a.shape)}, {tuple(b.shape)}, {dim=}")
    if b.dtype == torch.bool:
        raise ValueError("a and b must be numbers, got torch.bool")
    if a.dtype != b.dtype or (h0 is not None and h0.dtype != b.dtype):
        raise ValueError(f"dtypes differ: {a.dtype}, {b.dtype}" + ("" if h0 is None else f", h0 {h0.dtype}"))
    try:
        a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
        if h0 is not None:
            h0 = h0.expand(a.select(dim, 0).shape if a.shape[dim] else _without(a, dim))
    except RuntimeError:
        start = "" if h0 is None else f", h0 {tuple(h0.shape)}"
        raise ValueError(f"shapes do not fit: a {tuple(a.shape)}, b {tuple(b.shape)}{start}") from None
    return a, b, h0


def _without(x: Tensor, dim: int) -> tuple[int, ...]:
    shape = list(x.shape)
    del shape[dim]
    return tuple(shape)
