"""Masked autoencoder (MAE): hide most patches of a picture and learn, without labels, to fill them in.

He et al. (2022), Masked autoencoders are scalable vision learners, https://arxiv.org/abs/2111.06377.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  colour channels    S  side of the picture
    P  patches    V  visible ones among them    Q  numbers in a patch, its pixels times C
    D  width of the encoder    E  width of the decoder
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.models.vit import SIZES as VIT_SIZES
from dlbook.models.vit import Block, Patches, ViT, ViTConfig, fuse_projections
from dlbook.models.vit import convert_transformers as convert_vit


@dataclass(frozen=True)
class MAEConfig:
    """Sizes of a masked autoencoder.

    Args:
        encoder: The Vision Transformer to be trained; its width must be a multiple of 4.
        decoder_width: Features of a token in the decoder, E; a multiple of 4.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Heads of attention of the decoder; must divide its width.
        mask_ratio: Share of the patches that are hidden.
        normalize_pixels: Whether each patch is to be predicted at mean 0 and variance 1.

    Raises:
        ValueError: If a size is not positive, one does not divide the other, or no patch is left visible or hidden.
    """

    encoder: ViTConfig = field(default_factory=ViTConfig)
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    normalize_pixels: bool = True

    def __post_init__(self) -> None:
        if min(self.decoder_width, self.decoder_depth, self.decoder_heads) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.encoder.width % 4 or self.decoder_width % 4:
            raise ValueError(f"widths must be multiples of 4, got {self.encoder.width} and {self.decoder_width}")
        if self.decoder_width % self.decoder_heads:
            raise ValueError(f"decoder_heads={self.decoder_heads} does not divide decoder_width={self.decoder_width}")
        if not 0 < self.num_visible < self.encoder.num_patches:
            patches = self.encoder.num_patches
            raise ValueError(f"mask_ratio={self.mask_ratio} leaves {self.num_visible} of {patches} patches visible")

    @property
    def num_visible(self) -> int:
        return int(self.encoder.num_patches * (1 - self.mask_ratio))


SIZES = {
    # Section 4.1 and table 1 of the paper: ViT encoders, a decoder of 8 blocks and 512 features (16 heads in its code).
    "mae_base": MAEConfig(),
    "mae_large": MAEConfig(ViTConfig(width=1024, depth=24, num_heads=16)),
    "mae_huge": MAEConfig(ViTConfig(patch_size=14, width=1280, depth=32, num_heads=16)),
    # For 28 x 28 on two cores: the small ViT with 12 of 49 patches visible, a decoder of one block. Pixels as they are:
    # many patches of a digit are black, and normalising would blow up the faintest grey in them.
    "mae_small": MAEConfig(
        VIT_SIZES["vit_small"], decoder_width=32, decoder_depth=1, decoder_heads=2, normalize_pixels=False
    ),
}


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of column and row of each place in a square grid, of geometrically falling frequencies.

    The first half of the features is for the column, the second for the row, each sines first (as in the paper's code).

    Args:
        side: Places along each axis.
        width: Features of a place, a multiple of 4.

    Shapes: returns (side * side, width), row by row, float32 on the CPU.

    Example:
        >>> grid_positions(3, 8)[5].tolist()  # row 1, column 2
        [0.909..., 0.019..., -0.416..., 0.999..., 0.841..., 0.009..., 0.540..., 0.999...]
    """
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    angle = torch.arange(side, dtype=torch.float64, device="cpu")[:, None] * frequency  # (side, width / 4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    return torch.cat([axis.repeat(side, 1), axis.repeat_interleave(side, 0)], dim=1).float()


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut (B, C, S, S) into patches (B, P, Q), row by row; within a patch the colour varies fastest.

    Example:
        >>> patchify(torch.zeros(2, 3, 8, 8), patch_size=4).shape
        torch.Size([2, 4, 48])
    """
    b, channels, side, _ = images.shape
    x = images.reshape(b, channels, side // patch_size, patch_size, side // patch_size, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch_size**2 * channels)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """Undo `patchify`: (B, P, Q) back to (B, C, S, S)."""
    b, count, numbers = patches.shape
    side, channels = math.isqrt(count), numbers // patch_size**2
    x = patches.reshape(b, side, side, patch_size, patch_size, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, side * patch_size, side * patch_size)


class MAE(nn.Module):
    """Encode the visible patches alone, then predict the hidden ones from them with a light decoder.

    It trains with `dlbook.train.fit`, the pictures being their own targets::

        fit(model, Batches(images, images, 128), model.loss, optimizer, epochs=20)

    The positions are fixed: sines and cosines, buffers and not parameters. (transformers counts them as parameters
    without a gradient.) First weights: Xavier uniform for linear layers, class and mask token normal of standard
    deviation 0.02, biases 0.

    Args:
        config: Sizes; `SIZES` has those of the paper and a small one.
        in_channels: Colour channels, C.
        generator: Source of the masks, on any device; PyTorch's own on the device of the pictures if left out.

    Shapes:
        images: (B, C, S, S), 0 dark to 1 bright.
        noise: (B, P); the patches with the lowest numbers stay visible. Drawn if left out.
        returns: the prediction of all patches (B, P, Q) and the mask (B, P), 1 hidden and 0 visible.

    Raises:
        ValueError: If the pictures or the noise have another shape.

    Example:
        >>> model = MAE(SIZES["mae_small"], in_channels=1, generator=torch.Generator().manual_seed(0))
        >>> prediction, mask = model(torch.rand(3, 1, 28, 28))
        >>> prediction.shape, mask.sum(1).tolist()
        (torch.Size([3, 49, 16]), [37.0, 37.0, 37.0])
    """

    positions: Tensor
    decoder_positions: Tensor

    def __init__(self, config: MAEConfig, *, in_channels: int = 3, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.generator = generator
        encoder, width = config.encoder, config.decoder_width
        side = encoder.image_size // encoder.patch_size
        # The encoder, under the names that it has in ViT; its class token's position is 0.
        self.patches = Patches(encoder, in_channels)
        self.class_token = nn.Parameter(torch.empty(1, 1, encoder.width).normal_(std=0.02))
        self.register_buffer("positions", F.pad(grid_positions(side, encoder.width), (0, 0, 1, 0))[None])
        self.blocks = nn.Sequential(
            *(Block(encoder.width, encoder.num_heads, encoder.mlp_ratio) for _ in range(encoder.depth))
        )
        self.norm = nn.LayerNorm(encoder.width, eps=1e-6)
        # The decoder.
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.register_buffer("decoder_positions", F.pad(grid_positions(side, width), (0, 0, 1, 0))[None])
        self.decoder_blocks = nn.Sequential(*(Block(width, config.decoder_heads) for _ in range(config.decoder_depth)))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.pixels = nn.Linear(width, in_channels * encoder.patch_size**2)
        for linear in (self.embed, self.pixels):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        patches = self.patches(images) + self.positions[:, 1:]  # (B, P, D)
        noise = self._noise(patches) if noise is None else noise
        if noise.shape != patches.shape[:2]:
            raise ValueError(f"noise must be {tuple(patches.shape[:2])}, got {tuple(noise.shape)}")
        order = noise.argsort(dim=1)  # (B, P): which patch comes first, second, ...; the first V are visible
        place = order.argsort(dim=1)  # (B, P): where each patch stands in that order
        visible = _take(patches, order[:, : self.config.num_visible])  # (B, V, D)
        latent = self._encode(visible)  # (B, 1 + V, D)
        return self._decode(latent, place), (place >= self.config.num_visible).to(images.dtype)

    def _noise(self, patches: Tensor) -> Tensor:
        device = patches.device if self.generator is None else self.generator.device
        return torch.rand(patches.shape[:2], generator=self.generator, device=device).to(patches.device)

    def _encode(self, visible: Tensor) -> Tensor:
        class_token = self.class_token + self.positions[:, :1]
        tokens = torch.cat([class_token.expand(visible.shape[0], -1, -1), visible], dim=1)  # (B, 1 + V, D)
        latent: Tensor = self.norm(self.blocks(tokens))
        return latent

    def _decode(self, latent: Tensor, place: Tensor) -> Tensor:
        x = self.embed(latent)  # (B, 1 + V, E)
        hidden = self.mask_token.expand(x.shape[0], place.shape[1] + 1 - x.shape[1], -1)  # (B, P - V, E)
        patches = _take(torch.cat([x[:, 1:], hidden], dim=1), place)  # (B, P, E), each back at its place
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_positions
        x = self.decoder_norm(self.decoder_blocks(x))
        prediction: Tensor = self.pixels(x[:, 1:])  # (B, P, Q)
        return prediction

    def targets(self, images: Tensor) -> Tensor:
        """What is to be predicted, (B, P, Q): the pixels, normalised within each patch if the configuration says so."""
        target = patchify(images, self.config.encoder.patch_size)
        if self.config.normalize_pixels:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)  # of n - 1, as the paper's code
            target = (target - mean) / (variance + 1e-6).sqrt()
        return target

    def loss(self, outputs: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
        """Mean squared error of the hidden patches, as `fit` wants it: ``loss(model(images), images)``."""
        prediction, mask = outputs
        error = (prediction - self.targets(images)).square().mean(-1)  # (B, P)
        return (error * mask).sum() / mask.sum()

    def classifier(self, num_classes: int, *, drop_path: float = 0.0) -> ViT:
        """A Vision Transformer with a copy of the encoder and a fresh head, for fine-tuning with labels.

        Its positions start at the fixed ones and may then be learned.

        Example:
            >>> vit = MAE(SIZES["mae_small"], in_channels=1).classifier(num_classes=10)
            >>> vit(torch.zeros(2, 1, 28, 28)).shape
            torch.Size([2, 10])
        """
        sizes = {**self.config.encoder.__dict__, "drop_path": drop_path}
        vit = ViT(ViTConfig(**sizes), num_classes=num_classes, in_channels=self.patches.image_shape[0])
        vit = vit.to(device=self.class_token.device, dtype=self.class_token.dtype)
        mine = self.state_dict()
        vit.load_state_dict({name: mine.get(name, fresh) for name, fresh in vit.state_dict().items()})
        return vit


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens (B, n, D) at the places (B, m) of each row: (B, m, D)."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' ``ViTMAEForPreTraining``, under our names.

    Its norms have eps 1e-12 by default where the paper's code and this file have 1e-6.
    """
    encoder = {name: tensor for name, tensor in state_dict.items() if name.startswith("vit.")}
    decoder = {}
    for name, tensor in state_dict.items():
        if name.startswith("decoder."):
            for pattern, ours in DECODER_NAMES:
                name = re.sub(pattern, ours, name)
            decoder[name] = tensor
    return convert_vit(encoder) | fuse_projections(decoder)


DECODER_NAMES = (
    (r"^decoder\.mask_token", "mask_token"),
    (r"^decoder\.decoder_pos_embed", "decoder_positions"),
    (r"^decoder\.decoder_embed\.", "embed."),
    (r"^decoder\.decoder_norm\.", "decoder_norm."),
    (r"^decoder\.decoder_pred\.", "pixels."),
    (r"^decoder\.decoder_layers\.(\d+)\.", r"decoder_blocks.\1."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.attention\.([qkv])[a-z]+\.", r"attention.\1."),
    (r"attention\.(q|k|v)_proj\.", r"attention.\1."),
    (r"attention\.(output\.dense|o_proj)\.", "attention.out."),
    (r"(mlp\.fc1|intermediate\.dense)\.", "mlp.0."),
    (r"(mlp\.fc2|(?<!attention\.)output\.dense)\.", "mlp.2."),
)
