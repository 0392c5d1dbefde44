"""How good a detector is: average precision, by pycocotools, the reference implementation.

Lin et al. (2014), https://arxiv.org/abs/1405.0312, and https://cocodataset.org/#detection-eval.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    N  images    D  rows for detections    M  rows for objects
"""

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from torch import Tensor

#: The order of ``COCOeval.stats``.
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def average_precision(predictions: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> dict[str, float]:
    """COCO's measures: the area under precision over recall, averaged over classes, and over IoU 0.5 to 0.95 for "AP".

    Args:
        predictions: Boxes in pixels, scores, and labels with -1 where a row is empty (`dlbook.layers.nms.Detections`).
        targets: Rows [class, x1, y1, x2, y2] in pixels, class -1 where a row is empty.

    Shapes:
        ``predictions`` (N, D, 4), (N, D), (N, D); ``targets`` (N, M, 5).

    Returns:
        ``{"AP": ..., "AP50": ..., "AP75": ..., "AR100": ...}`` and more, each 0 to 1; NaN where nothing is there to be
        found, such as "AP_large" without an object of more than 96 x 96 pixels.

    Raises:
        ValueError: If shapes do not fit, a number of a row in use is not finite, or a box has a negative size.

    Example:
        >>> import torch
        >>> targets = torch.tensor([[[2.0, 10, 10, 30, 30], [0, 40, 40, 60, 70]]])
        >>> found = targets[:, :1, 1:], torch.tensor([[0.9]]), torch.tensor([[2]])  # one of the two
        >>> round(average_precision(found, targets)["AP50"], 3)
        0.5
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes, scores, labels = (part.detach().cpu() for part in predictions)
    targets = targets.detach().cpu()
    _check(boxes, scores, labels, targets)
    found = _rows(labels.numpy(), boxes.double().numpy())
    right = _rows(targets[..., 0].numpy(), targets[..., 1:].double().numpy())
    for row, score in zip(found, scores[labels >= 0].tolist(), strict=True):
        row["score"] = score

    truth, answer = COCO(), COCO()
    images = [{"id": i} for i in range(len(targets))]
    categories = [{"id": i} for i in sorted({row["category_id"] for row in right})]
    with redirect_stdout(io.StringIO()):
        for coco, rows in ((truth, right), (answer, found)):
            coco.dataset = {"images": images, "categories": categories, "annotations": rows}
            coco.createIndex()
        evaluation = COCOeval(truth, answer, "bbox")
        if not categories:  # it cannot average over no class
            return dict.fromkeys(NAMES, float("nan"))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: float(value) if value >= 0 else float("nan") for name, value in zip(NAMES, evaluation.stats, strict=True)
    }


def _rows(labels: "np.ndarray[Any, Any]", boxes: "np.ndarray[Any, Any]") -> list[dict[str, Any]]:
    """The rows in use, as COCO's dictionaries; ids start at 1, since 0 means "no match" there."""
    image, row = np.nonzero(labels >= 0)
    boxes = boxes[image, row]
    sizes = boxes[:, 2:] - boxes[:, :2]
    parts = (
        image.tolist(),
        labels[image, row].astype(int).tolist(),
        np.concatenate([boxes[:, :2], sizes], axis=1).tolist(),
        sizes.prod(axis=1).tolist(),
    )
    return [
        {"id": i, "image_id": image_id, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
        for i, (image_id, label, box, area) in enumerate(zip(*parts, strict=True), start=1)
    ]


def _check(boxes: Tensor, scores: Tensor, labels: Tensor, targets: Tensor) -> None:
    shapes = [tuple(part.shape) for part in (boxes, scores, labels, targets)]
    N, D = shapes[1] if scores.ndim == 2 else (-1, -1)
    if shapes[0] != (N, D, 4) or shapes[2] != (N, D) or targets.ndim != 3 or shapes[3][::2] != (N, 5):
        raise ValueError(f"boxes (N, D, 4), scores and labels (N, D) and targets (N, M, 5) were expected, got {shapes}")
    for name, rows in (("predictions", boxes[labels >= 0]), ("targets", targets[targets[..., 0] >= 0][:, 1:])):
        if (wrong := ~rows.isfinite().all(-1) | (rows[:, 2:] < rows[:, :2]).any(-1)).any():
            raise ValueError(
                f"boxes of {name} must be finite with x1 <= x2 and y1 <= y2, got {rows[wrong][0].tolist()}"
            )
    if not scores[labels >= 0].isfinite().all():
        raise ValueError("scores must be finite")
