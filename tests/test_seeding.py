"""dlbook.seeding: one seed for all sources of chance."""

import random

import numpy as np
import pytest
import torch

from dlbook.seeding import generator, seed_all


def draw():
    return random.random(), np.random.random(), torch.rand(3).tolist()  # noqa: NPY002  (the global one is meant)


def test_seed_all_repeats_every_global_generator():
    seed_all(5)
    first = draw()
    seed_all(5)
    assert draw() == first
    seed_all(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_seed_all_agrees_with_each_library():
    seed_all(11)
    assert random.random() == random.Random(11).random()
    assert np.random.random() == np.random.RandomState(11).random()  # noqa: NPY002
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(11)).item()


def test_generator_neither_reads_nor_moves_the_global_state():
    seed_all(5)
    before = torch.get_rng_state()
    own = torch.rand(4, generator=generator(9))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(17)
    assert torch.equal(torch.rand(4, generator=generator(9)), own)
    assert not torch.equal(torch.rand(4, generator=generator(8)), own)


def test_generator_lives_where_it_is_asked_to():
    assert generator(0).device == torch.device("cpu")
    assert generator(0, torch.device("cpu")).initial_seed() == 0


@pytest.mark.parametrize("call", [seed_all, generator])
@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0", None, True])
def test_what_is_no_seed_is_refused(call, seed):
    with pytest.raises(ValueError, match=f"seed must be a whole number from 0 to {2**32 - 1}, got"):
        call(seed)


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_ends_of_the_range_are_seeds(seed):
    seed_all(seed)
    assert generator(seed).initial_seed() == seed
