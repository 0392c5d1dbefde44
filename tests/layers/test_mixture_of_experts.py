import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlbook.layers.mixture_of_experts import MixtureOfExperts

B, T, D, E, H = 3, 5, 6, 4, 7


def layer(**options):
    torch.manual_seed(0)
    return MixtureOfExperts(D, E, **{"hidden": H, **options}).double()


X = torch.randn(B, T, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_hand(made, x, room=10**9):
    """Token by token, choice by choice."""
    tokens = x.reshape(-1, D)
    p = F.softmax(made.router(tokens), -1)
    y, taken = [torch.zeros(D, dtype=x.dtype)] * len(tokens), [0] * E
    for rank in range(made.top_k):
        for m, token in enumerate(tokens):
            best = p[m].argsort(descending=True)[: made.top_k]
            e = best[rank]
            taken[e] += 1
            if taken[e] > room:
                continue
            gate, up = (token @ made.expand[e]).chunk(2)
            weight = p[m, e] / p[m, best].sum() if made.normalize else p[m, e]
            y[m] = y[m] + weight * ((F.silu(gate) * up) @ made.reduce[e])
    return torch.stack(y).view(x.shape)


@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({}, 15),
        ({"top_k": 1, "normalize": False}, 15),
        ({"top_k": 4}, 15),
        ({"top_k": 3, "capacity": 0.5}, 6),  # 0.5 x 3 x 15 / 4, rounded up
        ({"top_k": 1, "normalize": False, "capacity": 1.0}, 4),
        ({"top_k": 2, "capacity": 9.0}, 15),
    ],
)
def test_equals_the_equation_with_gradients(options, room):
    made = layer(**options)
    mine, wanted = made(X)[0], by_hand(made, X, room)
    torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(mine)
    one, two = (torch.autograd.grad((y * weights).sum(), list(made.parameters())) for y in (mine, wanted))
    for grad, other in zip(one, two, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-9, atol=1e-11)


def test_equal_experts_are_one():
    made = layer()
    with torch.no_grad():
        made.expand.copy_(made.expand[:1].expand_as(made.expand))
        made.reduce.copy_(made.reduce[:1].expand_as(made.reduce))
    gate, up = (X @ made.expand[0]).chunk(2, -1)
    torch.testing.assert_close(made(X)[0], (F.silu(gate) * up) @ made.reduce[0])


def test_the_balance_is_1_if_even_and_E_if_one_gets_all():
    made = layer(top_k=1, normalize=False)
    nn.init.zeros_(made.router.weight)
    with torch.no_grad():
        made.router.weight[2] = 1e3
    assert made(torch.ones(8, D, dtype=torch.float64))[1].item() == pytest.approx(E)
    with torch.no_grad():
        made.router.weight.copy_(1e3 * torch.eye(E, D))
    assert made(torch.eye(E, D, dtype=torch.float64))[1].item() == pytest.approx(1)


def test_the_balance_teaches_the_router():
    made = layer(top_k=1, normalize=False)
    optimizer = torch.optim.Adam([made.router.weight], lr=0.02)
    x = torch.randn(256, D, dtype=torch.float64) + 1
    with torch.no_grad():
        made.router.weight[0] += 0.4  # almost all go to the first
    before = made(x)[1].item()
    for _ in range(150):
        optimizer.zero_grad()
        made(x)[1].backward()
        optimizer.step()
    assert before > 1.5
    assert made(x)[1] < 1.1


def test_bfloat16_routes_in_float32():
    made = layer().bfloat16()
    weights, _, balance = made.route(X.view(-1, D).bfloat16())
    assert weights.dtype == balance.dtype == torch.float32
    assert made(X.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 5}, "num_experts=4, top_k=5"),
        ({"top_k": 0}, "top_k=0"),
        ({"hidden": -1}, "hidden=-1"),
        ({"capacity": -1.0}, "capacity=-1.0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


def test_another_width_is_refused():
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 6\), got \(3, 5\)"):
        layer()(X[..., 0])
