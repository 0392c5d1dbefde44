"""One training step of ViT, Swin and ConvNeXt against transformers' models of the same sizes, with the same weights.

A step is forward, cross-entropy, backward and fused AdamW on one batch of random pictures, in float32. The peer takes
what it takes by default: its scaled_dot_product_attention, and channels first in memory; ConvNeXt is timed against it
with channels last as well, if that is how one would call it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Row, compare
from dlbook.models import convnext, swin, vit

CLASSES = 10


def run(rounds: int, batch: int | None = None) -> list[Row]:
    """Three families; ``batch`` overrides their batch sizes."""
    return [
        vit_step(rounds, batch or 8),
        swin_step(rounds, batch or 32),
        convnext_step(rounds, batch or 32),
        convnext_step(rounds, batch or 32, channels_last=True),
    ]


def vit_step(rounds: int, batch: int) -> Row:
    """ViT-S/4 at 32 x 32."""
    from transformers import ViTConfig, ViTForImageClassification

    size = vit.SIZES["vit_s_4"]
    peer = ViTForImageClassification(
        ViTConfig(
            image_size=size.image_size, patch_size=size.patch_size, hidden_size=size.width, num_labels=CLASSES,
            num_hidden_layers=size.depth, num_attention_heads=size.num_heads,
            intermediate_size=size.mlp_ratio * size.width, layer_norm_eps=1e-6,
        )
    )  # fmt: skip
    ours = vit.ViT(size, num_classes=CLASSES)
    ours.load_state_dict(vit.convert_transformers(peer.state_dict()))
    return _compare("ViT-S/4 step / transformers", ours, peer, (batch, 3, 32, 32), rounds)


def swin_step(rounds: int, batch: int) -> Row:
    """The small Swin at 28 x 28."""
    from transformers import SwinConfig, SwinForImageClassification

    size = swin.SIZES["swin_mini"]
    peer = SwinForImageClassification(
        SwinConfig(
            image_size=28, num_channels=1, patch_size=size.patch_size, embed_dim=size.width, depths=list(size.depths),
            num_heads=list(size.num_heads), window_size=size.window, mlp_ratio=float(size.mlp_ratio),
            drop_path_rate=0.0, num_labels=CLASSES,
        )
    )  # fmt: skip
    ours = swin.Swin(size, num_classes=CLASSES, in_channels=1)
    ours.load_state_dict(swin.convert_transformers(peer.state_dict()))
    return _compare("Swin (mini) step / transformers", ours, peer, (batch, 1, 28, 28), rounds)


def convnext_step(rounds: int, batch: int, *, channels_last: bool = False) -> Row:
    """The small ConvNeXt at 28 x 28."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    size = convnext.SIZES["convnext_mini"]
    peer = ConvNextForImageClassification(
        ConvNextConfig(
            num_channels=1, patch_size=size.patch_size, num_stages=len(size.depths), depths=list(size.depths),
            hidden_sizes=list(size.widths), layer_scale_init_value=size.layer_scale, layer_norm_eps=1e-6,
            num_labels=CLASSES,
        )
    )  # fmt: skip
    ours = convnext.ConvNeXt(size, num_classes=CLASSES, in_channels=1)
    ours.load_state_dict(convnext.convert_transformers(peer.state_dict()))
    name = "ConvNeXt (mini) step / transformers" + (", channels last" if channels_last else "")
    if channels_last:
        peer = peer.to(memory_format=torch.channels_last)
    return _compare(name, ours, peer, (batch, 1, 28, 28), rounds)


def _compare(name: str, ours: nn.Module, peer: nn.Module, shape: tuple[int, ...], rounds: int) -> Row:
    x, y = torch.rand(shape), torch.arange(shape[0]) % CLASSES

    def logits(images: Tensor) -> Tensor:
        return peer(images).logits

    if not torch.allclose(ours(x), logits(x), rtol=1e-4, atol=1e-4):
        raise AssertionError(f"{name}: the two give different logits, the comparison is void")
    label = f"{name} ({shape[2]} x {shape[3]}, batch {shape[0]})"
    return compare(label, _step(ours, ours, x, y), _step(peer, logits, x, y), target=1.0, rounds=rounds)


def _step(model: nn.Module, logits: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = F.cross_entropy(logits(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
