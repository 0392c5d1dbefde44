"""VGG: nothing but 3 x 3 convolutions, pooled five times, then three linear layers.

Simonyan & Zisserman (2014), Very deep convolutional networks for large-scale image recognition,
https://arxiv.org/abs/1409.1556.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    H  rows    W  columns    K  classes
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from dlbook.layers.checks import check_images


@dataclass(frozen=True)
class VGGConfig:
    """Sizes of a VGG network.

    Args:
        blocks: Channels of the convolutions, block by block; each block ends in a pooling that halves rows and columns.
        hidden: Units of both hidden linear layers.
        pooled: Rows and columns that the linear layers see.
        batch_norm: Normalise after each convolution, which came a year after the paper.
        dropout: Share of the hidden units that are set to 0 while training.

    Raises:
        ValueError: If a size is not positive, or a block is empty.
    """

    blocks: tuple[tuple[int, ...], ...]
    hidden: int = 4096
    pooled: int = 7
    batch_norm: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if not self.blocks or not all(self.blocks) or min(min(block) for block in self.blocks) < 1:
            raise ValueError(f"every block needs one or more positive widths, got blocks={self.blocks}")
        if self.hidden < 1 or self.pooled < 1:
            raise ValueError(f"hidden and pooled must be positive, got {self.hidden} and {self.pooled}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


#: Table 1 of the paper, columns A, B, D and E; "vgg_small" is ours.
SIZES = {
    "vgg11": VGGConfig(((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2)),
    "vgg13": VGGConfig(((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2)),
    "vgg16": VGGConfig(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)),
    "vgg19": VGGConfig(((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)),
}
SIZES |= {f"{name}_bn": replace(config, batch_norm=True) for name, config in SIZES.items()}
# For 28 x 28 pixels: VGG-11's first three blocks, a quarter as wide, short linear layers.
SIZES["vgg_small"] = VGGConfig(((16,), (32,), (64,) * 2), hidden=128, pooled=3, batch_norm=True)


class VGG(nn.Module):
    """Blocks of 3 x 3 convolutions with ReLU and a max pooling, then linear layers with dropout.

    Convolutions start from N(0, 2 / (channels out * 9)), linear weights from N(0, 0.01^2), biases at 0, as torchvision
    has it: the paper started the deeper networks from shallower trained ones instead. All names are torchvision's, so its
    weights load as they are.

    Args:
        config: A row of `SIZES`, or your own.
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.

    Shapes:
        x: (B, C, H, W) float; 224 x 224 in the paper, 28 x 28 for the small one, others are averaged to fit.
        returns: logits (B, K).

    Raises:
        ValueError: If ``x`` is not (B, in_channels, H, W), or has fewer pixels than the poolings need.

    Example:
        >>> import torch
        >>> VGG(SIZES["vgg_small"], in_channels=1, num_classes=10)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(self, config: VGGConfig, *, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be positive, got {in_channels} and {num_classes}")
        self.in_channels = in_channels
        self.smallest: int = 2 ** len(config.blocks)
        layers: list[nn.Module] = []
        channels = in_channels
        for block in config.blocks:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1)]
                layers += [nn.BatchNorm2d(width)] if config.batch_norm else []
                layers += [nn.ReLU(inplace=True)]
                channels = width
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(config.pooled)
        self.classifier = nn.Sequential(
            nn.Linear(channels * config.pooled**2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.in_channels, self.smallest)
        h = self.avgpool(self.features(x))  # (B, channels of the last block, pooled, pooled)
        logits: Tensor = self.classifier(h.flatten(1))  # (B, K)
        return logits
