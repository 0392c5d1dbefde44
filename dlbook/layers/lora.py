"""Low-rank adapters: fine-tuning by a small product that is added to frozen weights.

Hu et al. (2021), LoRA, https://arxiv.org/abs/2106.09685, section 4.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    I  inputs    O  outputs    R  rank
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRA(nn.Module):
    """A linear layer whose weight stays, and two thin matrices beside it that learn.

    ::

        y = x W^T + bias + (alpha / R) dropout(x) A^T B^T

    A starts as `torch.nn.Linear` starts, B at zero, so that at first the layer is exactly what it was. Only A and B are
    trainable. `merge` adds their product to the weight, after which the layer costs what it cost before; `unmerge` puts
    the old weight back, bit for bit, for which it is kept.

    Args:
        base: The layer; its parameters are frozen.
        rank: Rows of A and columns of B, R.
        alpha: Weight of the product; twice the rank if left out.
        dropout: Share of the adapter's inputs that are set to 0 while training.

    Shapes:
        x: (..., I).
        returns: (..., O).

    Raises:
        ValueError: If the rank is not 1 to the smaller of I and O, or the dropout no share.
        RuntimeError: If the state is asked for while merged, since W would have the adapter in it.

    Example:
        >>> layer = LoRA(nn.Linear(6, 5), rank=2)
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)
        22
        >>> x = torch.randn(3, 6)
        >>> torch.equal(layer(x), layer.base(x))
        True
    """

    def __init__(self, base: nn.Linear, rank: int, *, alpha: float | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        most = min(base.in_features, base.out_features)
        if not 1 <= rank <= most:
            raise ValueError(f"rank must be 1 to {most} for {base}, got {rank}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.base = base.requires_grad_(False)
        self.scale = (2 * rank if alpha is None else alpha) / rank
        self.dropout = dropout
        self.a = nn.Parameter(base.weight.new_empty(rank, base.in_features))  # (R, I)
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # (O, R)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self._kept: Tensor | None = None
        self.register_state_dict_pre_hook(_refuse_when_merged)  # type: ignore[no-untyped-call]

    @property
    def merged(self) -> bool:
        """Whether the adapter is in the weight now."""
        return self._kept is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter to the weight; nothing happens if it is there."""
        if self._kept is None:
            self._kept = self.base.weight.clone()
            self.base.weight += self.scale * self.b @ self.a  # (O, I)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weight back as it was; nothing happens if it is not merged."""
        if self._kept is not None:
            self.base.weight.copy_(self._kept)
            self._kept = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.merged:
            return y
        low = F.linear(F.dropout(x, self.dropout, self.training), self.a)  # (..., R)
        return y + self.scale * F.linear(low, self.b)


def _refuse_when_merged(layer: nn.Module, prefix: str, keep_vars: bool) -> None:
    if isinstance(layer, LoRA) and layer.merged:
        raise RuntimeError(f"unmerge() before the state is saved: {prefix}base.weight has the adapter in it")


def add_lora(
    model: nn.Module,
    rank: int,
    *,
    where: Callable[[str], bool] = lambda name: True,
    alpha: float | None = None,
    dropout: float = 0.0,
) -> list[str]:
    """Freeze a model and put adapters beside its linear layers, in place.

    Layers of other classes that derive from `torch.nn.Linear` are left alone, as their callers may use the weight
    itself. A layer that stands in several places gets one adapter for all of them.

    Args:
        model: What to fine-tune.
        rank: Of each adapter.
        where: Says of a layer's name, such as ``"blocks.0.attention.qkv"``, whether it gets one.
        alpha: As in `LoRA`.
        dropout: As in `LoRA`.

    Returns: the names of the layers that got one.

    Raises:
        ValueError: If no layer is chosen, or one has an adapter. The model is as it was then.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> add_lora(model, rank=2, where=lambda name: name == "0")
        ['0']
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['0.a', '0.b']
    """
    if any(isinstance(module, LoRA) for module in model.modules()):
        raise ValueError("the model has adapters; train those, or merge them first")
    everywhere = model.named_modules(remove_duplicate=False)
    chosen = {name: module for name, module in everywhere if name and type(module) is nn.Linear and where(name)}
    if not chosen:
        raise ValueError(f"where chooses none of the linear layers within {type(model).__name__}")
    adapters = {layer: LoRA(layer, rank, alpha=alpha, dropout=dropout) for layer in _unchanged(chosen, rank)}
    model.requires_grad_(False)
    for name, layer in chosen.items():
        model.set_submodule(name, adapters[layer])
    for adapter in adapters.values():
        adapter.a.requires_grad_(True)
        adapter.b.requires_grad_(True)
    return list(chosen)


def _unchanged(chosen: dict[str, nn.Linear], rank: int) -> list[nn.Linear]:
    """Each layer once, after a look whether the rank fits all: otherwise some would be frozen already."""
    for name, layer in chosen.items():
        if not 1 <= rank <= min(layer.in_features, layer.out_features):
            raise ValueError(f"rank={rank} does not fit {name}: {layer}")
    return list(dict.fromkeys(chosen.values()))


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters alone: the part of the state dict that fine-tuning has changed.

    It is loaded by ``model.load_state_dict(state, strict=False)`` after `add_lora` with the same arguments.
    """
    own = {id(p) for module in model.modules() if isinstance(module, LoRA) for p in (module.a, module.b)}
    return {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False) if id(p) in own}
