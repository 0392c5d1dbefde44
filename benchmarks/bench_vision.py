"""A training step of chapter 3's networks against the same network of a library, with the same weights and pictures.

Each pair is one function that returns both sides, `Pair`; adding a row is writing one and naming it in `PAIRS`.

transformers and diffusers have no U-Net that is the paper's, and MONAI has: it is compared with where it is installed
(`pip install monai`); the book does not require it.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compare

TARGET = 1.02  # no slower, within what two runs of the same code differ by


@dataclass(frozen=True)
class Pair:
    """Two networks that compute the same.

    Attributes:
        name: What is compared with what, and at which size.
        ours: From the book.
        peer: From the library.
        x: Pictures.
        y: Targets.
        loss_fn: ``loss_fn(outputs, y)``.
        peer_outputs: Takes what the peer returns apart; libraries wrap it.
    """

    name: str
    ours: nn.Module
    peer: nn.Module
    x: Tensor
    y: Tensor
    loss_fn: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy
    peer_outputs: Callable[[object], Tensor] = lambda outputs: outputs.logits


def classification(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures (batch, 3, size, size) and labels of 10 classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, size, size, generator=generator), torch.arange(batch) % 10


def resnet18(batch: int) -> Pair:
    """Both with a stem of one 3 x 3 convolution: ImageNet's would leave 8 x 8 of the 32 x 32 pixels.

    Ours lies in memory channel by channel of each pixel, which a user chooses in the same line; with the order that both
    have by default the two run the same kernels and take the same time.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    from dlbook.models.resnet import SIZES, ResNet, convert_transformers

    ours = ResNet(replace(SIZES["resnet18"], stem="cifar"), num_classes=10)
    config = ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=10)
    peer = ResNetForImageClassification(config)
    peer.resnet.embedder.embedder.convolution = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    peer.resnet.embedder.pooler = nn.Identity()
    ours.load_state_dict(convert_transformers(peer.state_dict()))
    ours = ours.to(memory_format=torch.channels_last)
    return Pair(
        f"ResNet-18, channels_last / transformers (32 px, batch {batch})", ours, peer, *classification(batch, 32)
    )


def vit(batch: int) -> Pair:
    """ViT-S/4 at 32 x 32."""
    from transformers import ViTConfig, ViTForImageClassification

    from dlbook.models.vit import SIZES, ViT, convert_transformers

    size = SIZES["vit_s_4"]
    config = ViTConfig(
        image_size=size.image_size,
        patch_size=size.patch_size,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.num_heads,
        intermediate_size=size.mlp_ratio * size.width,
        layer_norm_eps=1e-6,
        num_labels=10,
    )
    ours, peer = ViT(size, num_classes=10), ViTForImageClassification(config)
    ours.load_state_dict(convert_transformers(peer.state_dict()))
    return Pair(f"ViT-S/4 / transformers (32 px, batch {batch})", ours, peer, *classification(batch, 32))


def swin(batch: int) -> Pair:
    """The small Swin, whose windows of 7 fit 28 x 28 pixels."""
    from transformers import SwinConfig, SwinForImageClassification

    from dlbook.models.swin import SIZES, Swin, convert_transformers

    size = SIZES["swin_mini"]
    config = SwinConfig(
        image_size=28,
        patch_size=size.patch_size,
        embed_dim=size.width,
        depths=list(size.depths),
        num_heads=list(size.num_heads),
        window_size=size.window,
        mlp_ratio=float(size.mlp_ratio),
        drop_path_rate=0.0,
        num_labels=10,
    )
    ours, peer = Swin(size, num_classes=10), SwinForImageClassification(config)
    ours.load_state_dict(convert_transformers(peer.state_dict()))
    return Pair(f"small Swin / transformers (28 px, batch {batch})", ours, peer, *classification(batch, 28))


def convnext(batch: int) -> Pair:
    """The small ConvNeXt; ours lies in memory channel by channel of each pixel, and so does the peer here."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    from dlbook.models.convnext import SIZES, ConvNeXt, convert_transformers

    size = SIZES["convnext_mini"]
    config = ConvNextConfig(
        patch_size=size.patch_size,
        num_stages=len(size.depths),
        depths=list(size.depths),
        hidden_sizes=list(size.widths),
        layer_scale_init_value=size.layer_scale,
        layer_norm_eps=1e-6,
        num_labels=10,
    )
    ours, peer = ConvNeXt(size, num_classes=10), ConvNextForImageClassification(config)
    ours.load_state_dict(convert_transformers(peer.state_dict()))
    peer = peer.to(memory_format=torch.channels_last)
    return Pair(f"small ConvNeXt / transformers (28 px, batch {batch})", ours, peer, *classification(batch, 28))


def unet(batch: int) -> Pair:
    """The paper's five resolutions, a quarter as wide, with batch normalisation; both lie channel by channel of each pixel.

    MONAI's last step up does not halve the channels, the paper's does: the one that halves them stands in its place.
    """
    from monai.networks.nets.basic_unet import BasicUNet, UpCat

    from dlbook.models.unet import WIDTHS, UNet

    widths = [width // 4 for width in WIDTHS["unet_2015"]]
    ours = UNet(1, 4, widths, padded=True, norm=True)
    layers = {"act": ("relu", {"inplace": True}), "norm": "batch", "bias": False}
    peer = BasicUNet(2, 1, 4, features=(*widths, widths[0]), **layers)
    peer.upcat_1 = UpCat(2, widths[1], widths[0], widths[0], **layers)

    def place(name: str) -> int:  # ours lists the way down, all that enlarge, what joins, the classifier
        return 3 if "final" in name else 0 if "upcat" not in name else 1 if "upsample" in name else 2

    weights = peer.state_dict()
    ours.load_state_dict(dict(zip(ours.state_dict(), (weights[n] for n in sorted(weights, key=place)), strict=True)))
    ours, peer = (model.to(memory_format=torch.channels_last) for model in (ours, peer))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 1, 128, 128, generator=generator)
    y = torch.randint(4, (batch, 128, 128), generator=generator)
    name = f"U-Net / MONAI ({widths[0]} to {widths[-1]} wide, 128 px, batch {batch})"
    return Pair(name, ours, peer, x, y, peer_outputs=lambda outputs: outputs)


#: Functions of the batch size, and the batch size.
PAIRS = {resnet18: 64, vit: 8, swin: 32, convnext: 32, unet: 4}
NEEDS = {unet: "monai"}  # packages that the book does not require


def run(rounds: int, batch: int | None = None) -> list[Row]:
    """One row for each pair: forward, backward and optimiser."""
    there = [make for make in PAIRS if importlib.util.find_spec(NEEDS.get(make, "torch"))]
    return [row(make(batch or PAIRS[make]), rounds) for make in there]


def row(pair: Pair, rounds: int) -> Row:
    """Time a training step of both sides, once they are known to compute the same.

    Raises:
        AssertionError: If their outputs differ.
    """
    for model in (pair.ours, pair.peer):
        model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            pair.ours(pair.x[:2]), pair.peer_outputs(pair.peer(pair.x[:2])), rtol=1e-4, atol=1e-4
        )
    ours, peer = step(pair, pair.ours, lambda outputs: outputs), step(pair, pair.peer, pair.peer_outputs)
    return compare(f"{pair.name}, training step", ours, peer, target=TARGET, rounds=rounds)


def step(pair: Pair, model: nn.Module, outputs: Callable[[object], Tensor]) -> Callable[[], None]:
    """One training step of one side, as a function to be timed."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4, fused=True)

    def once() -> None:
        optimizer.zero_grad()
        pair.loss_fn(outputs(model(pair.x)), pair.y).backward()
        optimizer.step()

    return once
