"""Schedules against those of torch and transformers, step by step."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LambdaLR

from dlbook.train import fit
from dlbook.train.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    InverseSquareRoot,
    Linear,
    OneCycle,
    WarmupStableDecay,
)

LR = 0.3


def sgd(lr: float = LR) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def rates(make, steps: int, what: str = "lr", lr: float = LR) -> list[float]:
    """Learning rates, or momenta, of the first steps."""
    optimizer = sgd(lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0][what])
        optimizer.step()
        scheduler.step()
    return found


def assert_same(schedule, make, steps: int) -> None:
    right = rates(make, steps)
    assert rates(lambda optimizer: LambdaLR(optimizer, schedule), steps) == pytest.approx(right, rel=1e-12, abs=1e-14)
    assert len(set(right)) > 3, "hardly any change: the comparison is void"


def test_torch():
    assert_same(Cosine(17), lambda o: lr_scheduler.CosineAnnealingLR(o, 17), 18)
    assert_same(Cosine(17, final=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, 17, eta_min=0.1 * LR), 18)
    assert_same(Linear(17, final=0.2), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=17), 25)


@pytest.mark.parametrize("multiply", [1, 2, 3])
@pytest.mark.parametrize("final", [0.0, 0.2])
def test_restarts_of_torch(multiply, final):
    schedule = CosineRestarts(5, multiply, final=final)
    assert_same(schedule, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, multiply, eta_min=final * LR), 60)


@pytest.mark.parametrize(
    "options", [{}, {"rise": 0.5, "divide": 10.0, "divide_final": 100.0}, {"rise": 0.05}, {"rise": 0.0}]
)
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("steps", [10, 37])
def test_one_cycle_of_torch(options, linear, steps):
    schedule = OneCycle(steps, linear=linear, **options)

    def torchs(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            LR,
            total_steps=steps,
            pct_start=schedule.rise,
            div_factor=schedule.divide,
            final_div_factor=schedule.divide_final,
            anneal_strategy="linear" if linear else "cos",
        )

    if schedule.rise * steps > 1:  # below, torch's first step is one before its schedule begins
        assert_same(schedule, torchs, steps)
        momenta = [schedule.momentum(t) for t in range(steps)]
        assert momenta == pytest.approx(rates(torchs, steps, "momentum"), rel=1e-12)
    assert schedule(steps + 5) == pytest.approx(schedule(steps - 1))
    assert schedule(steps - 1) == pytest.approx(1 / schedule.divide / schedule.divide_final)


def test_transformers():
    import transformers.optimization as hf

    assert_same(Constant(7), lambda o: hf.get_constant_schedule_with_warmup(o, 7), 12)
    assert_same(Linear(23, 7), lambda o: hf.get_linear_schedule_with_warmup(o, 7, 23), 30)
    assert_same(Cosine(23, 7), lambda o: hf.get_cosine_schedule_with_warmup(o, 7, 23), 24)
    assert_same(
        Cosine(23, 7, final=0.1),
        lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(o, 7, 23, min_lr_rate=0.1),
        24,
    )
    assert_same(
        CosineRestarts(8, warmup=7), lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 7, 31, 3), 31
    )
    assert_same(InverseSquareRoot(7), lambda o: hf.get_inverse_sqrt_schedule(o, 7), 50)
    assert_same(InverseSquareRoot(7, 13), lambda o: hf.get_inverse_sqrt_schedule(o, 7, timescale=13), 50)
    for linear, kind in ((False, "cosine"), (True, "linear")):
        for final in (0.0, 0.1):

            def theirs(optimizer, kind=kind, final=final):
                return hf.get_wsd_schedule(optimizer, 7, 9, num_stable_steps=5, min_lr_ratio=final, decay_type=kind)

            schedule = WarmupStableDecay(7, 5, 9, final=final, linear=linear)
            right, found = rates(theirs, 30), rates(lambda o, s=schedule: LambdaLR(o, s), 30)
            assert found[7:] == pytest.approx(right[7:], rel=1e-12, abs=1e-14)
            assert final or found == pytest.approx(right)  # theirs begins at the lowest rate, not at 0


def test_the_first_transformer():
    """Equation 3 of its paper, with the factor d_model^-0.5 in the learning rate; a step is counted from 1 there."""
    schedule, warmup = InverseSquareRoot(40), 40
    peak = warmup**-0.5
    for step in (1, 10, 40, 41, 100, 1000):
        assert schedule(step) == pytest.approx(min(step**-0.5, step * warmup**-1.5) / peak)


ALL = [
    Constant(3),
    Linear(9, 3),
    Cosine(9, 3),
    CosineRestarts(4, 2, 3),
    OneCycle(9),
    InverseSquareRoot(3),
    WarmupStableDecay(3, 2, 4),
]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_never_above_the_peak_never_below_0(schedule):
    values = [schedule(t) for t in range(40)]
    assert 0 <= min(values) < max(values) <= 1
    assert max(values) > 0.95


def test_no_warmup_starts_at_the_peak():
    for schedule in (Constant(), Linear(5), Cosine(5), CosineRestarts(5), WarmupStableDecay(0, 2, 3)):
        assert schedule(0) == 1.0
    assert Linear(5, 5)(5) == Cosine(5, 5)(5) == 1.0  # all warm-up
    assert Linear(5, 5)(6) == Cosine(5, 5)(6) == 0.0


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_fit_goes_on_where_it_was(schedule, tmp_path):
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    batches = [(x[:4], x[:4, :3]), (x[4:], x[4:, :3])]

    def train(epochs: int, checkpoint=None):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        scheduler = LambdaLR(optimizer, schedule)
        fit(
            model, batches, nn.functional.mse_loss, optimizer, epochs=epochs, scheduler=scheduler, checkpoint=checkpoint
        )
        assert optimizer.param_groups[0]["lr"] == LR * schedule(2 * epochs)
        return model.weight

    train(2, tmp_path / "state.pt")
    assert torch.equal(train(4, tmp_path / "state.pt"), train(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1), "warmup must be at least 0, got -1"),
        (lambda: Linear(0), "steps must be at least 1, got 0"),
        (lambda: Linear(5, 6), "warmup must not take longer than all 5 steps, got 6"),
        (lambda: Linear(5, -1), "warmup must be at least 0, got -1"),
        (lambda: Cosine(5, final=1.5), "final must be from 0 to 1, got 1.5"),
        (lambda: Cosine(5, final=math.nan), "final must be from 0 to 1, got nan"),
        (lambda: CosineRestarts(0), "period must be at least 1, got 0"),
        (lambda: CosineRestarts(5, 0), "multiply must be at least 1, got 0"),
        (lambda: CosineRestarts(5, warmup=-2), "warmup must be at least 0, got -2"),
        (lambda: CosineRestarts(5, final=-0.1), "final must be from 0 to 1, got -0.1"),
        (lambda: OneCycle(1), "steps must be at least 2, got 1"),
        (lambda: OneCycle(5, rise=1.1), "rise must be from 0 to 1, got 1.1"),
        (lambda: OneCycle(5, divide=0.5), "divide must be at least 1, got 0.5"),
        (lambda: InverseSquareRoot(0), "timescale must be positive, got None, with warmup=0"),
        (lambda: InverseSquareRoot(5, 0.0), "timescale must be positive, got 0.0"),
        (lambda: InverseSquareRoot(-5, 1.0), "warmup must be at least 0, got -5"),
        (lambda: WarmupStableDecay(1, 1, 0), "decay must be at least 1, got 0"),
        (lambda: WarmupStableDecay(1, -1, 1), "stable must be at least 0, got -1"),
        (lambda: WarmupStableDecay(1, 1, 1, final=2.0), "final must be from 0 to 1, got 2.0"),
    ],
)
def test_wrong_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
