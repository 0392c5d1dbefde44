"""YOLO, "you only look once": one pass over the image gives a box and class scores for every cell of a grid.

Redmon et al. (2016), https://arxiv.org/abs/1506.02640: `YOLOv1`, the network of its figure 3 and table 1.
`YOLO` with `YOLOLoss` is a small descendant without anchors: each cell says how far it is to the four edges (Tian et
al., 2019, https://arxiv.org/abs/1904.01355), and which cells learn an object follows from how well they do already
(Feng et al., 2021, https://arxiv.org/abs/2108.07755).

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    G  cells along one side of the grid    P  cells in all
    K  classes  M  rows for objects
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.boxes import giou_loss, overlaps, precise
from dlbook.layers.checks import check_images
from dlbook.layers.nms import Detections, best_boxes

#: Figure 3 of Redmon et al. (2016): (kernel, channels, stride) of a convolution, or a maximum over 2 x 2.
YOLOV1_LAYERS: tuple[tuple[int, int, int] | str, ...] = (
    (7, 64, 2), "max",
    (3, 192, 1), "max",
    (1, 128, 1), (3, 256, 1), (1, 256, 1), (3, 512, 1), "max",
    *((1, 256, 1), (3, 512, 1)) * 4, (1, 512, 1), (3, 1024, 1), "max",
    *((1, 512, 1), (3, 1024, 1)) * 2, (3, 1024, 1), (3, 1024, 2),
    (3, 1024, 1), (3, 1024, 1),
)  # fmt: skip


class YOLOv1(nn.Module):
    """The network as published, for images of 448 x 448: 24 convolutions, then two fully connected layers.

    Its convolutions have biases and no batch normalisation, as in the paper: 271,703,550 parameters. All layers but the
    last are followed by a leaky ReLU with slope 0.1. Weights start as PyTorch's layers do.

    Args:
        num_classes: Classes, K; 20 in the paper.
        grid: Cells along one side, G.
        boxes_per_cell: Boxes of a cell, each with x, y, w, h and a confidence.
        in_channels: Channels of the image.

    Shapes:
        x: (B, in_channels, 64 G, 64 G) float.
        returns: (B, 5 * boxes_per_cell + K, G, G).

    Raises:
        ValueError: If a size is not positive or the image does not fit.

    Example:
        >>> with torch.device("meta"):
        ...     model = YOLOv1()
        ...     model(torch.zeros(1, 3, 448, 448)).shape
        torch.Size([1, 30, 7, 7])
        >>> sum(p.numel() for p in model.parameters())
        271703550
    """

    def __init__(self, *, num_classes: int = 20, grid: int = 7, boxes_per_cell: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        if min(num_classes, grid, boxes_per_cell, in_channels) < 1:
            raise ValueError(f"sizes must be positive, got {num_classes=} {grid=} {boxes_per_cell=} {in_channels=}")
        self.grid, self.in_channels, channels = grid, in_channels, in_channels
        layers: list[nn.Module] = []
        for layer in YOLOV1_LAYERS:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(2))
            else:
                kernel, width, stride = layer
                layers.append(nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2))
                layers.append(nn.LeakyReLU(0.1, inplace=True))
                channels = width
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * grid**2, 4096)
        self.output = nn.Linear(4096, (5 * boxes_per_cell + num_classes) * grid**2)

    def forward(self, x: Tensor) -> Tensor:
        side = 64 * self.grid
        if x.ndim != 4 or x.shape[1:] != (self.in_channels, side, side):
            raise ValueError(f"images must be (batch, {self.in_channels}, {side}, {side}), got {tuple(x.shape)}")
        h = self.convolutions(x).flatten(1)  # (B, 1024 * G * G)
        h = F.leaky_relu(self.hidden(h), 0.1)
        h = F.dropout(h, 0.5, self.training)
        outputs: Tensor = self.output(h).unflatten(1, (-1, self.grid, self.grid))  # (B, 5 * boxes + K, G, G)
        return outputs


@dataclass(frozen=True)
class YOLOConfig:
    """Sizes of the small one-stage detector.

    Args:
        widths: Channels at strides 2, 4, 8 and 16.
        depths: Residual blocks at each of them.
        head_width: Channels of the convolutions before the outputs.

    Raises:
        ValueError: If there are not four of each, or a width is not positive.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head_width: int

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or len(self.depths) != 4 or min(*self.widths, self.head_width) < 1:
            raise ValueError(f"four positive widths and four depths were expected, got {self}")


#: Ours, for images of 96 x 96 with objects of 16 to 40 pixels: a grid of 12 x 12 that sees context from 6 x 6.
SIZES = {
    "yolo_small": YOLOConfig(widths=(16, 32, 64, 128), depths=(0, 1, 1, 1), head_width=64),
    "yolo_tiny": YOLOConfig(widths=(4, 6, 8, 10), depths=(0, 0, 1, 0), head_width=7),  # for tests
}


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x + f(x), f two convolutions. Shapes: (B, C, H, W), kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = nn.Sequential(conv(channels, channels), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)  # type: ignore[no-any-return]


class YOLO(nn.Module):
    """A one-stage detector: for each cell of 8 x 8 pixels, four distances to the edges of a box and K class scores.

    Weights start as PyTorch's layers do; the biases of the class scores so that each starts at 0.01, as for the focal
    loss, since hardly any cell holds an object.

    Args:
        config: One of `SIZES`.
        num_classes: Classes, K.
        in_channels: Channels of the image.

    Shapes:
        x: (B, in_channels, H, W) float, H and W multiples of 16.
        returns: (B, 4 + K, H / 8, W / 8): raw distances and class logits. `decode` makes boxes of them.

    Raises:
        ValueError: If the image does not fit.

    Example:
        >>> model = YOLO(SIZES["yolo_tiny"], num_classes=10)
        >>> outputs = model(torch.zeros(2, 3, 96, 96))
        >>> outputs.shape, model.decode(outputs, max_detections=5).boxes.shape
        (torch.Size([2, 14, 12, 12]), torch.Size([2, 5, 4]))
    """

    stride = 8

    def __init__(self, config: YOLOConfig, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise ValueError(f"sizes must be positive, got {num_classes=} and {in_channels=}")
        self.in_channels, self.num_classes = in_channels, num_classes
        channels = in_channels
        stages = []
        for width, depth in zip(config.widths, config.depths, strict=True):
            stages.append(nn.Sequential(conv(channels, width, stride=2), *(Residual(width) for _ in range(depth))))
            channels = width
        self.fine = nn.Sequential(*stages[:3])
        self.coarse = stages[3]
        self.lateral = conv(channels, config.widths[2], kernel=1)
        self.merge = conv(2 * config.widths[2], config.head_width)
        self.box_head = nn.Sequential(conv(config.head_width, config.head_width), nn.Conv2d(config.head_width, 4, 1))
        output = nn.Conv2d(config.head_width, num_classes, 1)
        assert output.bias is not None
        nn.init.constant_(output.bias, -4.6)  # sigmoid(-4.6) = 0.01
        self.class_head = nn.Sequential(conv(config.head_width, config.head_width), output)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.in_channels)
        if x.shape[2] % 16 or x.shape[3] % 16:
            raise ValueError(f"height and width must be multiples of 16, got {tuple(x.shape)}")
        fine = self.fine(x)  # (B, C, H / 8, W / 8)
        context = F.interpolate(self.lateral(self.coarse(fine)), scale_factor=2.0)  # (B, C, H / 8, W / 8)
        h = self.merge(torch.cat([fine, context], dim=1))  # (B, head_width, H / 8, W / 8)
        return torch.cat([self.box_head(h), self.class_head(h)], dim=1)  # (B, 4 + K, H / 8, W / 8)

    def decode(
        self,
        outputs: Tensor,
        *,
        score_threshold: float = 0.02,
        iou_threshold: float = 0.5,
        max_detections: int = 30,
    ) -> Detections:
        """Boxes in pixels, scores and labels, after non-maximum suppression within each class.

        The default keeps uncertain boxes too, which average precision wants; for a picture, show scores above 0.5.
        """
        boxes, logits, _ = cell_boxes(outputs, self.stride)
        return best_boxes(
            boxes,
            logits.sigmoid(),
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )


def cell_boxes(outputs: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """From raw outputs (B, 4 + K, G, G) to boxes (B, P, 4), class logits (B, P, K) and centres of cells (P, 2)."""
    rows, columns = outputs.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(rows, device=outputs.device), torch.arange(columns, device=outputs.device), indexing="ij"
    )
    centres = (torch.stack((x, y), dim=-1).flatten(0, 1).float() + 0.5) * stride  # (P, 2)
    flat = outputs.flatten(2).transpose(1, 2)  # (B, P, 4 + K)
    # Softplus: a distance is positive, and grows in proportion where it is large. At first about an object's half.
    distances = F.softplus(precise(flat[..., :4]) + 1.5) * stride
    boxes = torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1)  # (B, P, 4)
    return boxes, flat[..., 4:], centres


class YOLOLoss:
    """Binary cross-entropy of the class scores plus GIoU loss of the boxes, with task-aligned assignment.

    For object m and cell p with score s for its class and box of overlap IoU, the alignment is s**alpha * IoU**beta.
    The ``topk`` best cells whose centres lie in the object learn it: its box, and for its class a score that is its
    IoU for the best cell and less for others in proportion to alignment. All other scores learn 0.

    Args:
        stride: Pixels of a cell.
        topk: Cells for each object.
        alpha: Exponent of the score.
        beta: Exponent of IoU.
        box_weight: Weight of the GIoU loss against the cross-entropy.

    Shapes:
        outputs: (B, 4 + K, G, G), from `YOLO`.
        y: (B, M, 5) rows [class, x1, y1, x2, y2] in pixels, class -1 where a row is empty.
        returns: scalar.

    Example:
        >>> y = torch.tensor([[[3.0, 10, 20, 30, 40]], [[-1, 0, 0, 0, 0]]])  # one object, none
        >>> YOLOLoss()(torch.zeros(2, 14, 12, 12), y).isfinite()
        tensor(True)
    """

    def __init__(
        self, *, stride: int = 8, topk: int = 9, alpha: float = 0.5, beta: float = 4.0, box_weight: float = 2.0
    ) -> None:
        if stride < 1 or topk < 1:
            raise ValueError(f"stride and topk must be positive, got {stride} and {topk}")
        self.stride, self.topk, self.alpha, self.beta, self.box_weight = stride, topk, alpha, beta, box_weight

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        if y.ndim != 3 or y.shape[-1] != 5 or len(y) != len(outputs):
            raise ValueError(f"targets must be ({len(outputs)}, objects, 5), got {tuple(y.shape)}")
        y = F.pad(y.float(), (0, 0, 0, 1), value=-1.0)  # at least one row, which is empty
        boxes, logits, centres = cell_boxes(outputs, self.stride)  # (B, P, 4), (B, P, K), (P, 2)
        logits = precise(logits)
        weight, chosen = self.assign(boxes.detach(), logits.detach().sigmoid(), centres, y)  # each (B, P)

        row = y.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 5))  # (B, P, 5)
        label = row[..., :1].clamp(min=0).long()  # (B, P, 1)
        goal = torch.zeros_like(logits).scatter(2, label, weight.unsqueeze(-1))  # (B, P, K)
        total = weight.sum().clamp(min=1.0)
        class_loss = F.binary_cross_entropy_with_logits(logits, goal, reduction="sum") / total
        box_loss = (giou_loss(boxes, row[..., 1:]) * weight).sum() / total
        return class_loss + self.box_weight * box_loss

    @torch.no_grad()
    def assign(self, boxes: Tensor, scores: Tensor, centres: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Which object each cell learns, and how much.

        Shapes:
            boxes (B, P, 4), scores (B, P, K), centres (P, 2), y (B, M, 5); returns the score to learn, 0 for
            background, and the row of y, both (B, P).
        """
        B, M = y.shape[:2]
        P = len(centres)
        filled, corners = y[..., 0] >= 0, y[..., 1:]  # (B, M), (B, M, 4)
        label = y[..., 0].clamp(min=0).long()
        iou = overlaps(corners, boxes)  # (B, M, P)
        score = scores.transpose(1, 2).gather(1, label.unsqueeze(-1).expand(B, M, P))
        alignment = score**self.alpha * iou**self.beta

        low, high = centres - corners[..., None, :2], corners[..., None, 2:] - centres  # (B, M, P, 2)
        inside = (torch.cat((low, high), dim=-1) > 0).all(-1)
        holds_centre = ((low - high).abs() <= self.stride).all(-1)  # so that tiny objects have a cell too
        allowed = (inside | holds_centre) & filled.unsqueeze(-1)  # (B, M, P)

        best = alignment.masked_fill(~allowed, -1.0).topk(min(self.topk, P)).indices
        taken = torch.zeros_like(allowed).scatter(2, best, True) & allowed
        # A cell that several objects want goes to the one it overlaps most.
        chosen = iou.masked_fill(~taken, -1.0).argmax(1)  # (B, P)
        taken &= chosen.unsqueeze(1) == torch.arange(M, device=y.device).view(1, M, 1)
        alignment = alignment * taken
        most = alignment.amax(2, keepdim=True).clamp(min=1e-12)
        weight = alignment / most * (iou * taken).amax(2, keepdim=True)  # (B, M, P)
        return weight.amax(1), chosen
