"""ConvNeXt: a residual network brought up to date step by step until it matches the transformers.

Liu et al. (2022), A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545.
The steps on the way from a ResNet are in :mod:`dlbook.models.modernize`.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels, of the pictures or of a stage    H  rows    W  columns    L  classes
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlbook.layers.stochastic_depth import StochasticDepth, rising_rates


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Sizes of a ConvNeXt.

    Args:
        depths: Blocks in each stage.
        widths: Channels of each stage.
        patch_size: Side of the patches that the stem maps to one place each, in pixels.
        drop_path: Stochastic depth of the last block; the rate rises evenly from 0 at the first.
        layer_scale: What each branch is multiplied by at first, channel by channel.

    Raises:
        ValueError: If a size is not positive, or there are not as many widths as depths.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    patch_size: int = 4
    drop_path: float = 0.0
    layer_scale: float = 1e-6

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.widths):
            raise ValueError(f"each stage has a depth and a width, got {self.depths} and {self.widths}")
        if min(*self.depths, *self.widths, self.patch_size) < 1:
            raise ValueError(f"sizes must be positive, got {self}")

    @property
    def smallest_image(self) -> int:
        """Pixels that become one place in the last stage."""
        return self.patch_size << (len(self.depths) - 1)


SIZES = {
    # Section 3 of the paper, "ConvNeXt-T/S/B/L": C = channels, B = blocks. Stochastic depth: its table 5, ImageNet-1K.
    "convnext_tiny": ConvNeXtConfig(drop_path=0.1),
    "convnext_small": ConvNeXtConfig(depths=(3, 3, 27, 3), drop_path=0.4),
    "convnext_base": ConvNeXtConfig(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024), drop_path=0.5),
    "convnext_large": ConvNeXtConfig(depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536), drop_path=0.5),
    # For 28 x 28 on two cores: patches of 2 x 2 and three stages (14, 7 and 3 places wide), a third of the width. With
    # so few blocks the branches may count from the start: layer scale 0.1.
    "convnext_mini": ConvNeXtConfig(depths=(1, 1, 3), widths=(32, 64, 128), patch_size=2, layer_scale=0.1),
}


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W), at each place on its own.

    Example:
        >>> x = ChannelNorm(4)(torch.randn(2, 4, 3, 5))
        >>> bool(x.mean(1).abs().max() < 1e-5)
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # free where channels lie last in memory


class Block(nn.Module):
    """Mix places by a depthwise 7 x 7 convolution, then channels by a perceptron of four times the width.

    Args:
        width: Channels, C.
        layer_scale: First value of the factor for each channel of the branch.
        drop_path: Probability to leave the branch out while training, for each example.

    Shapes: x (B, C, H, W); returns the same.

    Example:
        >>> Block(width=8)(torch.zeros(2, 8, 5, 3)).shape
        torch.Size([2, 8, 5, 3])
    """

    def __init__(self, width: int, layer_scale: float = 1e-6, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)  # a convolution of 1 x 1, on channels that lie last
        self.gelu = nn.GELU()
        self.reduce = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))
        self.drop = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        h = self.reduce(self.gelu(self.expand(self.norm(h)))) * self.scale
        y: Tensor = x + self.drop(h.permute(0, 3, 1, 2))  # (B, C, H, W)
        return y


class ConvNeXt(nn.Module):
    """Class logits: patches, stages of blocks with a downsampling between two, mean over all places, norm, linear.

    First weights: normal of standard deviation 0.02, cut at 2 (in the paper's code, and so hardly ever), biases 0.

    Args:
        config: Sizes; `SIZES` has those of the paper and a small one.
        num_classes: Classes, L.
        in_channels: Colour channels of the pictures.

    Shapes:
        images: (B, C, H, W), 0 dark to 1 bright; rows and columns that fill no patch are left out.
        returns: logits (B, L).

    Raises:
        ValueError: If the pictures have another rank or other channels, or are too small for the stages.

    Example:
        >>> model = ConvNeXt(SIZES["convnext_mini"], num_classes=10, in_channels=1)
        >>> model(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(self, config: ConvNeXtConfig, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.in_channels = in_channels
        widths, patch = config.widths, config.patch_size
        rates = iter(rising_rates(config.drop_path, sum(config.depths)))
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], patch, stride=patch), ChannelNorm(widths[0]))
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(config.depths, widths, strict=True)):
            layers: list[nn.Module] = []
            if stage > 0:
                layers += [ChannelNorm(widths[stage - 1]), nn.Conv2d(widths[stage - 1], width, 2, stride=2)]
            layers += [Block(width, config.layer_scale, next(rates)) for _ in range(depth)]
            self.stages.append(nn.Sequential(*layers))
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], num_classes)
        self.apply(init_weights)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each stage hands on, (B, C, H, W), from fine to coarse."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"images must be (batch, {self.in_channels}, height, width), got {tuple(images.shape)}")
        if min(images.shape[2:]) < self.config.smallest_image:
            raise ValueError(
                f"images of {tuple(images.shape[2:])} are below {self.config.smallest_image} pixels a side"
            )
        x = self.stem(images).contiguous(memory_format=torch.channels_last)  # all that follows then moves no memory
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images)[-1].mean(dim=(2, 3))  # (B, C)
        logits: Tensor = self.head(self.norm(x))  # (B, L)
        return logits


def init_weights(module: nn.Module) -> None:
    """Weights of convolutions and linear layers from a normal distribution of standard deviation 0.02, biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' ``ConvNextForImageClassification``, under our names."""
    return _renamed(state_dict, TRANSFORMERS_NAMES)


def convert_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's ``ConvNeXt``, under our names."""
    return {
        name: tensor.flatten() if name.endswith(".scale") else tensor
        for name, tensor in _renamed(state_dict, TORCHVISION_NAMES).items()
    }


def _renamed(state_dict: Mapping[str, Tensor], parts: Mapping[str, str]) -> dict[str, Tensor]:
    """Our names: a stage counts its downsampling as layers 0 and 1, so that its blocks start at 2, after the first."""
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, ours in parts.items():
            name = re.sub(pattern, ours, name)
        if found := re.match(r"(BLOCK|DOWN)\.(\d+)\.(\d+)\.", name):
            stage, layer = int(found[2]), int(found[3])
            layer += 2 if found[1] == "BLOCK" and stage > 0 else 0
            name = f"stages.{stage}.{layer}.{name[found.end() :]}"
        renamed[name] = tensor
    return renamed


TRANSFORMERS_NAMES = {
    r"^convnext\.": "",
    r"^embeddings\.patch_embeddings\.": "stem.0.",
    r"^embeddings\.layernorm\.": "stem.1.",
    r"^encoder\.stages\.(\d+)\.layers\.": r"BLOCK.\1.",
    r"^encoder\.stages\.(\d+)\.downsampling_layer\.": r"DOWN.\1.",
    r"\.dwconv\.": ".depthwise.",
    r"^(BLOCK.*)\.layernorm\.": r"\1.norm.",
    r"\.pwconv1\.": ".expand.",
    r"\.pwconv2\.": ".reduce.",
    r"\.layer_scale_parameter$": ".scale",
    r"^layernorm\.": "norm.",
    r"^classifier\.": "head.",
}
# torchvision counts the stem, the stages and what lies between them in one list: 0 stem, 1 stage, 2 downsampling, ...
TORCHVISION_NAMES = {
    r"^features\.0\.": "stem.",
    **{rf"^features\.{2 * stage + 1}\.": f"BLOCK.{stage}." for stage in range(4)},
    **{rf"^features\.{2 * stage}\.": f"DOWN.{stage}." for stage in range(1, 4)},
    r"\.block\.0\.": ".depthwise.",
    r"\.block\.2\.": ".norm.",
    r"\.block\.3\.": ".expand.",
    r"\.block\.5\.": ".reduce.",
    r"\.layer_scale$": ".scale",
    r"^classifier\.0\.": "norm.",
    r"^classifier\.2\.": "head.",
}
