import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlbook.layers.attention import SelfAttention, attention

B, T, D, N = 2, 7, 12, 3


def causal() -> torch.Tensor:
    return torch.ones(T, T).tril().bool()


@pytest.mark.parametrize("mask", [None, causal(), torch.randn(N, T, T, dtype=torch.float64)], ids=["no", "bool", "add"])
def test_the_readable_path_equals_the_fused_one_with_gradients(mask):
    torch.manual_seed(0)
    one = [torch.randn(B, N, T, D // N, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    two = [part.detach().clone().requires_grad_() for part in one]
    readable, fused = attention(*one, mask), F.scaled_dot_product_attention(*two, attn_mask=mask)
    torch.testing.assert_close(readable, fused, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(readable)
    (readable * weights).sum().backward()
    (fused * weights).sum().backward()
    for mine, theirs in zip(one, two, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_equals_torchs_layer():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(D, N).double(), nn.MultiheadAttention(D, N, batch_first=True).double()
    nn.init.normal_(ours.qkv.bias)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(B, T, D, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], rtol=1e-10, atol=1e-12)


def test_a_mask_hides_what_comes_later():
    torch.manual_seed(0)
    layer, x = SelfAttention(D, N), torch.randn(B, T, D)
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(layer(x, causal())[:, :4], layer(changed, causal())[:, :4])
    assert not torch.allclose(layer(x)[:, :4], layer(changed)[:, :4])


def test_a_permutation_of_the_tokens_permutes_the_output():
    torch.manual_seed(0)
    layer, x, order = SelfAttention(D, N), torch.randn(B, T, D), torch.randperm(T)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


@pytest.mark.parametrize(("width", "heads"), [(10, 4), (8, 0), (0, 1)])
def test_heads_must_divide_the_width(width, heads):
    with pytest.raises(ValueError, match=f"num_heads={heads} does not divide width={width}"):
        SelfAttention(width, heads)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"x must be \(batch, tokens, 12\), got \(2, 7, 11\)"):
        SelfAttention(D, N)(torch.zeros(B, T, 11))
