"""Bring the weights of other implementations under our names.

Chapter: chapters/06-transformers.ipynb
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor


def rename(
    state_dict: Mapping[str, Tensor], stacks: Mapping[str, tuple[str, ...]], names: Mapping[str, str]
) -> dict[str, Tensor]:
    """Put matrices that are one of ours on top of each other, then rename all.

    Args:
        state_dict: Weights by their names elsewhere.
        stacks: Ends of names (without "weight" or "bias") that become one: ours, and theirs from top to bottom.
        names: Regular expressions and what each is replaced by, in order.

    Example:
        >>> theirs = {"h.0.q.weight": torch.zeros(2, 3), "h.0.k.weight": torch.zeros(4, 3), "h.0.o.bias": torch.zeros(5)}
        >>> ours = rename(theirs, {"qk": ("q", "k")}, {"^h": "blocks"})
        >>> {name: tuple(tensor.shape) for name, tensor in ours.items()}
        {'blocks.0.qk.weight': (6, 3), 'blocks.0.o.bias': (5,)}
    """
    renamed = {}
    for name, tensor in state_dict.items():
        stem, _, leaf = name.rpartition(".")
        for ours, theirs in stacks.items():
            if stem.endswith(f".{theirs[0]}"):
                start = stem.removesuffix(theirs[0])
                tensor = torch.cat([state_dict[f"{start}{part}.{leaf}"] for part in theirs])
                name = f"{start}{ours}.{leaf}"
                break
            if stem.endswith(tuple(f".{part}" for part in theirs[1:])):
                name = ""
                break
        if name:
            for pattern, replacement in names.items():
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed
