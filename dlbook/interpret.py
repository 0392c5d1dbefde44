"""Looking into a trained network: what its layers see, what they know, and what a decision rests on.

Receptive fields and exciting patches: Zeiler & Fergus (2014), https://arxiv.org/abs/1311.2901. Linear probes: Alain &
Bengio (2016), https://arxiv.org/abs/1610.01644. Saliency: Simonyan, Vedaldi & Zisserman (2014),
https://arxiv.org/abs/1312.6034. Grad-CAM: Selvaraju et al. (2017), https://arxiv.org/abs/1610.02391.

Chapters: chapters/01-what-is-deep-learning.ipynb, chapters/03-convolutional-networks.ipynb

A layer is named as in ``model.named_modules()``, such as ``"features.0"`` or ``"layer1"``.

Letters for shapes in this file:
    N  pictures    C  colour channels    H, W  rows and columns of a picture
    K  channels of a layer    P, Q  rows and columns of its map    L  classes    D  features
"""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["activations", "exciting_patches", "footprints", "grad_cam", "linear_probe", "receptive_field", "saliency"]


@torch.no_grad()
def activations(model: nn.Module, images: Tensor, layers: Iterable[str], batch_size: int = 500) -> dict[str, Tensor]:
    """What each of ``layers`` hands on, in evaluation mode; the mode is put back.

    Args:
        model: Any module that takes pictures.
        images: Its input; goes to the model's device batch by batch.
        layers: Names of layers; each must run once in a forward pass and give one tensor.
        batch_size: Pictures at a time.

    Shapes: images (N, C, H, W); returns (N, ...) for each layer, on the CPU.

    Raises:
        ValueError: If the model has no such layer, or one did not run.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> activations(model, torch.zeros(5, 1, 8, 8), ["1"])["1"].shape
        torch.Size([5, 4, 6, 6])
    """
    modules = {name: _layer(model, name) for name in layers}
    kept: dict[str, list[Tensor]] = {name: [] for name in modules}
    # A copy: the layer after it may work in place.
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: kept[name].append(out.detach().cpu().clone()))
        for name, module in modules.items()
    ]
    device = next((p.device for p in model.parameters()), images.device)
    was_training = model.training
    model.eval()
    try:
        for batch in torch.split(images, batch_size):
            model(batch.to(device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if missing := [name for name, found in kept.items() if not found]:
        raise ValueError(f"layers {missing} did not run")
    return {name: torch.cat(found) for name, found in kept.items()}


def footprints(model: nn.Module, layer: str, image_shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The rows and the columns of the picture that each place of a layer's map depends on.

    NaN serves as a dye. Whatever is computed from a pixel that is not a number is not a number either, through
    convolution, pooling, normalisation and ReLU; so we colour one row after another and look where it arrives. It holds
    for any architecture and needs no formula.

    Args:
        model: Any module that takes pictures.
        layer: Name of a layer whose output is a map.
        image_shape: Channels, rows and columns of a picture.

    Returns:
        First row and row after the last for each row of the map, and the same for columns.

    Shapes: returns (P, 2) and (Q, 2), int64.

    Raises:
        ValueError: If the layer's output is no map.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
        >>> footprints(model, "1", (1, 6, 8))[0].tolist()
        [[0, 4], [2, 6]]
    """
    channels, height, width = image_shape
    # In double precision PyTorch multiplies patches by weights; a fast Fourier or Winograd kernel would spread the dye.
    still = copy.deepcopy(model).cpu().double().eval()
    rows = torch.ones(height, channels, height, width, dtype=torch.float64)
    columns = torch.ones(width, channels, height, width, dtype=torch.float64)
    rows[torch.arange(height), :, torch.arange(height)] = math.nan
    columns[torch.arange(width), :, :, torch.arange(width)] = math.nan
    seen = []
    for dyed, across in ((rows, 3), (columns, 2)):
        output = activations(still, dyed, [layer])[layer]
        if output.ndim != 4:
            raise ValueError(f"layer {layer!r} gives {tuple(output.shape)}, no map (pictures, channels, rows, columns)")
        reached = output.isnan().any(dim=1).any(dim=across - 1)  # (H, P) or (W, Q): picture line, map line
        first = reached.int().argmax(dim=0)
        last = len(reached) - reached.flip(0).int().argmax(dim=0)
        seen.append(torch.stack([first, last], dim=1))
    return seen[0], seen[1]


def receptive_field(model: nn.Module, layer: str, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns of the picture that one place of a layer's map can see; at most those of the picture.

    Args:
        model: Any module that takes pictures.
        layer: Name of a layer whose output is a map.
        image_shape: Channels, rows and columns; take a picture larger than the field where the model allows it.

    Example:
        >>> receptive_field(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, stride=2)), "1", (1, 16, 16))
        (5, 5)
    """
    rows, columns = footprints(model, layer, image_shape)
    return int((rows[:, 1] - rows[:, 0]).max()), int((columns[:, 1] - columns[:, 0]).max())


def exciting_patches(
    model: nn.Module, layer: str, images: Tensor, channels: Iterable[int], count: int = 9
) -> tuple[Tensor, Tensor]:
    """The pieces of ``images`` that excite channels of a layer most, at most one from each picture.

    Args:
        model: Any module that takes pictures.
        layer: Name of a layer whose output is a map.
        images: Pictures to search.
        channels: Which channels.
        count: Patches for each channel.

    Returns:
        The patches, as large as the receptive field and filled with 0 beyond the picture, most exciting first; and how
        strongly each excites its channel.

    Shapes: images (N, C, H, W); returns (channels, count, C, rows, columns) and (channels, count).

    Raises:
        ValueError: If there are fewer pictures than ``count``.

    Example:
        >>> patches, strengths = exciting_patches(nn.Conv2d(1, 4, 3), "", torch.rand(6, 1, 8, 8), channels=[0, 3], count=2)
        >>> patches.shape
        torch.Size([2, 2, 1, 3, 3])
    """
    if len(images) < count:
        raise ValueError(f"{count} patches from different pictures need as many pictures, got {len(images)}")
    _, c, h, w = images.shape
    rows, columns = footprints(model, layer, (c, h, w))
    maps = activations(model, images, [layer])[layer]  # (N, K, P, Q)
    height, width = int((rows[:, 1] - rows[:, 0]).max()), int((columns[:, 1] - columns[:, 0]).max())
    patches, strengths = [], []
    for channel in channels:
        best, place = maps[:, channel].flatten(1).max(dim=1)  # (N,)
        strength, chosen = best.topk(count)
        strengths.append(strength)
        for n in chosen.tolist():
            p, q = divmod(int(place[n]), maps.shape[3])
            patches.append(_cut(images[n].cpu(), rows[p], columns[q], height, width))
    return torch.stack(patches).view(-1, count, c, height, width), torch.stack(strengths)


def linear_probe(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, *, decay: float = 1e-3
) -> float:
    """Accuracy on test data of the best linear classifier of features that stay as they are.

    Multinomial logistic regression on standardised features, trained to convergence by L-BFGS from weights 0, so nothing
    is left to chance. What it reads out was there before: it cannot bend anything.

    Args:
        train_features: One row for each training example; further dimensions are flattened.
        train_labels: Classes, from 0.
        test_features: The same for test examples.
        test_labels: Their classes.
        decay: Weight of the squared weights in the loss.

    Shapes: features (N, ...), labels (N,).

    Raises:
        ValueError: If features and labels differ in number.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> linear_probe(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 0, 1, 1]))
        1.0
    """
    for x, y in ((train_features, train_labels), (test_features, test_labels)):
        if len(x) != len(y):
            raise ValueError(f"{len(x)} rows of features for {len(y)} labels")
    train, test = train_features.flatten(1).float(), test_features.flatten(1).float()  # (N, D)
    mean, spread = train.mean(0), train.std(0)
    spread = torch.where(spread > 1e-6, spread, 1.0)  # what never changes says nothing
    train, test = (train - mean) / spread, (test - mean) / spread
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(classes, train.shape[1], requires_grad=True, device=train.device)
    bias = torch.zeros(classes, requires_grad=True, device=train.device)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(train @ weight.T + bias, train_labels) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no hints here
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        right = (test @ weight.T + bias).argmax(1) == test_labels
    return float(right.float().mean())


def saliency(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """How much each pixel, changed a little, moves the logit of a class: the gradient's size, largest over the channels.

    Args:
        model: Gives logits; runs in evaluation mode, which is put back.
        images: Pictures, on the model's device.
        classes: One class for each picture.

    Shapes: images (N, C, H, W), classes (N,); returns (N, H, W).

    Example:
        >>> saliency(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.zeros(2, 3, 2, 2), torch.tensor([4, 0])).shape
        torch.Size([2, 2, 2])
    """
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_logits(model, x, classes).sum(), x)
    return gradient.abs().amax(dim=1)


def grad_cam(model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> Tensor:
    """Where a layer finds evidence for a class: its maps, weighted by the class's mean gradient, negative parts cut off.

    ::

        M = relu(sum_k a_k A_k),    a_k = mean over places of d logit / d A_k

    Args:
        model: Gives logits; runs in evaluation mode, which is put back.
        layer: Name of a layer whose output is a map, usually the last one.
        images: Pictures, on the model's device.
        classes: One class for each picture.

    Shapes: images (N, C, H, W), classes (N,); returns (N, H, W), the map enlarged to the picture.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        >>> grad_cam(model, "0", torch.rand(2, 1, 8, 8), torch.tensor([2, 0])).shape
        torch.Size([2, 8, 8])
    """
    maps: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        maps.append(output)
        return output.clone()  # the next layer may work in place

    hook = _layer(model, layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            x = images.detach().clone().requires_grad_()  # so that a gradient flows through frozen layers too
            logits = _logits(model, x, classes)
            (gradient,) = torch.autograd.grad(logits.sum(), maps[0])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (N, K, 1, 1)
    cam = F.relu((weights * maps[0].detach()).sum(dim=1, keepdim=True))  # (N, 1, P, Q)
    return F.interpolate(cam, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [known for known, _ in model.named_modules() if known]
        raise ValueError(f"no layer {name!r}; this model has {names}") from None


def _logits(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """The logit of each picture's class, (N,), in evaluation mode."""
    if classes.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} pictures need one class each, got {tuple(classes.shape)}")
    was_training = model.training
    model.eval()
    try:
        logits: Tensor = model(x)  # (N, L)
    finally:
        model.train(was_training)
    return logits.gather(1, classes[:, None])[:, 0]


def _cut(image: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """A piece of (C, H, W); where it is smaller than wanted because the picture ends, 0 is put beyond the border."""
    (top, bottom), (left, right) = rows.tolist(), columns.tolist()
    above = height - (bottom - top) if top == 0 else 0
    before = width - (right - left) if left == 0 else 0
    below, after = height - (bottom - top) - above, width - (right - left) - before
    return F.pad(image[:, top:bottom, left:right], (before, after, above, below))
