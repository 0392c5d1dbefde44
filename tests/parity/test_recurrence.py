"""RNN, LSTM and GRU against torch.nn's, by both paths: outputs, states and all gradients in float64."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlbook.models.gru import GRU
from dlbook.models.lstm import LSTM
from dlbook.models.rnn import RNN

B, T, INPUT, H = 4, 7, 5, 3
PAIRS = {
    "tanh": (RNN, nn.RNN, {}),
    "relu": (RNN, nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (LSTM, nn.LSTM, {}),
    "gru": (GRU, nn.GRU, {}),
}
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def parts(state):
    return (state,) if isinstance(state, torch.Tensor) else state


def run(model, x, state, weights, call):
    """Outputs, states, and the gradients of a sum that weighs every number of both differently."""
    x, state = x.clone().requires_grad_(), [part.clone().requires_grad_() for part in state]
    outputs, last = call(model, x, tuple(state) if len(state) == 2 else state[0])
    numbers = torch.cat([part.flatten() for part in (outputs, *parts(last))])
    grads = torch.autograd.grad((numbers * weights[: len(numbers)]).sum(), [x, *state, *model.parameters()])
    return [outputs, *parts(last), *grads]


def packed(model, x, state, lengths):
    """How torch.nn reads rows that end early."""
    together = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, last = model(together, state)
    return pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])[0], last


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "cells"])
@pytest.mark.parametrize("lengths", [None, [7, 5, 3, 1], [2, 6, 1, 4]], ids=["whole", "sorted", "unsorted and short"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 3, "bidirectional": True}, {"bias": False}],
    ids=["one", "two layers", "both ways", "three layers both ways", "no bias"],
)
@pytest.mark.parametrize(("ours", "theirs", "kind"), PAIRS.values(), ids=PAIRS)
def test_outputs_states_and_gradients_equal_torch(ours, theirs, kind, options, lengths, fused):
    torch.manual_seed(0)
    reference = theirs(INPUT, H, batch_first=True, **kind, **options).double()
    model = ours(INPUT, H, fused=fused, **kind, **options).double()
    model.load_state_dict(reference.state_dict())
    rows = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    x, weights = torch.randn(B, T, INPUT).double(), torch.randn(1000).double()
    state = torch.randn(2 if ours is LSTM else 1, rows, B, H).double().unbind(0)
    mine = run(model, x, state, weights, lambda m, x, s: m(x, s, lengths))
    wanted = run(reference, x, state, weights, lambda m, x, s: m(x, s) if lengths is None else packed(m, x, s, lengths))
    for one, two in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, two, **EXACT)


@pytest.mark.parametrize(("ours", "theirs", "kind"), PAIRS.values(), ids=PAIRS)
def test_the_first_weights_are_torchs(ours, theirs, kind):
    options = {"forget_bias": 0.0} if ours is LSTM else {}
    torch.manual_seed(0)
    mine = ours(INPUT, H, 2, bidirectional=True, **kind, **options).state_dict()
    torch.manual_seed(0)
    wanted = theirs(INPUT, H, 2, bidirectional=True, **kind).state_dict()
    assert list(mine) == list(wanted)
    assert all(torch.equal(mine[name], wanted[name]) for name in mine)


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "cells"])
@pytest.mark.parametrize(("ours", "theirs", "kind"), PAIRS.values(), ids=PAIRS)
def test_dropout_falls_between_the_layers_only(ours, theirs, kind, fused):
    torch.manual_seed(0)
    reference = theirs(INPUT, H, 3, dropout=0.5, batch_first=True, **kind).double()
    model = ours(INPUT, H, 3, dropout=0.5, fused=fused, **kind).double()
    model.load_state_dict(reference.state_dict())
    x = torch.randn(B, T, INPUT).double()
    for mode in (True, False):  # the same draws give the same masks
        torch.manual_seed(1)
        mine, _ = model.train(mode)(x)
        torch.manual_seed(1)
        torch.testing.assert_close(mine, reference.train(mode)(x)[0], **EXACT)
