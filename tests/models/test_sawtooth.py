from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import nn

from dlbook.models.bump import BumpNetwork, sup_error
from dlbook.models.sawtooth import Sawtooth, breakpoints, count_pieces, error_floor, max_pieces, sawtooth


def dyadic_grid(bits, low=0.0, high=1.0):
    return torch.linspace(low, high, 2**bits + 1, dtype=torch.float64).unsqueeze(1)


def random_network(widths, seed):
    torch.manual_seed(seed)
    layers, inputs = [], 1
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    network = nn.Sequential(*layers, nn.Linear(inputs, 1))
    for p in network.parameters():
        nn.init.normal_(p)
    return network.double()


def pieces_on_grid(network, low, high, points=400_001):
    """Pieces seen on a fine grid: runs of equal slope, told apart at kinks that lie inside a cell of the grid."""
    x = torch.linspace(low, high, points, dtype=torch.float64)
    with torch.no_grad():
        y = network(x.unsqueeze(1)).squeeze(1)
    bent = y.diff().diff().abs() > 1e-11  # a kink inside a cell bends at one or both of its ends
    return 1 + int((bent[1:] & ~bent[:-1]).sum() + bent[0])


@pytest.mark.parametrize("depth", range(1, 11))
def test_depth_k_has_two_to_the_k_pieces_and_6k_plus_1_weights(depth):
    network = Sawtooth(depth)
    assert count_pieces(network.layers, 0, 1) == 2**depth
    assert sum(p.numel() for p in network.parameters()) == 6 * depth + 1
    assert breakpoints(network.layers, 0, 1) == [Fraction(j, 2**depth) for j in range(1, 2**depth)]


@pytest.mark.parametrize("depth", range(1, 11))
def test_deep_shallow_and_formula_agree_to_the_bit(depth):
    x = dyadic_grid(14)
    shallow = BumpNetwork.approximate(lambda x: sawtooth(x, depth), 0.0, 1.0, 2**depth)
    expected = sawtooth(x, depth)
    assert torch.equal(Sawtooth(depth)(x), expected)
    assert torch.equal(shallow(x), expected)
    if depth > 8:  # a thousand units on a thousand pieces: seconds, and nothing new
        return
    assert count_pieces(shallow.layers, 0, 1) == 2**depth
    # Left of the interval the shallow network is flat: with that piece it reaches the bound n + 1 of one layer.
    assert count_pieces(shallow.layers, -1, 1) == max_pieces([shallow.num_units]) == 2**depth + 1


def test_sawtooth_is_the_tent_composed():
    x = dyadic_grid(9).squeeze(1)
    tent = torch.minimum(2 * x, 2 - 2 * x)
    assert torch.equal(sawtooth(x, 1), tent)
    assert torch.equal(sawtooth(x, 4), sawtooth(sawtooth(x, 3), 1))


@pytest.mark.parametrize(("widths", "seed"), [([5], 0), ([7, 3], 1), ([4, 6, 3], 16), ([3, 5, 4, 2], 3), ([12, 9], 4)])
def test_random_networks_are_counted_as_a_fine_grid_sees_them(widths, seed):
    network = random_network(widths, seed)
    counted = count_pieces(network, -2.0, 3.0)
    assert counted == pieces_on_grid(network, -2.0, 3.0)
    assert 2 < counted <= max_pieces(widths)


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_changes_exactly_at_the_breakpoints(seed):
    network = random_network([6, 5], seed)
    edges = [-1.0, *(float(b) for b in breakpoints(network, -1, 2)), 2.0]
    slopes = []
    for left, right in pairwise(edges):
        a, b, c = (
            network(torch.tensor([[left], [(left + right) / 2], [right]], dtype=torch.float64)).squeeze(1).tolist()
        )
        assert (a + c) / 2 == pytest.approx(b, abs=1e-12)  # straight between two breakpoints
        slopes.append((c - a) / (right - left))
    assert all(abs(a - b) > 1e-6 for a, b in pairwise(slopes))


def test_equal_slopes_merge():
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():  # relu(x) - relu(-x) = x: two units switch at 0 and nothing is seen
        network[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        network[0].bias.zero_()
        network[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
    assert count_pieces(network, -1, 1) == 1
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[1.0, -1.0 + 2**-23]]))  # the smallest change of slope float32 can hold
    assert count_pieces(network, -1, 1) == 2


def test_nested_stacks_biasless_layers_and_tiny_weights():
    inner = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU())
    network = nn.Sequential(inner, nn.Linear(3, 1))
    with torch.no_grad():
        inner[0].weight.copy_(torch.tensor([[1e-30], [-2.0], [0.0]]))
        network[1].weight.fill_(1.0)
    assert breakpoints(network, -1, 1) == [0]
    assert count_pieces(network, 0.25, 1) == 1


@pytest.mark.parametrize("depth", [3, 6])
def test_too_few_pieces_miss_by_a_half(depth):
    wave = lambda x: sawtooth(x, depth)  # noqa: E731
    # Straight lines through 2^k - 1 equal cells: one piece fewer than the sawtooth, and nothing is gained over 1/2.
    network = BumpNetwork.approximate(wave, 0.0, 1.0, 2**depth - 1)
    assert count_pieces(network.layers, 0, 1) < 2**depth
    assert sup_error(network, wave, 0.0, 1.0, points=2**14 + 1) >= 0.5


@pytest.mark.parametrize(("depth", "widths"), [(6, [5]), (7, [3, 4]), (8, [9])])
def test_error_floor_holds_for_random_and_fitted_networks(depth, widths):
    x = dyadic_grid(15)
    target = sawtooth(x, depth)
    assert (target - 0.5).abs().mean() == pytest.approx(0.25, abs=1e-4)
    for seed in range(5):
        network = random_network(widths, seed)
        floor = error_floor(depth, count_pieces(network, 0, 1))
        with torch.no_grad():  # the best last layer for the hidden units that chance gave: least squares
            hidden = torch.cat([network[:-1](x), torch.ones_like(x)], dim=1)
            best = hidden @ torch.linalg.lstsq(hidden, target, driver="gelsd").solution
        assert (best - target).abs().mean() > floor > 0.05


def test_error_floor_grows_with_the_teeth_and_never_lies_about_the_exact_fit():
    assert [error_floor(k, 2**k) for k in range(1, 11)] == [0.0] * 10
    assert error_floor(20, 4) == pytest.approx(1 / 8, abs=1e-5)
    # An aligned sawtooth of half the frequency: its distance lies between the floor and the constant's 1/4.
    x = dyadic_grid(16)
    distance = (sawtooth(x, 4) - sawtooth(x, 9)).abs().mean().item()
    assert error_floor(9, 2**4) <= distance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_dtype(dtype):
    out = Sawtooth(3)(torch.tensor([[0.0625], [0.9375]], dtype=dtype))
    assert out.dtype == dtype
    assert out.squeeze(1).tolist() == [0.5, 0.5]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="depth must be positive, got 0"):
        Sawtooth(0)
    with pytest.raises(ValueError, match=r"must be \(batch, 1\), got \(4, 2\)"):
        Sawtooth(2)(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"got \[1, 1\]"):
        count_pieces(Sawtooth(2).layers, 1, 1)
    with pytest.raises(ValueError, match="got Sigmoid"):
        count_pieces(nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Linear(2, 1)), 0, 1)
    with pytest.raises(ValueError, match="one input to one output"):
        count_pieces(nn.Linear(2, 1), 0, 1)
    broken = nn.Linear(1, 1)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        count_pieces(broken, 0, 1)
