"""A batch of pictures is taken or refused by its shape alone."""

import pytest
import torch

from dlbook.layers.checks import check_images


def test_pictures_that_fit_are_taken_whatever_their_values():
    check_images(torch.full((2, 3, 5, 4), float("nan")), 3, smallest=4)
    check_images(torch.zeros(0, 3, 5, 4, device="meta"), 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5, 4), r"must be \(batch, 3, height, width\), got \(3, 5, 4\)"),
        ((2, 3, 5), r"must be \(batch, 3, height, width\), got \(2, 3, 5\)"),
        ((2, 1, 5, 4), r"must be \(batch, 3, height, width\), got \(2, 1, 5, 4\)"),
        ((2, 3, 5, 3), r"at least 4 x 4 pixels, got \(2, 3, 5, 3\)"),
    ],
)
def test_others_are_refused_with_their_shape(shape, message):
    with pytest.raises(ValueError, match=message):
        check_images(torch.zeros(shape), 3, smallest=4)
