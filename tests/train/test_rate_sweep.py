"""The sweep of learning rates: what it finds, and that it leaves no trace."""

import copy
import math

import pytest
import torch
from torch import nn

from dlbook.train.rate_sweep import RateSweep, sweep_learning_rates


def regression():
    torch.manual_seed(0)
    x = torch.randn(32, 5)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.1), nn.Linear(7, 3)).eval()
    model[1].train()  # a mixture of modes, to be put back
    return model, [(x[:16], x[:16, :3]), (x[16:], x[16:, :3])]


def test_a_sweep_finds_a_rate_and_leaves_no_trace():
    model, data = regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    sweep = sweep_learning_rates(model, data, nn.functional.mse_loss, optimizer, low=1e-4, high=100.0, steps=60)
    assert len(sweep.rates) < 60  # stopped when the loss grew
    assert sweep.rates[0] == 1e-4
    assert sweep.rates[1] / sweep.rates[0] == pytest.approx((100 / 1e-4) ** (1 / 59))
    assert 1e-3 < sweep.steepest < 1
    after = (model.state_dict(), optimizer.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert [m.training for m in model] == [False, True, False, False]
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_without_smoothing_the_losses_are_those_of_the_steps():
    w = nn.Linear(1, 1, bias=False)
    nn.init.ones_(w.weight)
    data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    optimizer = torch.optim.SGD(w.parameters(), lr=1.0)
    sweep = sweep_learning_rates(w, data, nn.functional.mse_loss, optimizer, low=0.01, high=0.04, steps=3, forget=1.0)
    assert sweep.rates == pytest.approx((0.01, 0.02, 0.04))
    assert sweep.losses == pytest.approx((1.0, 0.98**2, (0.98 * 0.96) ** 2))
    forgetting = sweep_learning_rates(
        w, data, nn.functional.mse_loss, optimizer, low=0.01, high=0.04, steps=3, forget=0.5
    )
    assert forgetting.losses[1] == pytest.approx((1.0 + 2 * 0.98**2) / 3)


def test_the_steepest_place():
    assert RateSweep((1.0, 2.0, 4.0, 8.0, 16.0), (5.0, 4.9, 4.0, 2.0, 1.9)).steepest == 4.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "rise from above 0, got low=0.0"),
        ({"low": 1.0, "high": 0.1}, "got low=1.0 and high=0.1"),
        ({"high": math.nan}, "high=nan"),
        ({"steps": 2}, "steps must be at least 3, got 2"),
        ({"forget": 0.0}, "forget must be above 0 and at most 1, got 0.0"),
        ({"low": 1e10, "high": 1e20}, "take a lower low"),
    ],
)
def test_a_sweep_that_cannot_be(options, message):
    model, data = regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    weight = model[0].weight.clone()
    with pytest.raises(ValueError, match=message):
        sweep_learning_rates(model, data, nn.functional.mse_loss, optimizer, **options)
    assert torch.equal(model[0].weight, weight)


def test_a_sweep_without_data():
    model, data = regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for empty in ([], [(x[:0], y[:0]) for x, y in data]):
        with pytest.raises(ValueError, match="data is empty"):
            sweep_learning_rates(model, empty, nn.functional.mse_loss, optimizer)
