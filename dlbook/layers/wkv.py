"""WKV, by which RWKV looks back: a mean of all values so far, weighted by their keys and by how long ago they were.

Version 4: Peng et al. (2023), RWKV: reinventing RNNs for the Transformer era, https://arxiv.org/abs/2305.13048, section
3.1.2 and appendix D. Version 6: Peng et al. (2024), Eagle and Finch, https://arxiv.org/abs/2404.05892, section 4.2.
Version 7: Peng et al. (2025), RWKV-7 "Goose", https://arxiv.org/abs/2503.14456, section 4.1.

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

from dlbook.layers.operands import check_shapes, widened, without_autocast
from dlbook.layers.scan import associative_scan, scan

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
        ValueError: If shapes do not fit one another, or numbers are not real floating-point ones.

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
    however fast the state decays. The states at the ends of the chunks are a scan. A later step of the chunk counts 0
    times, so NaN reaches back to its chunk's first step.

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
        ValueError: If shapes do not fit one another, numbers are not real floating-point ones, or the chunk is not
            positive.

    Example:
        >>> r = k = torch.ones(1, 3, 1, 1)
        >>> y, state = wkv6(r, k, torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), torch.ones(1, 1))
        >>> y.flatten(), state.item()  # without decay: sums
        (tensor([1., 3., 6.]), 6.0)
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    dtype = v.dtype
    r, k, v, log_w, u, s = _checked6(r, k, v, log_w, u, state)
    if v.shape[1] == 0:
        return v.to(dtype), s
    with without_autocast(v):
        y, s = _chunks6(r, k, v, log_w, u, s, chunk)
    return y.to(dtype), s


def _chunks6(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, u: Tensor, start: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    length = v.shape[1]
    r, k, v, log_w = (_cut(x, chunk) for x in (r, k, v, log_w))  # (B, C, N, T, ...)
    total = log_w.cumsum(3)  # W, (B, C, N, T, K)
    so_far = total - log_w  # W_{t-1}

    # within: (B, C, N, T, T, K), the step that looks, the step seen
    scores = (r.unsqueeze(4) * k.unsqueeze(3) * _decay(so_far, total)).sum(5)
    scores = scores + torch.diag_embed((r * u.unsqueeze(1) * k).sum(4))  # (B, C, N, T, T)
    y = scores @ v  # (B, C, N, T, V)

    # between: what each chunk adds to the state, and how much of the state it leaves
    end = total[:, :, :, -1:]  # (B, C, N, 1, K)
    added = (k * (end - total).exp()).mT @ v  # (B, C, N, K, V)
    states = scan(end.exp().mT, added, start)
    starts = torch.cat([start.unsqueeze(1), states[:, :-1]], 1)
    y = y + (r * so_far.exp()) @ starts
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[:, -1]  # (B, L, N, V)


def wkv7_sequential(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, kappa: Tensor, a: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Version 7, one step after the other: what the state holds at a key can be taken out before a value is put in.

    ::

        S_t = diag(w_t) S_{t-1} - (a_t kappa_t)^T (kappa_t S_{t-1}) + k_t^T v_t        y_t = r_t S_t

    kappa_t S_{t-1} is what the state answers to the key kappa_t. With w = a = 1 and kappa = k of length 1, this is the
    delta rule: the old value goes, v_t comes. The paper writes the state the other way round, S transposed.

    Args, Shapes, Raises: as for `wkv7`.
    """
    dtype = v.dtype
    r, k, v, log_w, kappa, a, s = _checked7(r, k, v, log_w, kappa, a, state)
    outputs = []
    steps = (x.unbind(1) for x in (r, k, v, log_w.exp(), kappa, a * kappa))
    for r_t, k_t, v_t, w_t, kappa_t, taken_t in zip(*steps, strict=True):  # (B, N, K), but v_t (B, N, V)
        answer = (kappa_t.unsqueeze(3) * s).sum(2)  # (B, N, V)
        s = w_t.unsqueeze(3) * s - taken_t.unsqueeze(3) * answer.unsqueeze(2) + k_t.unsqueeze(3) * v_t.unsqueeze(2)
        outputs.append((r_t.unsqueeze(3) * s).sum(2))
    y = torch.stack(outputs, 1) if outputs else v
    return y.to(dtype), s


def wkv7(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    log_w: Tensor,
    kappa: Tensor,
    a: Tensor,
    state: Tensor | None = None,
    *,
    chunk: int = 8,
) -> tuple[Tensor, Tensor]:
    """Version 7 in chunks: the answers within a chunk solve a triangular system, each chunk is one map of the state.

    The answers u_t = kappa_t S_{t-1} depend on one another, each on those before it in the chunk::

        u_t = kappa_t exp(W_{t-1}) S_0 + sum_{i<t} (kappa_t exp(W_{t-1} - W_i)) . (k_i v_i - a_i kappa_i u_i)

    with W_t the sum of log w from the chunk's start to step t. Solved, they are linear in the chunk's first state S_0,
    so a whole chunk is a map S -> P S + Q, with matrices P (K, K) and Q (K, V), and maps may be composed in any order
    of brackets: one chunk after the other on a CPU, an associative scan elsewhere. As in version 6, only differences
    that are never above 0 are exponentiated.

    What a network of version 7 does with it, the bonus for the present step and the normalisation, is not in here.

    Args:
        r: What is looked for, "receptance".
        k: Keys under which values are put in; the paper's "replacement keys".
        v: Values.
        log_w: Logarithm of the factor by which each row of the state decays, at most 0; in the paper from -0.607 to 0.
        kappa: Keys at which the state is asked, of length 1; the paper's "removal keys".
        a: How much of each row of the answer is taken out, 0 to 1; the paper's "in-context learning rate".
        state: S before the first step; 0 if left out.
        chunk: Steps in a chunk, T. Time and memory of a step grow with T K and with K (K + V) / T.

    Shapes:
        r, k, log_w, kappa, a: (B, L, N, K).
        v: (B, L, N, V).
        state: (B, N, K, V).
        returns: y (B, L, N, V) in the dtype of v, and the last state.

    Raises:
        ValueError: If shapes do not fit one another, numbers are not real floating-point ones, or the chunk is not
            positive.

    Example:
        >>> key, kept = torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)
        >>> y, state = wkv7(key, key, torch.tensor([1.0, 2, 5]).view(1, 3, 1, 1), kept, key, torch.ones(1, 3, 1, 1))
        >>> y.flatten(), state.item()  # each value replaces the one before
        (tensor([1., 2., 5.]), 5.0)
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    dtype = v.dtype
    r, k, v, log_w, kappa, a, s = _checked7(r, k, v, log_w, kappa, a, state)
    if v.shape[1] == 0:
        return v.to(dtype), s
    with without_autocast(v):
        y, s = _chunks7(r, k, v, log_w, kappa, a * kappa, s, chunk)
    return y.to(dtype), s


def _chunks7(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, kappa: Tensor, taken: Tensor, start: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    length, steps = v.shape[1], chunk
    r, k, v, log_w, kappa, taken = (_cut(x, chunk) for x in (r, k, v, log_w, kappa, taken))  # (B, C, N, T, ...)
    total = log_w.cumsum(3)  # W, (B, C, N, T, K)
    so_far = total - log_w  # W_{t-1}

    # within: how step t, by kappa and by r, meets step i < t, by k and by what it takes out
    looks = torch.stack([kappa, r * log_w.exp()], 4)  # (B, C, N, T, 2, K)
    seen = torch.stack([k, taken], 3).unsqueeze(3) * _decay(so_far, total).unsqueeze(4)  # (B, C, N, T, 2, T, K)
    meets = looks @ seen.flatten(4, 5).mT  # (B, C, N, T, 2, 2 T)
    asked, read = meets.unflatten(5, (2, steps)).unbind(4)  # type: ignore[no-untyped-call]
    (asked_k, asked_taken), (read_k, read_taken) = asked.unbind(4), read.unbind(4)  # (B, C, N, T, T)
    read_k = read_k + torch.diag_embed((r * k).sum(4))  # step t reads what it does itself
    read_taken = read_taken + torch.diag_embed((r * taken).sum(4))

    # the answers are answer + of_start S_0
    sides = torch.cat([asked_k @ v, kappa * so_far.exp()], 4)
    solved = torch.linalg.solve_triangular(asked_taken, sides, upper=False, unitriangular=True)
    answer, of_start = solved[..., : v.shape[4]], solved[..., v.shape[4] :]  # (B, C, N, T, V), (B, C, N, T, K)

    # between: S -> P S + Q
    end = total[:, :, :, -1:]  # (B, C, N, 1, K)
    k, taken = k * (end - total).exp(), taken * (end - total).exp()
    p = torch.diag_embed(end.squeeze(3).exp()) - taken.mT @ of_start  # (B, C, N, K, K)
    q = k.mT @ v - taken.mT @ answer  # (B, C, N, K, V)
    starts, last = _starts(p, q, start)
    y = read_k @ v - read_taken @ answer + (r * total.exp() - read_taken @ of_start) @ starts
    return y.transpose(2, 3).flatten(1, 2)[:, :length], last  # (B, L, N, V)


def _starts(p: Tensor, q: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """States before each chunk, (B, C, N, K, V), and behind the last."""
    if p.device.type == "cpu" and not torch.compiler.is_compiling():
        states = _one_by_one(p, q, start)
    else:
        products, sums = associative_scan(_then, (p, q))
        states = products @ start.unsqueeze(1) + sums
    return torch.cat([start.unsqueeze(1), states[:, :-1]], 1), states[:, -1]


def _then(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """First S -> P S + Q, then S -> P' S + Q'."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def _one_by_one(p: Tensor, q: Tensor, state: Tensor) -> Tensor:
    """Half the work of products that nobody needs, but one chunk after the other: faster on a processor."""
    states = []
    for p_c, q_c in zip(p.unbind(1), q.unbind(1), strict=True):
        state = p_c @ state + q_c
        states.append(state)
    return torch.stack(states, 1)


def _cut(x: Tensor, chunk: int) -> Tensor:
    """(B, L, N, ...) into chunks, (B, C, N, T, ...), the last filled with steps that change nothing."""
    whole = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk))
    chunks: Tensor = whole.unflatten(1, (-1, chunk)).transpose(2, 3)  # type: ignore[no-untyped-call]
    return chunks


def _decay(so_far: Tensor, total: Tensor) -> Tensor:
    """exp(W_{t-1} - W_i) for steps i < t of a chunk, else 0: (B, C, N, T, T, K)."""
    steps = total.shape[3]
    later = torch.ones(steps, steps, dtype=torch.bool, device=total.device).triu().unsqueeze(2)
    return (so_far.unsqueeze(4) - total.unsqueeze(3)).masked_fill(later, NEVER).exp()


def _checked4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State4 | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, State4]:
    """All in one precision, with a state."""
    if k.ndim != 3 or v.shape != k.shape or w.shape != k.shape[2:] or u.shape != k.shape[2:]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (w, u, k, v))
        raise ValueError(f"w and u must be (channels,), k and v (batch, length, channels), got {shapes}")
    k, v, w, u = widened(k, v, w, u)
    zeros = k.new_zeros(k.shape[0], k.shape[2])
    if state is None:
        return w, u, k, v, (zeros, zeros, zeros + NEVER)
    if len(state) != 3 or any(part.shape != zeros.shape for part in state):
        shapes = ", ".join(str(tuple(part.shape)) for part in state)
        raise ValueError(f"state must be three times {tuple(zeros.shape)}, got {shapes}")
    _, numerator, denominator, largest = widened(k, *state)
    return w, u, k, v, (numerator, denominator, largest)


def _checked6(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, u: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All in one precision, with a state."""
    same = k.ndim == 4 and v.ndim == 4 and k.shape == r.shape == log_w.shape
    if not same or v.shape[:3] != k.shape[:3] or u.shape != k.shape[2:]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (r, k, v, log_w, u))
        raise ValueError(f"r, k, v and log_w must be (batch, length, heads, width), u (heads, width), got {shapes}")
    k, r, v, log_w, u = widened(k, r, v, log_w, u)
    return r, k, v, log_w, u, _matrix(k, v, state)


def _checked7(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, kappa: Tensor, a: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All in one precision, with a state."""
    if k.ndim != 4 or v.ndim != 4 or v.shape[:3] != k.shape[:3]:
        shapes = f"{tuple(k.shape)}, {tuple(v.shape)}"
        raise ValueError(f"k and v must be (batch, length, heads, width), the width their own, got {shapes}")
    check_shapes(dict.fromkeys(("r", "log_w", "kappa", "a"), k.shape), {"r": r, "log_w": log_w, "kappa": kappa, "a": a})
    k, r, v, log_w, kappa, a = widened(k, r, v, log_w, kappa, a)
    return r, k, v, log_w, kappa, a, _matrix(k, v, state)


def _matrix(k: Tensor, v: Tensor, state: Tensor | None) -> Tensor:
    """The state before the first step, (B, N, K, V)."""
    shape = (k.shape[0], *k.shape[2:], v.shape[3])
    check_shapes({"state": shape}, {"state": state})
    return k.new_zeros(shape) if state is None else widened(k, state)[1]
