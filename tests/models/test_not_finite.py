"""One pixel that is no number: training ends and says so, whatever the task; nothing hides it on the way to the loss."""

import math

import pytest
import torch
from torch import nn

from dlbook.models import faster_rcnn, resnet, yolo
from dlbook.models.deeplab import DeepLabV3
from dlbook.models.faster_rcnn import FasterRCNN, FasterRCNNLoss
from dlbook.models.resnet import ResNet, ResNetConfig
from dlbook.models.unet import UNet
from dlbook.models.yolo import YOLO, YOLOLoss
from dlbook.train.loop import fit

B, K, H, W = 3, 2, 64, 96
LABELS = torch.tensor([1, 0, 1])
MASKS = torch.arange(H * W).reshape(1, H, W).expand(B, H, W) % K
BOXES = torch.tensor([[0.0, 4, 6, 30, 40], [1, 20, 10, 50, 60]]).expand(B, 2, 5).clone()
NO_OBJECT = BOXES.clone()
NO_OBJECT[1] = torch.tensor([-1.0, 0, 0, 0, 0])  # in the picture whose pixel is wrong


def classifies(model: nn.Module):
    return model, nn.functional.cross_entropy, LABELS


def segments(model: nn.Module):
    return model, nn.functional.cross_entropy, MASKS


def detects_yolo(targets):
    return YOLO(yolo.SIZES["yolo_tiny"], num_classes=K), YOLOLoss(), targets


def detects_rcnn(targets):
    model = FasterRCNN(faster_rcnn.SIZES["fasterrcnn_small"], num_classes=K)
    return model, FasterRCNNLoss(model, generator=torch.Generator().manual_seed(0)), targets


TASKS = {
    "linear": lambda: classifies(nn.Sequential(nn.Flatten(), nn.Linear(3 * H * W, K))),
    "resnet": lambda: classifies(ResNet(resnet.cifar_config(8, widths=(4, 6, 10)), num_classes=K)),
    "unet": lambda: segments(UNet(3, K, widths=(4, 5), padded=True)),
    "unet normalised": lambda: segments(UNet(3, K, widths=(4, 5), padded=True, norm=True)),
    "deeplab": lambda: segments(
        DeepLabV3(ResNetConfig((1, 1), (4, 5), stem="cifar"), num_classes=K, rates=(2,), width=6)
    ),
    "yolo": lambda: detects_yolo(BOXES),
    "yolo without an object": lambda: detects_yolo(NO_OBJECT),
    "faster_rcnn": lambda: detects_rcnn(BOXES),
    "faster_rcnn without an object": lambda: detects_rcnn(NO_OBJECT),
}


def pictures(value: float | None = None) -> torch.Tensor:
    x = torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(0))
    if value is not None:
        x[1, 2, 7, 11] = value
    return x


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_training_stops_at_the_end_of_the_epoch_and_names_the_data(task):
    for value in (None, math.nan):
        torch.manual_seed(0)
        model, loss_fn, y = task()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        data = [(pictures(value), y)]
        if value is None:
            assert math.isfinite(fit(model, data, loss_fn, optimizer, epochs=1)["loss"][0])
        else:
            with pytest.raises(
                FloatingPointError, match=r"loss is nan in epoch 1: .* data may hold values that are not"
            ):
                fit(model, data, loss_fn, optimizer, epochs=3)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_in_validation_too(task):
    torch.manual_seed(0)
    model, loss_fn, y = task()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with pytest.raises(FloatingPointError, match="val_loss is nan in epoch 1"):
        fit(model, [(pictures(), y)], loss_fn, optimizer, epochs=3, val_data=[(pictures(math.nan), y)])


@pytest.mark.parametrize("detector", [detects_yolo, detects_rcnn])
def test_detectors_find_only_finite_boxes_there_and_the_same_in_other_pictures(detector):
    torch.manual_seed(0)
    model = detector(BOXES)[0].eval()
    with torch.no_grad():
        sound, poisoned = (
            model.decode(model(pictures(value)), score_threshold=0.0, max_detections=5) for value in (None, math.nan)
        )
    assert (sound.labels >= 0).all()
    assert not torch.equal(poisoned.boxes[1], sound.boxes[1])
    assert poisoned.boxes.isfinite().all()
    assert poisoned.scores.isfinite().all()
    assert torch.equal(poisoned.labels[[0, 2]], sound.labels[[0, 2]])
    torch.testing.assert_close(poisoned.boxes[[0, 2]], sound.boxes[[0, 2]])
