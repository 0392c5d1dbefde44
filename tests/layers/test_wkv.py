"""WKV of versions 4, 6 and 7: by definition, step by step, and in parallel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dlbook.layers import wkv
from dlbook.layers.scan import associative_scan
from dlbook.layers.wkv import wkv4, wkv4_sequential, wkv6, wkv6_sequential, wkv7, wkv7_sequential

SIZES = B, L, D = 3, 21, 4
N, K, V = 2, 5, 3
quick = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def draw(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs4(sizes=SIZES, seed=0, dtype=torch.float64):
    batch, length, channels = sizes
    w, u = draw(channels, seed=seed).exp(), draw(channels, seed=seed + 1)
    k, v = 2 * draw(batch, length, channels, seed=seed + 2), draw(batch, length, channels, seed=seed + 3)
    return [x.to(dtype).requires_grad_() for x in (w, u, k, v)]


def inputs6(length=L, seed=0, dtype=torch.float64):
    r, k, log_w = (draw(B, length, N, K, seed=seed + i) for i in range(3))
    v, u = draw(B, length, N, V, seed=seed + 3), draw(N, K, seed=seed + 4)
    return [x.to(dtype).requires_grad_() for x in (r, k, v, -log_w.exp(), u)]


def inputs7(length=L, seed=0, dtype=torch.float64):
    """As the paper has them: decays above 0.545, keys to ask with of length 1, rates between 0 and 1."""
    r, k, decay, kappa, a = (draw(B, length, N, K, seed=seed + i) for i in range(5))
    made = r, k, draw(B, length, N, V, seed=seed + 5), -0.607 * decay.sigmoid(), F.normalize(kappa, dim=3), a.sigmoid()
    return [x.to(dtype).requires_grad_() for x in made]


def definition4(w, u, k, v):
    """The two sums over all steps so far."""
    steps = torch.arange(k.shape[1])
    age = steps.unsqueeze(1) - 1 - steps  # (L, L)
    exponent = k.unsqueeze(1) - age.unsqueeze(2) * w  # (B, L, L, D)
    own = torch.eye(len(steps), dtype=torch.bool).unsqueeze(2)
    exponent = torch.where(own, u + k.unsqueeze(1), exponent)
    weights = exponent.masked_fill((age < -1).unsqueeze(2), -math.inf).softmax(2)
    return (weights * v.unsqueeze(1)).sum(2)


def definition6(r, k, v, log_w, u):
    """Number by number."""
    y = torch.zeros_like(v)
    for b, n in ((b, n) for b in range(B) for n in range(N)):
        s = torch.zeros(K, v.shape[-1], dtype=v.dtype)
        for t in range(v.shape[1]):
            new = torch.outer(k[b, t, n], v[b, t, n])
            y[b, t, n] = r[b, t, n] @ (s + torch.diag(u[n]) @ new)
            s = torch.diag(log_w[b, t, n].exp()) @ s + new
    return y


def definition7(r, k, v, log_w, kappa, a):
    """With the paper's matrices, whose state is (V, K)."""
    y = torch.zeros_like(v)
    for b, n in ((b, n) for b in range(B) for n in range(N)):
        s = torch.zeros(v.shape[-1], K, dtype=v.dtype)
        for t in range(v.shape[1]):
            r_t, k_t, v_t, w_t, kappa_t, a_t = (x[b, t, n] for x in (r, k, v, log_w.exp(), kappa, a))
            s = s @ (torch.diag(w_t) - torch.outer(kappa_t, a_t * kappa_t)) + torch.outer(v_t, k_t)
            y[b, t, n] = s @ r_t
    return y


@pytest.mark.parametrize("function", [wkv4, wkv4_sequential])
def test_version_4_is_its_definition(function):
    given_ = inputs4()
    torch.testing.assert_close(function(*given_)[0], definition4(*given_), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("function", [wkv6, wkv6_sequential])
def test_version_6_is_its_definition(function):
    given_ = inputs6()
    with torch.no_grad():
        torch.testing.assert_close(function(*given_)[0], definition6(*given_), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("function", [wkv7, wkv7_sequential])
def test_version_7_is_its_definition(function):
    given_ = inputs7()
    with torch.no_grad():
        torch.testing.assert_close(function(*given_)[0], definition7(*given_), rtol=1e-11, atol=1e-12)


def same(one, two, given_, weights, rtol=1e-9):
    """Outputs, states and gradients of both are equal."""
    for mine, wanted in zip(one, two, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=rtol, atol=1e-11)
    grads = [
        torch.autograd.grad(
            sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True)),
            given_,
            retain_graph=True,
            allow_unused=True,
        )
        for parts in (one, two)
    ]
    for mine, wanted, x in zip(*grads, given_, strict=True):
        mine, wanted = (torch.zeros_like(x) if part is None else part for part in (mine, wanted))
        torch.testing.assert_close(mine, wanted, rtol=rtol, atol=1e-10)


@quick
@given(sizes=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 4)), cut=st.integers(0, 40), seed=seeds)
def test_both_forms_of_version_4_are_equal_with_gradients_also_across_a_state(sizes, cut, seed):
    given_ = inputs4(sizes, seed)
    w, u, k, v = given_
    cut = min(cut, sizes[1])

    def run(first, second):
        y_1, state = first(w, u, k[:, :cut], v[:, :cut])
        y_2, state = second(w, u, k[:, cut:], v[:, cut:], state)
        numerator, denominator, largest = state
        return torch.cat([y_1, y_2], 1), numerator * largest.exp(), denominator * largest.exp()

    weights = [torch.randn_like(v), torch.randn_like(v[:, 0]), torch.randn_like(v[:, 0])]
    expected = run(wkv4_sequential, wkv4_sequential)
    same(run(wkv4, wkv4), expected, given_, weights)
    same(run(wkv4, wkv4_sequential), expected, given_, weights)
    same(run(wkv4_sequential, wkv4), expected, given_, weights)


@quick
@given(length=st.integers(1, 40), cut=st.integers(0, 40), chunk=st.integers(1, 20), seed=seeds)
def test_both_forms_of_version_6_are_equal_with_gradients_also_across_a_state(length, cut, chunk, seed):
    given_ = inputs6(length, seed)
    cut = min(cut, length)

    def run(function, **options):
        first, second = ([x[:, part] for x in given_[:4]] for part in (slice(cut), slice(cut, None)))
        y_1, state = function(*first, given_[4], **options)
        y_2, state = function(*second, given_[4], state, **options)
        return torch.cat([y_1, y_2], 1), state

    weights = [draw(B, length, N, V, seed=9), draw(B, N, K, V, seed=10)]
    same(run(wkv6, chunk=chunk), run(wkv6_sequential), given_, weights)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
@quick
@given(length=st.integers(1, 40), cut=st.integers(0, 40), chunk=st.integers(1, 20), seed=seeds)
def test_both_forms_of_version_7_are_equal_with_gradients_also_across_a_state(together, length, cut, chunk, seed):
    given_ = inputs7(length, seed)
    cut = min(cut, length)

    def run(function, **options):
        first, second = ([x[:, part] for x in given_] for part in (slice(cut), slice(cut, None)))
        y_1, state = function(*first, **options)
        y_2, state = function(*second, state, **options)
        return torch.cat([y_1, y_2], 1), state

    def all_at_once(p, q, state):
        products, sums = associative_scan(wkv._then, (p, q))
        return products @ state.unsqueeze(1) + sums

    weights = [draw(B, length, N, V, seed=9), draw(B, N, K, V, seed=10)]
    with pytest.MonkeyPatch.context() as patch:
        if together:
            patch.setattr(wkv, "_one_by_one", all_at_once)
        same(run(wkv7, chunk=chunk), run(wkv7_sequential), given_, weights)


def test_version_7_that_takes_nothing_out_is_version_6_that_reads_after_it_writes():
    r, k, v, log_w, kappa, a = inputs7()
    w = log_w.exp()[:, :1].expand_as(log_w)  # a bonus is the same for all steps
    w = w[:1, :, :].expand_as(log_w)
    y, state = wkv7(r, k, v, w.log(), kappa, torch.zeros_like(a))
    wanted, wanted_state = wkv6(r * w, k, v, w.log(), 1 / w[0, 0])
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(state, wanted_state)


@pytest.mark.parametrize("function", [wkv7, wkv7_sequential])
def test_version_7_replaces_the_value_of_a_key_and_keeps_those_of_others(function):
    keys = torch.eye(K, dtype=torch.float64)[[0, 1, 0, 2, 1, 4, 0]]  # (7, K)
    k = keys.view(1, 7, 1, K)
    v = draw(1, 7, 1, V, seed=0)
    ones, zeros = torch.ones_like(k), torch.zeros_like(k)
    _, state = function(k, k, v, zeros, k, ones)
    expected = torch.zeros(K, V, dtype=torch.float64)
    for t, key in enumerate([0, 1, 0, 2, 1, 4, 0]):
        expected[key] = v[0, t, 0]
    torch.testing.assert_close(state[0, 0], expected)


def test_version_7_stays_exact_over_long_sequences_in_float32():
    given_ = [x.detach() for x in inputs7(1500, dtype=torch.float32)]
    y, state = wkv7(*given_)
    exact, exact_state = wkv7_sequential(*(x.double() for x in given_))
    torch.testing.assert_close(y.double(), exact, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(state.double(), exact_state, rtol=1e-3, atol=1e-4)


def test_gradients_and_their_gradients_are_the_differences():
    w, u, k, v = inputs4((2, 6, 3))
    four = [w, u, k, v]
    six, seven = (
        [(x[:1, :, :1] if x.ndim == 4 else x[:1]).detach().requires_grad_() for x in made(5)]
        for made in (inputs6, inputs7)
    )
    for function, given_ in (
        (lambda *x: wkv4(*x)[0], four),
        (lambda *x: wkv6(*x, chunk=3)[0], six),
        (lambda *x: wkv7(*x, chunk=3)[0], seven),
    ):
        assert torch.autograd.gradcheck(function, given_)
        assert torch.autograd.gradgradcheck(function, given_)


ALL = {
    wkv4: inputs4, wkv4_sequential: inputs4, wkv6: inputs6, wkv6_sequential: inputs6, wkv7: inputs7,
    wkv7_sequential: inputs7,
}  # fmt: skip


@pytest.mark.parametrize(("function", "made"), ALL.items())
def test_autocast_does_not_round_it(function, made):
    given_ = made(dtype=torch.float32)
    exact = function(*given_)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(function(*given_)[0], exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("function", "made"), ALL.items())
def test_nan_stays_in_its_row(function, made):
    given_ = made()
    values = given_[3 if made is inputs4 else 2]
    with torch.no_grad():
        values[1, 5] = torch.nan
    y, _ = function(*given_)
    assert y.isnan().flatten(1).any(1).tolist() == [False, True, False]
    (grad,) = torch.autograd.grad(y.sum(), given_[-2])  # v or another input of version 4, log_w or kappa
    rows = grad.flatten(1).isfinite().all(1) if grad.shape[0] == B else grad.new_ones(B, dtype=torch.bool)
    assert rows[0]
    assert rows[2]


@pytest.mark.parametrize(("function", "made"), ALL.items())
def test_how_the_numbers_lie_in_memory_changes_nothing(function, made):
    given_ = [x.detach() for x in made()]
    scattered = [x.mT.contiguous().mT if x.ndim > 1 else x for x in given_]
    torch.testing.assert_close(function(*scattered)[0], function(*given_)[0])


@pytest.mark.parametrize(("function", "made"), ALL.items())
def test_whole_numbers_are_named(function, made):
    with pytest.raises(ValueError, match=r"must be floating-point numbers, got .*torch\.int64"):
        function(*(x.detach().long() if i == 2 else x for i, x in enumerate(made())))


class Seventh(torch.nn.Module):
    def forward(self, *inputs):
        return wkv7(*inputs)


def test_version_7_can_be_exported_and_compiled():
    given_ = tuple(x.detach() for x in inputs7(19))
    exported = torch.export.export(Seventh(), given_).module()
    compiled = torch.compile(Seventh(), backend="aot_eager", fullgraph=True)
    for runs in (exported, compiled):
        torch.testing.assert_close(runs(*given_), wkv7(*given_))


@pytest.mark.parametrize("function", [wkv4, wkv4_sequential])
@pytest.mark.parametrize(("w", "scale"), [(1e-6, 1.0), (20.0, 1.0), (1.0, 300.0), (1000.0, 300.0)])
def test_version_4_neither_overflows_nor_loses_digits_in_float32(function, w, scale):
    k, v = scale * draw(2, 1000, 3, seed=0), draw(2, 1000, 3, seed=1)
    w, u = torch.full((3,), w), torch.zeros(3)
    exact, _ = wkv4_sequential(w.double(), u.double(), k.float().double(), v.float().double())
    short = k.float().requires_grad_()
    y, _ = function(w, u, short, v.float())
    torch.testing.assert_close(y.double(), exact, rtol=2e-4, atol=2e-5)
    y.sum().backward()
    assert short.grad.isfinite().all()


@pytest.mark.parametrize("function", [wkv6, wkv6_sequential])
def test_version_6_forgets_at_once_without_overflow(function):
    r, k, v, _, u = (x.detach().float() for x in inputs6())
    log_w = torch.full_like(k, -1e4).requires_grad_()
    y, state = function(r, k, v, log_w, u)
    torch.testing.assert_close(state, k[:, -1].unsqueeze(3) * v[:, -1].unsqueeze(2))
    now = (r * u * k).sum(3, keepdim=True) * v
    torch.testing.assert_close(y[:, 0], now[:, 0])
    before = (r[:, 1:] * k[:, :-1]).sum(3, keepdim=True) * v[:, :-1]  # the last step is kept until it was read
    torch.testing.assert_close(y[:, 1:], now[:, 1:] + before)
    y.sum().backward()
    assert log_w.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_numbers_are_computed_in_float32(dtype):
    for function, made in ((wkv4, inputs4), (wkv6, inputs6), (wkv7, inputs7)):
        given_ = made(dtype=dtype)
        y, state = function(*given_)
        exact, _ = function(*(x.float() for x in given_))
        assert torch.equal(y, exact.to(dtype))
        assert (state[0] if function is wkv4 else state).dtype == torch.float32


def test_no_step_is_no_output_and_the_same_state():
    w, u, k, v = inputs4((B, 0, D))
    for function in (wkv4, wkv4_sequential):
        y, state = function(w, u, k, v)
        assert y.shape == (B, 0, D)
        assert torch.equal(state[0], torch.zeros(B, D))
    for function, made in ((wkv6, inputs6), (wkv6_sequential, inputs6), (wkv7, inputs7), (wkv7_sequential, inputs7)):
        y, state = function(*made(0), torch.ones(B, N, K, V))
        assert y.shape == (B, 0, N, V)
        assert torch.equal(state, torch.ones(B, N, K, V, dtype=torch.float64))


@pytest.mark.parametrize("function", [wkv4, wkv4_sequential])
def test_what_does_not_fit_version_4_is_named(function):
    w, u, k, v = inputs4()
    with pytest.raises(ValueError, match=r"got \(4,\), \(4,\), \(3, 21, 4\), \(3, 20, 4\)"):
        function(w, u, k, v[:, 1:])
    with pytest.raises(ValueError, match=r"got \(3,\), \(4,\)"):
        function(w[1:], u, k, v)
    with pytest.raises(ValueError, match=r"state must be three times \(3, 4\), got \(2, 4\), \(3, 4\), \(3, 4\)"):
        function(w, u, k, v, (k[:2, 0], k[:, 0], k[:, 0]))


@pytest.mark.parametrize("function", [wkv6, wkv6_sequential])
def test_what_does_not_fit_version_6_is_named(function):
    r, k, v, log_w, u = inputs6()
    with pytest.raises(ValueError, match=r"u \(heads, width\), got .*\(2, 4\)$"):
        function(r, k, v, log_w, u[:, 1:])
    with pytest.raises(ValueError, match=r"must be \(batch, length, heads, width\)"):
        function(r[:, 1:], k, v, log_w, u)
    with pytest.raises(ValueError, match=r"state must be \(3, 2, 5, 3\), got \(3, 2, 3, 5\)"):
        function(r, k, v, log_w, u, torch.zeros(B, N, V, K))


@pytest.mark.parametrize("function", [wkv7, wkv7_sequential])
def test_what_does_not_fit_version_7_is_named(function):
    r, k, v, log_w, kappa, a = inputs7()
    with pytest.raises(ValueError, match=r"^kappa must be \(3, 21, 2, 5\), got \(3, 21, 2, 4\)"):
        function(r, k, v, log_w, kappa[..., 1:], a)
    with pytest.raises(
        ValueError, match=r"k and v must be \(batch, length, heads, width\).*got \(3, 21, 2, 5\), \(3,\)"
    ):
        function(r, k, v[:, 0, 0, 0], log_w, kappa, a)
    with pytest.raises(ValueError, match=r"state must be \(3, 2, 5, 3\), got \(3, 2, 3, 5\)"):
        function(r, k, v, log_w, kappa, a, torch.zeros(B, N, V, K))


def test_a_chunk_without_steps_is_named():
    for function, made in ((wkv6, inputs6), (wkv7, inputs7)):
        with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
            function(*made(), chunk=0)
