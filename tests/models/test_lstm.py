"""The long short-term memory; what it shares with the others is in tests/layers/test_recurrence.py."""

import pytest
import torch

from dlbook.models.lstm import LSTM


@pytest.mark.parametrize("fused", [True, False])
def test_gates_wide_open_keep_the_memory(fused):
    """With forget open and input shut, c stays what it was for a thousand steps."""
    lstm = LSTM(1, 2, fused=fused).double()
    for parameter in lstm.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        lstm.bias_ih_l0.copy_(torch.tensor([-50.0, -50, 50, 50, 0, 0, 50, 50]))  # i, f, g, o
    c = torch.tensor([[[0.5, -2.0]]]).double()
    outputs, (h, last) = lstm(torch.randn(1, 1000, 1).double(), (torch.zeros_like(c), c))
    torch.testing.assert_close(last, c)
    torch.testing.assert_close(h, torch.tanh(c))
    torch.testing.assert_close(outputs[0], torch.tanh(c[0]).expand(1000, 2))


def test_forget_bias_is_added_to_that_gate_alone():
    def made(**options):
        torch.manual_seed(0)
        return LSTM(5, 3, 2, bidirectional=True, **options).state_dict()

    plain, one, two = made(forget_bias=0.0), made(), made(forget_bias=2.0)
    shift = torch.tensor([0.0] * 3 + [1.0] * 3 + [0.0] * 6)
    for name in plain:
        wanted = shift if name.startswith("bias_ih") else torch.zeros(1)
        torch.testing.assert_close(one[name], plain[name] + wanted)
        torch.testing.assert_close(two[name], plain[name] + 2 * wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_opened_gates_explain_every_step(bias):
    torch.manual_seed(0)
    lstm, x = LSTM(5, 3, bias=bias).double(), torch.randn(2, 7, 5).double()
    seen = lstm.opened(x)
    outputs, (_, c) = lstm(x)
    assert list(seen) == ["i", "f", "g", "o", "c", "h"]
    torch.testing.assert_close(seen["h"], outputs)
    torch.testing.assert_close(seen["c"][:, -1], c[0])
    torch.testing.assert_close(seen["o"] * torch.tanh(seen["c"]), outputs)
    before = torch.cat([torch.zeros(2, 1, 3).double(), seen["c"][:, :-1]], dim=1)
    torch.testing.assert_close(seen["f"] * before + seen["i"] * seen["g"], seen["c"])


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}])
def test_gates_are_shown_of_one_layer_and_direction(options):
    with pytest.raises(ValueError, match="one layer, one direction"):
        LSTM(5, 3, **options).opened(torch.zeros(2, 7, 5))
