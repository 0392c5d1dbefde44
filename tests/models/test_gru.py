"""The gated recurrent unit; what it shares with the others is in tests/layers/test_recurrence.py."""

import pytest
import torch

from dlbook.models.gru import GRU


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("update", "wanted"), [(50.0, [0.5, -2.0]), (-50.0, [0.25, 0.75])])
def test_the_update_gate_keeps_or_replaces(update, wanted, fused):
    """Open, the state stays; shut, it becomes the candidate, here tanh of its bias alone, as the reset gate is shut."""
    gru = GRU(1, 2, fused=fused).double()
    for parameter in gru.parameters():
        torch.nn.init.zeros_(parameter)
    candidate = torch.atanh(torch.tensor([0.25, 0.75])).double()
    with torch.no_grad():
        gru.bias_ih_l0.copy_(torch.cat([torch.tensor([-50.0, -50, update, update]).double(), candidate]))  # r, z, n
        gru.weight_hh_l0[4:].fill_(3.0)
        gru.bias_hh_l0[4:].fill_(3.0)
    outputs, h = gru(torch.randn(1, 9, 1).double(), torch.tensor([[[0.5, -2.0]]]).double())
    wanted = torch.tensor(wanted).double()
    torch.testing.assert_close(outputs[0], wanted.expand(9, 2))
    torch.testing.assert_close(h[0, 0], wanted)
