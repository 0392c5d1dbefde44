"""The guard against gradients that are not finite, alone and within fit."""

import copy
import math

import pytest
import torch
from torch import nn

from dlbook.train import fit
from dlbook.train.gradients import GradientGuard, finite
from dlbook.train.optimizers import SGD, Adam, AdamW, Lion, RMSprop

OPTIMIZERS = [SGD, Adam, AdamW, Lion, RMSprop, torch.optim.SGD, torch.optim.AdamW]


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((5, 3), (7,))]


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_skipped_step_is_no_step(kind, bad):
    """Good, bad, good gives what good, good gives, in weights and state."""
    found = []
    for gradients in ([1.0, bad, 2.0], [1.0, 2.0]):
        params = parameters()
        optimizer = kind(params, lr=0.1, weight_decay=0.1)
        guard = GradientGuard(optimizer, on_bad="skip")
        for value in gradients:
            params[0].grad = torch.full((5, 3), 1.0)
            params[1].grad = torch.full((7,), 1.0)
            params[1].grad[4] = value
            optimizer.step()
        found.append((params, optimizer.state_dict(), guard.skipped))
    assert [skipped for _, _, skipped in found] == [1, 0]
    torch.testing.assert_close(found[0][:2], found[1][:2], rtol=0, atol=0)


@pytest.mark.parametrize("on_bad", ["raise", "skip"])
def test_good_gradients_pass(on_bad):
    params = parameters()
    before = copy.deepcopy(params)
    optimizer = SGD(params, lr=0.1)
    GradientGuard(optimizer, on_bad=on_bad)
    params[0].grad = torch.full((5, 3), 3e38)  # whose squares are no floats
    optimizer.step()
    assert not torch.equal(params[0], before[0])


def test_the_error_names_the_parameter_and_nothing_has_changed():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    optimizer = Adam(model.parameters())
    guard = GradientGuard(optimizer)
    (model(torch.ones(2, 3)).sum() + (model[1].weight[1] * math.nan).sum()).backward()
    message = r"parameter 2 of group 0, \(2, 4\), has 4 of 8 values not finite: the weights are still good"
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    named = Adam(model.named_parameters())
    GradientGuard(named)
    with pytest.raises(ValueError, match=r"parameter 1\.weight,"):
        named.step()
    guard.remove()
    optimizer.step()
    assert model[1].weight.isnan().any()


def test_too_many_in_a_row():
    (p, _) = parameters()
    optimizer = SGD([p])
    guard = GradientGuard(optimizer, on_bad="skip", most_in_a_row=2)

    def step(value: float) -> None:
        p.grad = torch.full((5, 3), value)
        optimizer.step()

    for value in (math.nan, math.nan, 1.0, math.nan, math.nan):
        step(value)
    with pytest.raises(ValueError, match="for 3 steps in a row"):
        step(math.nan)
    assert guard.skipped == 5
    assert p.isfinite().all()


class RootLoss(nn.Module):
    """Finite at 0, where its gradient is not."""

    def forward(self, outputs, y):
        return (outputs - y).abs().sqrt().mean() + 0 * outputs.sum()


def test_fit_needs_no_change():
    """An example that is right already: the root has no slope at 0, and the chain rule gives NaN."""
    x = torch.tensor([[1.0], [2.0], [0.0]])
    data = [(x[:2], torch.ones(2, 1)), (x[2:], torch.zeros(1, 1))]
    for on_bad in ("skip", "raise"):
        torch.manual_seed(0)
        model = nn.Linear(1, 1, bias=False)
        optimizer = SGD(model.parameters(), lr=0.01)
        guard = GradientGuard(optimizer, on_bad=on_bad)
        if on_bad == "raise":
            with pytest.raises(ValueError, match="values not finite"):
                fit(model, data, RootLoss(), optimizer, epochs=3)
        else:
            fit(model, data, RootLoss(), optimizer, epochs=3)
            assert guard.skipped == 3
        assert model.weight.isfinite().all()


def test_finite():
    assert finite([])
    assert finite([torch.zeros(0)])
    assert finite([torch.zeros(3), torch.zeros(0), torch.tensor([1e300], dtype=torch.float64)])
    assert finite([torch.tensor([65504.0], dtype=torch.float16)])
    assert not finite([torch.zeros(3), torch.tensor([math.nan, 1.0])])


def test_wrong_arguments():
    optimizer = SGD(parameters())
    with pytest.raises(ValueError, match="on_bad must be raise or skip, got 'no'"):
        GradientGuard(optimizer, on_bad="no")
    with pytest.raises(ValueError, match="most_in_a_row must be at least 1, got 0"):
        GradientGuard(optimizer, most_in_a_row=0)
