"""Non-maximum suppression against its definition, box by box."""

import math

import pytest
import torch

from dlbook.layers.boxes import iou
from dlbook.layers.nms import best_boxes, nms, nms_mask


def greedy(boxes, scores, threshold, labels=None):
    """The definition, in plain Python."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i].item())  # sorted() keeps the order of equal scores
    overlap, kept = iou(boxes, boxes), []
    for i in order:
        same = [j for j in kept if labels is None or labels[i] == labels[j]]
        if all(overlap[j, i] <= threshold for j in same):
            kept.append(i)
    return kept


def crowd(count, seed, distinct_scores=True, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randint(0, 40, (count, 2), generator=generator)
    boxes = torch.cat((boxes, boxes + torch.randint(5, 25, (count, 2), generator=generator)), dim=1).to(dtype)
    scores = torch.rand(count, generator=generator)
    return (
        boxes,
        scores if distinct_scores else (scores * 5).round() / 5,
        torch.randint(0, 3, (count,), generator=generator),
    )


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("distinct_scores", [True, False])
def test_is_the_greedy_definition(threshold, distinct_scores):
    for seed in range(4):
        boxes, scores, labels = crowd(150, seed, distinct_scores)  # more than the 128 rows done at a time
        assert nms(boxes, scores, threshold).tolist() == greedy(boxes, scores, threshold)
        assert nms(boxes, scores, threshold, labels).tolist() == greedy(boxes, scores, threshold, labels)


def test_a_long_chain():
    """Each box overlaps the next one only, so that every answer depends on the one before: the most rounds there are."""
    x = torch.arange(60.0) * 5
    boxes = torch.stack((x, torch.zeros(60), x + 10, torch.full((60,), 10.0)), dim=1)
    scores = torch.linspace(1, 0, 60)
    assert nms(boxes, scores, 0.3).tolist() == list(range(0, 60, 2)) == greedy(boxes, scores, 0.3)


def test_equal_boxes_and_scores_keep_the_first():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(5, 1)
    assert nms(boxes, torch.full((5,), 0.5), 0.9).tolist() == [0]


def test_an_iou_at_the_threshold_stays():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU 0.5
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.49).tolist() == [0]


def test_boxes_without_area_stay():
    assert nms(torch.zeros(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]


def test_no_box_at_all():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_batch_is_image_by_image_and_leaves_empty_rows_out():
    images = [crowd(40, seed) for seed in range(3)]
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*images, strict=True))
    scores[1, 7:] = -math.inf
    keep = nms_mask(boxes, scores, 0.4, labels)
    for i in range(3):
        filled = 7 if i == 1 else 40
        right = greedy(boxes[i, :filled], scores[i, :filled], 0.4, labels[i, :filled])
        assert sorted(right) == keep[i].nonzero().flatten().tolist()


def test_best_boxes_by_hand():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50]]])
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.6], [0.05, 0.3]]])
    found = best_boxes(boxes, scores, score_threshold=0.1, iou_threshold=0.5, max_detections=5)
    assert found.labels.tolist() == [[0, 1, 1, -1, -1]]  # the second box is suppressed for class 0, not for class 1
    torch.testing.assert_close(found.scores, torch.tensor([[0.9, 0.6, 0.3, 0, 0]]))
    assert torch.equal(found.boxes[0, :3], boxes[0])


def test_best_boxes_of_each_class():
    generator = torch.Generator().manual_seed(0)
    boxes, scores = torch.rand(2, 6, 3, 4, generator=generator), torch.rand(2, 6, 3, generator=generator)
    found = best_boxes(boxes, scores, score_threshold=0.0, iou_threshold=1.0, max_detections=18)
    for b in range(2):
        for box, score, label in zip(*(part[b] for part in found), strict=True):
            row = (scores[b, :, label] == score).nonzero().item()
            assert torch.equal(box, boxes[b, row, label])


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        (torch.tensor([[3.0, 0, 1, 1]]), torch.ones(1)),
        (torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([math.nan])),
        (torch.zeros(2, 4), torch.ones(3)),
    ],
)
def test_wrong_input(boxes, scores):
    with pytest.raises(ValueError, match=r"x1 <= x2|finite|expected"):
        nms(boxes, scores, 0.5)
