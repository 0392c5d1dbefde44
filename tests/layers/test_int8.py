"""Rounded weights are as near as the bound says, and not nearer by accident."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlbook.layers.int8 import Int8Linear, quantize, quantize_linears


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    size=st.integers(-20, 20),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_no_weight_moves_by_more_than_half_a_step(shape, size, dtype, seed):
    weight = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() * 10.0**size).to(dtype)
    numbers, step = quantize(weight)
    assert numbers.dtype == torch.int8
    assert step.shape == (shape[0], 1)
    assert (numbers.abs().amax(1) == 127).all()  # each row uses all of its range, and not -128
    error = (numbers.double() * step.double() - weight.double()).abs()
    assert (error <= step.double() * (0.5 + 127 * torch.finfo(step.dtype).eps)).all()


def test_outputs_are_within_the_bound_and_the_error_is_what_rounding_makes():
    torch.manual_seed(0)
    linear = nn.Linear(512, 300, dtype=torch.float64)
    x = torch.randn(40, 512, dtype=torch.float64)
    small = Int8Linear(linear)
    error = (small(x) - linear(x)).detach()
    assert (error.abs() <= small.step.squeeze(1) / 2 * x.abs().sum(1, keepdim=True)).all()
    # Rounding errors are evenly spread over a step: their variance is a twelfth of its square, for each input.
    expected = (small.step.squeeze(1) ** 2 / 12 * x.square().sum(1, keepdim=True)).mean().sqrt()
    assert error.square().mean().sqrt() / expected == pytest.approx(1, abs=0.05)
    assert error.norm() / linear(x).norm() < 0.006


def test_a_step_for_each_row_helps_where_rows_differ():
    torch.manual_seed(0)
    weight = torch.randn(4, 200, dtype=torch.float64) * torch.tensor([[1.0], [10], [100], [1000]])
    numbers, step = quantize(weight)
    relative = (numbers * step - weight).norm(dim=1) / weight.norm(dim=1)
    assert (relative < 0.01).all()
    one_step = weight.abs().max() / 127
    assert ((weight / one_step).round() * one_step - weight)[0].norm() / weight[0].norm() > 0.9


def test_a_row_of_zeros_stays_zero():
    linear = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(linear.weight)
    assert torch.equal(Int8Linear(linear)(torch.randn(4, 3)), torch.zeros(4, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_keeps_the_type_and_passes_gradients_to_the_input(dtype):
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    small, x = Int8Linear(linear), torch.randn(5, 7, 64).to(dtype).requires_grad_()
    y = small(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), linear(x.float()), rtol=0.02, atol=0.03)
    y.sum().backward()
    torch.testing.assert_close(x.grad[0, 0].float(), linear.weight.sum(0), rtol=0.02, atol=0.05)
    again = Int8Linear(nn.Linear(64, 32))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), y)


def test_float16_does_not_overflow_before_the_step_is_applied():
    linear = nn.Linear(2048, 2, bias=False)
    nn.init.constant_(linear.weight, 0.001)
    x = torch.ones(1, 2048)
    torch.testing.assert_close(Int8Linear(linear)(x.half()).float(), linear(x), rtol=2e-3, atol=0)


def test_autocast_gives_the_type_that_the_layer_would_give():
    linear, x = nn.Linear(6, 4), torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert Int8Linear(linear)(x).dtype == linear(x).dtype == torch.bfloat16


def test_a_model_is_rounded_except_where_weights_are_shared():
    torch.manual_seed(0)
    embedding, head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
    head.weight = embedding.weight
    net = nn.Sequential(embedding, nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6)), head)
    tokens = torch.arange(11)
    before = net(tokens)
    assert quantize_linears(net) == ["1", "2.0"]
    assert isinstance(net[2][0], Int8Linear)
    assert net[3] is head
    assert 0 < (net(tokens) - before).abs().max() < 0.02
    with pytest.raises(ValueError, match="none of the linear layers within Sequential"):
        quantize_linears(net)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(2, 3, 4), r"got \(2, 3, 4\) of torch.float32"),
        (torch.zeros(2, 3, dtype=torch.int64), "torch.int64"),
        (torch.tensor([[1.0, float("nan")]]), "not finite"),
        (torch.tensor([[1.0, float("inf")]]), "not finite"),
    ],
)
def test_bad_input_is_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        quantize(weight)
