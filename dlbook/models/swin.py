"""Swin: attention within windows that shift from block to block, and patches that merge from stage to stage.

Liu et al. (2021), Swin Transformer, https://arxiv.org/abs/2103.14030.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    H  rows    W  columns    D  width of a token
    M  side of a window    T  tokens of a window, M * M    G  windows of a picture
    N  heads    K  width of a head, D / N    L  classes
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.stochastic_depth import StochasticDepth, rising_rates


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of a Swin transformer.

    Args:
        width: Features of a token in the first stage; each further stage doubles them.
        depths: Blocks in each stage; every second one shifts its windows.
        num_heads: Heads of attention in each stage; must divide its width.
        window: Side of a window, in tokens, M.
        patch_size: Side of the patches that become tokens, in pixels.
        mlp_ratio: Hidden units of a block's perceptron, per feature.
        drop_path: Stochastic depth of the last block; the rate rises evenly from 0 at the first.

    Raises:
        ValueError: If a size is not positive, there are not as many heads as depths, or heads do not divide a width.
    """

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    patch_size: int = 4
    mlp_ratio: int = 4
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(f"each stage has a depth and heads, got {self.depths} and {self.num_heads}")
        if min(self.width, *self.depths, *self.num_heads, self.window, self.patch_size, self.mlp_ratio) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        for width, heads in zip(self.widths, self.num_heads, strict=True):
            if width % heads:
                raise ValueError(f"num_heads={heads} does not divide width={width}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of a token in each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))


SIZES = {
    # Section 3.3 of the paper (C = width, layer numbers); heads of 32 features each. Stochastic depth: appendix A2.1.
    "swin_t": SwinConfig(drop_path=0.2),
    "swin_s": SwinConfig(depths=(2, 2, 18, 2), drop_path=0.3),
    "swin_b": SwinConfig(width=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path=0.5),
    # For 28 x 28 on two cores: patches of 2 x 2, two stages of 14 and 7 tokens a side, a third of the width, heads of 16.
    "swin_mini": SwinConfig(width=32, depths=(2, 2), num_heads=(2, 4), patch_size=2, mlp_ratio=2),
}


def partition(x: Tensor, window: int) -> Tensor:
    """Cut (B, H, W, D) into windows (B, G, T, D), row by row; M must divide H and W.

    Example:
        >>> partition(torch.zeros(2, 6, 9, 5), window=3).shape
        torch.Size([2, 6, 9, 5])
    """
    b, rows, columns, width = x.shape
    x = x.view(b, rows // window, window, columns // window, window, width)
    return x.transpose(2, 3).reshape(b, -1, window * window, width)  # (B, G, T, D)


def join(windows: Tensor, rows: int, columns: int, window: int) -> Tensor:
    """Undo `partition`: (B, G, T, D) back to (B, rows, columns, D)."""
    b, width = windows.shape[0], windows.shape[-1]
    x = windows.view(b, rows // window, columns // window, window, window, width)
    return x.transpose(2, 3).reshape(b, rows, columns, width)


def shift_mask(rows: int, columns: int, window: int, shifts: tuple[int, int], device: torch.device) -> Tensor:
    """Which tokens of each window were neighbours before the picture was rolled by ``shifts``: (G, T, T), True if so.

    Rolling brings the first rows and columns into the same window as the last ones. Along each axis three stretches
    stay apart: up to the last window, the part of it that was there before, and the part that came from the front.
    """
    stretch = []
    for size, shift in zip((rows, columns), shifts, strict=True):
        place = torch.arange(size, device=device)
        stretch.append((place >= size - window).long() + (place >= size - shift).long() if shift else place * 0)
    region = 3 * stretch[0][:, None] + stretch[1]  # (H, W), a number for each of up to nine regions
    of_window = partition(region[None, :, :, None], window)[0, :, :, 0]  # (G, T)
    return of_window[:, :, None] == of_window[:, None, :]


class WindowAttention(nn.Module):
    """Attention among the tokens of each window, with a learned bias for each offset between two of them.

    ::

        softmax(q k^T / sqrt(K) + bias[row_i - row_j, column_i - column_j]) v

    Args:
        width: Features of a token, D.
        num_heads: Heads, N.
        window: Side of a window, M.

    Shapes:
        x: (B, G, T, D).
        mask: (G, T, T), True where a token may look; None lets all of a window look at one another.
        returns: (B, G, T, D).

    Example:
        >>> WindowAttention(width=8, num_heads=2, window=3)(torch.zeros(2, 6, 9, 8)).shape
        torch.Size([2, 6, 9, 8])
    """

    offsets: Tensor

    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        span = 2 * window - 1  # offsets from -(M - 1) to M - 1
        self.bias_table = nn.Parameter(torch.empty(span * span, num_heads))
        place = torch.arange(window, device="cpu")
        row, column = place.repeat_interleave(window), place.repeat(window)  # (T,) each
        offset = (row[:, None] - row + window - 1) * span + (column[:, None] - column + window - 1)  # (T, T)
        self.register_buffer("offsets", offset.flatten(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        windows, tokens = x.shape[1:3]
        bias = self.bias_table[self.offsets].view(tokens, tokens, -1).permute(2, 0, 1)  # (N, T, T)
        if mask is not None:
            bias = torch.where(mask[:, None], bias, -100.0)  # (G, N, T, T); -100, as published: exp(-100) is 0
        bias = bias.expand(windows, -1, -1, -1).flatten(0, 1)  # (G N, T, T)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)  # (3, B, G, N, T, K)
        # To the kernel every head of every window is a head, so that all pictures share one bias without copies.
        q, k, v = qkv.flatten(2, 3)  # (B, G N, T, K) each
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        heads = heads.view(x.shape[0], windows, self.num_heads, tokens, -1).transpose(2, 3).flatten(3)  # (B, G, T, D)
        y: Tensor = self.out(heads)
        return y


class Block(nn.Module):
    """x + attention(norm(x)) within windows, then x + perceptron(norm(x)).

    Sizes that the window does not divide are filled up with zeros at the right and at the bottom. Along an axis that
    fits into one window nothing is shifted.

    Args:
        width: Features of a token, D.
        num_heads: Heads of attention.
        window: Side of a window, M.
        shifted: Whether the windows are moved by half their side.
        mlp_ratio: Hidden units of the perceptron, per feature.
        drop_path: Probability to leave a branch out while training, for each example.

    Shapes: x (B, H, W, D); returns the same.

    Example:
        >>> Block(width=8, num_heads=2, window=3, shifted=True)(torch.zeros(2, 5, 7, 8)).shape
        torch.Size([2, 5, 7, 8])
    """

    def __init__(
        self, width: int, num_heads: int, window: int, shifted: bool, mlp_ratio: int = 4, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, num_heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.drop = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self._attend(self.norm1(x)))
        x = x + self.drop(self.mlp(self.norm2(x)))
        return x

    def _attend(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1:3]
        below, right = -rows % self.window, -columns % self.window
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        padded = (rows + below, columns + right)
        half = self.window // 2 if self.shifted else 0
        shifts = (half if padded[0] > self.window else 0, half if padded[1] > self.window else 0)
        mask = None
        if any(shifts):
            x = x.roll((-shifts[0], -shifts[1]), dims=(1, 2))
            mask = shift_mask(*padded, self.window, shifts, x.device)
        x = join(self.attention(partition(x, self.window), mask), *padded, self.window)
        if any(shifts):
            x = x.roll(shifts, dims=(1, 2))
        return x[:, :rows, :columns]


class Merging(nn.Module):
    """Put four neighbouring tokens into one of twice the width; an odd row or column is filled up with zeros.

    Args:
        width: Features of a token before, D.

    Shapes: x (B, H, W, D); returns (B, ceil(H / 2), ceil(W / 2), 2 D).

    Example:
        >>> Merging(4)(torch.zeros(2, 5, 6, 4)).shape
        torch.Size([2, 3, 3, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.linear = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1:3]
        if rows % 2 or columns % 2:
            x = F.pad(x, (0, 0, 0, columns % 2, 0, rows % 2))
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        y: Tensor = self.linear(self.norm(torch.cat(four, dim=-1)))
        return y


class Swin(nn.Module):
    """Class logits from the mean of the last stage's tokens.

    First weights: normal of standard deviation 0.02, cut at 2, for linear layers and bias tables; biases 0.

    Args:
        config: Sizes; `SIZES` has those of the paper and a small one.
        num_classes: Classes, L.
        in_channels: Colour channels of the pictures.

    Shapes:
        images: (B, C, height, width), 0 dark to 1 bright, of any size; filled up with zeros to whole patches.
        returns: logits (B, L).

    Raises:
        ValueError: If the pictures have another rank or other channels.

    Example:
        >>> model = Swin(SIZES["swin_mini"], num_classes=10, in_channels=1)
        >>> model(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(self, config: SwinConfig, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.in_channels = in_channels
        self.patches = nn.Conv2d(in_channels, config.width, config.patch_size, stride=config.patch_size)
        self.patch_norm = nn.LayerNorm(config.width)
        rates = iter(rising_rates(config.drop_path, sum(config.depths)))
        self.stages = nn.ModuleList()
        self.merging = nn.ModuleList(Merging(width) for width in config.widths[:-1])
        for depth, width, heads in zip(config.depths, config.widths, config.num_heads, strict=True):
            blocks = (
                Block(width, heads, config.window, number % 2 == 1, config.mlp_ratio, next(rates))
                for number in range(depth)
            )
            self.stages.append(nn.Sequential(*blocks))
        self.norm = nn.LayerNorm(config.widths[-1])
        self.head = nn.Linear(config.widths[-1], num_classes)
        self.apply(init_weights)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each stage hands on, (B, H, W, D), from fine to coarse."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"images must be (batch, {self.in_channels}, height, width), got {tuple(images.shape)}")
        below, right = (-size % self.config.patch_size for size in images.shape[2:])
        if below or right:
            images = F.pad(images, (0, right, 0, below))
        x = self.patch_norm(self.patches(images).permute(0, 2, 3, 1))  # (B, H, W, D)
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(self.merging[number - 1](x) if number else x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.features(images)[-1]).mean(dim=(1, 2))  # (B, D)
        logits: Tensor = self.head(x)  # (B, L)
        return logits


def init_weights(module: nn.Module) -> None:
    """Weights and bias tables from a normal distribution of standard deviation 0.02, biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.bias_table, std=0.02)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' ``SwinForImageClassification`` (version 5), under our names."""
    return _converted(state_dict, TRANSFORMERS_NAMES)


def convert_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's ``SwinTransformer`` (the first version, not V2), under our names."""
    return _converted(state_dict, TORCHVISION_NAMES)


def _converted(state_dict: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, ours in names.items():
            name = re.sub(pattern, ours, name)
        if not name.endswith("relative_position_index"):  # follows from the size of a window
            renamed[name] = tensor
    for name in [name for name in renamed if ".attention.q." in name]:  # three projections, stacked into one
        parts = [renamed.pop(name.replace(".q.", f".{letter}.")) for letter in "qkv"]
        renamed[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return renamed


TRANSFORMERS_NAMES = {
    r"^swin\.": "",
    r"^embeddings\.patch_embeddings\.projection\.": "patches.",
    r"^embeddings\.norm\.": "patch_norm.",
    r"^encoder\.layers\.(\d+)\.blocks\.(\d+)\.": r"stages.\1.\2.",
    r"^encoder\.layers\.(\d+)\.downsample\.": r"merging.\1.",
    r"\.reduction\.": ".linear.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.attention\.([qkv])_proj\.": r".attention.\1.",
    r"\.attention\.o_proj\.": ".attention.out.",
    r"\.attention\.relative_position_bias\.relative_position_bias_table$": ".attention.bias_table",
    r"\.mlp\.fc1\.": ".mlp.0.",
    r"\.mlp\.fc2\.": ".mlp.2.",
    r"^layernorm\.": "norm.",
    r"^classifier\.": "head.",
}
# torchvision counts the patches, the stages and what lies between them in one list: 0 patches, 1 stage, 2 merging, ...
TORCHVISION_NAMES = {
    r"^features\.0\.0\.": "patches.",
    r"^features\.0\.2\.": "patch_norm.",
    **{rf"^features\.{2 * stage + 1}\.": f"stages.{stage}." for stage in range(4)},
    **{rf"^features\.{2 * stage + 2}\.": f"merging.{stage}." for stage in range(3)},
    r"\.reduction\.": ".linear.",
    r"\.attn\.proj\.": ".attention.out.",
    r"\.attn\.qkv\.": ".attention.qkv.",
    r"\.attn\.relative_position_bias_table$": ".attention.bias_table",
    r"\.mlp\.3\.": ".mlp.2.",
}
