"""Weights in eight bits: a quarter of the memory of float32, by rounding each output's weights to 255 steps.

Symmetric absmax quantisation for each output channel, as in Jacob et al. (2018), https://arxiv.org/abs/1712.05877, and
Krishnamoorthi (2018), https://arxiv.org/abs/1806.08342, section 2.2; of weights only, inputs stay as they are.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    I  inputs    O  outputs
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 and a step for each row, which together are nearly the weight.

    The step is the row's largest absolute weight divided by 127. So rounding moves a weight by half a step at most, and
    an output by half a step times the sum of the absolute inputs. -128 stays unused: the numbers are symmetric.

    Args:
        weight: As in `torch.nn.Linear`.

    Shapes: ``weight`` (O, I); returns int8 (O, I) and float32 (O, 1), float64 for a weight of float64.

    Raises:
        ValueError: If the weight is no matrix of floating-point numbers, or not finite.

    Example:
        >>> numbers, step = quantize(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
        >>> numbers.tolist()
        [[64, -127], [0, 0]]
        >>> numbers * step
        tensor([[ 0.5039, -1.0000],
                [ 0.0000,  0.0000]])
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"expected floating-point numbers (O, I), got {tuple(weight.shape)} of {weight.dtype}")
    if not weight.isfinite().all():
        raise ValueError("the weight has numbers that are not finite")
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    tiny = torch.finfo(wide.dtype).tiny  # for a row of zeros; and what is below has lost its precision
    step = (wide.abs().amax(1, keepdim=True) / 127).clamp(min=tiny)  # (O, 1)
    return (wide / step).round().clamp(-127, 127).to(torch.int8), step


class Int8Linear(nn.Module):
    """A linear layer that keeps its weights in eight bits and computes in the type of its input.

    ::

        y = (x N^T) step + bias        W is nearly N step

    The step multiplies the outputs, which are fewer than the weights. For inference: there are no gradients for the
    weight, but those of the input are right. In half precision the whole numbers are exact too.

    Args:
        linear: The layer whose weights are rounded; the bias stays as it is.

    Shapes:
        x: (..., I).
        returns: (..., O).

    Raises:
        ValueError: As `quantize`.

    Example:
        >>> linear = nn.Linear(300, 200)
        >>> small = Int8Linear(linear)
        >>> small.numbers.nbytes / linear.weight.nbytes
        0.25
        >>> x = torch.randn(5, 300)
        >>> bound = small.step.squeeze(1) / 2 * x.abs().sum(1, keepdim=True)
        >>> bool(((small(x) - linear(x)).abs() <= bound).all())
        True
    """

    numbers: Tensor
    step: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        numbers, step = quantize(linear.weight)
        self.register_buffer("numbers", numbers)  # (O, I)
        self.register_buffer("step", step)  # (O, 1)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        # 128 back and forth is exact; without it sums of 127 times an input are soon more than float16 can hold.
        y = F.linear(x, self.numbers.to(x.dtype) / 128)  # (..., O), under autocast in its type
        y = y * (128 * self.step.squeeze(1)).to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def quantize_linears(model: nn.Module, *, where: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Put an `Int8Linear` in the place of a model's linear layers.

    A layer whose weight is used elsewhere too, such as an output that shares it with an embedding, stays as it is: the
    weight would be kept twice.

    Args:
        model: Changed in place.
        where: Says of a layer's name whether it is rounded.

    Returns: the names of the layers that were replaced.

    Raises:
        ValueError: If no layer is chosen, or a weight is not finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> quantize_linears(model, where=lambda name: name != "2")
        ['0']
    """
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    chosen = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and type(module) is nn.Linear and uses[id(module.weight)] == 1 and where(name)
    }
    if not chosen:
        raise ValueError(f"where chooses none of the linear layers within {type(model).__name__}")
    small = {layer: Int8Linear(layer) for layer in chosen.values()}
    for name, layer in chosen.items():
        model.set_submodule(name, small[layer])
    return list(chosen)
