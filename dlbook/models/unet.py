"""U-Net: shrink to see what is there, grow to say where, and hand every resolution across.

Ronneberger, Fischer & Brox (2015), https://arxiv.org/abs/1505.04597.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch       C  channels in    H  rows    W  columns
    K  classes     D  a width
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.checks import check_images

#: Figure 1 of the paper; "unet_small" is ours, for pictures of about 100 x 100 pixels: an eighth as wide, a stage less.
WIDTHS = {"unet_2015": (64, 128, 256, 512, 1024), "unet_small": (8, 16, 32, 64)}


class UNet(nn.Module):
    """Pairs of 3 x 3 convolutions at falling and then at rising resolution, and logits for every pixel.

    On the way up each stage sees what came up and, beside it, what the way down had at that resolution.

    Weights start from N(0, 2 / inputs of a neuron), as in the paper.

    Args:
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.
        widths: Channels at each resolution, from fine to coarse; `WIDTHS` holds the published ones.
        padded: Fill up with zeros at the borders, so that the output is as large as the input. The paper does not: it
            loses a ring of pixels at every convolution, and the logits are those of the middle.
        norm: Batch normalisation after each convolution, which the paper does not have.
        skips: False leaves what is handed across out, to see what it is good for.
        dropout: Share of the features that are set to 0 at the end of the way down while training; the paper drops some
            there and does not say how many.

    Shapes:
        x: (B, C, H, W); H and W divisible by 2 ** (resolutions - 1) if ``padded``, else as in the paper: 572 gives 388.
        returns: logits (B, K, H, W), or smaller if not ``padded``.

    Raises:
        ValueError: If a size is not positive, or ``x`` does not fit.

    Example:
        >>> model = UNet(1, 4, widths=WIDTHS["unet_small"], padded=True, norm=True)
        >>> model(torch.zeros(2, 1, 112, 96)).shape
        torch.Size([2, 4, 112, 96])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        widths: Sequence[int] = WIDTHS["unet_2015"],
        *,
        padded: bool = False,
        norm: bool = False,
        skips: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(in_channels, num_classes, *widths, len(widths) - 1) < 1:
            raise ValueError(
                f"sizes must be positive and widths at least two, got {in_channels}, {num_classes}, {widths}"
            )
        self.in_channels, self.padded, self.skips, self.dropout = in_channels, padded, skips, dropout
        self.down = nn.ModuleList(two_convolutions(i, o, padded, norm) for i, o in pairwise([in_channels, *widths]))
        rising = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in rising)
        self.join = nn.ModuleList(two_convolutions(2 * o if skips else o, o, padded, norm) for _, o in rising)
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                inputs = module.in_channels * (module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1)
                nn.init.normal_(module.weight, std=(2 / inputs) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        across = []
        for number, block in enumerate(self.down):
            if number:
                x = F.max_pool2d(x, 2)
            x = block(x)  # (B, widths[number], H / 2**number, W / 2**number), less the borders if not padded
            across.append(x)
        x = F.dropout(x, self.dropout, self.training)
        for up, join, old in zip(self.up, self.join, reversed(across[:-1]), strict=True):
            x = up(x)  # (B, D, 2 h, 2 w)
            x = join(torch.cat([crop(old, x), x], 1) if self.skips else x)  # (B, D, 2 h, 2 w), less the borders
        logits: Tensor = self.classifier(x)  # (B, K, H, W)
        return logits

    def _check(self, x: Tensor) -> None:
        check_images(x, self.in_channels)
        multiple = 2 ** (len(self.down) - 1)
        if self.padded and (x.shape[2] % multiple or x.shape[3] % multiple):
            raise ValueError(f"height and width must be multiples of {multiple}, got {tuple(x.shape)}")
        if not self.padded:
            for length in x.shape[2:]:
                for _ in range(len(self.down) - 1):
                    rest = length - 4  # after the two convolutions
                    if rest < 2 or rest % 2:
                        raise ValueError(
                            f"without padding each length must stay even and positive, got {tuple(x.shape)}"
                        )
                    length = rest // 2
                if length < 5:
                    raise ValueError(f"the picture is too small to do without padding, got {tuple(x.shape)}")


def two_convolutions(in_channels: int, out_channels: int, padded: bool, norm: bool) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation if asked for, ReLU; and again."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        # A bias before batch normalisation would be taken off again.
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=int(padded), bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The middle of ``x`` (B, D, H, W), as high and wide as ``like``."""
    top, left = ((a - b) // 2 for a, b in zip(x.shape[2:], like.shape[2:], strict=True))
    return x[:, :, top : top + like.shape[2], left : left + like.shape[3]]
