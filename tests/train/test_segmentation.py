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
    scores = segmentation_scores(masks, masks, 5)
    assert scores.iou.isnan().tolist() == [False, True, True, True, True]
    assert scores.boundary.isnan().all()  # one class all over has no border
    assert scores.boundary.dtype == torch.float64


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


def border_of(mask):
    """Pixels (n, i, j) of a mask with one of their eight neighbours outside the mask, and inside the picture."""
    pixels = {tuple(pixel) for pixel in mask.nonzero().tolist()}
    everywhere = {tuple(pixel) for pixel in torch.ones_like(mask).nonzero().tolist()}
    return {
        (n, i, j)
        for n, i, j in pixels
        if any((n, i + a, j + b) in everywhere - pixels for a in (-1, 0, 1) for b in (-1, 0, 1))
    }


@pytest.mark.parametrize(("tolerance", "given"), [(0, {"tolerance": 0}), (1, {}), (2, {"tolerance": 2})])
def test_the_boundary_score_from_its_definition(tolerance, given):
    masks = torch.zeros(3, 12, 11, dtype=torch.long)
    masks[0, 2:9, 3:8], masks[1, 5:, :4], masks[2, 4:6, 4:9] = 1, 1, 1
    predicted = masks.roll((1, -2), (1, 2))
    predicted[0, 0, :3] = 1

    def share(found, among):
        near = [any(n == o and max(abs(i - k), abs(j - m)) <= tolerance for o, k, m in among) for n, i, j in found]
        return sum(near) / len(near)

    scores = segmentation_scores(predicted, masks, 2, **given)
    for k in range(2):
        found, right = border_of(predicted == k), border_of(masks == k)
        precision, recall = share(found, right), share(right, found)
        assert scores.boundary[k].item() == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-12)
    assert scores.boundary.dtype == torch.float64


def test_borders_that_never_meet_score_nothing():
    masks, predicted = torch.zeros(2, 1, 12, 12, dtype=torch.long)
    masks[:, 1:3, 1:3], predicted[:, 8:10, 8:10] = 1, 1
    assert segmentation_scores(predicted, masks, 2).boundary[1] == 0
    assert segmentation_scores(predicted, torch.zeros_like(masks), 2).boundary[1] == 0


def test_the_loss_is_cross_entropy_and_dice_of_one_pixel_more():
    logits, masks = torch.randn(3, K, 6, 5, generator=torch.Generator().manual_seed(0)), some()
    torch.testing.assert_close(dice_loss(logits, masks), dice_loss(logits, masks, smooth=1.0), rtol=0, atol=0)
    right = F.cross_entropy(logits, masks) + dice_loss(logits, masks)
    torch.testing.assert_close(segmentation_loss(logits, masks), right)
    assert dice_loss(logits.bfloat16(), masks).dtype == torch.float32


@pytest.mark.parametrize("masks", [some(), some().clamp(max=K - 2)])
def test_dice_loss_from_its_definition(masks):
    logits = torch.randn(3, K, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
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
    with pytest.raises(ValueError, match=r"\(3, 4, 6\), \(3, 6\)"):
        dice_loss(torch.zeros(3, K, 6), torch.zeros(3, 6, dtype=torch.long))


def test_scores_refuse_what_cannot_be_compared():
    with pytest.raises(ValueError, match="two of"):
        segmentation_scores(some(), some(w=4), K)
    with pytest.raises(ValueError, match="not empty"):
        segmentation_scores(some(n=0), some(n=0), K)
    with pytest.raises(ValueError, match="two of"):
        segmentation_scores(some()[0], some()[0], K)
    with pytest.raises(ValueError, match="predicted has classes from 0 to 3, and there are 3"):
        segmentation_scores(some(), some().clamp(max=2), 3)
    with pytest.raises(ValueError, match="masks has classes from 0 to 3, and there are 3"):
        segmentation_scores(some().clamp(max=2), some(), 3)
    with pytest.raises(ValueError, match="from -1"):
        segmentation_scores(some(), some() - 1, K)
