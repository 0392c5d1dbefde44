"""YOLO: published size, what the loss asks for, and training on next to nothing."""

import math

import pytest
import torch

from dlbook.layers.boxes import iou
from dlbook.models.yolo import SIZES, YOLO, YOLOConfig, YOLOLoss, YOLOv1, cell_boxes
from dlbook.train.detection import average_precision
from dlbook.train.loop import evaluate, fit

EMPTY = [-1.0, 0, 0, 0, 0]
Y = torch.tensor([[[3.0, 10, 20, 30, 40], [1, 50, 40, 90, 60]], [[0, 0, 0, 16, 24], EMPTY], [EMPTY, EMPTY]])


def tiny(num_classes: int = 4) -> YOLO:
    torch.manual_seed(0)
    return YOLO(SIZES["yolo_tiny"], num_classes=num_classes)


def images(count: int = 3, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_yolov1_has_the_published_size():
    with torch.device("meta"):
        model = YOLOv1()
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 24
    assert sum(p.numel() for p in model.parameters()) == 271_703_550
    assert model(torch.zeros(2, 3, 448, 448, device="meta")).shape == (2, 30, 7, 7)


def test_boxes_by_hand():
    outputs = torch.zeros(1, 5, 2, 3)
    outputs[0, 2, 1, 2] = 4.0  # the right edge of the cell in row 1, column 2
    boxes, _, centres = cell_boxes(outputs, stride=8)
    assert centres[5].tolist() == [20, 12]
    at_rest, moved = 8 * math.log1p(math.exp(1.5)), 8 * math.log1p(math.exp(5.5))
    right = torch.tensor([20 - at_rest, 12 - at_rest, 20 + moved, 12 + at_rest])
    torch.testing.assert_close(boxes[0, 5], right)


def test_right_outputs_cost_least():
    """The loss falls as boxes and scores of the cells in an object come closer to it."""
    outputs = torch.full((1, 8, 8, 12), -9.0)  # (1, 4 + K, 8, 12)
    _, _, centres = cell_boxes(outputs, 8)
    distances = torch.cat((centres - torch.tensor([10.0, 20]), torch.tensor([30.0, 40]) - centres), dim=1) / 8
    raw = torch.log(torch.expm1(distances.clamp(min=0.05))) - 1.5  # softplus, backwards
    right = outputs.clone()
    inside = (distances > 0).all(1).view(8, 12)
    right[0, :4, inside] = raw.T.view(4, 8, 12)[:, inside]
    right[0, 4 + 3, inside] = 8.0
    wrong_boxes, wrong_class, no_score = right.clone(), right.clone(), right.clone()
    wrong_boxes[0, :4] = 1.0
    wrong_class[0, [4, 7]] = wrong_class[0, [7, 4]]
    no_score[0, 7] = -9.0
    y, loss = Y[:1, :1], YOLOLoss()
    best = loss(right, y)
    assert best < 0.1
    assert all(loss(other, y) > best + 1 for other in (wrong_class, no_score))
    assert loss(wrong_boxes, y) > best + 0.5


def test_assignment():
    model, loss = tiny(), YOLOLoss(topk=3)
    boxes, logits, centres = cell_boxes(model(images()), 8)
    weight, chosen = loss.assign(boxes.detach(), logits.detach().sigmoid(), centres, Y)
    for b in range(3):
        for m in range(2):
            cells = (weight[b] > 0) & (chosen[b] == m)
            assert cells.sum() == (3 if Y[b, m, 0] >= 0 else 0)
            x, y = centres[cells].unbind(1)
            assert ((x > Y[b, m, 1]) & (x < Y[b, m, 3]) & (y > Y[b, m, 2]) & (y < Y[b, m, 4])).all()
            if cells.any():  # the best cell learns its own IoU
                overlap = iou(Y[b, m : m + 1, 1:], boxes[b, cells])
                torch.testing.assert_close(weight[b, cells].max(), overlap.max())


def test_a_tiny_object_has_a_cell():
    boxes, logits, centres = cell_boxes(torch.zeros(1, 5, 4, 4), 8)
    weight, _ = YOLOLoss().assign(boxes, logits.sigmoid(), centres, torch.tensor([[[0.0, 15, 15, 17, 17]]]))
    assert (weight > 0).sum() == 4  # it lies on the corner that four cells share


@pytest.mark.parametrize("y", [torch.tensor([[EMPTY]] * 3), torch.zeros(3, 0, 5)])
def test_images_without_objects(y):
    model, loss_fn = tiny(), YOLOLoss()
    loss = loss_fn(model(images()), y)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    found = model.eval().decode(model(images()), score_threshold=0.9)
    assert (found.labels == -1).all()
    assert math.isfinite(evaluate(model, [(images(), y)], loss_fn)["loss"])


def test_overfits_one_batch():
    model = tiny()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    history = fit(model, [(images(), Y)], YOLOLoss(), optimizer, epochs=200)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    model.train()  # statistics of this batch
    found = model.decode(model(images()))
    assert average_precision(found, Y)["AP50"] == pytest.approx(1)


def test_rows_without_an_object_change_nothing():
    outputs = tiny()(images()).detach()
    more = torch.cat((Y, torch.tensor([[[-1.0, 10, 20, 30, 40]]] * 3)), dim=1)
    torch.testing.assert_close(YOLOLoss()(outputs, more), YOLOLoss()(outputs, Y))


def test_wrong_input():
    with pytest.raises(ValueError, match="multiples of 16"):
        tiny()(torch.zeros(1, 3, 40, 48))
    with pytest.raises(ValueError, match="3"):
        tiny()(torch.zeros(1, 1, 48, 48))
    with pytest.raises(ValueError, match="448"):
        YOLOv1.forward(_small_v1(), torch.zeros(1, 3, 224, 224))
    with pytest.raises(ValueError, match=r"\(1, objects, 5\)"):
        YOLOLoss()(torch.zeros(1, 8, 6, 6), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="four"):
        YOLOConfig((4, 4, 4, 0), (0, 0, 0, 0), 4)
    with pytest.raises(ValueError, match="num_classes=0"):
        tiny(num_classes=0)
    with pytest.raises(ValueError, match="topk"):
        YOLOLoss(topk=0)


def _small_v1() -> YOLOv1:
    with torch.device("meta"):
        return YOLOv1()
