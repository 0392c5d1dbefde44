"""Faster R-CNN: published size, proposals, the four losses, and training on next to nothing."""

import dataclasses
import math

import pytest
import torch

from dlbook.layers.boxes import iou
from dlbook.models.faster_rcnn import SIZES, FasterRCNN, FasterRCNNConfig, FasterRCNNLoss
from dlbook.models.resnet import ResNetConfig
from dlbook.train.detection import average_precision
from dlbook.train.loop import evaluate, fit

EMPTY = [-1.0, 0, 0, 0, 0]
Y = torch.tensor([[[3.0, 10, 20, 30, 40], [1, 50, 30, 90, 60]], [[0, 0, 0, 16, 24], EMPTY], [EMPTY, EMPTY]])
TINY = FasterRCNNConfig(
    ResNetConfig((1, 1), (8, 12)),
    frozen_norm=False,
    pyramid_channels=10,
    anchor_sizes=(16, 24, 36),
    proposals=(24, 20),
    anchor_samples=32,
    box_samples=16,
    bins=3,
    hidden=24,
    canonical=48.0,
)


def tiny() -> FasterRCNN:
    torch.manual_seed(0)
    return FasterRCNN(TINY, num_classes=4)


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_has_the_published_size():
    with torch.device("meta"):
        model = FasterRCNN(SIZES["fasterrcnn_resnet50_fpn"], num_classes=90)
    assert sum(p.numel() for p in model.parameters()) == 41_755_286


def test_proposals():
    model = tiny().eval()
    outputs = model(images())
    assert outputs.anchors.shape == (3 * (16 * 24 + 8 * 12 + 4 * 6), 4)
    assert outputs.objectness.shape == (3, 1512)
    assert outputs.boxes.shape == (3, 20, 4)
    for boxes, filled in zip(outputs.boxes, outputs.filled, strict=True):
        boxes = boxes[filled]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() >= 0
        assert boxes[:, [0, 2]].max() <= 96
        assert boxes[:, [1, 3]].max() <= 64
    assert model.train()(images()).boxes.shape == (3, 24, 4)


def test_proposals_of_a_map_do_not_overlap():
    model = tiny().eval()
    one_map = [torch.zeros(1, 16), torch.zeros(1, 16, 4)]
    anchors = torch.tensor([[4.0 * i, 0, 4.0 * i + 20, 20] for i in range(16)])  # neighbours have IoU 2/3
    boxes, filled = model.propose([tuple(one_map)], [anchors], (64, 96))
    assert filled.all()
    boxes, filled = model.propose([tuple(one_map)], [anchors / 2 + anchors[:1] / 2], (64, 96))  # IoU 9/11
    assert filled.sum() < 16
    assert iou(boxes[0, filled[0]], boxes[0, filled[0]]).triu(1).max() <= 0.7


def test_losses_by_hand():
    """An untrained proposal head says nothing (log 2), an untrained classifier all the same (log 5)."""
    model = tiny()
    for layer in (model.rpn["head"].cls_logits, model.roi_heads["box_predictor"].cls_score):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    loss_fn = FasterRCNNLoss(model, generator=torch.Generator().manual_seed(0))
    parts = loss_fn.parts(model(images()), Y)
    assert parts["objectness"].item() == pytest.approx(math.log(2))
    assert parts["classes"].item() == pytest.approx(math.log(5))
    assert parts["anchor_boxes"] > 0
    assert parts["boxes"] > 0


def test_generator_decides():
    model = tiny().eval()
    outputs = model(images())
    losses = [FasterRCNNLoss(model, generator=torch.Generator().manual_seed(s))(outputs, Y).item() for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("y", [torch.tensor([[EMPTY]] * 3), torch.zeros(3, 0, 5)])
def test_images_without_objects(y):
    model = tiny()
    loss_fn = FasterRCNNLoss(model)
    loss = loss_fn(model(images()), y)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    found = model.eval().decode(model(images()), score_threshold=0.9)
    assert (found.labels == -1).all()
    assert math.isfinite(evaluate(model, [(images(), y)], loss_fn)["loss"])


def test_overfits_one_batch():
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    history = fit(model, [(images(), Y)], FasterRCNNLoss(model), optimizer, epochs=120)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    model.train()  # statistics of this batch
    assert average_precision(model.decode(model(images())), Y)["AP50"] > 0.9


def test_frozen_normalisation_does_not_learn():
    model = FasterRCNN(dataclasses.replace(TINY, frozen_norm=True), num_classes=4)
    before = {name: value.clone() for name, value in model.named_buffers()}
    FasterRCNNLoss(model)(model(images()), Y).backward()
    assert before
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_wrong_input():
    with pytest.raises(ValueError, match="3"):
        tiny()(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match="one more anchor size"):
        dataclasses.replace(TINY, anchor_sizes=(16, 24))
    with pytest.raises(ValueError, match="positive"):
        dataclasses.replace(TINY, hidden=0)
    with pytest.raises(ValueError, match="num_classes=0"):
        FasterRCNN(TINY, num_classes=0)
    model = tiny()
    with pytest.raises(ValueError, match=r"\(1, objects, 5\)"):
        FasterRCNNLoss(model)(model(images(1)), torch.zeros(1, 2, 4))
