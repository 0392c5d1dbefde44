"""The book's explorers: what they draw is what they say."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dlbook.explore import Explorer, activation, bump, descent, explore_activations, explore_bumps, explore_descent
from dlbook.models.bump import BumpNetwork

FUNCTIONS = {
    "ReLU": torch.relu,
    "leaky ReLU": torch.nn.functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "GELU": torch.nn.functional.gelu,
    "SiLU": torch.nn.functional.silu,
}


@pytest.mark.parametrize("explore", [explore_activations, explore_bumps, explore_descent])
def test_every_figure_has_labelled_axes_and_the_page_stays_small(explore) -> None:
    explorer: Explorer = explore()
    for values in explorer.combinations[:: max(1, len(explorer.combinations) // 4)]:
        for ax in explorer.draw(**values).axes:
            assert ax.get_ylabel()
            assert ax.get_xlabel() or ax.get_label() == "<colorbar>"
    assert explorer.html.count("data:image/png") == len(explorer.combinations) + 1
    assert len(explorer.html) < 300_000
    assert len({explorer.alt(**values) for values in explorer.combinations}) == len(explorer.combinations)


@pytest.mark.parametrize("name", activation.NAMES)
def test_activation_curve_slope_and_tangent_are_those_of_torch(name: str) -> None:
    figure = activation.draw(name, -0.5)
    curve, slope, tangent, at_value, at_slope, _ = figure.axes[0].lines
    x = torch.tensor(np.asarray(curve.get_xdata()), requires_grad=True)
    y = FUNCTIONS[name](x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert_allclose(curve.get_ydata(), y.detach(), atol=1e-12)
    assert_allclose(slope.get_ydata(), gradient, atol=1e-12)
    here = int(torch.argmin((x.detach() + 0.5).abs()))
    assert_allclose(at_value.get_data(), [[-0.5], [y[here].item()]], atol=1e-12)
    assert_allclose(at_slope.get_data(), [[-0.5], [gradient[here].item()]], atol=1e-12)
    left, right = np.column_stack(tangent.get_data())
    assert_allclose((right[1] - left[1]) / (right[0] - left[0]), gradient[here].item(), atol=1e-6)
    assert_allclose((left + right) / 2, [-0.5, y[here].item()], atol=1e-6)
    assert f"slope {gradient[here].item():.3f}" in activation.describe(name, -0.5)


def test_bumps_follow_the_readers_function_on_the_readers_interval() -> None:
    explorer = explore_bumps(torch.exp, interval=(-1.0, 2.0))
    figure = explorer.draw(num_bumps=12)
    above, below = figure.axes
    hats, (function, network) = above.lines[:-2], above.lines[-2:]
    assert len(hats) == 13
    assert_allclose(function.get_ydata(), np.exp(np.asarray(function.get_xdata())))
    assert_allclose(np.sum([hat.get_ydata() for hat in hats], axis=0), network.get_ydata(), atol=1e-9)
    # hats on a function with |f''| <= e^2 on cells of 3 / 12: the error is at most e^2 h^2 / 8
    error = bump.errors(torch.exp, (-1.0, 2.0))
    assert 0.8 < error[12] / (math.e**2 * 0.25**2 / 8) <= 1.0
    assert f"{error[12]:.2g}" in explorer.alt(num_bumps=12)
    assert_allclose(below.lines[0].get_ydata(), list(error.values()))
    assert len(explorer.draw(num_bumps=64).axes[0].lines) == 2
    x = torch.linspace(-1, 2, 1001, dtype=torch.float64)
    with torch.no_grad():
        expected = BumpNetwork.approximate(torch.exp, -1.0, 2.0, 12)(x.unsqueeze(1)).squeeze(1)
    assert_allclose(network.get_ydata(), expected)


def test_descent_takes_the_steps_of_torchs_sgd() -> None:
    w = torch.tensor(descent.START, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.01, momentum=0.9)
    path = [w.detach().clone()]
    for _ in range(7):
        optimizer.zero_grad()
        descent.valley(w[0], w[1]).backward()
        optimizer.step()
        path.append(w.detach().clone())
    assert_allclose(descent.descend(descent.valley, 0.01, 0.9, steps=7), torch.stack(path), rtol=1e-12)


def test_descent_on_the_bowl_diverges_just_above_two_over_the_curvature() -> None:
    # plain descent multiplies the steep coordinate by 1 - 25 r each step: stable up to r = 2 / 25
    for rate, words in ((0.0805, "diverges"), (0.0795, "oscillates"), (0.06, "converges"), (0.002, "creeps")):
        path = descent.descend(descent.bowl, rate, 0.0)
        steps = torch.arange(len(path), dtype=torch.float64)
        assert_allclose(path[:, 1], descent.START[1] * (1 - 25 * rate) ** steps, rtol=1e-9, atol=1e-12)
        assert descent.verdict(descent.bowl, path) == words


def test_descent_offers_all_four_verdicts() -> None:
    explorer = explore_descent()
    words = {explorer.alt(**values).split(": ")[1] for values in explorer.combinations}
    assert words == {"creeps", "converges", "oscillates", "diverges"}
    title = explorer.draw(**explorer.start).axes[0].get_title()
    assert explorer.alt(**explorer.start).endswith(title)
