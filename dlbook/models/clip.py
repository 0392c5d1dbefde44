"""CLIP: pictures and texts as points in one space, by a pre-norm transformer for each.

Radford et al. (2021), Learning transferable visual models from natural language supervision,
https://arxiv.org/abs/2103.00020.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    C  colour channels    S  side of a picture    P  side of a patch    L  tokens of a text
    D  width of a token    E  width of the common space    V  vocabulary
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.convert import rename
from dlbook.layers.decoder import check_tokens
from dlbook.layers.feedforward import FeedForward
from dlbook.layers.multi_head import MultiHeadAttention


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of one of the two transformers.

    Attributes:
        width: Features of a token, D.
        num_layers: Blocks.
        num_heads: Heads; must divide the width.

    Raises:
        ValueError: If a number is not positive, or the heads do not divide the width.
    """

    width: int
    num_layers: int
    num_heads: int

    def __post_init__(self) -> None:
        if min(self.width, self.num_layers, self.num_heads) < 1 or self.width % self.num_heads:
            raise ValueError(f"sizes must be positive, and num_heads divide width, got {self}")


@dataclass(frozen=True)
class CLIPConfig:
    """What makes one CLIP different from another.

    Attributes:
        images: The transformer for pictures.
        texts: The transformer for texts.
        image_size: Side of the square pictures, in pixels, S.
        patch_size: Side of a patch, in pixels, P; must divide the picture's.
        in_channels: Colour channels, C.
        vocab_size: Kinds of tokens, V.
        context: The longest text, in tokens.
        shared: Features of the common space, E.

    Raises:
        ValueError: If a number is not positive, or the patch does not divide the picture.
    """

    images: TowerConfig = TowerConfig(768, 12, 12)
    texts: TowerConfig = TowerConfig(512, 12, 8)
    image_size: int = 224
    patch_size: int = 32
    in_channels: int = 3
    vocab_size: int = 49408
    context: int = 77
    shared: int = 512

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "in_channels", "vocab_size", "context", "shared"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size={self.patch_size} does not divide image_size={self.image_size}")


SIZES = {
    # Table 20 of the paper.
    "clip_vit_b_32": CLIPConfig(),
    "clip_vit_b_16": CLIPConfig(patch_size=16),
    "clip_vit_l_14": CLIPConfig(TowerConfig(1024, 24, 16), TowerConfig(768, 12, 12), patch_size=14, shared=768),
    # For two cores: grey pictures of 32 x 32, letters instead of words; a twelfth of the width, a quarter of the depth.
    "clip_mini": CLIPConfig(TowerConfig(64, 3, 4), TowerConfig(64, 3, 4), 32, 8, 1, 128, 32, shared=32),
}


class CLIPBlock(nn.Module):
    """Residual block, pre-norm::

        x = x + attention(norm1(x))        x = x + feedforward(norm2(x))

    Args:
        config: Sizes.
        causal: Whether a token sees only those before, as in texts.

    Shapes: x (B, L, D), valid (B, L) bool; returns (B, L, D).

    Example:
        >>> CLIPBlock(TowerConfig(12, 1, 3))(torch.zeros(2, 5, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(self, config: TowerConfig, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = MultiHeadAttention(config.width, config.num_heads, causal=causal)
        self.norm2 = nn.LayerNorm(config.width)
        self.feedforward = FeedForward(config.width, activation="gelu_sigmoid")
        for linear in (self.attention.qkv, self.feedforward.expand):
            nn.init.normal_(linear.weight, std=config.width**-0.5)
        nn.init.normal_(self.feedforward.expand.weight, std=(2 * config.width) ** -0.5)
        for linear in (self.attention.out, self.feedforward.reduce):
            nn.init.normal_(linear.weight, std=(2 * config.num_layers * config.width) ** -0.5)
        for linear in (self.feedforward.expand, self.feedforward.reduce):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), valid=valid)
        y: Tensor = x + self.feedforward(self.norm2(x))
        return y


class CLIP(nn.Module):
    """Says how well each picture fits each text.

    A picture is what becomes of a token put in front of its patches; a text what becomes of its last token, which has to
    have the largest number of all kinds (padding behind it may be the same). Both are mapped to a space of E features and
    to length 1; the logit is their product times a learned factor, which starts at 1 / 0.07.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        images: (A, C, S, S).
        tokens: (B, L) int64.
        valid: (B, L) bool, False at padding; not needed where padding comes behind the last token.
        returns: logits (A, B); `contrastive_loss` if picture and text of the same number belong together.

    Raises:
        ValueError: If pictures or texts have another shape.

    Example:
        >>> model = CLIP(SIZES["clip_mini"])
        >>> model(torch.zeros(4, 1, 32, 32), torch.tensor([[5, 3, 127], [8, 127, 127]])).shape
        torch.Size([4, 2])
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        D, P = config.images.width, config.patch_size
        self.patches = nn.Linear(config.in_channels * P * P, D, bias=False)
        self.start = nn.Parameter(D**-0.5 * torch.randn(D))  # the token in front
        self.image_position = nn.Embedding((config.image_size // P) ** 2 + 1, D)
        self.image_start_norm = nn.LayerNorm(D)
        self.image_blocks = nn.ModuleList(CLIPBlock(config.images) for _ in range(config.images.num_layers))
        self.image_norm = nn.LayerNorm(D)
        self.image_out = nn.Linear(D, config.shared, bias=False)
        self.embedding = nn.Embedding(config.vocab_size, config.texts.width)
        self.text_position = nn.Embedding(config.context, config.texts.width)
        self.text_blocks = nn.ModuleList(CLIPBlock(config.texts, causal=True) for _ in range(config.texts.num_layers))
        self.text_norm = nn.LayerNorm(config.texts.width)
        self.text_out = nn.Linear(config.texts.width, config.shared, bias=False)
        self.log_factor = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for weight, std in (
            (self.image_position.weight, D**-0.5),
            (self.image_out.weight, D**-0.5),
            (self.embedding.weight, 0.02),
            (self.text_position.weight, 0.01),
            (self.text_out.weight, config.texts.width**-0.5),
        ):
            nn.init.normal_(weight, std=std)

    def forward(self, images: Tensor, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        logits: Tensor = self.log_factor.exp() * self.embed_images(images) @ self.embed_texts(tokens, valid).t()
        return logits

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (B, C, S, S) as points of length 1, (B, E)."""
        shape = (self.config.in_channels, self.config.image_size, self.config.image_size)
        if images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(f"images must be (batch, {', '.join(map(str, shape))}), got {tuple(images.shape)}")
        x = self.patches(F.pixel_unshuffle(images, self.config.patch_size).flatten(2).mT)  # (B, patches, D)
        x = torch.cat([self.start.expand(x.shape[0], 1, -1), x], dim=1) + self.image_position.weight
        x = self.image_start_norm(x)
        for block in self.image_blocks:
            x = block(x)
        return F.normalize(self.image_out(self.image_norm(x[:, 0])), dim=-1)

    def embed_texts(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Texts (B, L) as points of length 1, (B, E)."""
        check_tokens(tokens, valid, context=self.config.context)
        x = self.embedding(tokens) + self.text_position.weight[: tokens.shape[1]]  # (B, L, D)
        for block in self.text_blocks:
            x = block(x, valid)
        last = x[torch.arange(x.shape[0], device=x.device), tokens.argmax(dim=1)]  # (B, D)
        return F.normalize(self.text_out(self.text_norm(last)), dim=-1)


def contrastive_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of finding the text of each picture, and the picture of each text; their mean.

    Args:
        logits: How well each picture fits each text; those of the same number belong together.

    Shapes: logits (B, B); returns ().

    Raises:
        ValueError: If there are not as many texts as pictures.

    Example:
        >>> contrastive_loss(torch.zeros(4, 4)).exp()
        tensor(4.)
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"logits must be (batch, batch), got {tuple(logits.shape)}")
    wanted = torch.arange(logits.shape[0], device=logits.device)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.t(), wanted)) / 2


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.CLIPModel`` under this module's names.

    Args:
        state_dict: What its ``state_dict()`` gives, or a file of it.

    Example:
        >>> list(convert_transformers({"text_model.encoder.layers.0.mlp.fc1.bias": torch.zeros(3)}))
        ['text_blocks.0.feedforward.expand.bias']
    """
    kept = {
        name: tensor.flatten(1) if name.endswith("patch_embedding.weight") else tensor
        for name, tensor in state_dict.items()
        if not name.endswith("position_ids")
    }
    names = {
        "logit_scale": "log_factor", r"vision_model\.embeddings\.class_embedding": "start",
        r"vision_model\.embeddings\.patch_embedding": "patches", r"vision_model\.pre_layrnorm": "image_start_norm",
        r"vision_model\.post_layernorm": "image_norm", r"text_model\.final_layer_norm": "text_norm",
        "visual_projection": "image_out", "text_projection": "text_out",
        r"text_model\.embeddings\.token_embedding": "embedding",
        r"vision_model\.embeddings\.position_embedding": "image_position",
        r"text_model\.embeddings\.position_embedding": "text_position", r"vision_model\.encoder\.layers": "image_blocks",
        r"text_model\.encoder\.layers": "text_blocks", "self_attn": "attention", "out_proj": "out",
        "layer_norm": "norm", r"mlp\.fc1": "feedforward.expand", r"mlp\.fc2": "feedforward.reduce",
    }  # fmt: skip
    return rename(kept, {"qkv": ("q_proj", "k_proj", "v_proj")}, names)
