"""RoIAlign: a fixed grid of features for a box of any size and place.

He et al. (2017), "Mask R-CNN", https://arxiv.org/abs/1703.06870, section 3; the choice of a pyramid's level is
equation 1 of Lin et al. (2017), "Feature Pyramid Networks", https://arxiv.org/abs/1612.03144.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    R  boxes of an image    C  channels    H, W  rows and columns of a map
    P  bins along one side of the result    S  samples along one side of a bin    Q = P * S
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def roi_align(
    features: Tensor,
    boxes: Tensor,
    output_size: int,
    *,
    scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """Features in each of P x P bins of every box: the mean of S x S samples, each interpolated bilinearly.

    A sample outside the map by up to one cell takes the value at its edge, one further outside is 0.

    Args:
        features: One map for each image.
        boxes: In the image's pixels, as many for each image.
        output_size: Bins along each side, P.
        scale: Cells of the map per pixel, such as 1/16.
        sampling_ratio: Samples along each side of a bin, S. (The adaptive number that some libraries choose for 0
            would make the sizes depend on the values.)
        aligned: Cell (i, j) covers [i, i + 1] x [j, j + 1], so its value stands at its middle, half a cell from its
            corner. False leaves the half cell out and makes boxes at least one cell wide, as older detectors did.

    Shapes:
        ``features`` (B, C, H, W), ``boxes`` (B, R, 4); returns (B, R, C, P, P).

    Raises:
        ValueError: If shapes do not fit, or a size is not positive.

    Example:
        >>> ramp = torch.arange(8.0).expand(1, 1, 8, 8)  # grows by 1 for each column
        >>> roi_align(ramp, torch.tensor([[[2.0, 2, 6, 6]]]), output_size=2)[0, 0, 0]
        tensor([[2.5000, 4.5000],
                [2.5000, 4.5000]])
    """
    return _pool([features], boxes, None, [scale], output_size, sampling_ratio, aligned)


def pyramid_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    output_size: int,
    *,
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_size: float = 224.0,
    canonical_level: int = 2,
) -> Tensor:
    """`roi_align` on a pyramid: large boxes read coarse maps, small boxes fine ones.

    A box of width w and height h reads map number floor(canonical_level + log2(sqrt(w h) / canonical_size)).

    Args:
        features: Maps from fine to coarse, each with half the cells of the one before along both sides.
        scales: Cells per pixel of each map.
        canonical_size: Side in pixels of a box that reads map number ``canonical_level``.

    Shapes:
        ``features`` L times (B, C, H, W), ``boxes`` (B, R, 4); returns (B, R, C, P, P).

    Example:
        >>> maps = [torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 16, 16)]
        >>> boxes = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 90, 90]]])
        >>> pyramid_roi_align(maps, boxes, 2, scales=(1 / 4, 1 / 8), canonical_size=64, canonical_level=1).amax((2, 3, 4))
        tensor([[0., 1.]])
    """
    sides = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).clamp(min=0).sqrt()
    level = torch.floor(canonical_level + torch.log2(sides / canonical_size) + 1e-6)  # the 1e-6: at a boundary, upwards
    levels = level.clamp(0, len(features) - 1).long()  # (B, R)
    return _pool(features, boxes, levels, scales, output_size, sampling_ratio, aligned)


def _pool(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor | None,
    scales: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """All boxes of all images and levels in one look-up, so that no size depends on which box reads which map."""
    B, C = features[0].shape[:2]
    if boxes.ndim != 3 or boxes.shape[0] != B or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be ({B}, boxes, 4) for {B} images, got {tuple(boxes.shape)}")
    if output_size < 1 or sampling_ratio < 1:
        raise ValueError(f"sizes must be positive, got {output_size=} and {sampling_ratio=}")
    if len(scales) != len(features) or not min(scales) > 0:
        raise ValueError(f"one positive scale for each of {len(features)} maps was expected, got {tuple(scales)}")
    P, S, R = output_size, sampling_ratio, boxes.shape[1]
    boxes = boxes.detach()
    if levels is None:
        levels = boxes.new_zeros((B, R), dtype=torch.long)

    # Every cell of every map is one row of a table; a map starts at its own row in each image's part.
    table = torch.cat([f.flatten(2) for f in features], dim=2).transpose(1, 2)  # (B, cells, C)
    cells = [f.shape[-2] * f.shape[-1] for f in features]
    facts = [[f.shape[-2], f.shape[-1], sum(cells[:k])] for k, f in enumerate(features)]
    height, width, start = torch.tensor(facts, device=boxes.device)[levels].unbind(-1)  # each (B, R)
    scale = torch.tensor(scales, device=boxes.device, dtype=boxes.dtype)[levels].unsqueeze(-1)

    x1, y1, x2, y2 = (boxes * scale - (0.5 if aligned else 0.0)).unbind(-1)
    least = 0.0 if aligned else 1.0
    rows, row_weights = _samples(y1, (y2 - y1).clamp(min=least), height, P, S)  # (B, R, Q, 2)
    columns, column_weights = _samples(x1, (x2 - x1).clamp(min=least), width, P, S)

    start = start + torch.arange(B, device=boxes.device).unsqueeze(1) * sum(cells)
    rows = rows * width[..., None, None] + start[..., None, None]
    # For each bin, S samples down and S across, each between 2 rows and 2 columns.
    rows, row_weights = (part.view(B, R, P, 1, 2 * S, 1) for part in (rows, row_weights))
    columns, column_weights = (part.view(B, R, 1, P, 1, 2 * S) for part in (columns, column_weights))
    index = (rows + columns).flatten(4).flatten(0, 3)  # (B * R * P * P, 4 * S * S)
    weights = (row_weights * column_weights).flatten(4).flatten(0, 3).to(table.dtype)
    pooled = F.embedding_bag(index, table.flatten(0, 1), mode="sum", per_sample_weights=weights)  # (B * R * P * P, C)
    return pooled.view(B, R, P, P, C).permute(0, 1, 4, 2, 3)


def _samples(start: Tensor, length: Tensor, cells: Tensor, P: int, S: int) -> tuple[Tensor, Tensor]:
    """Along one side: between which two cells each sample lies, and the two's weights in the mean over the bin.

    Shapes:
        ``start``, ``length``, ``cells`` (B, R); returns (B, R, Q, 2) twice.
    """
    steps = (torch.arange(P * S, device=start.device, dtype=start.dtype) + 0.5) / (P * S)  # (Q,)
    place = start.unsqueeze(-1) + length.unsqueeze(-1) * steps  # (B, R, Q), in cells
    last = (cells - 1).unsqueeze(-1)
    inside = (place >= -1) & (place <= last + 1)
    place = torch.minimum(place.clamp(min=0), last.to(place.dtype))
    lower = place.floor()
    upper_weight = place - lower
    lower = lower.long()
    upper = torch.minimum(lower + 1, last)
    weights = torch.stack((1 - upper_weight, upper_weight), dim=-1) * (inside.to(place.dtype) / S).unsqueeze(-1)
    return torch.stack((lower, upper), dim=-1), weights
