"""AlexNet: five convolutions and three linear layers; the network that won ImageNet's challenge of 2012 by far.

Krizhevsky, Sutskever & Hinton (2012), https://papers.nips.cc/paper/4824, and in one piece Krizhevsky (2014), One weird
trick for parallelizing convolutional neural networks, https://arxiv.org/abs/1404.5997.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    H  rows    W  columns    K  classes
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.checks import check_images


@dataclass(frozen=True)
class AlexNetConfig:
    """Sizes of an AlexNet.

    Args:
        widths: Channels of the five convolutions.
        hidden: Units of both hidden linear layers.
        pooled: Rows and columns that the linear layers see.
        stem: Kernel, stride and padding of the first convolution.
        two_towers: As in 2012, where the network was split over two GPUs with 3 GB: the second, fourth and fifth
            convolution see only the half of the channels that lies on the same GPU (two groups), the first two are
            followed by local response normalisation, and the weights start as in the paper.
        dropout: Share of the hidden units that are set to 0 while training.

    Raises:
        ValueError: If a size is not positive, or there are not five widths.
    """

    widths: tuple[int, int, int, int, int]
    hidden: int = 4096
    pooled: int = 6
    stem: tuple[int, int, int] = (11, 4, 2)
    two_towers: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or min(*self.widths, self.hidden, self.pooled, *self.stem[:2]) < 1 or self.stem[2] < 0:
            raise ValueError(f"an AlexNet has five widths, and all its sizes are positive, got {self}")
        if self.two_towers and any(width % 2 for width in self.widths):
            raise ValueError(f"two towers share each layer's channels in halves, got widths={self.widths}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


#: Figure 2 of each paper; "alexnet_small" is ours.
SIZES = {
    "alexnet": AlexNetConfig((64, 192, 384, 256, 256)),
    "alexnet_2012": AlexNetConfig((96, 256, 384, 384, 256), two_towers=True),
    # For 28 x 28 pixels: a stem of 5 x 5 with stride 2, at most half as wide, short linear layers that see one pixel.
    "alexnet_small": AlexNetConfig((32, 64, 96, 64, 64), hidden=256, pooled=1, stem=(5, 2, 4)),
}


class AlexNet(nn.Module):
    """Convolutions with ReLU and overlapping max pooling, then linear layers with dropout.

    One tower starts as PyTorch's layers do. Two towers start as published: weights from N(0, 0.01^2), biases 1 in the
    second, fourth and fifth convolution and in the hidden linear layers, so that ReLU passes something on from the first
    step, and 0 elsewhere. In one piece all names are torchvision's, so its weights load as they are.

    Args:
        config: A row of `SIZES`, or your own.
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.

    Shapes:
        x: (B, C, H, W) float; 224 x 224 in the paper, 28 x 28 for the small one, others are averaged to fit.
        returns: logits (B, K).

    Raises:
        ValueError: If ``x`` is not (B, in_channels, H, W), or too small for three poolings.

    Example:
        >>> import torch
        >>> AlexNet(SIZES["alexnet_small"], in_channels=1, num_classes=10)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(self, config: AlexNetConfig, *, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be positive, got {in_channels} and {num_classes}")
        self.in_channels = in_channels
        self.smallest = smallest_side(config)
        one, two, three, four, five = config.widths
        kernel, stride, padding = config.stem
        groups = 2 if config.two_towers else 1
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, one, kernel, stride=stride, padding=padding),
            nn.ReLU(inplace=True),
            *([ResponseNorm()] if config.two_towers else []),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(one, two, 5, padding=2, groups=groups),
            nn.ReLU(inplace=True),
            *([ResponseNorm()] if config.two_towers else []),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(two, three, 3, padding=1),  # here, and in the linear layers, the towers see each other
            nn.ReLU(inplace=True),
            nn.Conv2d(three, four, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(four, five, 3, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(config.pooled)
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(five * config.pooled**2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, num_classes),
        )
        if config.two_towers:
            self._start_as_published()

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.in_channels, self.smallest)
        h = self.avgpool(self.features(x))  # (B, widths[-1], pooled, pooled)
        logits: Tensor = self.classifier(h.flatten(1))  # (B, K)
        return logits

    def _start_as_published(self) -> None:
        layers = [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for number, layer in enumerate(layers, start=1):
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 1.0 if number in (2, 4, 5, 6, 7) else 0.0)


def smallest_side(config: AlexNetConfig) -> int:
    """Fewest rows of a picture that leave one after the stem and the three poolings.

    Example:
        >>> smallest_side(SIZES["alexnet"]), smallest_side(SIZES["alexnet_small"])
        (63, 25)
    """
    side = 1
    for _ in range(3):
        side = (side - 1) * 2 + 3  # a pooling of 3 with stride 2
    kernel, stride, padding = config.stem
    return (side - 1) * stride + kernel - 2 * padding


class ResponseNorm(nn.Module):
    """The paper's section 3.3: a channel is damped by the squares of its n = 5 nearest, itself included.

    y[i] = a[i] / (k + alpha * sum of a[j]^2 for j from i - 2 to i + 2)^beta, with k = 2, alpha = 1e-4, beta = 0.75.
    (``torch.nn.LocalResponseNorm`` divides its alpha by n.)

    Shapes: a (B, C, H, W); returns the same.
    """

    def forward(self, a: Tensor) -> Tensor:
        wide = a.to(torch.promote_types(a.dtype, torch.float32))  # squares overflow float16 soon
        squares = F.pad(wide.square(), (0, 0, 0, 0, 2, 2))  # (B, C + 4, H, W)
        nearby = torch.zeros_like(wide)
        for i in range(5):
            nearby = nearby + squares[:, i : i + a.shape[1]]  # (B, C, H, W)
        return (wide * (2 + 1e-4 * nearby) ** -0.75).to(a.dtype)
