"""Surfaces to inspect: photographs of brick, grass and gravel, sound or with a painted-in defect.

The surfaces are real, the defects are made here: no set of real defects comes without a download. Three kinds, after
what inspectors look for: a scratch, a spot, and a patch of another place of the same surface (Li et al., 2021,
https://doi.org/10.1109/CVPR46437.2021.00954, train on such patches to find real defects).

Letters for shapes in this file:
    N  pictures    S  their side, pixels
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlbook.data.augment import smooth
from dlbook.data.photos import photos

Split = Literal["train", "test"]
SURFACES = ("brick", "grass", "gravel")
DEFECTS = ("none", "scratch", "spot", "patch")


@dataclass(frozen=True, eq=False)
class Inspections:
    """Pictures of a surface, and where each of them is defective.

    Attributes:
        images: Pixels, 0 dark to 1 bright, float32.
        kinds: Index into ``DEFECTS``, int64.
        masks: Whether a pixel belongs to the defect.

    Shapes:
        ``images`` (N, 1, S, S), ``kinds`` (N,), ``masks`` (N, S, S) bool.
    """

    images: Tensor
    kinds: Tensor
    masks: Tensor


def textures(
    surface: str, count: int, *, split: Split = "train", defective: float = 0.0, size: int = 64, seed: int = 0
) -> Inspections:
    """Random pieces of one surface; the right third of its photograph is seen in test pieces only.

    Args:
        surface: "brick", "grass" or "gravel".
        count: How many pieces, N.
        split: Which part of the photograph they are cut from.
        defective: Share of the pieces that get a defect, 0 to 1; the kinds take turns.
        size: Side of a piece, S, 32 to 128 pixels.
        seed: Decides everything that is drawn.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> pieces = textures("gravel", 8, split="test", defective=0.5)
        >>> pieces.images.shape, [DEFECTS[kind] for kind in pieces.kinds]
        (torch.Size([8, 1, 64, 64]), ['scratch', 'spot', 'patch', 'scratch', 'none', 'none', 'none', 'none'])
    """
    if surface not in SURFACES:
        raise ValueError(f"surface must be one of {', '.join(SURFACES)}, got {surface!r}")
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    if count < 1 or not 0 <= defective <= 1 or not 32 <= size <= 128:
        raise ValueError(f"wanted count >= 1, 0 <= defective <= 1, 32 <= size <= 128; got {count}, {defective}, {size}")
    generator = torch.Generator().manual_seed(2 * seed + (split == "test"))
    whole = photos(surface)[surface].image[0]  # (512, 512)
    border = whole.shape[1] * 2 // 3
    part = whole[:, :border] if split == "train" else whole[:, border:]
    windows = part.unfold(0, size, 1).unfold(1, size, 1)  # (rows, columns, S, S), a view

    def pieces() -> Tensor:
        y, x = ((torch.rand(2, count, generator=generator).T * torch.tensor(windows.shape[:2])).long()).unbind(1)
        return windows[y, x]  # (N, S, S)

    images, others = pieces(), pieces().flip(2)
    number = torch.arange(count)
    kinds = torch.where(number < round(count * defective), number % 3 + 1, 0)
    masks = _masks(kinds, size, generator)
    light = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.5, 0.3, 1.0)  # defects are dark or bright
    strength = torch.where(kinds == 3, 1.0, 0.55).view(-1, 1, 1)
    defect = torch.where((kinds == 3).view(-1, 1, 1), others, light * whole.mean() / 0.65)
    images = torch.where(masks, images + strength * (defect - images), images).clamp(0, 1)
    return Inspections(images.unsqueeze(1).contiguous(), kinds, masks)


def _masks(kinds: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Where the defects lie, (N, S, S): a thin line that bends, a ragged spot, or a turned rectangle."""
    n = len(kinds)
    line = torch.arange(size) - size / 2 + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    centre = (torch.rand(n, 2, 1, 1, generator=generator) - 0.5) * size * 0.5
    angle = torch.rand(n, 1, 1, generator=generator) * torch.pi
    dx, dy = x - centre[:, 0], y - centre[:, 1]  # (N, S, S)
    along, across = angle.cos() * dx + angle.sin() * dy, angle.cos() * dy - angle.sin() * dx
    rough = smooth(torch.randn(n, 1, size, size, generator=generator), size / 16)[:, 0]  # (N, S, S), variance 1
    length = (0.16 + 0.16 * torch.rand(n, 1, 1, generator=generator)) * size
    width = (0.08 + 0.10 * torch.rand(n, 1, 1, generator=generator)) * size
    scratch = (across + 1.5 * rough).abs().lt(1.2) & along.abs().lt(length)
    spot = (along / width).square() + (across / width).square() + 0.5 * rough < 1
    patch = along.abs().lt(length * 0.8) & across.abs().lt(width)
    kind = kinds.view(-1, 1, 1)
    return (scratch & (kind == 1)) | (spot & (kind == 2)) | (patch & (kind == 3))
