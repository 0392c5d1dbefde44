"""Batches against indexing by hand, and its order brought back from a saved state."""

import pytest
import torch

from dlbook.data.batches import Batches

X = torch.arange(23.0 * 5).view(23, 5)
Y = torch.arange(23)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orders(batches: Batches, epochs: int) -> list[list[int]]:
    return [torch.cat([y for _, y in batches]).tolist() for _ in range(epochs)]


def test_unshuffled_batches_are_slices_in_order():
    pairs = list(Batches(X, Y, 4))
    assert [(tuple(x.shape), tuple(y.shape)) for x, y in pairs] == 5 * [((4, 5), (4,))] + [((3, 5), (3,))]
    assert torch.equal(torch.cat([x for x, _ in pairs]), X)
    assert torch.equal(torch.cat([y for _, y in pairs]), Y)


def test_shuffled_batches_follow_the_permutation_drawn_and_keep_pairs_together():
    expected = torch.randperm(23, generator=seeded()).tolist()
    batches = Batches(X, Y, 4, shuffle=True, generator=seeded())
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert y.tolist() == expected
    assert torch.equal(x, X[y])


def test_every_epoch_has_all_examples_in_another_order():
    first, second = orders(Batches(X, Y, 4, shuffle=True, generator=seeded()), 2)
    assert sorted(first) == sorted(second) == Y.tolist()
    assert first != second


def test_without_a_generator_the_global_seed_decides():
    def order() -> list[list[int]]:
        torch.manual_seed(8)
        return orders(Batches(X, Y, 4, shuffle=True), 2)

    assert order() == order()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [(4, False, [4, 4, 4, 4, 4, 3]), (4, True, [4, 4, 4, 4, 4]), (23, True, [23]), (100, False, [23])],
)
def test_len_and_drop_last_agree_with_what_comes(batch_size, drop_last, sizes, shuffle):
    batches = Batches(X, Y, batch_size, drop_last=drop_last, shuffle=shuffle)
    assert [len(x) for x, _ in batches] == [len(y) for _, y in batches] == sizes
    assert len(batches) == len(sizes)


def test_a_saved_state_brings_back_the_orders_that_were_still_to_come():
    batches = Batches(X, Y, 4, shuffle=True, generator=seeded())
    orders(batches, 2)
    state = batches.state_dict()
    expected = orders(batches, 3)
    other = Batches(X, Y, 4, shuffle=True, generator=seeded(99))
    other.load_state_dict(state)
    assert orders(other, 3) == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Batches(X[:9], Y[:9], 4, shuffle=True, generator=seeded()), "examples 23 there, 9 here"),
        (Batches(X, Y, 6, shuffle=True, generator=seeded()), "batch_size 4 there, 6 here"),
        (Batches(X, Y, 4, generator=seeded()), "shuffle True there, False here"),
        (Batches(X, Y, 4, shuffle=True), "only one of the two has a generator"),
    ],
)
def test_the_state_of_other_batches_is_refused(other, message):
    state = Batches(X, Y, 4, shuffle=True, generator=seeded()).state_dict()
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Y[:-1], 4), "x has 23 examples and y has 22"),
        ((X[:0], Y[:0], 4), "no examples"),
        ((X, Y, 0), "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arguments)


def test_dropping_the_only_batch_is_refused():
    with pytest.raises(ValueError, match="23 examples are fewer than batch_size=24"):
        Batches(X, Y, 24, drop_last=True)


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_shares_of_several_processes_make_up_the_batches(shuffle):
    whole = Batches(X, Y, 5, shuffle=shuffle, generator=seeded())
    shares = [Batches(X, Y, 5, shuffle=shuffle, generator=seeded(), rank=rank, world_size=3) for rank in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for all_of_it, *dealt in zip(batch, *parts, strict=True):
            assert {len(part) for part in dealt} <= {len(all_of_it) // 3, -(-len(all_of_it) // 3)}
            for rank, part in enumerate(dealt):
                assert torch.equal(part, all_of_it[rank::3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2}, "got rank=2 and world_size=2"),
        ({"rank": -1}, "got rank=-1 and world_size=2"),
        ({"shuffle": True}, "each needs a generator seeded alike"),
        ({"world_size": 4}, "4 processes cannot share a batch of 3 examples"),
        ({"world_size": 5, "drop_last": True}, "5 processes cannot share a batch of 4 examples"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(X, Y, 4, **({"world_size": 2} | arguments))


def test_the_tensors_are_moved_once():
    batches = Batches(X, Y, 4, device="meta")
    assert batches.x.device.type == batches.y.device.type == "meta"
    assert {x.device.type for x, _ in batches} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_order_is_the_same_on_a_gpu():
    cpu, gpu = (Batches(X, Y, 4, shuffle=True, generator=seeded(), device=device) for device in ("cpu", "cuda"))
    assert orders(cpu, 2) == orders(gpu, 2)
