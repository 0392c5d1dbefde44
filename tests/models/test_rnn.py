"""The simple recurrent network; what it shares with the others is in tests/layers/test_recurrence.py."""

import math

import pytest
import torch

from dlbook.models.rnn import RNN


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("nonlinearity", "f"), [("relu", lambda s: max(s, 0.0)), ("tanh", math.tanh)])
def test_one_neuron_by_hand(nonlinearity, f, fused):
    """h = f(2 x - h + 1), where 1 is the sum of both biases."""
    rnn = RNN(1, 1, nonlinearity=nonlinearity, fused=fused)
    values = {"weight_ih_l0": [[2.0]], "weight_hh_l0": [[-1.0]], "bias_ih_l0": [0.25], "bias_hh_l0": [0.75]}
    rnn.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    outputs, h = rnn(torch.tensor([[[1.0], [1.5], [-1.0]]]))
    first = f(2 * 1.0 + 1)
    second = f(2 * 1.5 - first + 1)
    third = f(2 * -1.0 - second + 1)
    torch.testing.assert_close(outputs[0, :, 0], torch.tensor([first, second, third]))
    torch.testing.assert_close(h, torch.tensor([[[third]]]))


def test_an_unknown_nonlinearity_is_named():
    with pytest.raises(ValueError, match="'tanh' or 'relu', got 'gelu'"):
        RNN(5, 3, nonlinearity="gelu")
