"""The simple recurrent network; what it shares with the others is in tests/layers/test_recurrence.py."""

import pytest
import torch

from dlbook.models.rnn import RNN


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("nonlinearity", "wanted"), [("relu", [3.0, 1.0, 0.0]), ("tanh", [3.0, 1.0, -1.0])])
def test_one_neuron_by_hand(nonlinearity, wanted, fused):
    """h = f(2 x - 1 h + 1): 3, then 2 - 3 + 2 = 1, then -2 - 1 + 1 = -2."""
    rnn = RNN(1, 1, nonlinearity=nonlinearity, fused=fused)
    values = {"weight_ih_l0": [[2.0]], "weight_hh_l0": [[-1.0]], "bias_ih_l0": [0.25], "bias_hh_l0": [0.75]}
    rnn.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    outputs, h = rnn(torch.tensor([[[1.0], [1.5], [-1.0]]]))
    by_hand, last = [], torch.zeros(())
    for x in (1.0, 1.5, -1.0):
        last = getattr(torch, nonlinearity)(2 * x - last + torch.ones(()))
        by_hand.append(last)
    torch.testing.assert_close(outputs[0, :, 0], torch.stack(by_hand))
    torch.testing.assert_close(h[0, 0, 0], last)
    if nonlinearity == "relu":
        assert outputs[0, :, 0].tolist() == wanted


def test_an_unknown_nonlinearity_is_named():
    with pytest.raises(ValueError, match="'tanh' or 'relu', got 'gelu'"):
        RNN(5, 3, nonlinearity="gelu")
