"""LeNet-5: two convolutions with pooling, then three linear layers; the network that read cheques.

LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition,
https://doi.org/10.1109/5.726791.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    B  batch    C  channels    H, W  rows and columns, both 28 or both 32    K  classes
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.checks import check_images

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}
POOLINGS: dict[str, Callable[[Tensor, int], Tensor]] = {"average": F.avg_pool2d, "max": F.max_pool2d}


class LeNet(nn.Module):
    """The usual modern count of LeNet-5, 61,706 parameters for 10 classes.

    It differs from 1998 in four places. There, each map of the second convolution saw only some maps of the first, by a
    connection table (1,516 parameters instead of 2,416); poolings had a gain and a bias for each map; the activation was
    1.7159 tanh(2/3 a); and the last layer measured distances to a drawing of each class (radial basis functions) instead
    of giving logits.

    Weights start as PyTorch's layers do.

    Args:
        in_channels: Channels of the pictures, C.
        num_classes: Classes, K.
        activation: ``"tanh"``, close to 1998, or ``"relu"``.
        pooling: ``"average"``, as in 1998, or ``"max"``.

    Shapes:
        x: (B, C, 32, 32), or (B, C, 28, 28), around which two rows and columns of 0 are put.
        returns: logits (B, K).

    Raises:
        ValueError: If the pictures have another shape, or an argument is not one of the choices.

    Example:
        >>> model = LeNet()
        >>> model(torch.zeros(5, 1, 28, 28)).shape, sum(p.numel() for p in model.parameters())
        (torch.Size([5, 10]), 61706)
    """

    def __init__(
        self, *, in_channels: int = 1, num_classes: int = 10, activation: str = "tanh", pooling: str = "average"
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be positive, got {in_channels} and {num_classes}")
        if activation not in ACTIVATIONS or pooling not in POOLINGS:
            raise ValueError(
                f"activation must be one of {list(ACTIVATIONS)} and pooling of {list(POOLINGS)}, "
                f"got {activation!r} and {pooling!r}"
            )
        self.in_channels, self.activation, self.pooling = in_channels, activation, pooling
        # C1, C3, C5 and F6 are the paper's names; C5 sees all that is left, so it is linear.
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.c5 = nn.Linear(16 * 5 * 5, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.in_channels)
        if tuple(x.shape[2:]) not in ((28, 28), (32, 32)):
            raise ValueError(f"images must be 28 x 28 or 32 x 32 pixels, got {tuple(x.shape)}")
        activate, pool = ACTIVATIONS[self.activation], POOLINGS[self.pooling]
        if x.shape[2] == 28:
            x = F.pad(x, (2, 2, 2, 2))  # (B, C, 32, 32)
        h = pool(activate(self.c1(x)), 2)  # (B, 6, 28, 28) -> (B, 6, 14, 14)
        h = pool(activate(self.c3(h)), 2)  # (B, 16, 10, 10) -> (B, 16, 5, 5)
        h = activate(self.c5(h.flatten(1)))  # (B, 120)
        h = activate(self.f6(h))  # (B, 84)
        logits: Tensor = self.output(h)  # (B, K)
        return logits
