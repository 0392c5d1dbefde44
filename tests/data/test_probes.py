"""Each probe asks what it says, has the right answer, and is the same for the same generator."""

import inspect

import pytest
import torch

from dlbook.data import probes
from dlbook.data.probes import IGNORE, adding, copy, parity, recall, selective_copy


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


CALLS = {
    "copy": lambda generator=None: copy(5, 9, symbols=4, span=3, generator=generator),
    "selective_copy": lambda generator=None: selective_copy(5, 7, symbols=4, span=3, generator=generator),
    "adding": lambda generator=None: adding(5, 7, generator=generator),
    "recall": lambda generator=None: recall(5, 4, keys=6, values=7, queries=3, gap=2, generator=generator),
    "parity": lambda generator=None: parity(5, 7, generator=generator),
}
each = pytest.mark.parametrize("probe", CALLS)


@each
def test_the_generator_decides(probe):
    first, again, other = (CALLS[probe](seeded(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(0)
    from_global = CALLS[probe]()
    torch.manual_seed(0)
    assert torch.equal(from_global[0], CALLS[probe]()[0])


@each
def test_a_generator_leaves_the_global_one_alone(probe):
    before = torch.get_rng_state()
    CALLS[probe](seeded())
    assert torch.equal(before, torch.get_rng_state())


@each
def test_no_loop_over_examples_or_steps(probe):
    source = inspect.getsource(getattr(probes, probe)).split('"""')[2]
    assert "for " not in source
    assert "while " not in source


def test_copy():
    x, y = copy(11, 9, symbols=4, span=3, generator=seeded())
    assert x.shape == y.shape == (11, 12)
    assert x.dtype == y.dtype == torch.int64
    assert x[:, :3].unique().tolist() == [0, 1, 2, 3]
    assert (x[:, 3:8] == 4).all()
    assert (x[:, 8] == 5).all()
    assert (x[:, 9:] == 4).all()
    assert (y[:, :9] == IGNORE).all()
    assert torch.equal(y[:, 9:], x[:, :3])  # each lies 9 positions before


def test_shortest_copy_goes_at_once():
    assert copy(1, 2, symbols=1, span=1)[0].tolist() == [[0, 2, 1]]


def test_selective_copy_keeps_the_order():
    x, y = selective_copy(200, 7, symbols=4, span=3, generator=seeded())
    assert x.shape == y.shape == (200, 10)
    kept = x[:, :7]
    assert ((kept < 4).sum(1) == 3).all()
    assert torch.equal(kept[kept < 4].view(200, 3), y[:, 7:])
    assert (y[:, :7] == IGNORE).all()
    assert (x[:, 7] == 5).all()
    assert (x[:, 8:] == 4).all()
    assert ((kept < 4).sum(0) > 50).all()  # everywhere


def test_adding():
    x, y = adding(500, 7, generator=seeded())
    assert x.shape == (500, 7, 2)
    numbers, marks = x.unbind(2)
    assert marks.unique().tolist() == [0, 1]
    assert (marks[:, :3].sum(1) == 1).all()
    assert (marks[:, 3:].sum(1) == 1).all()
    assert (marks.sum(0) > 70).all()
    assert torch.equal((numbers * marks).sum(1), y)
    assert 0.11 < (y - 1).square().mean() < 0.22  # 1 / 6
    assert adding(1, 2)[0][0, :, 1].tolist() == [1, 1]


def test_recall():
    x, y = recall(50, 4, keys=6, values=7, queries=3, gap=2, generator=seeded())
    assert x.shape == y.shape == (50, 13)
    assert (y[:, :10] == IGNORE).all()
    assert (x[:, 8:10] == 13).all()
    for tokens, targets in zip(x.tolist(), y.tolist(), strict=True):
        belongs = dict(zip(tokens[0:8:2], tokens[1:8:2], strict=True))
        assert len(belongs) == 4
        assert all(0 <= key < 6 <= value < 13 for key, value in belongs.items())
        assert targets[10:] == [belongs[key] for key in tokens[10:]]
        assert len(set(tokens[10:])) == 3
    assert len(x[:, 0].unique()) == 6
    assert len(x[:, 1].unique()) == 7


def test_recall_asks_in_another_order():
    x, _ = recall(60, 3, keys=3, values=2, generator=seeded())
    assert x.shape == (60, 9)
    same = (x[:, 0:6:2] == x[:, 6:]).all(1)
    assert 0 < same.sum() < 30  # one in six
    assert recall(2, 1, keys=1, values=1)[0].tolist() == [[0, 1, 0]] * 2


def test_parity_counts():
    x, y = parity(6, 9, generator=seeded())
    for bits, odd in zip(x.tolist(), y.tolist(), strict=True):
        assert odd == [sum(bits[: i + 1]) % 2 for i in range(9)]
    assert parity(2, 1)[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: copy(0, 9), "batch must be at least 1, got 0"),
        (lambda: copy(1, 10), "lag must be more than span=10, got 10"),
        (lambda: copy(1, 9, symbols=0), "symbols must be at least 1, got 0"),
        (lambda: copy(1, 9, span=0), "span must be at least 1, got 0"),
        (lambda: selective_copy(1, 9), "length must be at least span=10, got 9"),
        (lambda: selective_copy(1, 9, span=-1), "span must be at least 1, got -1"),
        (lambda: adding(0, 9), "batch must be at least 1, got 0"),
        (lambda: adding(1, 1), "length must be at least 2, got 1"),
        (lambda: recall(1, 5, keys=4), "5 pairs need as many different keys, and there are 4"),
        (lambda: recall(1, 5, queries=6), "queries must be at most pairs=5 and gap at least 0, got 6 and 0"),
        (lambda: recall(1, 5, gap=-1), "got 5 and -1"),
        (lambda: recall(1, 0), "pairs must be at least 1, got 0"),
        (lambda: parity(1, 0), "length must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
