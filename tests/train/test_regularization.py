"""Penalties, averages, SAM and early stopping against what their definitions give."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from dlbook.train import History, fit
from dlbook.train.optimizers import SGD, Adam, AdamW
from dlbook.train.regularization import SAM, EarlyStopping, decay_groups, l2_penalty, moving_average


def regression():
    torch.manual_seed(0)
    x = torch.randn(32, 5, dtype=torch.float64)
    return nn.Linear(5, 3, dtype=torch.float64), x, x[:, :3].square()


def trained(kind, weight_decay: float = 0.0, penalty: float = 0.0) -> torch.Tensor:
    model, x, y = regression()
    optimizer = kind(model.parameters(), lr=0.05, weight_decay=weight_decay)
    for _ in range(20):
        optimizer.zero_grad()
        (nn.functional.mse_loss(model(x), y) + l2_penalty(model.parameters(), penalty)).backward()
        optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_weight_decay_of_sgd_and_adam_is_the_penalty(kind):
    torch.testing.assert_close(trained(kind, weight_decay=0.3), trained(kind, penalty=0.3), rtol=1e-10, atol=1e-12)


def test_that_of_adamw_is_not():
    decayed, penalised = trained(AdamW, weight_decay=0.3), trained(AdamW, penalty=0.3)
    assert (decayed - penalised).abs().max() > 0.01
    assert (decayed - trained(AdamW)).abs().max() > 0.01


def test_groups_hold_every_parameter_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[3].weight.requires_grad = False
    decays, stays = decay_groups(model, 0.1)
    assert [tuple(p.shape) for p in decays["params"]] == [(4, 3, 3, 3)]
    assert [tuple(p.shape) for p in stays["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decays["weight_decay"], stays["weight_decay"]) == (0.1, 0.0)
    AdamW(decay_groups(model, 0.1))


@pytest.mark.parametrize("kind", [SGD, torch.optim.SGD])
def test_the_average_follows_every_step_of_fit(kind):
    model, x, y = regression()
    model = nn.Sequential(model, nn.BatchNorm1d(3, dtype=torch.float64))
    optimizer = kind(model.parameters(), lr=0.1)
    average = moving_average(model, optimizer, decay=0.8)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(model[0].weight.detach().clone()))
    fit(model, [(x[:9], y[:9]), (x[9:], y[9:])], nn.functional.mse_loss, optimizer, epochs=3)
    mean = seen[0]
    for weight in seen[1:]:
        mean = 0.8 * mean + 0.2 * weight
    assert len(seen) == 6
    torch.testing.assert_close(average.module[0].weight.detach(), mean)
    torch.testing.assert_close(average.module[1].running_mean, model[1].running_mean)
    assert not average.training
    assert average(x).shape == y.shape


def sam_step(model, x, y, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    return optimizer.step(closure)


@pytest.mark.parametrize("kind", [SGD, AdamW, torch.optim.AdamW])
def test_sam_is_what_the_paper_writes(kind):
    """Algorithm 1 with the gradient at the worst place computed for a copy, over five steps."""
    model, x, y = regression()
    other = copy.deepcopy(model)
    optimizer, base = SAM(kind(model.parameters(), lr=0.05), rho=0.2), kind(other.parameters(), lr=0.05)
    for _ in range(5):
        loss = sam_step(model, x, y, optimizer)
        right = nn.functional.mse_loss(other(x), y)
        gradients = torch.autograd.grad(right, list(other.parameters()))
        norm = sum(g.square().sum() for g in gradients).sqrt()
        worst = copy.deepcopy(other)
        for p, g in zip(worst.parameters(), gradients, strict=True):
            p.data += 0.2 * g / norm
        found = torch.autograd.grad(nn.functional.mse_loss(worst(x), y), list(worst.parameters()))
        for p, g in zip(other.parameters(), found, strict=True):
            p.grad = g
        base.step()
        torch.testing.assert_close(loss, right.detach())
        torch.testing.assert_close(list(model.parameters()), list(other.parameters()), rtol=1e-10, atol=1e-12)


def test_sam_shares_what_its_optimiser_has():
    model, x, y = regression()
    optimizer = SAM(Adam(model.parameters(), lr=0.1))
    scheduler = LambdaLR(optimizer, lambda t: 0.5**t)
    sam_step(model, x, y, optimizer)
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.05
    kept, other = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model)
    again = SAM(Adam(other.parameters(), lr=0.1))
    again.load_state_dict(kept)
    assert again.param_groups[0]["lr"] == again.base.param_groups[0]["lr"] == 0.05
    for one, which in ((optimizer, model), (again, other)):
        sam_step(which, x, y, one)
    assert torch.equal(model.weight, other.weight)


def test_sam_at_a_minimum_stays():
    p = torch.zeros(3, requires_grad=True)
    optimizer = SAM(SGD([p], lr=0.1))

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 0
    assert p.abs().max() == 0


def told(stopping, values, name="val_loss"):
    history, answers = History(), []
    for value in values:
        history.append(**{name: value})
        answers.append(stopping(history))
    return answers


def test_stopping_in_time():
    assert told(EarlyStopping(2), [5.0, 4.0, 4.0, 3.9, 4.1, 4.0, 3.0]) == [False] * 5 + [True, False]
    assert told(EarlyStopping(1, min_delta=0.5), [5.0, 4.6]) == [False, True]
    assert told(EarlyStopping(1, min_delta=0.5), [5.0, 4.4]) == [False, False]
    stopping = EarlyStopping(2, metric="val_accuracy", larger_is_better=True)
    assert told(stopping, [0.5, 0.7, 0.6, 0.7], "val_accuracy") == [False, False, False, True]
    assert (stopping.best, stopping.best_epoch) == (0.7, 2)
    assert told(EarlyStopping(2), [float("nan")] * 2) == [False, True]


def test_the_best_weights_come_back():
    model = nn.Linear(1, 1, bias=False)
    stopping, history = EarlyStopping(1, model=model), History()
    for weight, loss in ((1.0, 0.5), (2.0, 0.4), (3.0, 0.6)):
        model.weight.data.fill_(weight)
        history.append(val_loss=loss)
        stopped = stopping(history)
    assert stopped
    stopping.restore()
    assert model.weight.item() == 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: l2_penalty(m.parameters(), -1.0), "strength must be at least 0, got -1.0"),
        (lambda m: l2_penalty([], 1.0), "no parameter"),
        (lambda m: decay_groups(m, -0.1), "weight_decay must be at least 0, got -0.1"),
        (lambda m: moving_average(m, SGD(m.parameters()), 1.0), r"decay must be in \[0, 1\), got 1.0"),
        (lambda m: SAM(SGD(m.parameters()), rho=0.0), "rho must be positive, got 0.0"),
        (lambda m: SAM(SGD(m.parameters())).step(), "pass step a closure"),
        (lambda m: EarlyStopping(0), "patience must be at least 1 epoch, got 0"),
        (lambda m: EarlyStopping(min_delta=-1.0), "min_delta must be at least 0, got -1.0"),
        (lambda m: EarlyStopping(model=m).restore(), "no weights were kept"),
        (lambda m: told(EarlyStopping(), [1.0], "loss"), r"no 'val_loss', only \['loss'\]"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(nn.Linear(2, 2))
