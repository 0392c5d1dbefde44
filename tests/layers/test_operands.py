"""What the recurrences ask of their arguments."""

import pytest
import torch

from dlbook.layers.operands import check_shapes, check_tokens, widened, without_autocast


def test_the_first_shape_that_differs_is_named_and_none_is_none():
    x = torch.zeros(2, 3)
    check_shapes({"x": (2, 3), "h0": (7,)}, {"x": x, "h0": None, "y": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"^y must be \(3, 2\), got \(2, 3\)$"):
        check_shapes({"x": (2, 3), "y": (3, 2)}, {"x": x, "y": x})


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bool], ids=str)
def test_tokens_are_whole_numbers_of_one_rank_and_their_state_is_of_all_blocks(dtype):
    check_tokens(torch.zeros(2, 3, dtype=torch.uint8), 2, [0, 0, 0], 3)
    with pytest.raises(ValueError, match=rf"must be \(batch,\) whole numbers, got \(2,\) of {dtype}"):
        check_tokens(torch.zeros(2, dtype=dtype), 1, None, 3)
    with pytest.raises(ValueError, match=r"must be \(batch, length\) whole numbers, got \(2,\) of torch.int64"):
        check_tokens(torch.zeros(2, dtype=torch.int64), 2, None, 3)
    with pytest.raises(ValueError, match="part for each of 3 blocks, got 2"):
        check_tokens(torch.zeros(2, 3, dtype=torch.int64), 2, [0, 0], 3)


@pytest.mark.parametrize(
    ("first", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_the_first_decides_the_precision(first, wide):
    x, y = widened(torch.ones(2, dtype=first), torch.ones(3, dtype=torch.bfloat16))
    assert (x.dtype, y.dtype) == (wide, wide)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_what_is_no_real_floating_point_number_is_named(dtype):
    with pytest.raises(ValueError, match=rf"must be floating-point numbers, got torch\.float32, {dtype}$"):
        widened(torch.ones(2), torch.ones(2, dtype=dtype))


def test_autocast_is_left_and_come_back_to():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(x):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    with without_autocast(torch.ones(2, device="meta")):  # which knows no autocast
        pass
