"""DeepLabv3: keep the resolution and spread the filters instead, at several rates side by side.

Chen, Papandreou, Schroff & Adam (2017), Rethinking atrous convolution, https://arxiv.org/abs/1706.05587.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch       C  channels in       H  rows    W  columns
    K  classes     D  channels of the head
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.models.resnet import SIZES as RESNETS
from dlbook.models.resnet import ResNet, ResNetConfig

#: The paper's ResNet-50 with an output for every 8 x 8 pixels; "deeplab_small" is ours: three stages that shrink a picture of
#: about 100 x 100 pixels to a quarter, the last with dilated filters.
BACKBONES = {
    "deeplabv3_resnet50": replace(RESNETS["resnet50"], output_stride=8),
    "deeplab_small": ResNetConfig((1, 1, 1, 1), (16, 32, 48, 48), stem="cifar", output_stride=4),
}


class DeepLabV3(nn.Module):
    """Dilated ResNet, atrous spatial pyramid pooling, logits enlarged to the size of the picture.

    A filter of rate r looks at every r-th pixel: it sees (2 r + 1) pixels across at the price of three.

    All names are torchvision's, so its weights load as they are once the auxiliary classifier's are left out.

    Args:
        backbone: The network that shrinks the picture; `BACKBONES` holds two.
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.
        rates: Of the pyramid's 3 x 3 filters; the paper has 6, 12, 18 for stride 16 and twice that for stride 8.
        width: Channels of the head, D.
        dropout: Share of the pyramid's features that are set to 0 while training.

    Shapes:
        x: (B, C, H, W).
        returns: logits (B, K, H, W).

    Raises:
        ValueError: If a size is not positive, or ``x`` is not (B, in_channels, H, W).

    Example:
        >>> model = DeepLabV3(BACKBONES["deeplab_small"], in_channels=1, num_classes=4, rates=(2, 4, 6), width=32)
        >>> model(torch.zeros(2, 1, 112, 96)).shape
        torch.Size([2, 4, 112, 96])
    """

    def __init__(
        self,
        backbone: ResNetConfig = BACKBONES["deeplabv3_resnet50"],
        *,
        in_channels: int = 3,
        num_classes: int = 21,
        rates: Sequence[int] = (12, 24, 36),
        width: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if min(num_classes, width, *rates) < 1:
            raise ValueError(f"sizes must be positive, got {num_classes=}, {rates=} and {width=}")
        self.backbone = ResNet(backbone, in_channels=in_channels)
        self.backbone.fc = nn.Identity()  # type: ignore[assignment]  # no one classifier of the whole picture
        self.classifier = nn.Sequential(
            Pyramid(backbone.out_channels[-1], width, rates, dropout),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, num_classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.backbone.features(x)[-1]  # (B, backbone's channels, H / stride, W / stride)
        h = self.classifier(h)  # (B, K, H / stride, W / stride)
        return F.interpolate(h, x.shape[2:], mode="bilinear", align_corners=False)  # (B, K, H, W)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: a 1 x 1 filter, a 3 x 3 filter for each rate, and the mean of the whole picture.

    Shapes: x (B, C, H, W); returns (B, D, H, W).
    """

    def __init__(self, in_channels: int, width: int, rates: Sequence[int], dropout: float) -> None:
        super().__init__()
        branches = [nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())]
        for rate in rates:
            dilated = nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate, bias=False)
            branches.append(nn.Sequential(dilated, nn.BatchNorm2d(width), nn.ReLU()))
        pool = nn.AdaptiveAvgPool2d(1)
        branches.append(
            nn.Sequential(pool, nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        )
        self.convs = nn.ModuleList(branches)
        self.project = nn.Sequential(
            nn.Conv2d(len(branches) * width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = [branch(x) for branch in self.convs]
        seen[-1] = seen[-1].expand_as(seen[0])  # the mean (B, D, 1, 1) at every pixel
        h: Tensor = self.project(torch.cat(seen, 1))  # (B, D, H, W)
        return h
