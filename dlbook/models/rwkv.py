"""RWKV, version 4: trained like a Transformer, run like a recurrent network.

Peng et al. (2023), RWKV: reinventing RNNs for the Transformer era, https://arxiv.org/abs/2305.13048. The WKV of version
6, whose state is a matrix that decays by what it reads, is in `dlbook.layers.wkv`.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length    H  hidden size    V  vocabulary
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dlbook.layers.operands import check_tokens
from dlbook.layers.wkv import NEVER, wkv4, wkv4_sequential

#: Of a block: what each of its two halves saw last, and numerator, denominator and largest exponent of WKV; all (B, H).
State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class RWKVConfig:
    """What makes one RWKV different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        hidden_size: Features of a token, H.
        num_layers: Blocks.

    Raises:
        ValueError: If a number is not positive.
    """

    vocab_size: int = 50277
    hidden_size: int = 768
    num_layers: int = 12

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


#: The paper's table of architectures.
SIZES = {
    "rwkv4_169m": RWKVConfig(hidden_size=768, num_layers=12),
    "rwkv4_430m": RWKVConfig(hidden_size=1024, num_layers=24),
    "rwkv4_1.5b": RWKVConfig(hidden_size=2048, num_layers=24),
    "rwkv4_3b": RWKVConfig(hidden_size=2560, num_layers=32),
    "rwkv4_7b": RWKVConfig(hidden_size=4096, num_layers=32),
    "rwkv4_14b": RWKVConfig(hidden_size=5120, num_layers=40),
    # For two cores: an alphabet instead of words, and a sixth of the width and a third of the depth of the smallest.
    "rwkv4_mini": RWKVConfig(vocab_size=128, hidden_size=128, num_layers=4),
    "rwkv4_tiny": RWKVConfig(vocab_size=128, hidden_size=32, num_layers=2),
}


class TimeMixing(nn.Module):
    """Takes the place of attention (section 3.1)::

        r, k, v = W_r, W_k, W_v times mixtures of x_t and x_{t-1}, m x_t + (1 - m) x_{t-1}, with an m for each
        output  = W_o (sigmoid(r) * WKV(exp(decay), bonus, k, v))

    Args:
        hidden_size: Features, H.
        depth: Where the block is, 0 for the first and 1 for the last: late ones start with more channels that forget.
        beginning: 1 for the first block, falling towards 0: early ones start with more of the step before.
    """

    def __init__(self, hidden_size: int, depth: float, beginning: float) -> None:
        super().__init__()
        place = torch.arange(hidden_size) / max(1, hidden_size - 1)  # 0 to 1
        zigzag = (torch.arange(1, hidden_size + 1) % 3 - 1) * 0.5
        self.decay = nn.Parameter(8 * place ** (0.7 + 1.3 * depth) - 5)
        self.bonus = nn.Parameter(zigzag + math.log(0.3))
        place = torch.arange(hidden_size) / hidden_size
        self.mix_k = nn.Parameter(place**beginning)
        self.mix_v = nn.Parameter(place**beginning + 0.3 * depth)
        self.mix_r = nn.Parameter(place ** (0.5 * beginning))
        self.key, self.value, self.receptance, self.output = (
            nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(4)
        )

    def projected(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r between 0 and 1, k, v from a step and the step before it."""
        r = torch.sigmoid(self.receptance(torch.lerp(before, x, self.mix_r)))
        return r, self.key(torch.lerp(before, x, self.mix_k)), self.value(torch.lerp(before, x, self.mix_v))


class ChannelMixing(nn.Module):
    """Takes the place of the perceptron (section 3.1)::

        r, k = W_r, W_k times mixtures of x_t and x_{t-1}        output = sigmoid(r) * (W_v relu(k)^2)

    Args:
        hidden_size: Features, H; within there are four times as many.
        beginning: 1 for the first block, falling towards 0: early ones start with more of the step before.
    """

    def __init__(self, hidden_size: int, beginning: float) -> None:
        super().__init__()
        place = torch.arange(hidden_size) / hidden_size
        self.mix_k, self.mix_r = (nn.Parameter(place**beginning) for _ in range(2))
        self.key = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.receptance = nn.Linear(hidden_size, hidden_size, bias=False)
        self.value = nn.Linear(4 * hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        k = torch.relu(self.key(torch.lerp(before, x, self.mix_k))).square()  # (..., 4H)
        r = torch.sigmoid(self.receptance(torch.lerp(before, x, self.mix_r)))
        y: Tensor = r * self.value(k)
        return y


class RWKVBlock(nn.Module):
    """x + time mixing of norm(x), then x + channel mixing of norm(x).

    Weights start as in the authors' code: what a block adds is 0 at first, because the last weights of both halves are,
    and keys and receptances are 0 where they would be drawn; the others are orthogonal.

    Args:
        hidden_size: Features, H.
        layer: Which block it is, from 0.
        num_layers: How many there are.

    Shapes:
        x: (B, L, H).
        returns: (B, L, H).

    Raises:
        ValueError: If x or a state has another shape, or the layer is not one of them.

    Example:
        >>> block = RWKVBlock(hidden_size=6)
        >>> block(torch.zeros(2, 5, 6)).shape
        torch.Size([2, 5, 6])
        >>> y, state = block.step(torch.zeros(2, 6))
        >>> y.shape, [part.shape for part in state]
        (torch.Size([2, 6]), [torch.Size([2, 6]), torch.Size([2, 6]), ...])
    """

    def __init__(self, hidden_size: int, *, layer: int = 0, num_layers: int = 1) -> None:
        super().__init__()
        if not 0 <= layer < num_layers:
            raise ValueError(f"layer must be from 0 to num_layers - 1, got {layer=} and {num_layers=}")
        self.hidden_size = hidden_size
        depth, beginning = layer / max(1, num_layers - 1), 1 - layer / num_layers
        self.norm1, self.norm2 = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.time_mixing = TimeMixing(hidden_size, depth, beginning)
        self.channel_mixing = ChannelMixing(hidden_size, beginning)
        time, channel = self.time_mixing, self.channel_mixing
        nn.init.orthogonal_(time.value.weight)
        nn.init.orthogonal_(channel.key.weight, gain=2.0)  # the root of its four times as many outputs
        for linear in (time.key, time.receptance, time.output, channel.receptance, channel.value):
            nn.init.zeros_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x)[0]

    def read(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Any number of steps (B, L, H) at once, from a state; returns the outputs and the state behind them."""
        if x.ndim != 3 or x.shape[2] != self.hidden_size:
            raise ValueError(f"x must be (batch, length, {self.hidden_size}), got {tuple(x.shape)}")
        last1, last2, *sums = self._state(x, state)
        w, u = self.time_mixing.decay.exp(), self.time_mixing.bonus
        h, before, last1 = _shifted(self.norm1(x), last1)
        r, k, v = self.time_mixing.projected(h, before)
        y, after = wkv4(w, u, k, v, (sums[0], sums[1], sums[2]))
        x = x + self.time_mixing.output(r * y)
        h, before, last2 = _shifted(self.norm2(x), last2)
        return x + self.channel_mixing(h, before), (last1, last2, *after)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step (B, H), from a state, by the recurrence."""
        if x.ndim != 2 or x.shape[1] != self.hidden_size:
            raise ValueError(f"x must be (batch, {self.hidden_size}), got {tuple(x.shape)}")
        last1, last2, *sums = self._state(x, state)
        h1 = self.norm1(x)
        r, k, v = self.time_mixing.projected(h1, last1.to(h1.dtype))
        w, u = self.time_mixing.decay.exp(), self.time_mixing.bonus
        y, after = wkv4_sequential(w, u, k.unsqueeze(1), v.unsqueeze(1), (sums[0], sums[1], sums[2]))
        x = x + self.time_mixing.output(r * y.squeeze(1))
        h2 = self.norm2(x)
        return x + self.channel_mixing(h2, last2.to(h2.dtype)), (h1, h2, *after)

    def _state(self, x: Tensor, state: State | None) -> State:
        shape = (x.shape[0], self.hidden_size)
        if state is None:
            zeros = x.new_zeros(shape)
            sums = x.new_zeros(shape, dtype=torch.promote_types(x.dtype, torch.float32))
            return zeros, zeros, sums, sums, sums + NEVER
        if len(state) != 5 or any(part.shape != shape for part in state):
            raise ValueError(f"state must be five times {shape}, got {[tuple(part.shape) for part in state]}")
        return state


def _shifted(x: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each step (B, L, H), the step before it, and the last one (B, H)."""
    all_steps = torch.cat([last.unsqueeze(1).to(x.dtype), x], dim=1)
    return x, all_steps[:, :-1], all_steps[:, -1]


class RWKV(nn.Module):
    """Language model: embedding and its normalisation, blocks, normalisation, logits.

    The embedding starts tiny, between -0.0001 and 0.0001, because its normalisation makes it large: so a small step of
    the optimiser changes much. The head starts orthogonal.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        tokens: (B, L) int64.
        returns: logits (B, L, V) of what follows each token.

    Raises:
        ValueError: If tokens are not (B, L) whole numbers, or a state does not fit.

    Example:
        >>> model = RWKV(SIZES["rwkv4_tiny"])
        >>> tokens = torch.tensor([[5, 3, 8]])
        >>> logits = model(tokens)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> first, state = model.step(tokens[:, 0])
        >>> second, state = model.step(tokens[:, 1], state)
        >>> torch.allclose(second, logits[:, 1], atol=1e-5)
        True
    """

    def __init__(self, config: RWKVConfig) -> None:
        super().__init__()
        self.config = config
        size, depth = config.hidden_size, config.num_layers
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.norm_in = nn.LayerNorm(size)
        self.blocks = nn.ModuleList(RWKVBlock(size, layer=layer, num_layers=depth) for layer in range(depth))
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, config.vocab_size, bias=False)
        nn.init.uniform_(self.embedding.weight, -1e-4, 1e-4)
        nn.init.orthogonal_(self.head.weight, gain=0.5 * max(1.0, math.sqrt(config.vocab_size / size)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(tokens)[0]

    def read(self, tokens: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Any number of tokens (B, L) at once, from a state; returns logits (B, L, V) and the state behind them."""
        check_tokens(tokens, 2, state, len(self.blocks))
        x = self.norm_in(self.embedding(tokens))  # (B, L, H)
        states = []
        for i, block in enumerate(self._blocks()):
            x, after = block.read(x, None if state is None else state[i])
            states.append(after)
        return self.head(self.norm(x)), states

    def step(self, tokens: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """One token (B,) of each sequence, from a state; returns logits (B, V) and the next state.

        Time and memory for a token do not depend on how many there were before.
        """
        check_tokens(tokens, 1, state, len(self.blocks))
        x = self.norm_in(self.embedding(tokens))  # (B, H)
        states = []
        for i, block in enumerate(self._blocks()):
            x, after = block.step(x, None if state is None else state[i])
            states.append(after)
        return self.head(self.norm(x)), states

    def _blocks(self) -> list[RWKVBlock]:
        return cast(list[RWKVBlock], list(self.blocks))


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.RwkvForCausalLM`` under this module's names.

    Args:
        state_dict: What ``RwkvForCausalLM.state_dict()`` gives in training mode; in evaluation mode it has divided some
            weights by powers of 2 (its ``rescale_every``).

    Example:
        >>> list(convert_transformers({"rwkv.blocks.0.attention.time_mix_key": torch.zeros(1, 1, 3)}))
        ['blocks.0.time_mixing.mix_k']
    """
    names = {
        "rwkv.": "", "embeddings.": "embedding.", "blocks.0.pre_ln.": "norm_in.", "ln1.": "norm1.", "ln2.": "norm2.",
        "ln_out.": "norm.", "attention.": "time_mixing.", "feed_forward.": "channel_mixing.", "time_decay": "decay",
        "time_first": "bonus", "time_mix_key": "mix_k", "time_mix_value": "mix_v", "time_mix_receptance": "mix_r",
    }  # fmt: skip
    converted = {}
    for name, tensor in state_dict.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        converted[name] = tensor.flatten() if ".mix_" in name else tensor
    return converted
