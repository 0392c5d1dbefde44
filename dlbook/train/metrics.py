"""What is measured beside the loss.

A metric is any function ``(outputs, y) -> Tensor`` that gives the mean over the examples of one batch; `evaluate`
weights the batches by their sizes. Quantities that are no mean over examples, such as F1, do not fit this form.
"""

from torch import Tensor


def accuracy(outputs: Tensor, y: Tensor) -> Tensor:
    """Share of the examples whose largest output is that of the right class, 0 to 1.

    Args:
        outputs: A score for every class.
        y: Index of the right class.

    Shapes:
        ``outputs`` (N, K), or (N, K, ...) as `torch.nn.functional.cross_entropy` takes them; ``y`` (N,) or (N, ...).

    Raises:
        ValueError: If the shapes do not go together, or there is no example or no class.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor(0.5000)
    """
    if outputs.shape[:1] + outputs.shape[2:] != y.shape or outputs.ndim != y.ndim + 1:
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} do not go with labels of shape {tuple(y.shape)}")
    if not outputs.numel():
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} hold no example or no class: there is no accuracy")
    return (outputs.argmax(1) == y).float().mean()
