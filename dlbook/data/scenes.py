"""Scenes to find objects in: handwritten digits and silhouettes of animals, coloured, on real photographs.

Every scene comes with the box, the kind and the visible pixels of each object and with a sentence that describes it.
Nothing is stored: the same arguments make the same scenes again.

Letters for shapes in this file:
    N  scenes    M  places for objects in a scene    S  side of a scene, pixels    s  side of an object, pixels
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dlbook.data.images import ANIMALS, DIGITS, mnist5k, silhouettes
from dlbook.data.photos import photos

Split = Literal["train", "test"]
OBJECTS = DIGITS + ANIMALS
COLOURS = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.75, 0.25),
    "blue": (0.15, 0.35, 0.95),
    "yellow": (0.98, 0.88, 0.15),
    "white": (0.97, 0.97, 0.97),
    "purple": (0.60, 0.15, 0.85),
}
BACKGROUNDS = ("astronaut", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "china", "flower")
TRAIN_SHARE = 0.7  # of each photograph's width; what is right of it stands behind test scenes
SIDES = (20, 24, 28, 34, 40)  # of an object
CANDIDATES = 12  # places tried for an object before it may cover another


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures and what is to be found in them.

    Attributes:
        images: Pixels, red, green and blue, 0 dark to 1 bright, float32.
        targets: For each place ``[class, x1, y1, x2, y2]``: an index into ``classes`` and the corners of the box in
            pixels from the upper left, the last column and row not counted in; class -1 where a place is empty.
        instances: For each pixel 0, or 1 + the place of the object that is seen there, uint8.
        colours: Index into ``COLOURS`` for each place, -1 where it is empty.
        captions: A sentence for each scene.
        classes: Names of the kinds of objects.

    Shapes:
        ``images`` (N, 3, S, S), ``targets`` (N, M, 5) float32, ``instances`` (N, S, S), ``colours`` (N, M).
    """

    images: Tensor
    targets: Tensor
    instances: Tensor
    colours: Tensor
    captions: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def semantic(self) -> Tensor:
        """For each pixel 0 for the photograph, or 1 + the class of the object seen there: (N, S, S) int64."""
        kinds = F.pad(self.targets[..., 0] + 1, (1, 0))  # (N, 1 + M): number 0 is the photograph
        return kinds.gather(1, self.instances.long().flatten(1)).view_as(self.instances).long()


def scenes(
    count: int,
    *,
    split: Split = "train",
    size: int = 96,
    most: int = 4,
    fewest: int = 1,
    objects: Sequence[str] = OBJECTS,
    seed: int = 0,
) -> Scenes:
    """Compose scenes: 2,000 of 96 x 96 pixels take less than a second on one core once the pictures are loaded.

    The objects of test scenes are test pictures, and the photographs behind them are parts that no training scene shows.

    Args:
        count: How many, N.
        split: Whether to train or to test on them.
        size: Side of a scene, S, 48 to 160 pixels.
        most: Most objects in a scene, M, at most 8.
        fewest: Fewest; 0 allows scenes without any.
        objects: Which kinds, from ``OBJECTS``: the ten digits and the ten animals.
        seed: Decides everything that is drawn, from 0; the two splits differ also for the same seed.

    Raises:
        ValueError: If a number is out of its range or a kind is unknown.
        ModuleNotFoundError: If a package that holds the pictures is not installed.

    Example:
        >>> made = scenes(3, objects=("7", "cat"), most=2, seed=1)
        >>> made.images.shape, made.targets.shape
        (torch.Size([3, 3, 96, 96]), torch.Size([3, 2, 5]))
        >>> made.captions[0]
        'a green cat above a red cat'

    Source: pictures of `dlbook.data.mnist5k`, `dlbook.data.silhouettes` and `dlbook.data.photos`.
    """
    _check(count, split, size, most, fewest, objects)
    generator = torch.Generator().manual_seed(2 * seed + (split == "test"))

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    canvas = _backgrounds(count, split, size, generator)  # (N, 3, S, S) uint8
    instances = torch.zeros(count, size, size, dtype=torch.uint8)
    present = torch.arange(most) < fewest + integers(most - fewest + 1, count, 1)  # (N, M)
    kinds = integers(len(objects), count, most)
    which_size, colours = integers(len(SIDES), count, most), integers(len(COLOURS), count, most)
    pick = torch.rand(count, most, generator=generator)  # of the pictures of a kind, 0 to 1
    shade = torch.rand(count, most, 3, generator=generator) * 0.2 - 0.1
    paint = (torch.tensor(list(COLOURS.values()))[colours] + shade).clamp(0, 1) * 255  # (N, M, 3)
    corners = _place(present, torch.tensor(SIDES)[which_size], size, generator)  # (N, M, 2), x and y
    boxes = torch.zeros(count, most, 4)
    sprites, starts = _sprites(split, tuple(objects))
    numbers = starts[kinds] + (pick * (starts[1:] - starts[:-1])[kinds]).long()  # (N, M)
    for place in range(most):  # in this order: a later object covers an earlier one
        for at, side in enumerate(SIDES):
            rows = torch.where(present[:, place] & (which_size[:, place] == at))[0]  # (n,)
            large = sprites[numbers[rows, place]] / 255
            cover = F.interpolate(large, (side, side), mode="bilinear", antialias=True)[:, 0]  # (n, s, s)
            x, y = corners[rows, place].unbind(1)
            _paste(canvas, instances, rows, place, cover, paint[rows, place], x, y)
            boxes[rows, place] = _extent(cover) + torch.stack([x, y, x, y], 1)
    targets = torch.cat([kinds.unsqueeze(-1), boxes], -1)  # (N, M, 5)
    targets = torch.where(present.unsqueeze(-1), targets, torch.tensor([-1.0, 0, 0, 0, 0]))
    colours = torch.where(present, colours, -1)
    return Scenes(canvas / 255, targets, instances, colours, _captions(targets, colours, objects), tuple(objects))


def _check(count: int, split: str, size: int, most: int, fewest: int, objects: Sequence[str]) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    if not 48 <= size <= 160:
        raise ValueError(f"size must be 48 to 160 pixels, got {size}")
    if not 0 <= fewest <= most <= 8 or most == 0:
        raise ValueError(f"0 <= fewest <= most <= 8 and most > 0 must hold, got fewest={fewest}, most={most}")
    if not objects or len(set(objects)) < len(objects) or not set(objects) <= set(OBJECTS):
        raise ValueError(f"objects must be different ones of {', '.join(OBJECTS)}; got {tuple(objects)}")


@cache
def _sprites(split: Split, objects: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Pictures of objects, kind by kind, (K, 1, 40, 40) uint8, and where each kind starts and the last one ends."""
    kinds = []
    for name in objects:
        data, names = (mnist5k(), DIGITS) if name in DIGITS else (silhouettes(), ANIMALS)
        images, labels = (
            (data.train_images, data.train_labels) if split == "train" else (data.test_images, data.test_labels)
        )
        kinds.append(_fitted(images[labels == names.index(name)]))
    return torch.cat(kinds), torch.tensor([0, *(len(kind) for kind in kinds)]).cumsum(0)


def _fitted(images: Tensor) -> Tensor:
    """Each object moved to the middle and enlarged until it touches its square: (K, 1, 28, 28) to (K, 1, 40, 40)."""
    x1, y1, x2, y2 = _extent(images[:, 0]).unbind(1)
    scale = torch.maximum(x2 - x1, y2 - y1) / 28
    zero = torch.zeros_like(scale)
    to_x = torch.stack([scale, zero, (x1 + x2) / 28 - 1], 1)  # -1 to 1 across the picture
    to_y = torch.stack([zero, scale, (y1 + y2) / 28 - 1], 1)
    grid = F.affine_grid(torch.stack([to_x, to_y], 1), [len(images), 1, 40, 40], align_corners=False)
    return (F.grid_sample(images, grid, align_corners=False) * 255).round().to(torch.uint8)


@cache
def _photographs(split: Split, size: int) -> list[Tensor]:
    """The part of each photograph for this split, in up to three sizes: each (3, H, W) uint8, H and W at least S."""
    parts = []
    for photo in photos(*BACKGROUNDS).values():
        width = photo.image.shape[2]
        border = int(width * TRAIN_SHARE)
        part = photo.image[:, :, :border] if split == "train" else photo.image[:, :, border:]
        for shrink in (1, 2, 3):
            shape = [length // shrink for length in part.shape[1:]]
            if min(shape) >= size:
                smaller = F.interpolate(part[None], shape, mode="bilinear", antialias=True)[0]
                parts.append((smaller * 255).round().to(torch.uint8))
    return parts


def _backgrounds(count: int, split: Split, size: int, generator: torch.Generator) -> Tensor:
    """Random parts of photographs, (N, 3, S, S) uint8."""
    parts = _photographs(split, size)
    chosen = torch.randint(len(parts), (count,), generator=generator)
    where = torch.rand(count, 2, generator=generator)
    canvas = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for number, part in enumerate(parts):
        rows = torch.where(chosen == number)[0]
        windows = part.unfold(1, size, 1).unfold(2, size, 1).movedim(0, 2)  # (H - S + 1, W - S + 1, 3, S, S), a view
        y, x = ((where[rows] * torch.tensor(windows.shape[:2])).long()).unbind(1)
        canvas[rows] = windows[y, x]
    return canvas


def _place(present: Tensor, sides: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Upper left corners (N, M, 2): for each object the first of some random places that covers no earlier object.

    If all of them do, the one that covers least.
    """
    count, most = present.shape
    room = (size - sides)[:, None, :, None] + 1  # (N, 1, M, 1)
    tries = (torch.rand(count, CANDIDATES, most, 2, generator=generator) * room).long()
    chosen = torch.zeros(count, most, 2, dtype=torch.long)
    for place in range(most):
        low, high = tries[:, :, place], tries[:, :, place] + sides[:, place, None, None]  # (N, candidates, 2)
        earlier = chosen[:, None, :place]  # (N, 1, place, 2)
        their_end = earlier + sides[:, None, :place, None]
        overlap = (torch.minimum(high[:, :, None], their_end) - torch.maximum(low[:, :, None], earlier)).clamp(min=0)
        covered = (overlap.prod(-1) * present[:, None, :place]).sum(-1)  # (N, candidates), pixels
        best = (covered * CANDIDATES + torch.arange(CANDIDATES)).argmin(1)  # the first of the least
        chosen[:, place] = low[torch.arange(count), best]
    return chosen


def _paste(
    canvas: Tensor, instances: Tensor, rows: Tensor, place: int, cover: Tensor, paint: Tensor, x: Tensor, y: Tensor
) -> None:
    """Paint objects of one size over their scenes: ``cover`` (n, s, s), ``paint`` (n, 3), corners ``x``, ``y`` (n,)."""
    along = torch.arange(cover.shape[-1])
    at_y, at_x = (y[:, None] + along)[:, :, None], (x[:, None] + along)[:, None, :]  # (n, s, 1), (n, 1, s)
    index = rows[:, None, None], at_y, at_x
    instances[index] = torch.where(cover > 0.5, place + 1, instances[index])
    for channel in range(3):
        below = canvas[:, channel][index].float()  # (n, s, s)
        canvas[:, channel][index] = (below + cover * (paint[:, channel, None, None] - below)).round().to(torch.uint8)


def _extent(cover: Tensor) -> Tensor:
    """Corners x1, y1, x2, y2 (n, 4) of what is covered by more than half, of (n, s, s)."""
    seen = cover > 0.5
    corners = []
    for axis in (1, 2):  # along x, then along y
        line = seen.any(axis).to(torch.uint8)  # (n, s)
        corners.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (x1, x2), (y1, y2) = corners
    return torch.stack([x1, y1, x2, y2], 1).float()


def _captions(targets: Tensor, colours: Tensor, objects: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each scene: the objects from left to right, and for two how they lie to one another."""
    names = tuple(COLOURS)
    centres = (targets[..., 1:3] + targets[..., 3:5]).tolist()
    sentences = []
    for kinds, dyes, middles in zip(targets[..., 0].long().tolist(), colours.tolist(), centres, strict=True):
        found = sorted(
            (tuple(at), f"{names[dye]} {objects[kind]}")
            for kind, dye, at in zip(kinds, dyes, middles, strict=True)
            if kind >= 0
        )
        sentences.append(_sentence(found))
    return tuple(sentences)


def _sentence(found: list[tuple[tuple[float, ...], str]]) -> str:
    if not found:
        return "nothing"
    words = [f"a {name}" for _, name in found]
    if len(found) != 2:
        return ", ".join(words[:-1]) + " and " * (len(words) > 1) + words[-1]
    ((x1, y1), _), ((x2, y2), _) = found
    if abs(x2 - x1) >= abs(y2 - y1):
        return f"{words[0]} left of {words[1]}"
    return f"{words[0]} {'above' if y1 < y2 else 'below'} {words[1]}"
