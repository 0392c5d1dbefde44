"""Two-dimensional convolution from its definition, and as one product of matrices.

Chapter: chapters/03-convolutional-networks.ipynb

Deep learning calls convolution what signal processing calls cross-correlation: the kernel is not turned around. Both
functions here are for reading and for proofs; the models use ``torch.nn.Conv2d``, which gives the same numbers.

Letters for shapes in this file:
    B  batch           H, W    rows and columns of the picture          G  groups
    C  channels in     I, J    rows and columns of the kernel           L  places of the kernel, P * Q
    D  channels out    P, Q    rows and columns of the result
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = int | tuple[int, int]


def convolve2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Slide a kernel over pictures: at each place, the sum of what lies under it times its weights.

    With strides s, dilations d, and x extended by zeros::

        y[b, o, p, q] = bias[o] + sum over c, i, j of weight[o, c, i, j] * x[b, c, s p + d i, s q + d j]

    The only loops run over the kernel's positions i and j: each one adds a shifted copy of the picture, with its
    channels mixed.

    Args:
        x: Pictures.
        weight: Kernels; with groups, each sees only the channels of its own group.
        bias: One number for each channel of the result.
        stride: Pixels from one place to the next, one number or (rows, columns).
        padding: Rows and columns of zeros at each side.
        dilation: Pixels from one of the kernel's positions to the next.
        groups: Parts that the channels are split into, G; G = C is a depthwise convolution.

    Shapes:
        x (B, C, H, W), weight (D, C / G, I, J), bias (D,); returns (B, D, P, Q) with
        P = floor((H + 2 padding - dilation (I - 1) - 1) / stride) + 1.

    Raises:
        ValueError: If the shapes do not fit, or a number is out of range.

    Example:
        >>> x = torch.arange(16.0).view(1, 1, 4, 4)
        >>> difference = torch.tensor([[[[-1.0, 1.0]]]])  # right minus left
        >>> convolve2d(x, difference).squeeze().tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    s, d, (P, Q) = _geometry(x, weight, bias, stride, padding, dilation, groups)
    top, left = _pair(padding)
    x = F.pad(x, (left, left, top, top))
    x = x.view(len(x), groups, -1, *x.shape[2:])  # (B, G, C / G, H + 2 top, W + 2 left)
    weight = weight.reshape(groups, -1, *weight.shape[1:])  # (G, D / G, C / G, I, J)
    y = x.new_zeros(())
    for i in range(weight.shape[-2]):
        for j in range(weight.shape[-1]):
            rows = slice(i * d[0], i * d[0] + (P - 1) * s[0] + 1, s[0])
            columns = slice(j * d[1], j * d[1] + (Q - 1) * s[1] + 1, s[1])
            under = x[..., rows, columns]  # (B, G, C / G, P, Q): what lies under position (i, j) at every place
            y = y + torch.einsum("goc,bgcpq->bgopq", weight[..., i, j], under)  # (B, G, D / G, P, Q)
    y = y.flatten(1, 2)  # (B, D, P, Q)
    return y if bias is None else y + bias.view(-1, 1, 1)


def convolve2d_as_matmul(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """The same as one product of matrices ("im2col"): weights times all patches, written out side by side.

    A patch is what lies under the kernel at one place. Each pixel is stored up to I * J times, which is what the speed of
    a matrix product costs.

    Args:
        x: Pictures.
        weight: Kernels.
        bias: One number for each channel of the result.
        stride: As in `convolve2d`.
        padding: As in `convolve2d`.
        dilation: As in `convolve2d`.
        groups: As in `convolve2d`.

    Shapes: as in `convolve2d`.

    Raises:
        ValueError: If the shapes do not fit, or a number is out of range.

    Example:
        >>> x, weight = torch.randn(2, 3, 7, 5), torch.randn(4, 3, 3, 2)
        >>> torch.allclose(convolve2d_as_matmul(x, weight), convolve2d(x, weight), atol=1e-5)
        True
    """
    s, d, (P, Q) = _geometry(x, weight, bias, stride, padding, dilation, groups)
    patches = F.unfold(
        x, (weight.shape[2], weight.shape[3]), dilation=d, padding=_pair(padding), stride=s
    )  # (B, C I J, L)
    patches = patches.view(len(x), groups, -1, P * Q)  # (B, G, C / G I J, L)
    matrix = weight.reshape(groups, len(weight) // groups, -1)  # (G, D / G, C / G I J)
    y = (matrix @ patches).flatten(1, 2)  # (B, G, D / G, L) -> (B, D, L)
    y = y if bias is None else y + bias.view(-1, 1)
    return y.view(len(x), -1, P, Q)  # (B, D, P, Q)


def _pair(number: Pair) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else number


def _geometry(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Stride and dilation as pairs, and the rows and columns of the result, once everything is known to fit."""
    s, p, d = _pair(stride), _pair(padding), _pair(dilation)
    if min(*s, *d, groups) < 1 or min(p) < 0:
        raise ValueError(f"{stride=}, {dilation=} and {groups=} must be positive and {padding=} not negative")
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[0] % groups or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"x must be (B, C, H, W) and weight (D, C / {groups}, I, J) with D a multiple of {groups}, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    P, Q = ((x.shape[2 + a] + 2 * p[a] - d[a] * (weight.shape[2 + a] - 1) - 1) // s[a] + 1 for a in (0, 1))
    if min(P, Q) < 1:
        raise ValueError(f"a kernel of {tuple(weight.shape)} with {dilation=} does not fit into {tuple(x.shape)}")
    return s, d, (P, Q)
