"""Average precision on cases whose answer is known."""

import math

import pytest
import torch

from dlbook.train.detection import average_precision

TARGETS = torch.tensor(
    [
        [[2.0, 10, 10, 30, 30], [0, 40, 40, 60, 70]],
        [[0.0, 5, 5, 20, 20], [-1, 0, 0, 0, 0]],
        [[-1.0, 0, 0, 0, 0], [-1, 0, 0, 0, 0]],
    ]
)


def as_found(targets):
    """The right answer, with 0.9 for all."""
    return targets[..., 1:], torch.full(targets.shape[:2], 0.9), targets[..., 0].long()


def test_the_right_answer(capsys):
    found = average_precision(as_found(TARGETS), TARGETS)
    assert found["AP"] == found["AP50"] == found["AR100"] == pytest.approx(1)
    assert math.isnan(found["AP_large"])
    assert capsys.readouterr().out == ""


def test_boxes_a_little_off():
    boxes, scores, labels = as_found(TARGETS)
    boxes = boxes + torch.tensor([0.0, 0, 0, 1]) * (boxes[..., 3:] - boxes[..., 1:2]) * 0.5  # IoU 2/3
    found = average_precision((boxes, scores, labels), TARGETS)
    assert (found["AP50"], found["AP75"]) == (pytest.approx(1), 0)
    assert found["AP"] == pytest.approx(0.4)  # of 0.50, 0.55, ..., 0.95 four are met


def test_a_false_alarm_before_the_right_box():
    targets = torch.tensor([[[1.0, 10, 10, 30, 30]]])
    boxes = torch.tensor([[[60.0, 60, 80, 80], [10, 10, 30, 30]]])
    found = average_precision((boxes, torch.tensor([[0.9, 0.8]]), torch.tensor([[1, 1]])), targets)
    assert found["AP50"] == pytest.approx(0.5)  # precision 1/2 at every recall
    found = average_precision((boxes, torch.tensor([[0.7, 0.8]]), torch.tensor([[1, 1]])), targets)
    assert found["AP50"] == pytest.approx(1)


def test_the_wrong_class_is_wrong():
    boxes, scores, labels = as_found(TARGETS)
    assert average_precision((boxes, scores, labels.masked_fill(labels == 2, 1)), TARGETS)["AP50"] == pytest.approx(0.5)


def test_nothing_found():
    nothing = torch.zeros(3, 4, 4), torch.zeros(3, 4), torch.full((3, 4), -1)
    assert average_precision(nothing, TARGETS)["AP50"] == 0
    none = torch.zeros(3, 0, 4), torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.long)
    assert average_precision(none, TARGETS)["AP50"] == 0


def test_nothing_to_find():
    targets = torch.zeros(3, 0, 5)
    assert math.isnan(average_precision(as_found(TARGETS), targets)["AP50"])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("wrong", [math.nan, 1e3])
def test_wrong_boxes(place, wrong):
    boxes, targets = TARGETS[..., 1:].clone(), TARGETS.clone()
    (boxes if place == 0 else targets[..., 1:])[0, 1, 0] = wrong  # 1,000 is right of its right edge
    with pytest.raises(ValueError, match=("predictions", "targets")[place]):
        average_precision((boxes, *as_found(TARGETS)[1:]), targets)


def test_wrong_shapes_and_scores():
    boxes, scores, labels = as_found(TARGETS)
    with pytest.raises(ValueError, match="expected"):
        average_precision((boxes[0], scores, labels), TARGETS)
    with pytest.raises(ValueError, match="expected"):
        average_precision((boxes, scores, labels), TARGETS[:2])
    with pytest.raises(ValueError, match="finite"):
        average_precision((boxes, scores * math.nan, labels), TARGETS)
