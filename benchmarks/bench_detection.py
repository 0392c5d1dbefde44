"""The two steps of a detector that are no layer of PyTorch, on 1,000 boxes: how long each takes."""

import torch

from benchmarks.harness import CLOCK, Row, summary
from dlbook.layers.nms import nms_mask
from dlbook.layers.roi_align import roi_align


def run(rounds: int, count: int = 1000) -> list[Row]:
    """Random boxes of 10 to 100 pixels in a picture of 300 x 300, and a map of 256 channels for every 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, count, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + 10 + torch.rand(1, count, 2, generator=generator) * 90], -1)  # (1, count, 4)
    scores = torch.rand(1, count, generator=generator)
    features = torch.rand(1, 256, 38, 38, generator=generator)
    steps = {
        f"non-maximum suppression, {count} boxes": (lambda: nms_mask(boxes, scores, 0.5), 0.05),
        f"RoIAlign forward, {count} boxes, 256 channels": (lambda: roi_align(features, boxes, 7, scale=1 / 8), 1.0),
    }
    rows = []
    for name, (step, target) in steps.items():
        seconds = []
        for _ in range(rounds + 1):  # the first call warms up
            start = CLOCK()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(CLOCK() - start)
        rows.append(summary(name, seconds[1:], "s", target))
    return rows
