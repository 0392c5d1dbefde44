import math

import pytest
import torch

from dlbook.models.bump import BumpNetwork, error_bound, sup_error

N = 7
LOW, HIGH = -1.5, 2.0


def wave(x):
    """Lipschitz constant 3.5 (0.5 + 3), largest second derivative 9."""
    return 0.5 * x + torch.sin(3 * x)


def kink(x):
    return (x - 0.3).abs()  # 0.3 is no edge of any even grid used here


def column(values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def test_hats_are_linear_interpolation():
    network = BumpNetwork.approximate(wave, LOW, HIGH, 11)
    x = torch.linspace(LOW, HIGH, 503, dtype=torch.float64)
    nodes = torch.linspace(LOW, HIGH, 12, dtype=torch.float64)
    cell = torch.searchsorted(nodes, x, right=True).clamp(1, 11)
    share = (x - nodes[cell - 1]) / (nodes[cell] - nodes[cell - 1])
    expected = torch.lerp(wave(nodes)[cell - 1], wave(nodes)[cell], share)
    torch.testing.assert_close(network(x.unsqueeze(1)).squeeze(1), expected)


def test_steps_have_the_height_of_their_cell():
    network = BumpNetwork.approximate(wave, LOW, HIGH, 13, activation="sigmoid", steepness=200.0)
    edges = torch.linspace(LOW, HIGH, 14, dtype=torch.float64)
    middles = (edges[:-1] + edges[1:]) / 2
    torch.testing.assert_close(network(middles.unsqueeze(1)).squeeze(1), wave(middles))


def test_one_step_is_a_sigmoid_between_two_heights():
    network = BumpNetwork.approximate(lambda x: x, 0.0, 2.0, 2, activation="sigmoid", steepness=3.0)
    x = column([0.1, 0.9, 1.0, 1.7])
    torch.testing.assert_close(network(x), 0.5 + torch.sigmoid(3 * (x - 1)))


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize(("f", "lipschitz"), [(wave, 3.5), (kink, 1.0)])
@pytest.mark.parametrize("error", [0.3, 0.02])
def test_a_lipschitz_constant_guarantees_the_error(f, lipschitz, activation, error):
    network = BumpNetwork.for_error(f, LOW, HIGH, error, lipschitz=lipschitz, activation=activation)
    cell = (HIGH - LOW) / network.num_units
    assert sup_error(network, f, LOW, HIGH) <= error_bound(cell, lipschitz=lipschitz, activation=activation) <= error
    # One bump fewer would no longer be covered: the count is not larger than the proof needs.
    wider = (HIGH - LOW) / (network.num_units - 1)
    assert error_bound(wider, lipschitz=lipschitz, activation=activation) > error


def test_the_lipschitz_bound_of_hats_is_reached():
    # A kink in the middle of the only cell: the error there is L h / 2.
    network = BumpNetwork.approximate(torch.abs, -1.0, 1.0, 1)
    assert sup_error(network, torch.abs, -1.0, 1.0) == error_bound(2.0, lipschitz=1.0) == 1.0


def test_the_curvature_bound_of_hats_is_reached():
    network = BumpNetwork.approximate(torch.square, 0.0, 1.0, 4)
    assert sup_error(network, torch.square, 0.0, 1.0) == pytest.approx(error_bound(0.25, curvature=2.0), rel=1e-6)


def test_a_curvature_needs_far_fewer_bumps():
    smooth = BumpNetwork.for_error(wave, LOW, HIGH, 1e-4, curvature=9.0)
    rough = BumpNetwork.for_error(wave, LOW, HIGH, 1e-4, lipschitz=3.5)
    assert sup_error(smooth, wave, LOW, HIGH) <= 1e-4
    assert smooth.num_units == math.ceil(3.5 * math.sqrt(9 / 8e-4))
    assert rough.num_units > 100 * smooth.num_units // 2


@pytest.mark.parametrize("steepness", [2.0, 8.0, 40.0])
def test_the_bound_of_steps_holds_at_any_steepness(steepness):
    network = BumpNetwork.approximate(wave, LOW, HIGH, 37, activation="sigmoid", steepness=steepness)
    bound = error_bound((HIGH - LOW) / 37, lipschitz=3.5, activation="sigmoid", steepness=steepness)
    assert sup_error(network, wave, LOW, HIGH) <= bound


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_without_a_constant_the_error_is_measured(activation):
    network = BumpNetwork.for_error(kink, LOW, HIGH, 0.01, activation=activation)
    assert sup_error(network, kink, LOW, HIGH) <= 0.01
    half = BumpNetwork.approximate(kink, LOW, HIGH, network.num_units // 2, activation=activation)
    assert sup_error(half, kink, LOW, HIGH) > 0.01


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_output_has_the_dtype_of_the_input(dtype, activation):
    network = BumpNetwork.approximate(wave, LOW, HIGH, 9, activation=activation)
    x = torch.linspace(LOW, HIGH, N).unsqueeze(1).to(dtype)
    assert network(x).dtype == dtype
    torch.testing.assert_close(network(x), network(x.double()).to(dtype))


def test_float32_inputs_keep_float64_inside():
    # Slopes in the thousands cancel: float32 weights would lose the last digits of a rough function.
    network = BumpNetwork.approximate(lambda x: torch.sin(400 * x), 0.0, 1.0, 4000)
    x = torch.linspace(0.0, 1.0, 101).unsqueeze(1)
    assert torch.equal(network(x), network(x.double()).float())
    assert (network(x) - network.float()(x)).abs().max() > 1e-5


def test_moves_between_devices_and_dtypes():
    network = BumpNetwork.approximate(wave, LOW, HIGH, 5).float()
    assert network(torch.zeros(N, 1)).shape == (N, 1)
    assert network.to("meta")(torch.zeros(N, 1, device="meta")).device.type == "meta"


def test_state_dict_round_trip():
    trained = BumpNetwork.approximate(kink, LOW, HIGH, 6)
    fresh = BumpNetwork(6)
    fresh.load_state_dict(trained.state_dict())
    x = torch.randn(N, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fresh(x), trained(x))
    assert sum(p.numel() for p in fresh.parameters()) == 3 * 6 + 1


def test_outside_the_interval_hats_run_straight_on_and_steps_stay_level():
    hats = BumpNetwork.approximate(torch.square, 0.0, 1.0, 4)
    torch.testing.assert_close(hats(column([-9.0, 2.0])), column([0.0, 1.0 + 1.75]))
    steps = BumpNetwork.approximate(torch.square, 0.0, 1.0, 4, activation="sigmoid")
    torch.testing.assert_close(steps(column([-9.0, 9.0])), column([0.125**2, 0.875**2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 2.0}, r"bounded and not empty, got \[2.0, 2.0\]"),
        ({"high": math.inf}, "bounded and not empty"),
        ({"num_bumps": 0}, "num_bumps must be positive, got 0"),
        ({"activation": "tanh"}, "'relu' or 'sigmoid', got 'tanh'"),
        ({"activation": "sigmoid", "steepness": -1.0}, "steepness must be positive, got -1.0"),
        ({"f": lambda x: 1 / (x - x)}, "not finite at x = -1.5"),
        ({"f": lambda x: x.sum()}, "elementwise"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"f": wave, "low": LOW, "high": HIGH, "num_bumps": 5} | change
    with pytest.raises(ValueError, match=message):
        BumpNetwork.approximate(**arguments)


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="error must be positive, got 0"):
        BumpNetwork.for_error(wave, LOW, HIGH, 0.0)
    with pytest.raises(ValueError, match="would need 612500000 bumps"):
        BumpNetwork.for_error(wave, LOW, HIGH, 1e-8, lipschitz=3.5)
    with pytest.raises(ValueError, match="one of lipschitz and curvature"):
        BumpNetwork.for_error(wave, LOW, HIGH, 0.1, lipschitz=3.5, curvature=9.0)
    with pytest.raises(ValueError, match="no better bound for steps"):
        BumpNetwork.for_error(wave, LOW, HIGH, 0.1, curvature=9.0, activation="sigmoid")
    with pytest.raises(ValueError, match=r"must be \(batch, 1\), got \(7,\)"):
        BumpNetwork(3)(torch.zeros(N))


def test_a_jump_is_beyond_reach(monkeypatch):
    monkeypatch.setattr("dlbook.models.bump.MAX_BUMPS", 64)
    with pytest.raises(ValueError, match="64 bumps do not bring the measured error below"):
        BumpNetwork.for_error(lambda x: (x > 0.1).double(), LOW, HIGH, 0.1)
