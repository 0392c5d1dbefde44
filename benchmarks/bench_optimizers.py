"""A step of our optimisers against torch.optim's, at 1 and 10 million parameters; what augmentations cost a picture."""

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.harness import CLOCK, Row, compare, summary
from dlbook.data.augment import color_jitter, cutout, mixup, random_affine, random_crop, random_flip
from dlbook.data.cutmix import cutmix
from dlbook.train import optimizers

TARGET = 1.1
#: Side of the matrices, of which there are ten, each with a bias: about 1 and 10 million numbers.
SIDES = {"1 M": 316, "10 M": 1000}
#: Optimiser and its options; each by the lists of tensors, and by the one kernel where there is one. Not Nesterov's
#: momentum: there, torch's lists write over the gradients, which every step here uses again.
OPTIONS = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "RMSprop": {"lr": 1e-4},
    "Adam": {"lr": 1e-4},
    "AdamW": {"lr": 1e-4},
}
#: Seconds a picture of 32 x 32 pixels may take: 1 % of a training step of ResNet-18 on one core.
MOST_MICROSECONDS = 50.0
#: What is done to a batch of pictures and labels.
AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor, torch.Generator], object]] = {
    "mixup": lambda x, y, g: mixup(x, y, 10, generator=g),
    "cutmix": lambda x, y, g: cutmix(x, y, 10, generator=g),
    "cutout": lambda x, y, g: cutout(x, 8, generator=g),
    "crop and flip": lambda x, y, g: random_flip(random_crop(x, 4, generator=g), generator=g),
    "colour jitter": lambda x, y, g: color_jitter(x, brightness=0.4, contrast=0.4, saturation=0.4, generator=g),
    "affine": lambda x, y, g: random_affine(x, degrees=10, translate=2, scale=0.1, generator=g),
}


def run(rounds: int, sides: dict[str, int] | None = None, work: int = 60_000_000, batch: int = 1024) -> list[Row]:
    """The rows of all optimisers, then those of the augmentations."""
    sides = sides or SIDES
    side = min(sides.values())
    steps = max(1, work // (60 * side * side))
    muon = [muon_row(rounds, side, steps)] if hasattr(torch.optim, "Muon") else []  # torch 2.9 or later
    return [*optimizer_rows(rounds, sides, work), *muon, *augmentation_rows(rounds, batch)]


def parameters(side: int, biases: bool = True) -> list[Tensor]:
    """Ten matrices, alike in every call, each with a gradient; biases in between."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(side, side), (side,)] if biases else [(side, side)]
    params = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(10) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    return params


def optimizer_rows(rounds: int, sides: dict[str, int], work: int) -> Iterator[Row]:
    """Ours against torch's, ``work`` numbers a round."""
    for size, side in sides.items():
        steps = max(1, work // (10 * side * side))
        for name, options in OPTIONS.items():
            for way in ("foreach", "fused") if name != "RMSprop" else ("foreach",):
                ours, peer = parameters(side), parameters(side)
                yield compare(
                    f"{name} / torch.optim, {way} ({size} parameters)",
                    repeated(getattr(optimizers, name)(ours, **options, **{way: True}), steps),
                    repeated(getattr(torch.optim, name)(peer, **options, **{way: True}), steps),
                    target=TARGET,
                    rounds=rounds,
                )
                torch.testing.assert_close(ours, peer, rtol=1e-4, atol=1e-5)  # the same work, or the row is void


def muon_row(rounds: int, side: int, steps: int) -> Row:
    """In bfloat16, as torch's always is; it multiplies each matrix fifteen times, so the smaller size is enough."""
    ours, peer = parameters(side, biases=False), parameters(side, biases=False)
    return compare(
        f"Muon / torch.optim (ten matrices {side} x {side})",
        repeated(optimizers.Muon(ours), steps),
        repeated(torch.optim.Muon(peer), steps),
        target=TARGET,
        rounds=rounds,
    )


def repeated(optimizer: torch.optim.Optimizer, steps: int) -> Callable[[], None]:
    """Several steps, as a function to be timed."""

    def once() -> None:
        for _ in range(steps):
            optimizer.step()

    return once


def augmentation_rows(rounds: int, batch: int) -> Iterator[Row]:
    """Microseconds a picture; a million by these is pictures a second."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, 3, 32, 32, generator=generator), torch.arange(batch) % 10
    for name, augment in AUGMENTATIONS.items():
        augment(x, y, generator)
        times = []
        for _ in range(rounds):
            start = CLOCK()
            augment(x, y, generator)
            times.append((CLOCK() - start) / batch * 1e6)
        per_second = 1e6 / statistics.median(times)
        yield summary(
            f"{name}, 3 x 32 x 32 ({per_second:,.0f} pictures a second)", times, "µs a picture", MOST_MICROSECONDS
        )
