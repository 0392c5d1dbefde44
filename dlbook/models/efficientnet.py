"""EfficientNet: one small network found by search, made larger in depth, width and resolution together.

Tan & Le (2019), EfficientNet: rethinking model scaling for convolutional neural networks,
https://arxiv.org/abs/1905.11946. Its blocks are those of MobileNetV2 (https://arxiv.org/abs/1801.04381) with squeeze and
excitation (https://arxiv.org/abs/1709.01507).

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch       C  channels in     E  channels within a block    H  rows    W  columns
    K  classes     D  channels out    S  squeezed channels
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.checks import check_images
from dlbook.layers.stochastic_depth import StochasticDepth

PADDINGS = ("symmetric", "tensorflow")


class Stage(NamedTuple):
    """A row of the paper's table: blocks of one kind, of which the first has the stride."""

    expand: int
    kernel: int
    stride: int
    width: int
    depth: int


@dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes of an EfficientNet.

    Args:
        stages: The blocks, from first to last.
        stem: Channels of the first convolution.
        head: Channels of the last convolution.
        resolution: Rows and columns of the pictures it is meant for; others work too.
        stem_stride: Stride of the first convolution.
        dropout: Share of the pooled features that are set to 0 while training.
        stochastic_depth: How often the last block is left out while training; earlier ones proportionally less often.
        norm_eps: Added to the variance in batch normalisation.
        norm_momentum: Share of the newest batch in the running statistics, as PyTorch counts it.
        divisor: Scaled widths are rounded to multiples of this.
        padding: ``"symmetric"``, or ``"tensorflow"``: the odd zero behind, as the weights on transformers' side want it.

    Raises:
        ValueError: If a size does not fit.
    """

    stages: tuple[Stage, ...]
    stem: int = 32
    head: int = 1280
    resolution: int = 224
    stem_stride: int = 2
    dropout: float = 0.2
    stochastic_depth: float = 0.2
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    divisor: int = 8
    padding: str = "symmetric"

    def __post_init__(self) -> None:
        sizes = (self.stem, self.head, self.resolution, self.stem_stride, self.divisor)
        if not self.stages or min(*sizes, *(min(stage) for stage in self.stages)) < 1:
            raise ValueError(f"all sizes must be positive, got {self}")
        if any(stage.kernel % 2 == 0 for stage in self.stages):
            raise ValueError(f"kernels must be odd, got {[stage.kernel for stage in self.stages]}")
        if not 0 <= self.dropout < 1 or not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"{self.dropout=} and {self.stochastic_depth=} must be at least 0 and below 1")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding must be one of {PADDINGS}, got {self.padding!r}")


def scaled(
    base: EfficientNetConfig, *, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0
) -> EfficientNetConfig:
    """A larger or smaller network: the operations grow with depth * width^2 * resolution^2.

    Args:
        base: What to start from.
        depth: Factor for the blocks of each stage, rounded up.
        width: Factor for all channels, rounded to multiples of ``base.divisor`` and never down by more than a tenth.
        resolution: Factor for rows and columns of the pictures, rounded.

    Raises:
        ValueError: If a factor is not positive.

    Example:
        >>> [stage.depth for stage in scaled(SIZES["efficientnet_b0"], depth=1.4).stages]
        [2, 3, 3, 5, 5, 6, 2]
    """
    if min(depth, width, resolution) <= 0:
        raise ValueError(f"factors must be positive, got {depth=}, {width=}, {resolution=}")

    def channels(number: int) -> int:
        wanted = number * width
        rounded = max(base.divisor, int(wanted + base.divisor / 2) // base.divisor * base.divisor)
        return rounded + base.divisor if rounded < 0.9 * wanted else rounded

    stages = tuple(
        stage._replace(width=channels(stage.width), depth=math.ceil(stage.depth * depth)) for stage in base.stages
    )
    size = max(1, round(base.resolution * resolution))
    return replace(base, stages=stages, stem=channels(base.stem), head=channels(base.head), resolution=size)


def compound(
    base: EfficientNetConfig, phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> EfficientNetConfig:
    """The paper's compound scaling: depth alpha^phi, width beta^phi and resolution gamma^phi together.

    alpha * beta^2 * gamma^2 is about 2, so phi counts the doublings of the operations, up to rounding: few blocks rounded
    up are many more. B1 to B7 use rounded factors near these, which `SIZES` has.

    Args:
        base: What to start from.
        phi: How far; 0 gives ``base`` back, with widths rounded.
        alpha: Growth of the depth.
        beta: Growth of the width.
        gamma: Growth of the resolution.

    Example:
        >>> compound(SIZES["efficientnet_b0"], 1).resolution
        258
    """
    return scaled(base, depth=alpha**phi, width=beta**phi, resolution=gamma**phi)


#: Table 1 of the paper: expansion, kernel, stride, channels, blocks.
B0 = EfficientNetConfig(
    stages=(
        Stage(1, 3, 1, 16, 1),
        Stage(6, 3, 2, 24, 2),
        Stage(6, 5, 2, 40, 2),
        Stage(6, 3, 2, 80, 3),
        Stage(6, 5, 1, 112, 3),
        Stage(6, 5, 2, 192, 4),
        Stage(6, 3, 1, 320, 1),
    )
)


def _published(width: float, depth: float, resolution: int, dropout: float) -> EfficientNetConfig:
    return replace(scaled(B0, width=width, depth=depth), resolution=resolution, dropout=dropout)


#: Width, depth, resolution and dropout as the authors published them with their code; "efficientnet_small" is ours.
SIZES = {
    "efficientnet_b0": B0,
    "efficientnet_b1": _published(1.0, 1.1, 240, 0.2),
    "efficientnet_b2": _published(1.1, 1.2, 260, 0.3),
    "efficientnet_b3": _published(1.2, 1.4, 300, 0.3),
    "efficientnet_b4": _published(1.4, 1.8, 380, 0.4),
    # From here on torchvision keeps the authors' constants of batch normalisation, since its weights come from them.
    "efficientnet_b5": replace(_published(1.6, 2.2, 456, 0.4), norm_eps=1e-3, norm_momentum=0.01),
    "efficientnet_b6": replace(_published(1.8, 2.6, 528, 0.5), norm_eps=1e-3, norm_momentum=0.01),
    "efficientnet_b7": replace(_published(2.0, 3.1, 600, 0.5), norm_eps=1e-3, norm_momentum=0.01),
    # For 28 x 28 pixels: three of seven stages, strides of 4 in all instead of 32, half as wide at the start, expansion
    # by 4 instead of 6.
    "efficientnet_small": EfficientNetConfig(
        stages=(Stage(1, 3, 1, 16, 1), Stage(4, 3, 2, 24, 2), Stage(4, 5, 1, 48, 2)),
        stem=16,
        head=256,
        resolution=28,
        stochastic_depth=0.1,
        divisor=4,
    ),
}


class EfficientNet(nn.Module):
    """Stem, stages of inverted bottlenecks, last 1 x 1 convolution, mean over all pixels, linear classifier.

    Convolutions start from N(0, 2 / (D * kernel's area / groups)), linear weights from U(-1, 1) / sqrt(K), biases at 0,
    as in torchvision. All names are torchvision's, so its weights load as they are.

    Args:
        config: A row of `SIZES`, or your own.
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.

    Shapes:
        x: (B, C, H, W) float.
        returns: logits (B, K).

    Raises:
        ValueError: If ``x`` is not (B, in_channels, H, W).

    Example:
        >>> import torch
        >>> model = EfficientNet(SIZES["efficientnet_small"], in_channels=1, num_classes=10)
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(self, config: EfficientNetConfig, *, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be positive, got {in_channels} and {num_classes}")
        self.config, self.in_channels = config, in_channels
        blocks_in_all = sum(stage.depth for stage in config.stages)
        blocks_so_far = 0
        channels = config.stem
        self.features = nn.Sequential(conv_norm(config, in_channels, channels, 3, config.stem_stride))
        for stage in config.stages:
            blocks = nn.Sequential()
            for i in range(stage.depth):
                rate = config.stochastic_depth * blocks_so_far / blocks_in_all
                blocks.append(Block(config, stage if i == 0 else stage._replace(stride=1), channels, rate))
                channels = stage.width
                blocks_so_far += 1
            self.features.append(blocks)
        self.features.append(conv_norm(config, channels, config.head, 1))
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.head, num_classes))

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -(num_classes**-0.5), num_classes**-0.5)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.in_channels)
        h = self.features(x).mean((2, 3))  # (B, head)
        logits: Tensor = self.classifier(h)  # (B, K)
        return logits


class Block(nn.Module):
    """Inverted bottleneck: widen by 1 x 1, look around in each channel alone, weigh the channels, narrow by 1 x 1.

    Args:
        config: Padding and normalisation.
        stage: Expansion, kernel, stride and width D.
        in_channels: Channels of ``x``, C.
        rate: How often the block is left out while training, where it has a shortcut.

    Shapes: x (B, C, H, W); returns (B, D, H / stride, W / stride), rounded up.
    """

    def __init__(self, config: EfficientNetConfig, stage: Stage, in_channels: int, rate: float) -> None:
        super().__init__()
        within = in_channels * stage.expand
        self.block = nn.Sequential(
            *([conv_norm(config, in_channels, within, 1)] if stage.expand != 1 else []),
            conv_norm(config, within, within, stage.kernel, stage.stride, groups=within),
            SqueezeExcitation(within, max(1, in_channels // 4)),
            conv_norm(config, within, stage.width, 1, activation=False),
        )
        self.shortcut = stage.stride == 1 and in_channels == stage.width
        self.stochastic_depth = StochasticDepth(rate)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.block(x)  # (B, D, H / stride, W / stride)
        return self.stochastic_depth(h) + x if self.shortcut else h


class SqueezeExcitation(nn.Module):
    """Weigh each channel by a number from 0 to 1 that depends on the mean of all channels.

    Shapes: x (B, E, H, W); returns the same.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (B, E, 1, 1)
        weight = self.fc2(F.silu(self.fc1(mean))).sigmoid()  # (B, E, 1, 1), through (B, S, 1, 1)
        return x.mul(weight)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding: H / stride rows, rounded up; an odd number of zeros has more behind."""

    def forward(self, x: Tensor) -> Tensor:
        zeros: list[int] = []
        for size, kernel, stride in zip(reversed(x.shape[2:]), self.kernel_size, self.stride, strict=True):  # squares
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            zeros += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, zeros), self.weight, self.bias, self.stride, groups=self.groups)


def conv_norm(
    config: EfficientNetConfig,
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, and SiLU unless it is the last of a block."""
    conv: nn.Module
    if config.padding == "tensorflow":
        conv = SameConv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    else:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out_channels, eps=config.norm_eps, momentum=config.norm_momentum)
    return nn.Sequential(conv, norm, *([nn.SiLU()] if activation else []))


def convert_transformers(state_dict: dict[str, Tensor], config: EfficientNetConfig) -> dict[str, Tensor]:
    """Weights of transformers' ``EfficientNetForImageClassification`` under our names.

    Args:
        state_dict: All its weights.
        config: Ours, which says which block belongs to which stage; it needs ``padding="tensorflow"`` and
            ``norm_eps=1e-3`` to give the same outputs.
    """
    places = [(i, j) for i, stage in enumerate(config.stages, start=1) for j in range(stage.depth)]
    return {_our_name(name, places, config): tensor for name, tensor in state_dict.items()}


def _our_name(name: str, places: list[tuple[int, int]], config: EfficientNetConfig) -> str:
    match name.removeprefix("efficientnet.").split("."):
        case ["embeddings", part, what]:
            return f"features.0.{['convolution', 'batchnorm'].index(part)}.{what}"
        case ["encoder", "blocks", number, part, layer, what]:
            stage, block = places[int(number)]
            first = 0 if config.stages[stage - 1].expand == 1 else 1  # without expansion there is one layer less
            layers = {"expansion": 0, "depthwise_conv": first, "squeeze_excite": first + 1, "projection": first + 2}
            inner = _INNER[layer]
            return f"features.{stage}.{block}.block.{layers[part]}.{inner}.{what}"
        case ["encoder", ("top_conv" | "top_bn") as part, what]:
            return f"features.{len(config.stages) + 1}.{['top_conv', 'top_bn'].index(part)}.{what}"
        case ["classifier", what]:
            return f"classifier.1.{what}"
    raise ValueError(f"{name!r} is no name of transformers' EfficientNet")


_INNER = {
    "expand_conv": "0",
    "expand_bn": "1",
    "depthwise_conv": "0",
    "depthwise_norm": "1",
    "reduce": "fc1",
    "expand": "fc2",
    "project_conv": "0",
    "project_bn": "1",
}
