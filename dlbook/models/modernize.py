"""From a ResNet to a ConvNeXt, one change at a time.

Liu et al. (2022), A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545, section 2 and figure 2.

Each step keeps all changes of the steps before it. The last one has the blocks of :mod:`dlbook.models.convnext`, and
gives the same numbers with the same weights.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    H  rows    W  columns    L  classes
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlbook.models.convnext import ChannelNorm, ConvNeXtConfig, init_weights


@dataclass(frozen=True)
class Design:
    """What a step has changed so far; the default is a ResNet with bottleneck blocks.

    Attributes:
        depths: Blocks in each stage.
        patchify: The stem cuts patches that do not overlap, instead of a larger convolution and max pooling.
        depthwise: The spatial convolution looks at each channel on its own.
        inverted: The block is wide in the middle (four times the width) instead of at its ends.
        spatial_first: The spatial convolution comes first in the block, at the narrow end.
        kernel: Side of the spatial convolution.
        gelu: GELU instead of ReLU.
        one_activation: One activation in a block, between the two 1 x 1 convolutions.
        one_norm: One norm in a block, after the spatial convolution.
        layer_norm: Layer norm over the channels instead of batch norm.
        own_downsampling: A norm and a 2 x 2 convolution between stages, instead of a stride in a stage's first block;
            also a norm after the stem and one before the head.
        layer_scale: A learned factor for each channel of a branch.
    """

    depths: tuple[int, ...]
    patchify: bool = False
    depthwise: bool = False
    inverted: bool = False
    spatial_first: bool = False
    kernel: int = 3
    gelu: bool = False
    one_activation: bool = False
    one_norm: bool = False
    layer_norm: bool = False
    own_downsampling: bool = False
    layer_scale: bool = False


def path(
    resnet_depths: tuple[int, ...] = (3, 4, 6, 3), convnext_depths: tuple[int, ...] = (3, 3, 9, 3)
) -> dict[str, Design]:
    """The designs in the order of the paper, each with one change more than the one before.

    The paper's "width up" has no step of its own: `width_for` brings every step to the same cost, which widens the
    network where a step has made it cheaper. The last step, layer scale, is in the paper's training recipe and not in
    its figure.

    Args:
        resnet_depths: Blocks in each stage of the ResNet, (3, 4, 6, 3) for ResNet-50.
        convnext_depths: The same for the ConvNeXt, (3, 3, 9, 3) for ConvNeXt-T.

    Example:
        >>> list(path())[:4]
        ['resnet', 'stage ratio', 'patchify stem', 'depthwise convolution']
    """
    changes: dict[str, dict[str, object]] = {
        "stage ratio": {"depths": convnext_depths},
        "patchify stem": {"patchify": True},
        "depthwise convolution": {"depthwise": True},
        "inverted bottleneck": {"inverted": True},
        "spatial convolution first": {"spatial_first": True},
        "kernel 7": {"kernel": 7},
        "GELU": {"gelu": True},
        "fewer activations": {"one_activation": True},
        "fewer norms": {"one_norm": True},
        "layer norm": {"layer_norm": True},
        "own downsampling": {"own_downsampling": True},
        "layer scale": {"layer_scale": True},
    }
    designs = {"resnet": Design(resnet_depths)}
    for name, change in changes.items():
        designs[name] = replace(list(designs.values())[-1], **change)  # type: ignore[arg-type]
    return designs


class Block(nn.Module):
    """A residual block as the design has it: 1 x 1, spatial, 1 x 1, or the spatial convolution first.

    Args:
        design: What has been changed so far.
        before: Channels that come in.
        width: Narrow width of the stage; a ResNet's block hands on four times as many channels, an inverted one these.
        stride: Of the spatial convolution.
        layer_scale: First value of the factor for each channel, where the design has one.

    Shapes: x (B, before, H, W); returns (B, C, H / stride, W / stride).

    Example:
        >>> Block(Design((1,)), before=6, width=4, stride=2)(torch.zeros(2, 6, 8, 8)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, design: Design, before: int, width: int, stride: int = 1, layer_scale: float = 1e-6) -> None:
        super().__init__()
        after, middle = (width, 4 * width) if design.inverted else (4 * width, width)
        norm, act = _norm(design), nn.GELU if design.gelu else nn.ReLU
        bias = design.one_norm  # a batch norm behind every convolution makes biases pointless

        def spatial(channels: int) -> nn.Conv2d:
            groups = channels if design.depthwise else 1
            pad = design.kernel // 2
            return nn.Conv2d(channels, channels, design.kernel, stride, pad, groups=groups, bias=bias)

        if design.spatial_first:
            convs = [spatial(before), nn.Conv2d(before, middle, 1, bias=bias), nn.Conv2d(middle, after, 1, bias=bias)]
        else:
            convs = [nn.Conv2d(before, middle, 1, bias=bias), spatial(middle), nn.Conv2d(middle, after, 1, bias=bias)]
        layers: list[nn.Module] = []
        for place, conv in enumerate(convs):
            layers.append(conv)
            if not design.one_norm or place == 0:
                layers.append(norm(conv.out_channels))
            if place == 1 or (place == 0 and not design.one_activation):
                layers.append(act())
        self.branch = nn.Sequential(*layers)
        self.scale = nn.Parameter(torch.full((after,), layer_scale)) if design.layer_scale else None
        self.last = nn.Identity() if design.one_activation else act()
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.branch(x)
        if self.scale is not None:
            h = h * self.scale[:, None, None]
        y: Tensor = self.last(self.shortcut(x) + h)
        return y


class Modernized(nn.Module):
    """A network on the way from ResNet to ConvNeXt.

    First weights: as in ConvNeXt, normal of standard deviation 0.02 and biases 0, once blocks have layer norm; before,
    normal with the variance that He et al. (2015) derive for ReLU.

    Args:
        design: One of `path`.
        width: Narrow width of the first stage; each further stage doubles it.
        patch_size: Pixels that become one place in the first stage, along each axis; even.
        num_classes: Classes, L.
        in_channels: Colour channels.
        layer_scale: First value of the factor for each channel, where the design has one.

    Shapes:
        images: (B, C, H, W), 0 dark to 1 bright.
        returns: logits (B, L).

    Raises:
        ValueError: If a size does not fit, or the pictures have another rank or other channels.

    Example:
        >>> for design in path((1, 1), (1, 2)).values():
        ...     logits = Modernized(design, width=8, patch_size=2, num_classes=10)(torch.rand(2, 3, 16, 16))
        >>> logits.shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        design: Design,
        *,
        width: int,
        patch_size: int = 4,
        num_classes: int = 1000,
        in_channels: int = 3,
        layer_scale: float = 1e-6,
    ) -> None:
        super().__init__()
        if width < 1 or patch_size < 2 or patch_size % 2 or not design.depths:
            raise ValueError(f"width must be positive and patch_size even, got {width=} and {patch_size=}")
        self.in_channels = in_channels
        norm = _norm(design)
        self.stem = self._stem(design, in_channels, width, patch_size)
        before = width
        stages: list[nn.Module] = []
        for stage, depth in enumerate(design.depths):
            narrow = width * 2**stage
            layers: list[nn.Module] = []
            stride = 2 if stage > 0 else 1
            if stage > 0 and design.own_downsampling:
                layers += [norm(before), nn.Conv2d(before, narrow, 2, stride=2)]
                before, stride = narrow, 1
            for number in range(depth):
                layers.append(Block(design, before, narrow, stride if number == 0 else 1, layer_scale))
                before = narrow if design.inverted else 4 * narrow
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(before, eps=1e-6) if design.own_downsampling else nn.Identity()
        self.head = nn.Linear(before, num_classes)
        self.apply(init_weights if design.layer_norm else _init_he)

    @staticmethod
    def _stem(design: Design, in_channels: int, width: int, patch: int) -> nn.Sequential:
        norm = _norm(design)
        if design.own_downsampling:
            return nn.Sequential(nn.Conv2d(in_channels, width, patch, stride=patch), norm(width))
        if design.patchify:
            conv = nn.Conv2d(in_channels, width, patch, stride=patch, bias=False)
            return nn.Sequential(conv, norm(width), nn.GELU() if design.gelu else nn.ReLU())
        # For patches of 4 this is the stem of a ResNet: 7 x 7 with stride 2, then max pooling with stride 2.
        conv = nn.Conv2d(in_channels, width, 2 * patch - 1, patch // 2, patch - 1, bias=False)
        return nn.Sequential(conv, norm(width), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"images must be (batch, {self.in_channels}, height, width), got {tuple(images.shape)}")
        x = self.stages(self.stem(images).contiguous(memory_format=torch.channels_last))  # (B, C, H, W)
        logits: Tensor = self.head(self.norm(x.mean(dim=(2, 3))))  # (B, L)
        return logits


def cost(design: Design, width: int, image_shape: tuple[int, int, int], *, patch_size: int = 4) -> int:
    """Floating-point operations for one picture, forward, without the head, by PyTorch's counter.

    A multiplication and an addition are two; norms and activations are not counted.

    Args:
        design: One of `path`.
        width: As for `Modernized`.
        image_shape: (C, H, W) of a picture.
        patch_size: As for `Modernized`.

    Example:
        >>> cost(path((1,), (1,))["depthwise convolution"], 4, (3, 8, 8))  # stem; blocks: 1 x 1, 3 x 3, 1 x 1; shortcut
        2976
    """
    with torch.device("meta"):
        model = Modernized(design, width=width, patch_size=patch_size, in_channels=image_shape[0], num_classes=1)
        with FlopCounterMode(display=False) as counter:
            model.stages(model.stem(torch.empty(1, *image_shape)))
    return int(counter.get_total_flops())


def width_for(design: Design, flops: int, image_shape: tuple[int, int, int], *, patch_size: int = 4) -> int:
    """The width at which a design costs as nearly as possible ``flops`` for one picture.

    Args:
        design: One of `path`.
        flops: Wanted, as `cost` counts.
        image_shape: (C, H, W) of a picture.
        patch_size: As for `Modernized`.

    Raises:
        ValueError: If even a width of 1 costs more.

    Example:
        >>> designs, shape = path((1, 1), (1, 2)), (3, 16, 16)
        >>> wanted = cost(designs["resnet"], 8, shape, patch_size=2)
        >>> {name: width_for(designs[name], wanted, shape, patch_size=2) for name in ("resnet", "kernel 7")}
        {'resnet': 8, 'kernel 7': 11}
    """
    one, two = (cost(design, width, image_shape, patch_size=patch_size) for width in (1, 2))
    if flops < one:
        raise ValueError(f"flops={flops} is below the {one} of the narrowest network")
    # A convolution costs its channels squared, the stem and depthwise ones their channels: a width**2 + b width.
    a = (two - 2 * one) / 2
    b = one - a
    width = (-b + math.sqrt(b * b + 4 * a * flops)) / (2 * a)
    return min((math.floor(width), math.ceil(width)), key=lambda whole: abs(a * whole**2 + b * whole - flops))


def from_convnext(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a `dlbook.models.convnext.ConvNeXt` under the names of the last step."""
    parts = {".depthwise.": ".branch.0.", ".expand.": ".branch.2.", ".reduce.": ".branch.4."}
    renamed = {}
    for name, tensor in state_dict.items():
        for theirs, ours in parts.items():
            if theirs in name:
                name = name.replace(theirs, ours)
                tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor  # linear: a 1 x 1 convolution
        if name.startswith("stages.") and ".norm." in name:
            name = name.replace(".norm.", ".branch.1.")
        renamed[name] = tensor
    return renamed


def last_step(config: ConvNeXtConfig, *, num_classes: int = 1000, in_channels: int = 3) -> Modernized:
    """The end of the path at the sizes of a ConvNeXt whose widths double from stage to stage."""
    if any(width != config.widths[0] * 2**stage for stage, width in enumerate(config.widths)):
        raise ValueError(f"widths must double from stage to stage, got {config.widths}")
    design = list(path(config.depths, config.depths).values())[-1]
    return Modernized(
        design,
        width=config.widths[0],
        patch_size=config.patch_size,
        num_classes=num_classes,
        in_channels=in_channels,
        layer_scale=config.layer_scale,
    )


def _norm(design: Design) -> type[nn.BatchNorm2d] | type[ChannelNorm]:
    return ChannelNorm if design.layer_norm else nn.BatchNorm2d


def _init_he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
