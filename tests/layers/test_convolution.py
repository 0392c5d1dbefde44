"""Convolution by its definition and as a matrix product, against PyTorch's."""

import pytest
import torch
from torch.nn import functional as F

from dlbook.layers.convolution import convolve2d, convolve2d_as_matmul

FUNCTIONS = pytest.mark.parametrize("function", [convolve2d, convolve2d_as_matmul])
OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (2, 3), "padding": (0, 2)},
    {"dilation": 2, "padding": 3},
    {"dilation": (1, 2), "groups": 2},
    {"groups": 2, "stride": (3, 1), "padding": (2, 1), "dilation": (2, 1)},
]


def pictures_and_kernel(groups, kernel=(3, 2)):
    generator = torch.Generator().manual_seed(0)
    shapes = (5, 4, 9, 8), (6, 4 // groups, *kernel), (6,)
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]


@FUNCTIONS
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_numbers_and_gradients_are_pytorchs(function, options):
    inputs = pictures_and_kernel(options.get("groups", 1))
    ours, theirs = function(*inputs, **options), F.conv2d(*inputs, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(theirs)
    ours, theirs = (torch.autograd.grad(y, inputs, direction) for y in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@FUNCTIONS
def test_depthwise_and_without_bias(function):
    x, weight, _ = pictures_and_kernel(groups=4)
    weight = weight[:4]
    torch.testing.assert_close(function(x, weight, groups=4), F.conv2d(x, weight, groups=4), rtol=1e-12, atol=1e-12)


@FUNCTIONS
def test_the_kernel_is_not_turned_around(function):
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 2] = 1.0
    weight = torch.arange(6.0).view(1, 1, 2, 3)
    assert function(x, weight)[0, 0].flatten().tolist() == [5.0, 2.0]  # read off the definition by hand


@FUNCTIONS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, r"D, C / 3, I, J.*\(6, 4, 3, 2\)"),
        ({"stride": 0}, "stride=0"),
        ({"padding": -1}, "padding=-1"),
        ({"dilation": 5}, r"dilation=5 does not fit into \(5, 4, 9, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(*pictures_and_kernel(1), **options)


@FUNCTIONS
def test_a_bias_of_another_length_is_refused(function):
    x, weight, bias = pictures_and_kernel(1)
    with pytest.raises(ValueError, match=r"bias must be \(6,\), got \(5,\)"):
        function(x, weight, bias[:5])
