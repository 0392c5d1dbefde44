"""Residual network (ResNet): each block adds its result to its input, so that a block can do nothing by learning 0.

He, Zhang, Ren & Sun (2015), Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch       C  channels in    H  rows    W  columns
    K  classes     D  channels out
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.checks import check_images

#: Pixels of the picture to a pixel of the first stage.
STEM_STRIDES = {"imagenet": 4, "strided": 2, "cifar": 1}
SHORTCUTS = ("projection", "pad")


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a residual network.

    Args:
        depths: Blocks in each stage.
        widths: Channels of the 3 x 3 convolutions in each stage; the first is also the stem's. Each stage after the
            first starts with stride 2.
        bottleneck: Blocks of 1 x 1, 3 x 3, 1 x 1 convolutions, four times as wide at their ends, instead of two 3 x 3.
        stem: ``"imagenet"``: 7 x 7 with stride 2, then pooling with stride 2; ``"cifar"``: one 3 x 3 convolution;
            ``"strided"``: the same with stride 2, for what lies between.
        shortcut: Where the shape changes, ``"projection"`` (1 x 1 convolution, the paper's option B) or ``"pad"`` (every
            other pixel, zeros for the new channels, no parameters: option A).
        residual: False leaves all shortcuts out: the plain network of the same layers.
        stride_first: A bottleneck's stride sits in its first 1 x 1 convolution, as in 2015, instead of the 3 x 3 one,
            which is more accurate and what published weights use ("v1.5").
        output_stride: Pixels of the picture to a pixel of the last stage. Smaller than what the strides give, the last
            stages keep their resolution and dilate their 3 x 3 convolutions instead, as segmentation wants it; None
            leaves all strides.

    Raises:
        ValueError: If the sizes do not fit together.

    Example:
        >>> ResNetConfig(depths=(2, 2), widths=(16, 32), bottleneck=True).out_channels
        (64, 128)
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    stem: str = "imagenet"
    shortcut: str = "projection"
    residual: bool = True
    stride_first: bool = False
    output_stride: int | None = None

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.widths) or min(*self.depths, *self.widths) < 1:
            raise ValueError(f"depths={self.depths} and widths={self.widths} must be positive and of one length")
        if self.stem not in STEM_STRIDES or self.shortcut not in SHORTCUTS:
            raise ValueError(
                f"stem must be one of {list(STEM_STRIDES)} and shortcut of {SHORTCUTS}, got {self.stem}, {self.shortcut}"
            )
        if self.shortcut == "pad" and (self.bottleneck or list(self.widths) != sorted(self.widths)):
            raise ValueError(f"shortcut='pad' needs blocks of two 3 x 3 convolutions and growing widths, got {self}")
        possible = [STEM_STRIDES[self.stem] * 2**i for i in range(len(self.depths))]
        if self.output_stride is not None and self.output_stride not in possible:
            raise ValueError(f"output_stride={self.output_stride} is none of {possible}")

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels that each stage hands on."""
        return tuple(width * (4 if self.bottleneck else 1) for width in self.widths)


def cifar_config(
    depth: int,
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    shortcut: str = "pad",
    residual: bool = True,
) -> ResNetConfig:
    """The paper's family for pictures of 32 x 32 pixels (its section 4.2): depth 6 n + 2, n blocks in each of 3 stages.

    Args:
        depth: Layers with weights: 20, 32, 44, 56 or 110 in the paper.
        widths: Channels of the stages; halve them to train several on two cores.
        shortcut: As in `ResNetConfig`; the paper has "pad" here.
        residual: False for the plain network, which gets harder to train as it gets deeper.

    Raises:
        ValueError: If ``depth`` is not 6 n + 2.

    Example:
        >>> cifar_config(56).depths
        (9, 9, 9)
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"depth must be 6 n + 2, such as 20, 56 or 110, got {depth}")
    return ResNetConfig((n, n, n), widths, stem="cifar", shortcut=shortcut, residual=residual)


#: Table 1 of the paper; section 4.2 for 20, 56 and 110; "resnet_small" is ours.
SIZES = {
    "resnet18": ResNetConfig((2, 2, 2, 2)),
    "resnet34": ResNetConfig((3, 4, 6, 3)),
    "resnet50": ResNetConfig((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetConfig((3, 4, 23, 3), bottleneck=True),
    "resnet152": ResNetConfig((3, 8, 36, 3), bottleneck=True),
    "resnet20": cifar_config(20),
    "resnet56": cifar_config(56),
    "resnet110": cifar_config(110),
    "plain20": cifar_config(20, residual=False),
    "plain56": cifar_config(56, residual=False),
    # ResNet-18's blocks on 28 x 28 pixels: a stem of stride 2 instead of 4, one block in each of three stages, half as
    # wide at the start.
    "resnet_small": ResNetConfig((1, 1, 1), (32, 64, 96), stem="strided"),
}


class ResNet(nn.Module):
    """Stem, stages of residual blocks, mean over all pixels, linear classifier.

    A block computes relu(f(x) + x), where f is two or three convolutions with batch normalisation.

    Convolutions start from N(0, 2 / (D * kernel's area)), batch normalisation as the identity (He et al., 2015); the
    classifier as PyTorch's linear layers do. All names are torchvision's, so its weights load as they are.

    Args:
        config: A row of `SIZES`, or your own.
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.
        norm: Makes the normalisation for a number of channels; detectors put one with frozen statistics here.

    Shapes:
        x: (B, C, H, W) float.
        returns: logits (B, K).

    Raises:
        ValueError: If ``x`` is not (B, in_channels, H, W).

    Example:
        >>> import torch
        >>> model = ResNet(SIZES["resnet_small"], in_channels=1, num_classes=10)
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
        >>> [tuple(h.shape[1:]) for h in model.features(torch.zeros(5, 1, 28, 28))]
        [(32, 14, 14), (64, 7, 7), (96, 4, 4)]
    """

    def __init__(
        self,
        config: ResNetConfig,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be positive, got {in_channels} and {num_classes}")
        self.config = config
        self.in_channels = in_channels
        width = config.widths[0]
        if config.stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        else:
            stride = STEM_STRIDES[config.stem]
            self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(width)

        self.stages: list[str] = []
        stride_so_far, dilation = STEM_STRIDES[config.stem], 1
        channels = width
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            stride, dilation_before = (1, dilation) if i == 0 else (2, dilation)
            if config.output_stride is not None and stride_so_far * stride > config.output_stride:
                stride, dilation = 1, dilation * 2
            stride_so_far *= stride
            blocks = [Block(channels, width, config, norm, stride, (dilation_before, dilation))]
            channels = config.out_channels[i]
            blocks += [Block(channels, width, config, norm, 1, (dilation, dilation)) for _ in range(depth - 1)]
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> list[Tensor]:
        """What each stage hands on, from fine to coarse: for detectors, segmentation and pictures of what is seen."""
        check_images(x, self.in_channels)
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, widths[0], H or H / 2, ...)
        if self.config.stem == "imagenet":
            h = F.max_pool2d(h, 3, stride=2, padding=1)  # (B, widths[0], H / 4, W / 4)
        outputs = []
        for name in self.stages:
            h = self.get_submodule(name)(h)  # (B, out_channels[i], ...), half as high and wide from the second on
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)[-1].mean((2, 3))  # (B, out_channels[-1])
        logits: Tensor = self.fc(h)  # (B, K)
        return logits


class Block(nn.Module):
    """relu(f(x) + x): two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 (a bottleneck).

    Args:
        in_channels: Channels of ``x``, C.
        width: Channels of the 3 x 3 convolution; D is this, or four times this for a bottleneck.
        config: Kind of block and shortcut.
        norm: Makes the normalisation for a number of channels.
        stride: Of the whole block.
        dilation: Of a 3 x 3 convolution up to the one that has the stride, and after it. They differ in the first block
            of a stage that dilates instead of striding.

    Shapes: x (B, C, H, W); returns (B, D, H / stride, W / stride), rounded up.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        config: ResNetConfig,
        norm: Callable[[int], nn.Module],
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        out_channels = width * (4 if config.bottleneck else 1)
        if config.bottleneck:
            first, second = (stride, 1) if config.stride_first else (1, stride)
            around = dilation[1 if config.stride_first else 0]
            self.conv1 = nn.Conv2d(in_channels, width, 1, stride=first, bias=False)
        else:
            second, (before, around) = 1, dilation
            self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=before, dilation=before, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=around, dilation=around, bias=False)
        self.bn2 = norm(width)
        self.bottleneck, self.residual = config.bottleneck, config.residual
        if config.bottleneck:
            self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
            self.bn3 = norm(out_channels)

        self.downsample: nn.Module = nn.Identity()
        if self.residual and (stride != 1 or in_channels != out_channels):
            if config.shortcut == "pad":
                self.downsample = PadChannels(out_channels - in_channels, stride)
            else:
                self.downsample = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), norm(out_channels)
                )

    def forward(self, x: Tensor) -> Tensor:
        # In place, because no backward pass needs what is overwritten: normalisation keeps its input, relu its output.
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        h = self.bn2(self.conv2(h))
        if self.bottleneck:
            h = self.bn3(self.conv3(F.relu(h, inplace=True)))
        if self.residual:
            h += self.downsample(x)
        return F.relu(h, inplace=True)


class PadChannels(nn.Module):
    """The shortcut without parameters: every ``stride``-th pixel, and ``extra`` channels of zeros."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (B, C, H / stride, W / stride)
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))  # (B, C + extra, H / stride, W / stride)


def convert_transformers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' ``ResNetForImageClassification`` (or of its backbone alone) under our names.

    Example:
        >>> import torch
        >>> list(convert_transformers({"resnet.encoder.stages.0.layers.1.layer.0.convolution.weight": torch.zeros(1)}))
        ['layer1.1.conv1.weight']
    """
    return {_our_name(name.removeprefix("resnet.")): tensor for name, tensor in state_dict.items()}


def _our_name(name: str) -> str:
    match name.split("."):
        case ["embedder", "embedder", kind, what]:
            return f"{_KINDS[kind]}1.{what}"
        case ["encoder", "stages", stage, "layers", block, "shortcut", kind, what]:
            return f"layer{int(stage) + 1}.{block}.downsample.{list(_KINDS).index(kind)}.{what}"
        case ["encoder", "stages", stage, "layers", block, "layer", number, kind, what]:
            return f"layer{int(stage) + 1}.{block}.{_KINDS[kind]}{int(number) + 1}.{what}"
        case ["classifier", "1", what]:
            return f"fc.{what}"
    raise ValueError(f"{name!r} is no name of transformers' ResNet")


_KINDS = {"convolution": "conv", "normalization": "bn"}
