"""Losses and measures of masks against their definitions, pixel by pixel."""

import math

import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional as F

from dlbook.train.segmentation import _border, dice_loss, segmentation_loss, segmentation_scores

K = 4


def some(n=3, h=6, w=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(K, (n, h, w), generator=generator)


def test_dice_and_iou_are_scikit_learns():
    predicted, masks = some(seed=1), some(seed=2)
    scores = segmentation_scores(predicted, masks, K)
    flat = masks.flatten().numpy(), predicted.flatten().numpy()
    assert scores.dice.tolist() == pytest.approx(f1_score(*flat, average=None).tolist())
    assert scores.iou.tolist() == pytest.approx(jaccard_score(*flat, average=None).tolist())
    assert scores.accuracy == pytest.approx((predicted == masks).double().mean().item())


def test_a_class_that_is_nowhere_has_no_score():
    masks = torch.zeros(1, 3, 3, dtype=torch.long)
    scores = segmentation_scores(masks, masks, 2)
    assert scores.iou[0] == scores.dice[0] == 1
    assert all(math.isnan(part[1]) for part in (scores.iou, scores.dice, scores.boundary))


def test_a_border_that_is_off_by_the_tolerance_still_counts():
    masks = torch.zeros(1, 20, 20, dtype=torch.long)
    masks[:, 5:15, 5:15] = 1
    for shift in range(4):
        scores = segmentation_scores(masks.roll(shift, 2), masks, 2, tolerance=1)
        assert (scores.boundary[1] == 1) == (shift <= 1)
    assert scores.boundary[1] > 0  # the sides along the shift still lie on one another


def test_the_border_is_one_pixel_wide_and_inside():
    mask = torch.zeros(1, 7, 8, dtype=torch.bool)
    mask[:, 1:6, 2:7] = True
    inner = torch.zeros_like(mask)
    inner[:, 2:5, 3:6] = True
    assert torch.equal(_border(mask), mask & ~inner)
    assert not _border(torch.ones_like(mask)).any()  # the edge of the picture is no border


def test_a_missed_object_scores_nothing_at_its_border():
    masks = torch.zeros(1, 9, 9, dtype=torch.long)
    masks[:, 3:6, 3:6] = 1
    assert segmentation_scores(torch.zeros_like(masks), masks, 2).boundary[1] == 0


def test_dice_loss_from_its_definition():
    logits, masks = torch.randn(3, K, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), some()
    p = torch.softmax(logits.float(), 1)
    total = 0.0
    for k in range(K):
        both = sum(p[n, k, i, j] for n in range(3) for i in range(6) for j in range(5) if masks[n, i, j] == k)
        total += (2 * both + 0.5) / (p[:, k].sum() + (masks == k).sum() + 0.5)
    assert dice_loss(logits, masks, smooth=0.5).item() == pytest.approx(1 - total.item() / K, rel=1e-5)


def test_the_loss_falls_when_the_right_class_gains():
    logits, masks = torch.zeros(3, K, 6, 5, requires_grad=True), some()
    segmentation_loss(logits, masks).backward()
    toward = -logits.grad
    right = F.one_hot(masks, K).movedim(-1, 1).bool()
    assert (toward[right] > 0).all()
    assert segmentation_loss(right * 50.0, masks) < 1e-4


@pytest.mark.parametrize("shape", [(3, 6, 4), (2, 6, 5), (3, 30)])
def test_masks_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(3, 4, 6, 5\)"):
        dice_loss(torch.zeros(3, K, 6, 5), torch.zeros(shape, dtype=torch.long))


def test_scores_refuse_what_cannot_be_compared():
    with pytest.raises(ValueError, match="two of"):
        segmentation_scores(some(), some(w=4), K)
    with pytest.raises(ValueError, match="not empty"):
        segmentation_scores(some(n=0), some(n=0), K)
    with pytest.raises(ValueError, match="there are 3"):
        segmentation_scores(some(), some(), 3)
    with pytest.raises(ValueError, match="from -1"):
        segmentation_scores(some(), some() - 1, K)
