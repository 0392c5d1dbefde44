import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlbook.layers.attention import attention
from dlbook.layers.cache import KVCache
from dlbook.layers.multi_head import MultiHeadAttention, visible
from dlbook.layers.position import Rotary, alibi

B, T, S, D, N, K = 2, 7, 5, 12, 6, 4  # heads that do not fill the width


def layer(**options) -> MultiHeadAttention:
    torch.manual_seed(0)
    made = MultiHeadAttention(D, N, head_size=K, **options).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def sequence(length: int = T) -> torch.Tensor:
    return torch.randn(B, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(mine, wanted, rtol=1e-10):
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=1e-12)


VALID = torch.arange(T) >= torch.tensor([[2], [0]])  # left padding
# what hides tokens: (options of the layer, arguments of the call), over (B, T, T)
FORMS = {
    "all": ({}, {}),
    "causal": ({"causal": True}, {}),
    "grouped": ({"causal": True, "num_kv_heads": 2}, {}),
    "one key": ({"num_kv_heads": 1}, {}),
    "window": ({"causal": True, "window": 3}, {}),
    "window both ways": ({"window": 2}, {}),
    "padding": ({}, {"valid": VALID}),
    "causal padding": ({"causal": True, "num_kv_heads": 3}, {"valid": VALID}),
    "windowed padding": ({"causal": True, "window": 4}, {"valid": VALID}),
    "mask": ({"causal": True}, {"mask": torch.rand(T, T) < 0.7}),
    "bias": ({"causal": True}, {"mask": alibi(N, T).double()}),
    "biased padding": ({"causal": True, "window": 4}, {"mask": alibi(N, T).double(), "valid": VALID}),
    "rotary": ({"causal": True, "num_kv_heads": 2, "rotary": Rotary(K, 16)}, {"valid": VALID}),
    "interleaved": ({"causal": True, "rotary": Rotary(K, 16, interleaved=True)}, {}),
    "scale": ({"scale": 1.0, "bias": False}, {}),
}
every_form = pytest.mark.parametrize(("options", "given"), FORMS.values(), ids=FORMS.keys())


def by_hand(made: MultiHeadAttention, x: torch.Tensor, mask=None, valid=None) -> torch.Tensor:
    """Head by head and token by token, over a list of what each may look at."""
    q, k, v = (
        part.unflatten(-1, (-1, K))
        for part in made.qkv(x).split([N * K, made.num_kv_heads * K, made.num_kv_heads * K], dim=-1)
    )  # fmt: skip  (B, T, heads, K)
    if made.rotary is not None:
        q, k = (made.rotary(part.transpose(1, 2)).transpose(1, 2) for part in (q, k))
    rows = []
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            heads = []
            for n in range(N):
                g = n // (N // made.num_kv_heads)
                seen = [
                    s for s in range(x.shape[1])
                    if not (made.causal and s > t) and not (made.window and abs(s - t) >= made.window)
                    and (valid is None or valid[b, s]) and (mask is None or mask.dtype != torch.bool or mask[t, s])
                ]  # fmt: skip
                if not seen:
                    heads.append(torch.zeros(K, dtype=x.dtype))
                    continue
                bias = None if mask is None or mask.dtype == torch.bool else mask[n, t, seen]
                factor = 1.0 if made.scale is None else made.scale * K**0.5
                heads.append(attention(q[b, t, n][None] * factor, k[b, seen, g], v[b, seen, g], bias)[0])
            rows.append(torch.cat(heads))
    return made.out(torch.stack(rows).unflatten(0, x.shape[:2]))


@every_form
def test_equals_attention_by_hand_with_gradients(options, given):
    made, x = layer(**options), sequence()
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    mine, wanted = made(one, **given), by_hand(made, two, **given)
    close(mine, wanted)
    weights = torch.randn_like(mine)
    parameters = list(made.parameters())
    got = torch.autograd.grad((mine * weights).sum(), [one, *parameters])
    for grad, other in zip(got, torch.autograd.grad((wanted * weights).sum(), [two, *parameters]), strict=True):
        close(grad, other, rtol=1e-9)


@every_form
def test_the_weights_that_the_kernel_hides_give_its_output(options, given):
    made, x = layer(**options), sequence()
    weights = made.weights(x, **given)
    assert weights.shape == (B, N, T, T)
    v = made.heads(x)[2].repeat_interleave(N // made.num_kv_heads, dim=1)
    close(made.out((weights @ v).transpose(1, 2).flatten(2)), made(x, **given))
    sums = weights.sum(-1)
    assert (torch.isclose(sums, torch.ones_like(sums)) | (sums == 0)).all()


@pytest.mark.parametrize("masked", [False, True])
def test_equals_torchs_layer(masked):
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(D, N).double(), nn.MultiheadAttention(D, N, batch_first=True).double()
    nn.init.normal_(ours.qkv.bias)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x, valid = sequence(), VALID if masked else None
    wanted = theirs(x, x, x, key_padding_mask=None if valid is None else ~valid, need_weights=False)[0]
    close(ours(x, valid=valid), wanted)


def test_cross_attention_equals_torchs_layer():
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(D, N, cross=True).double(), nn.MultiheadAttention(D, N, batch_first=True).double()
    nn.init.normal_(ours.kv.bias)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.q.weight, ours.kv.weight]),
            "in_proj_bias": torch.cat([ours.q.bias, ours.kv.bias]),
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x, context = sequence(), sequence(S)
    valid = torch.arange(S) < torch.tensor([[3], [5]])
    wanted = theirs(x, context, context, key_padding_mask=~valid, need_weights=False)[0]
    close(ours(x, context, valid=valid), wanted)
    cache = KVCache(S)
    close(ours(x[:, :2], context, valid=valid, cache=cache), wanted[:, :2])
    close(ours(x[:, 2:], valid=valid, cache=cache), wanted[:, 2:])  # keys of the context are there


@pytest.mark.parametrize("name", ["causal", "grouped", "window", "rotary", "causal padding", "windowed padding"])
@pytest.mark.parametrize("parts", [[1] * T, [4, 1, 2], [0 + 3, 4], [T]], ids=str)
def test_a_cache_gives_the_same(name, parts):
    options, given = FORMS[name]
    made, x, cache = layer(**options), sequence(), KVCache(T, capacity=2)
    valid = given.get("valid")
    with torch.no_grad():
        whole, outputs = made(x, valid=valid), []
        for part in x.split(parts, dim=1):
            seen = None if valid is None else valid[:, : len(cache) + part.shape[1]]
            outputs.append(made(part, valid=seen, cache=cache))
    close(torch.cat(outputs, 1), whole)
    assert len(cache) == T


def test_a_row_that_is_all_padding_gives_no_nan():
    made, x = layer(), sequence().requires_grad_()
    valid = torch.tensor([[False] * T, [True] * T])
    y = made(x, valid=valid)
    close(y[0], made.out.bias.expand(T, -1))
    close(y[1:], made(x[1:]))
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[0] == 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_a_permutation_of_the_tokens_permutes_the_output():
    made, x, order = layer(), sequence(), torch.randperm(T)
    close(made(x[:, order]), made(x)[:, order])


def test_what_comes_later_or_is_out_of_the_window_changes_nothing():
    made, x = layer(causal=True, window=3), sequence()
    changed = x.clone()
    changed[:, 2] += 1
    same = torch.isclose(made(x), made(changed)).all(-1).all(0)
    assert same.tolist() == [True, True, False, False, False, True, True]


def test_dropout_is_for_training():
    made, x = layer(dropout=0.5), sequence()
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


def test_weights_start_as_xavier():
    torch.manual_seed(0)
    made = MultiHeadAttention(64, 4, num_kv_heads=2)
    for part in (*made.qkv.weight.split([64, 32, 32]), made.out.weight):
        bound = (6 / (part.shape[0] + 64)) ** 0.5
        assert 0.97 * bound < part.abs().max() <= bound
    assert (made.qkv.bias == 0).all()
    assert (made.out.bias == 0).all()
    assert MultiHeadAttention(D, N, bias=False, out_bias=True).qkv.bias is None


def test_visible_without_anything_hidden_is_none():
    cpu = torch.device("cpu")
    assert visible(3, 5, cpu) is None
    assert visible(1, 5, cpu, causal=True) is None
    assert visible(1, 5, cpu, causal=True, window=2).tolist() == [[False, False, False, True, True]]


def test_autocast_and_bfloat16():
    made = layer(causal=True, rotary=Rotary(K, 16)).float()
    x = sequence().float()
    wanted = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = made(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - wanted).norm() < 0.03 * wanted.norm()
    assert made.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide width=12"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_kv_heads": 4}, "num_kv_heads=4 does not divide num_heads=6"),
        ({"num_kv_heads": -1}, "num_kv_heads=-1"),
        ({"window": -1}, "window=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"cross": True, "causal": True}, "cross excludes causal"),
        ({"cross": True, "rotary": Rotary(2, 3)}, "cross excludes causal, window, rotary"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(D, **{"num_heads": N, **options})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: layer()(x[0]), r"x must be \(batch, tokens, 12\), got \(7, 12\)"),
        (lambda x: layer()(x[..., 1:]), r"got \(2, 7, 11\)"),
        (lambda x: layer()(x, x), "a context came"),
        (lambda x: layer(cross=True)(x), r"context must be \(2, tokens, 12\), got None"),
        (lambda x: layer(cross=True)(x, x[:1]), r"got \(1, 7, 12\)"),
        (lambda x: layer()(x, valid=VALID[:, 1:]), r"valid must be \(2, 7\) bool, got \(2, 6\) torch.bool"),
        (lambda x: layer()(x, valid=VALID.long()), "torch.int64"),
        (lambda x: layer(rotary=Rotary(K, 6))(x), "positions up to 7 go beyond a context of 6"),
        (lambda x: layer()(x, cache=KVCache(6)), "a context of 6 tokens is full: 0 are there, 7 more came"),
    ],
)
def test_another_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(sequence())


def test_a_cache_of_another_batch_is_refused():
    cache = KVCache(16)
    layer()(sequence(), cache=cache)
    with pytest.raises(ValueError, match=r"the cache holds \(2, 6, 7, 4\), got keys \(1, 6, 1, 4\)"):
        cache.truncate(6) or layer()(sequence(1)[:1], cache=cache)
    with pytest.raises(ValueError, match="length must be between 0 and 6, got 7"):
        cache.truncate(7)
    with pytest.raises(ValueError, match="limit must be positive"):
        KVCache(0)


def test_the_fused_kernel_is_what_torch_calls_attention():
    q, k, v = (torch.randn(B, N, T, K, dtype=torch.float64) for _ in range(3))
    close(F.scaled_dot_product_attention(q, k, v), attention(q, k, v))
