"""A training step of chapter 3's networks against the same network of a library, with the same weights and pictures.

Each pair is one function that returns both sides, `Pair`; adding a row is writing one and naming it in `PAIRS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compare


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


#: Functions of the batch size.
PAIRS = (resnet18,)


def run(rounds: int, batch: int = 64) -> list[Row]:
    """One row for each pair: forward, backward and optimiser."""
    return [row(make(batch), rounds) for make in PAIRS]


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
    return compare(f"{pair.name}, training step", ours, peer, target=1.0, rounds=rounds)


def step(pair: Pair, model: nn.Module, outputs: Callable[[object], Tensor]) -> Callable[[], None]:
    """One training step of one side, as a function to be timed."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def once() -> None:
        optimizer.zero_grad()
        pair.loss_fn(outputs(model(pair.x)), pair.y).backward()
        optimizer.step()

    return once
