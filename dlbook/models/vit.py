"""Vision Transformer (ViT): a picture cut into patches, read as a sequence by the encoder of a transformer.

Dosovitskiy et al. (2021), An image is worth 16x16 words, https://arxiv.org/abs/2010.11929.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  colour channels    S  side of the picture    P  patches, (S / side of a patch)^2
    T  tokens, P + 1: the class token comes first               D  width of a token
    L  classes
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.attention import SelfAttention
from dlbook.layers.stochastic_depth import StochasticDepth, rising_rates


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a Vision Transformer.

    Args:
        image_size: Side of the square pictures, in pixels.
        patch_size: Side of a patch, in pixels; must divide the picture's.
        width: Features of a token, D.
        depth: Number of blocks.
        num_heads: Heads of attention; must divide the width.
        mlp_ratio: Hidden units of a block's perceptron, per feature.
        drop_path: Stochastic depth of the last block; the rate rises evenly from 0 at the first.

    Raises:
        ValueError: If a size is not positive, or one does not divide the other.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.patch_size, self.width, self.depth, self.num_heads, self.mlp_ratio)
        if min(sizes) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size={self.patch_size} does not divide image_size={self.image_size}")
        if self.width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide width={self.width}")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


SIZES = {
    # Table 1 of the paper (layers, width, heads); the number behind the letter is the side of a patch.
    "vit_b_16": ViTConfig(),
    "vit_b_32": ViTConfig(patch_size=32),
    "vit_l_16": ViTConfig(width=1024, depth=24, num_heads=16),
    "vit_l_32": ViTConfig(patch_size=32, width=1024, depth=24, num_heads=16),
    "vit_h_14": ViTConfig(patch_size=14, width=1280, depth=32, num_heads=16),
    # Touvron et al. (2021), https://arxiv.org/abs/2012.12877, table 1: DeiT-Ti and DeiT-S.
    "vit_ti_16": ViTConfig(width=192, num_heads=3),
    "vit_s_16": ViTConfig(width=384, num_heads=6),
    # ViT-S for pictures of 32 x 32, such as CIFAR-10: 64 patches of 4 x 4.
    "vit_s_4": ViTConfig(image_size=32, patch_size=4, width=384, num_heads=6),
    # For 28 x 28 on two cores: 49 patches of 4 x 4, a twelfth of the width, a third of the depth; heads of 16, not of 64.
    "vit_small": ViTConfig(image_size=28, patch_size=4, width=64, depth=4, num_heads=4, mlp_ratio=2),
}


class Block(nn.Module):
    """A block of the encoder: x + attention(norm(x)), then x + perceptron(norm(x)).

    Args:
        width: Features of a token, D.
        num_heads: Heads of attention.
        mlp_ratio: Hidden units of the perceptron, per feature.
        drop_path: Probability to leave a branch out while training, for each example.

    Shapes: x (B, T, D); returns the same.

    Example:
        >>> Block(width=8, num_heads=2)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        expand, reduce = nn.Linear(width, mlp_ratio * width), nn.Linear(mlp_ratio * width, width)
        self.mlp = nn.Sequential(expand, nn.GELU(), reduce)
        self.drop = StochasticDepth(drop_path)
        for linear in (expand, reduce):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        x = x + self.drop(self.mlp(self.norm2(x)))
        return x


class Patches(nn.Module):
    """Cut pictures into square patches and map each to a token by one linear layer.

    Args:
        config: Gives the side of the pictures, of the patches, and the width of a token.
        in_channels: Colour channels, C.

    Shapes: images (B, C, S, S); returns (B, P, D), the patches row by row.

    Raises:
        ValueError: If the pictures have another shape.

    Example:
        >>> Patches(SIZES["vit_small"], in_channels=1)(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 49, 64])
    """

    def __init__(self, config: ViTConfig, in_channels: int) -> None:
        super().__init__()
        self.image_shape = (in_channels, config.image_size, config.image_size)
        self.patch_size = config.patch_size
        self.linear = nn.Linear(in_channels * config.patch_size**2, config.width)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images must be (batch, {wanted}), got {tuple(images.shape)}")
        # A convolution whose stride is its kernel is the same product, and several times slower on a CPU.
        tokens: Tensor = self.linear(F.pixel_unshuffle(images, self.patch_size).flatten(2).mT)  # (B, P, D)
        return tokens


class ViT(nn.Module):
    """Class logits from the token that was put in front of the patches.

    First weights: Xavier uniform for all linear layers, positions and the head from a normal distribution of standard
    deviation 0.02, class token and biases 0. (The paper starts the head at 0.)

    Args:
        config: Sizes; `SIZES` has those of the papers and a small one.
        num_classes: Classes, L.
        in_channels: Colour channels, C.

    Shapes:
        images: (B, C, S, S), 0 dark to 1 bright.
        returns: logits (B, L).

    Raises:
        ValueError: If the pictures have another shape.

    Example:
        >>> model = ViT(SIZES["vit_small"], num_classes=10, in_channels=1)
        >>> model(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(self, config: ViTConfig, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.patches = Patches(config, in_channels)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.empty(1, config.num_patches + 1, config.width).normal_(std=0.02))
        self.blocks = nn.Sequential(
            *(
                Block(config.width, config.num_heads, config.mlp_ratio, rate)
                for rate in rising_rates(config.drop_path, config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def features(self, images: Tensor) -> Tensor:
        """All tokens after the last norm, (B, T, D); the first is the class token's."""
        patches = self.patches(images)  # (B, P, D)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)  # (B, T, D)
        x: Tensor = self.norm(self.blocks(tokens + self.positions))
        return x

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images)[:, 0])  # (B, L)
        return logits


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' ``ViTForImageClassification``, under our names.

    Its norms have eps 1e-12 by default where the paper's code, torchvision and this file have 1e-6.

    Args:
        state_dict: From transformers 5, or the older files whose names have ``encoder.layer`` in them.
    """
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, ours in TRANSFORMERS_NAMES:
            name = re.sub(pattern, ours, name)
        if not name.startswith("pooler."):
            renamed[name] = tensor
    return fuse_projections(renamed)


def convert_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's ``VisionTransformer``, under our names."""
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, ours in TORCHVISION_NAMES:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor.flatten(1) if name == "patches.linear.weight" else tensor
    return renamed


def fuse_projections(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack ``q``, ``k`` and ``v`` of each attention into ``qkv``, and flatten the patches' kernel."""
    fused = {}
    for name, tensor in state_dict.items():
        if re.search(r"\.[kv]\.(weight|bias)$", name):
            continue
        if found := re.search(r"\.q\.(weight|bias)$", name):
            stem = name[: found.start()]
            parts = [state_dict[f"{stem}.{letter}.{found[1]}"] for letter in "qkv"]
            fused[f"{stem}.qkv.{found[1]}"] = torch.cat(parts)
        else:
            fused[name] = tensor.flatten(1) if name == "patches.linear.weight" else tensor
    return fused


TRANSFORMERS_NAMES = (
    (r"^vit\.", ""),
    (r"^embeddings\.cls_token", "class_token"),
    (r"^embeddings\.position_embeddings", "positions"),
    (r"^embeddings\.patch_embeddings\.projection", "patches.linear"),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.attention\.([qkv])[a-z]+\.", r"attention.\1."),
    (r"attention\.(q|k|v)_proj\.", r"attention.\1."),
    (r"attention\.(output\.dense|o_proj)\.", "attention.out."),
    (r"(mlp\.fc1|intermediate\.dense)\.", "mlp.0."),
    (r"(mlp\.fc2|(?<!attention\.)output\.dense)\.", "mlp.2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
TORCHVISION_NAMES = (
    (r"^conv_proj\.", "patches.linear."),
    (r"^encoder\.pos_embedding", "positions"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.mlp\.linear_1\.", ".mlp.0."),  # names of its first weight files
    (r"\.mlp\.(linear_2|3)\.", ".mlp.2."),
    (r"\.self_attention\.in_proj_", ".attention.qkv."),
    (r"\.self_attention\.out_proj\.", ".attention.out."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)
