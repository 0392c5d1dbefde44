"""Faster R-CNN with a feature pyramid: propose regions that may hold an object, then look at each of them again.

Ren et al. (2015), https://arxiv.org/abs/1506.01497; the pyramid is Lin et al. (2017), https://arxiv.org/abs/1612.03144.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch     C  channels    H, W  rows and columns of a map    A  anchors: of one cell, or of all maps together
    K  classes   M  rows for objects    P  proposals    n  samples    c  bins along one side of a pooled box
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.boxes import BoxCoder, cell_anchors, clip, grid_anchors, precise
from dlbook.layers.checks import check_images
from dlbook.layers.feature_pyramid import FeaturePyramid, FrozenBatchNorm2d
from dlbook.layers.matching import match, sample
from dlbook.layers.nms import Detections, best_boxes, nms_mask
from dlbook.layers.roi_align import pyramid_roi_align
from dlbook.models.resnet import SIZES as RESNETS
from dlbook.models.resnet import ResNet, ResNetConfig

ANCHOR_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
BOX_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


@dataclass(frozen=True)
class FasterRCNNConfig:
    """Sizes of a Faster R-CNN.

    Args:
        body: The residual network under the pyramid, all of whose stages are used.
        frozen_norm: Batch normalisation keeps the statistics and factors that the body was pre-trained with.
        pyramid_channels: Channels of every map of the pyramid.
        anchor_sizes: Side of the square anchors in pixels, for each map: one for each stage and one coarser.
        ratios: Height over width of the anchors of a cell.
        proposals: Boxes handed on while training, and else; as many of each map are looked at beforehand.
        anchor_samples: Anchors of an image that the proposals learn from.
        box_samples: Proposals of an image that the boxes learn from.
        bins: Of a pooled box along one side, c.
        hidden: Width of the two layers that read a pooled box.
        canonical: Side in pixels of a box that reads the third map (the paper's 224 pixels, k = 4).

    Raises:
        ValueError: If the number of anchor sizes does not fit, or a size is not positive.
    """

    body: ResNetConfig
    frozen_norm: bool = True
    pyramid_channels: int = 256
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: tuple[int, int] = (2000, 1000)
    anchor_samples: int = 256
    box_samples: int = 512
    bins: int = 7
    hidden: int = 1024
    canonical: float = 224.0

    def __post_init__(self) -> None:
        if len(self.anchor_sizes) != len(self.body.depths) + 1:
            raise ValueError(f"{len(self.body.depths)} stages need one more anchor size, got {self.anchor_sizes}")
        sizes = (*self.proposals, self.anchor_samples, self.box_samples, self.pyramid_channels, self.bins, self.hidden)
        if min(sizes) < 1 or not min(*self.anchor_sizes, *self.ratios, self.canonical) > 0:
            raise ValueError(f"sizes must be positive, got {self}")


#: "fasterrcnn_resnet50_fpn" as Lin et al. (2017), section 4, and torchvision. "fasterrcnn_small" is ours, for 96 x 96
#: pixels with objects of 16 to 40: three stages of one block, a narrow pyramid, anchors and counts for small images.
SIZES = {
    "fasterrcnn_resnet50_fpn": FasterRCNNConfig(RESNETS["resnet50"]),
    "fasterrcnn_small": FasterRCNNConfig(
        ResNetConfig((1, 1, 1), (32, 64, 128)),
        frozen_norm=False,
        pyramid_channels=48,
        anchor_sizes=(16, 24, 36, 48),
        ratios=(0.6, 1.0, 1.6),
        proposals=(64, 48),
        anchor_samples=64,
        box_samples=48,
        bins=5,
        hidden=256,
        canonical=64.0,
    ),
}


class Backbone(nn.Module):
    """A residual network without its classifier, and a pyramid on its stages."""

    def __init__(self, config: FasterRCNNConfig, in_channels: int) -> None:
        super().__init__()
        norm = FrozenBatchNorm2d if config.frozen_norm else nn.BatchNorm2d
        self.body = ResNet(config.body, in_channels=in_channels, norm=norm)
        self.body.fc = nn.Identity()  # type: ignore[assignment]
        self.fpn = FeaturePyramid(config.body.out_channels, config.pyramid_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.fpn(self.body.features(x))
        return maps


class RPNHead(nn.Module):
    """For each anchor of each cell a logit that it holds an object, and four deltas to that object's box."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)))
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        outputs = []
        for f in maps:
            h = self.conv(f)
            objectness = self.cls_logits(h).permute(0, 2, 3, 1).flatten(1)  # (B, H * W * A)
            deltas = self.bbox_pred(h).permute(0, 2, 3, 1).reshape(f.shape[0], -1, 4)  # (B, H * W * A, 4)
            outputs.append((objectness, deltas))
        return outputs


class BoxHead(nn.Module):
    """Two wide layers on a pooled box. Shapes: (n, C, c, c) to (n, hidden)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(inputs, hidden)
        self.fc7 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class BoxPredictor(nn.Module):
    """K + 1 logits, the first for background, and four deltas for each of them."""

    def __init__(self, hidden: int, columns: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, columns)
        self.bbox_pred = nn.Linear(hidden, 4 * columns)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(h), self.bbox_pred(h).unflatten(1, (-1, 4))  # (n, K + 1), (n, K + 1, 4)


class Proposals(NamedTuple):
    """What `FasterRCNN` gives: enough to go on from, to detect (`FasterRCNN.decode`) or to learn (`FasterRCNNLoss`).

    Shapes: ``maps`` of the pyramid, ``objectness`` (B, A), ``deltas`` (B, A, 4), ``anchors`` (A, 4), ``boxes``
    (B, P, 4), of which only those that are ``filled`` (B, P) count; ``size`` (height, width) of the image.
    """

    maps: list[Tensor]
    objectness: Tensor
    deltas: Tensor
    anchors: Tensor
    boxes: Tensor
    filled: Tensor
    size: tuple[int, int]


class FasterRCNN(nn.Module):
    """A residual network, its pyramid, the head that proposes and the head that decides.

    Names are torchvision's, so that its weights load as they are; older files go through `convert_torchvision`. Its
    91 columns are background and 90 classes: our class k is its column k + 1. Weights start as torchvision's do.

    Args:
        config: One of `SIZES`.
        num_classes: Classes without background, K.
        in_channels: Channels of the image.

    Shapes:
        x: (B, in_channels, height, width) float, scaled as the body was trained.
        returns: `Proposals`.

    Raises:
        ValueError: If the image does not fit.

    Example:
        >>> model = FasterRCNN(SIZES["fasterrcnn_small"], num_classes=10).eval()
        >>> outputs = model(torch.zeros(2, 3, 96, 96))
        >>> outputs.boxes.shape, model.decode(outputs, max_detections=7).boxes.shape
        (torch.Size([2, 48, 4]), torch.Size([2, 7, 4]))
    """

    def __init__(self, config: FasterRCNNConfig, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise ValueError(f"sizes must be positive, got {num_classes=} and {in_channels=}")
        self.config, self.in_channels, self.num_classes = config, in_channels, num_classes
        self.backbone = Backbone(config, in_channels)
        self.rpn = nn.ModuleDict({"head": RPNHead(config.pyramid_channels, len(config.ratios))})
        self.roi_heads = nn.ModuleDict(
            {
                "box_head": BoxHead(config.pyramid_channels * config.bins**2, config.hidden),
                "box_predictor": BoxPredictor(config.hidden, num_classes + 1),
            }
        )

    def forward(self, x: Tensor) -> Proposals:
        check_images(x, self.in_channels)
        height, width = x.shape[2:]
        maps = self.backbone(x)
        anchors = []
        for size, f in zip(self.config.anchor_sizes, maps, strict=True):
            rows, columns = f.shape[2:]
            cell = cell_anchors((size,), self.config.ratios).to(x.device)
            anchors.append(grid_anchors(cell, rows, columns, (height // rows, width // columns)))
        outputs = self.rpn["head"](maps)
        boxes, filled = self.propose(outputs, anchors, (height, width))
        objectness, deltas = (torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))
        return Proposals(maps, objectness, deltas, torch.cat(anchors), boxes, filled, (height, width))

    @torch.no_grad()
    def propose(
        self, outputs: list[tuple[Tensor, Tensor]], anchors: list[Tensor], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The best boxes of each map that do not overlap by an IoU above 0.7, and of these the best of all maps."""
        count = self.config.proposals[0 if self.training else 1]
        kept = []
        for (objectness, deltas), level in zip(outputs, anchors, strict=True):
            scores, index = precise(objectness).topk(min(count, len(level)))  # (B, P)
            deltas = precise(deltas).gather(1, index.unsqueeze(-1).expand(-1, -1, 4))  # (B, P, 4)
            boxes = clip(ANCHOR_CODER.decode(deltas, level[index]), *size)
            tiny = (boxes[..., 2:] - boxes[..., :2] < 1e-3).any(-1)
            scores = scores.masked_fill(tiny, -torch.inf)
            kept.append((boxes, scores.masked_fill(~nms_mask(boxes, scores, 0.7), -torch.inf)))
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*kept, strict=True))
        # A picture with NaN in it has no proposals: as an index, NaN would point outside of the maps.
        boxes, scores = boxes.nan_to_num(0.0), scores.nan_to_num(-torch.inf, neginf=-torch.inf)
        scores, index = scores.topk(min(count, scores.shape[1]))
        return boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), scores > -torch.inf

    def classify(self, maps: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Logits (B, P, K + 1) and deltas (B, P, K + 1, 4) for boxes (B, P, 4)."""
        pyramid = maps[:-1]
        # Strides are powers of 2, also where a map's last cell sticks out of the image.
        scales = [2.0 ** round(math.log2(f.shape[2] / size[0])) for f in pyramid]
        pooled = pyramid_roi_align(
            pyramid, boxes, self.config.bins, scales=scales, canonical_size=self.config.canonical
        )  # (B, P, C, c, c)
        h = self.roi_heads["box_head"](pooled.flatten(0, 1))  # (B * P, hidden)
        logits, deltas = self.roi_heads["box_predictor"](h)
        return logits.unflatten(0, boxes.shape[:2]), deltas.unflatten(0, boxes.shape[:2])

    @torch.no_grad()
    def decode(
        self,
        outputs: Proposals,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> Detections:
        """Boxes in pixels, scores and labels, after non-maximum suppression within each class."""
        logits, deltas = self.classify(outputs.maps, outputs.boxes, outputs.size)
        scores = precise(logits).softmax(-1)[..., 1:] * outputs.filled.unsqueeze(-1)  # (B, P, K)
        boxes = clip(BOX_CODER.decode(precise(deltas), outputs.boxes.unsqueeze(2)), *outputs.size)[:, :, 1:]
        scores = scores * (boxes[..., 2:] - boxes[..., :2] >= 1e-2).all(-1)
        return best_boxes(
            boxes,
            scores,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )


class FasterRCNNLoss:
    """Four losses added up: are there objects and where, among anchors; which class and where, among proposals.

    Args:
        model: Whose last layers are run on the proposals that are drawn.
        generator: Draws which anchors and proposals are learned from; PyTorch's own if left out.

    Shapes:
        outputs: From ``model``.
        y: (B, M, 5) rows [class, x1, y1, x2, y2] in pixels, class -1 where a row is empty.
        returns: scalar.

    Example:
        >>> model = FasterRCNN(SIZES["fasterrcnn_small"], num_classes=10)
        >>> y = torch.tensor([[[3.0, 10, 20, 30, 40]], [[-1, 0, 0, 0, 0]]])  # one object, none
        >>> FasterRCNNLoss(model)(model(torch.zeros(2, 3, 96, 96)), y).isfinite()
        tensor(True)
    """

    def __init__(self, model: FasterRCNN, *, generator: torch.Generator | None = None) -> None:
        self.model, self.generator = model, generator

    def __call__(self, outputs: Proposals, y: Tensor) -> Tensor:
        if y.ndim != 3 or y.shape[-1] != 5 or len(y) != len(outputs.boxes):
            raise ValueError(f"targets must be ({len(outputs.boxes)}, objects, 5), got {tuple(y.shape)}")
        y = F.pad(y.float(), (0, 0, 0, 1), value=-1.0)  # at least one row, which is empty
        return sum(self.parts(outputs, y).values(), start=precise(outputs.deltas).new_zeros(()))

    def parts(self, outputs: Proposals, y: Tensor) -> dict[str, Tensor]:
        """The four losses by name; ``y`` has at least one row."""
        config = self.model.config
        labels, rows = match(outputs.anchors, y, low=0.3, high=0.7, at_least_one=True)  # each (B, A)
        index, drawn = sample(labels, config.anchor_samples, 0.5, self.generator)
        objectness, deltas = precise(outputs.objectness).gather(1, index), _take(precise(outputs.deltas), index)
        anchors = outputs.anchors[index]
        positive = drawn & (labels.gather(1, index) > 0)
        parts = {
            "objectness": _mean(
                F.binary_cross_entropy_with_logits(objectness, positive.to(objectness.dtype), reduction="none"),
                drawn,
                drawn,
            ),
            "anchor_boxes": _box_loss(ANCHOR_CODER, deltas, _take(y, rows.gather(1, index)), anchors, positive, drawn),
        }

        # Objects' own boxes are proposals too: at the start there is hardly another good one.
        unit = y.new_tensor([0.0, 0.0, 1.0, 1.0])
        boxes = torch.cat((outputs.boxes, y[..., 1:]), dim=1)  # (B, P + M, 4)
        filled = torch.cat((outputs.filled, y[..., 0] >= 0), dim=1)
        boxes = torch.where(filled.unsqueeze(-1), boxes, unit)
        labels, rows = match(boxes, y, low=0.5, high=0.5)
        index, drawn = sample(labels.masked_fill(~filled, -1), config.box_samples, 0.25, self.generator)
        boxes, target = _take(boxes, index), _take(y, rows.gather(1, index))
        positive = drawn & (labels.gather(1, index) > 0)
        logits, all_deltas = self.model.classify(outputs.maps, boxes, outputs.size)
        column = torch.where(positive, target[..., 0].long() + 1, 0)  # (B, n)
        deltas = precise(all_deltas).gather(2, column[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
        entropy = F.cross_entropy(precise(logits).flatten(0, 1), column.flatten(), reduction="none").view_as(column)
        parts["classes"] = _mean(entropy, drawn, drawn)
        parts["boxes"] = _box_loss(BOX_CODER, deltas, target, boxes, positive, drawn)
        return parts


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values`` (B, N, k) at ``index`` (B, n): (B, n, k)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _mean(losses: Tensor, where: Tensor, drawn: Tensor) -> Tensor:
    """Sum of (B, n) losses ``where`` they count, over the number drawn."""
    return losses.masked_fill(~where, 0.0).sum() / drawn.sum().clamp(min=1)


def _box_loss(
    coder: BoxCoder, deltas: Tensor, target: Tensor, boxes: Tensor, positive: Tensor, drawn: Tensor
) -> Tensor:
    """Smooth L1 between deltas and those that lead to the target, for boxes that stand for an object."""
    target = torch.where(positive.unsqueeze(-1), target[..., 1:], boxes)  # elsewhere any that has a logarithm
    losses = F.smooth_l1_loss(deltas, coder.encode(target, boxes), beta=1 / 9, reduction="none").sum(-1)
    return _mean(losses, positive, drawn)


def convert_torchvision(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's ``fasterrcnn_resnet50_fpn``, also of its files from before names changed (0.13).

    Example:
        >>> list(convert_torchvision({"rpn.head.conv.weight": torch.zeros(1), "backbone.fpn.inner_blocks.2.bias": torch.zeros(1)}))
        ['rpn.head.conv.0.0.weight', 'backbone.fpn.inner_blocks.2.0.bias']
    """
    converted = {}
    for name, tensor in state_dict.items():
        parts = name.split(".")
        if parts[:3] == ["rpn", "head", "conv"] and len(parts) == 4:
            parts[3:3] = ["0", "0"]
        elif parts[:2] == ["backbone", "fpn"] and len(parts) == 5:
            parts.insert(4, "0")
        if parts[-1] != "num_batches_tracked":
            converted[".".join(parts)] = tensor
    return converted
