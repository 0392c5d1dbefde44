"""Boxes against pycocotools, transformers, and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from transformers.loss.loss_for_object_detection import generalized_box_iou

from dlbook.layers.boxes import (
    BoxCoder,
    cell_anchors,
    check_boxes,
    check_targets,
    clip,
    giou,
    giou_loss,
    grid_anchors,
    iou,
    overlaps,
)


def some_boxes(count: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=dtype) * 60
    return torch.cat((corners, corners + 1 + torch.rand(count, 2, generator=generator, dtype=dtype) * 50), dim=1)


def test_iou_is_that_of_pycocotools():
    a, b = some_boxes(7, 0), some_boxes(5, 1)
    as_coco = [np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], axis=1) for x in (a.numpy(), b.numpy())]
    right = coco_mask.iou(*as_coco, [0] * len(b))
    torch.testing.assert_close(iou(a, b), torch.from_numpy(right), rtol=0, atol=1e-12)
    assert right.max() > 0.2


def test_giou_is_that_of_transformers():
    a, b = some_boxes(7, 0), some_boxes(5, 1)
    torch.testing.assert_close(giou(a, b), generalized_box_iou(a, b), rtol=0, atol=1e-12)
    assert giou(a, b).min() < 0 < giou(a, b).max()


def test_giou_loss_takes_pairs():
    a, b = some_boxes(6, 0), some_boxes(6, 1)
    torch.testing.assert_close(giou_loss(a, b), 1 - giou(a, b).diagonal())


def test_giou_loss_pulls_boxes_that_do_not_touch():
    box = torch.tensor([0.0, 0, 10, 10], dtype=torch.float64, requires_grad=True)
    giou_loss(box, torch.tensor([50.0, 0, 60, 10], dtype=torch.float64)).backward()
    assert box.grad is not None
    assert box.grad[2] < -1e-3 < -1e-12 < box.grad[3] < 1e-12  # the right edge has to move to the right


def test_boxes_without_area_overlap_nothing():
    point = torch.tensor([[3.0, 3, 3, 3]], requires_grad=True)
    assert iou(point, point).item() == 0
    giou_loss(point, point).sum().backward()
    assert point.grad is not None
    assert point.grad.isfinite().all()


def test_overlaps_keeps_batches_apart():
    a, b = some_boxes(6, 0).view(2, 3, 4), some_boxes(10, 1).view(2, 5, 4)
    torch.testing.assert_close(overlaps(a, b)[1], iou(a[1], b[1]))
    torch.testing.assert_close(overlaps(a, b[0])[1], iou(a[1], b[0]))


def test_coder_by_hand():
    anchor, box = torch.tensor([10.0, 20, 30, 60]), torch.tensor([14.0, 20, 24, 140])  # 20 x 40 and 10 x 120
    right = torch.tensor([10 * -1 / 20, 10 * 40 / 40, 5 * math.log(10 / 20), 5 * math.log(120 / 40)])
    torch.testing.assert_close(BoxCoder((10, 10, 5, 5)).encode(box, anchor), right)


def test_coder_goes_back():
    boxes, anchors = some_boxes(9, 0), some_boxes(9, 1)
    for weights in ((1, 1, 1, 1), (10, 9, 5, 4)):
        coder = BoxCoder(weights)
        torch.testing.assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes, rtol=0, atol=1e-12)


def test_coder_does_not_overflow():
    anchors = torch.tensor([[0.0, 0, 16, 16]])
    decoded = BoxCoder().decode(torch.tensor([[0.0, 0, 1000, math.log(2)]]), anchors)
    torch.testing.assert_close(decoded[0, 2:] - decoded[0, :2], torch.tensor([1000.0, 32.0]))


def test_clip():
    boxes = torch.tensor([[[-3.0, 5, 80, 90], [10, 11, 12, 13]]])
    assert clip(boxes, height=50, width=70).tolist() == [[[0, 5, 70, 50], [10, 11, 12, 13]]]


def test_anchors_have_their_areas_and_ratios():
    cell = cell_anchors((64, 128), (0.5, 1.0, 2.0))
    width, height = (cell[:, 2:] - cell[:, :2]).unbind(1)
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([64.0, 128] * 3), rtol=0.01, atol=0)
    torch.testing.assert_close(height / width, torch.tensor([0.5, 0.5, 1, 1, 2, 2]), rtol=0.03, atol=0)


def test_anchors_stand_on_their_cells():
    cell = cell_anchors((10,), (1.0, 2.0))
    anchors = grid_anchors(cell, rows=3, columns=5, stride=(8, 4)).view(3, 5, 2, 4)
    assert torch.equal(anchors[2, 3, 1], cell[1] + torch.tensor([12.0, 16, 12, 16]))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5.0, 0, 4, 1], "x1 <= x2"),
        ([0.0, 3, 4, 1], "y1 <= y2"),
        ([math.nan, 0, 1, 1], "finite"),
        ([0.0, 0, math.inf, 1], "finite"),
        ([0.0, 0, 1], "must be"),
    ],
)
def test_wrong_boxes(box, message):
    with pytest.raises(ValueError, match=message):
        check_boxes(torch.tensor([box]))
    with pytest.raises(ValueError, match=message):
        iou(torch.zeros(1, 4), torch.tensor([box]))


def test_targets_without_objects_are_right():
    check_targets(torch.zeros(3, 0, 5), num_classes=2)
    check_targets(torch.full((3, 2, 5), -1.0), num_classes=2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([4.0, 0, 0, 9, 9], "from 0 to 3, or -1, got 4.0"),
        ([-2.0, 0, 0, 9, 9], "got -2.0"),
        ([0.5, 0, 0, 9, 9], "whole number"),
        ([math.nan, 0, 0, 9, 9], "whole number"),
        ([1.0, 9, 0, 3, 9], "x1 <= x2"),
        ([1.0, 3, 0, 3, 9], "positive size"),
        ([1.0, math.nan, 0, 3, 9], "finite"),
    ],
)
def test_wrong_targets(row, message):
    with pytest.raises(ValueError, match=message):
        check_targets(torch.tensor([[[-1.0, 0, 0, 0, 0], row]]), num_classes=4)


def test_wrong_settings():
    with pytest.raises(ValueError, match="four positive"):
        BoxCoder((1, 1, 0, 1))
    with pytest.raises(ValueError, match="positive"):
        cell_anchors((), (1.0,))
    with pytest.raises(ValueError, match="objects, 5"):
        check_targets(torch.zeros(2, 3, 4), num_classes=3)
