import pytest
import torch

from dlbook.layers.stochastic_depth import StochasticDepth, rising_rates


def test_examples_are_dropped_whole_and_the_mean_stays():
    drop = StochasticDepth(0.3, generator=torch.Generator().manual_seed(0))
    out = drop(torch.ones(20_000, 3, 2, dtype=torch.float64))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert out.unique().tolist() == [0.0, 1 / 0.7]
    assert abs(out.mean().item() - 1) < 0.02  # standard deviation of the mean: 0.005


def test_evaluation_and_rate_0_change_nothing():
    x = torch.randn(4, 3)
    assert StochasticDepth(0.5).eval()(x) is x
    assert StochasticDepth(0.0)(x) is x


def test_the_generator_decides():
    x = torch.ones(64, 1)
    one, two = (StochasticDepth(0.5, generator=torch.Generator().manual_seed(1))(x) for _ in range(2))
    assert torch.equal(one, two)


def test_rates_rise_evenly():
    assert rising_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert rising_rates(0.3, 1) == [0]


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got"):
        StochasticDepth(rate)
