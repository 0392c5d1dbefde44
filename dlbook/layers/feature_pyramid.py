"""What a detector puts around a pre-trained network: a pyramid of feature maps, and normalisation that stays as it is.

Lin et al. (2017), Feature Pyramid Networks, https://arxiv.org/abs/1612.03144.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    H, W  rows and columns of a map
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose four numbers for each channel are constants: those of pre-training.

    A detector trains on a few large images at a time, too few to estimate statistics from.

    Args:
        channels: C.
        eps: Added to the variance; 0 as in the published detectors.

    Shapes:
        x: (B, C, H, W); returns the same.

    Example:
        >>> norm = FrozenBatchNorm2d(3)
        >>> len(list(norm.parameters())), norm(torch.ones(1, 3, 2, 2)).mean()
        (0, tensor(1.))
    """

    def __init__(self, channels: int, *, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.get_buffer("weight") * (self.get_buffer("running_var") + self.eps).rsqrt()  # (C,)
        shift = self.get_buffer("bias") - self.get_buffer("running_mean") * scale
        return x * scale.to(x.dtype).view(-1, 1, 1) + shift.to(x.dtype).view(-1, 1, 1)


class FeaturePyramid(nn.Module):
    """Coarse maps know what, fine maps know where: each is added, enlarged, to the next finer one.

    Weights start from Kaiming's uniform distribution with slope 1, biases at 0, as in torchvision.

    Args:
        in_channels: Of each map, from fine to coarse.
        channels: Of each result, C.

    Shapes:
        features: maps (B, in_channels[i], H_i, W_i).
        returns: a map (B, C, H_i, W_i) for each, and one more that takes every other cell of the last.

    Example:
        >>> pyramid = FeaturePyramid((8, 16), channels=4)
        >>> [tuple(f.shape) for f in pyramid([torch.zeros(2, 8, 10, 6), torch.zeros(2, 16, 5, 3)])]
        [(2, 4, 10, 6), (2, 4, 5, 3), (2, 4, 3, 2)]
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        # One convolution in a Sequential each, since that is how torchvision's names go.
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, channels, 1)) for c in in_channels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        top = self.inner_blocks[-1](features[-1])  # (B, C, H, W)
        maps = [self.layer_blocks[-1](top)]
        for i in reversed(range(len(features) - 1)):
            lateral = self.inner_blocks[i](features[i])
            top = lateral + F.interpolate(top, size=lateral.shape[-2:])  # (B, C, 2 H, 2 W)
            maps.insert(0, self.layer_blocks[i](top))
        return [*maps, F.max_pool2d(maps[-1], 1, stride=2)]
