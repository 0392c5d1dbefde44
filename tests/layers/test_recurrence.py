"""What RNN, LSTM and GRU share. That it computes what torch.nn does is in tests/parity/test_recurrence.py."""

import copy
import io

import pytest
import torch

from dlbook.models.gru import GRU
from dlbook.models.lstm import LSTM
from dlbook.models.rnn import RNN

B, T, INPUT, H = 4, 7, 5, 3
both_paths = pytest.mark.parametrize("fused", [True, False], ids=["kernel", "cells"])


@pytest.fixture(params=[RNN, LSTM, GRU], ids=lambda kind: kind.__name__)
def kind(request):
    torch.manual_seed(0)
    return request.param


def parts(state):
    return (state,) if isinstance(state, torch.Tensor) else state


def sequences(batch=B, steps=T):
    return torch.randn(batch, steps, INPUT, generator=torch.Generator().manual_seed(1)).double()


def state_of(kind, *shape):
    """Where all the state of this kind is ones."""
    ones = torch.ones(shape, dtype=torch.float64)
    return (ones, ones) if kind is LSTM else ones


def assert_same_state(one, two):
    for mine, wanted in zip(parts(one), parts(two), strict=True):
        torch.testing.assert_close(mine, wanted)


@both_paths
def test_one_step_at_a_time_equals_the_whole(kind, fused):
    model, x = kind(INPUT, H, 2, fused=fused).double(), sequences()
    whole, last = model(x)
    state, outputs = None, []
    for now in x.unbind(1):
        output, state = model.step(now, state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), whole)
    assert_same_state(state, last)


@both_paths
def test_two_parts_equal_the_whole(kind, fused):
    model, x = kind(INPUT, H, 2, fused=fused).double(), sequences()
    whole, last = model(x)
    first, state = model(x[:, :4])
    second, state = model(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    assert_same_state(state, last)


@both_paths
def test_a_row_that_ends_early_is_read_as_if_alone(kind, fused):
    model, x = kind(INPUT, H, 2, bidirectional=True, fused=fused).double(), sequences()
    lengths = [2, 7, 1, 5]
    outputs, last = model(x, lengths=torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, state = model(x[row : row + 1, :length])
        torch.testing.assert_close(outputs[row, :length], alone[0])
        assert torch.equal(outputs[row, length:], torch.zeros(T - length, 2 * H).double())
        for mine, wanted in zip(parts(last), parts(state), strict=True):
            torch.testing.assert_close(mine[:, row], wanted[:, 0])


@both_paths
def test_an_empty_row_keeps_its_state_and_gives_no_gradient(kind, fused):
    model, x = kind(INPUT, H, bidirectional=True, fused=fused).double(), sequences().requires_grad_()
    begin = state_of(kind, 2, B, H)
    outputs, last = model(x, begin, [0, 3, 7, 0])
    for mine, wanted in zip(parts(last), parts(begin), strict=True):
        assert torch.equal(mine[:, [0, 3]], wanted[:, [0, 3]])
        assert not torch.isclose(mine[:, [1, 2]], wanted[:, [1, 2]]).any()
    (outputs.sum() + sum(part.sum() for part in parts(last))).backward()
    assert not outputs[[0, 3]].any()
    assert not x.grad[[0, 3]].any()
    assert x.grad[1, :3].all()
    assert not x.grad[1, 3:].any()


@both_paths
@pytest.mark.parametrize("lengths", [None, [0, 0, 0, 0]])
def test_sequences_without_a_step_change_nothing(kind, lengths, fused):
    model, begin = kind(INPUT, H, 2, bidirectional=True, fused=fused).double(), state_of(kind, 4, B, H)
    outputs, last = model(sequences(steps=0), begin, lengths)
    assert outputs.shape == (B, 0, 2 * H)
    assert_same_state(last, begin)


@both_paths
def test_one_step_and_one_row(kind, fused):
    model, x = kind(INPUT, H, fused=fused).double(), sequences(batch=1, steps=1)
    outputs, last = model(x, lengths=[1])
    assert outputs.shape == (1, 1, H)
    torch.testing.assert_close(outputs[0], parts(last)[0][0])


@both_paths
def test_nan_stays_in_its_row_and_goes_forward_only(kind, fused):
    model, x = kind(INPUT, H, fused=fused).double(), sequences()
    wanted, _ = model(x)
    x[2, 3] = torch.nan
    outputs, _ = model(x)
    assert outputs[2, 3:].isnan().all()
    outputs[2, 3:] = wanted[2, 3:]
    torch.testing.assert_close(outputs, wanted)


@both_paths
def test_what_stands_behind_the_end_has_no_influence(kind, fused):
    model, x = kind(INPUT, H, 2, fused=fused).double(), sequences()
    lengths = [2, 0, 7, 4]
    clean, _ = model(x, lengths=lengths)
    clean.sum().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan
    outputs, _ = model(x, lengths=lengths)
    assert torch.equal(outputs, clean)
    outputs.sum().backward()
    for parameter, grad in zip(model.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, grad)


def test_both_paths_can_be_chosen_at_any_time(kind, monkeypatch):
    model, x = kind(INPUT, H).double(), sequences()
    called = []
    cell = model.cell
    monkeypatch.setattr(model, "cell", lambda *args: called.append(1) or cell(*args))
    by_kernel, _ = model(x)
    assert not called
    model.fused = False
    by_cells, _ = model(x)
    assert len(called) == T
    torch.testing.assert_close(by_kernel, by_cells)


def test_cells_can_be_differentiated_twice(kind):
    model = kind(2, 2, fused=False).double()
    x = torch.randn(2, 3, 2).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: model(x, lengths=[3, 1])[0], (x,))


def test_copies_and_saved_ones_give_the_same(kind):
    model, x = kind(INPUT, H, 2, bidirectional=True).double(), sequences()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x)[0], model(x)[0])
        with torch.no_grad():
            next(other.parameters()).add_(1.0)  # its own weights, and those that it computes with
        assert not torch.equal(other(x)[0], model(x)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("lengths", [None, [2, 0, 7, 4]])
def test_cudnn_gives_the_same(kind, lengths):
    model, x = kind(INPUT, H, 2, bidirectional=True).double(), sequences()
    wanted, last = model(x, lengths=lengths)
    outputs, state = model.cuda()(x.cuda(), lengths=lengths)  # a warning about scattered weights would be an error
    torch.testing.assert_close(outputs.cpu(), wanted)
    assert_same_state([part.cpu() for part in parts(state)], last)


SHAPE = r"state must be (a pair of|one tensor) \(2, 4, 3\), got "


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(zeros(B, T, 4)), r"x must be \(batch, time, 5\), got \(4, 7, 4\)"),
        (lambda m: m(zeros(T, INPUT)), r"x must be \(batch, time, 5\), got \(7, 5\)"),
        (lambda m: m.step(zeros(B, T, INPUT)), r"x must be \(batch, 5\), one time step, got \(4, 7, 5\)"),
        (lambda m: m.step(zeros(B, 4)), r"x must be \(batch, time, 5\), got \(4, 1, 4\)"),
        (lambda m: m(sequences(), state_of(type(m), B, 2, H)), SHAPE + r"\(4, 2, 3\)"),
        (lambda m: m(sequences(), state_of(type(m), 2, 1, H)), SHAPE + r"\(2, 1, 3\)"),
        (lambda m: m(sequences(), state_of(type(m), 1, B, H)), SHAPE + r"\(1, 4, 3\)"),
        (lambda m: m(sequences(), state_of(GRU if type(m) is LSTM else LSTM, 2, B, H)), SHAPE + r"\(2, 4, 3\)"),
        (lambda m: m(sequences(), lengths=[7, 5]), r"4 whole numbers, one for each row, got \(2,\) torch.int64"),
        (lambda m: m(sequences(), lengths=[7, 5, 3, 1, 1]), r"4 whole numbers, one for each row, got \(5,\)"),
        (lambda m: m(sequences(), lengths=[[7, 5, 3, 1]]), r"one for each row, got \(1, 4\)"),
        (lambda m: m(sequences(), lengths=[7.0, 5.0, 3.0, 1.0]), r"got \(4,\) torch.float32"),
        (lambda m: m(sequences(), lengths=[True, True, True, False]), r"got \(4,\) torch.bool"),
        (lambda m: m(sequences(), lengths=[8, 5, 3, 1]), "within 0 to 7, the steps of x, got 1 to 8"),
        (lambda m: m(sequences(), lengths=[7, 5, 3, -1]), "within 0 to 7, the steps of x, got -1 to 7"),
    ],
)
def test_wrong_input_is_named(kind, call, message):
    with pytest.raises(ValueError, match=message):
        call(kind(INPUT, H, 2).double())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input_size=0"),
        ({"hidden_size": -1}, "hidden_size=-1"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"dropout": 1.5, "num_layers": 2}, "within 0 to 1, got 1.5"),
        ({"dropout": -0.5, "num_layers": 2}, "within 0 to 1, got -0.5"),
        ({"dropout": 0.5}, "dropout=0.5 acts between layers, and there is only one"),
    ],
)
def test_wrong_sizes_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"input_size": INPUT, "hidden_size": H} | options)


def test_both_directions_cannot_stream(kind):
    with pytest.raises(ValueError, match="bidirectional=True needs the whole sequence"):
        kind(INPUT, H, bidirectional=True).step(torch.zeros(B, INPUT))


@both_paths
def test_a_batch_without_rows(kind, fused):
    outputs, last = kind(INPUT, H, 2, fused=fused).double()(sequences(batch=0))
    assert outputs.shape == (0, T, H)
    assert parts(last)[0].shape == (2, 0, H)
