"""Mamba: a recurrent network whose state keeps or forgets by what it reads, trained in parallel by a scan.

Gu & Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, https://arxiv.org/abs/2312.00752.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    L  length    H  hidden size    D  channels within a block, expand * H    N  numbers in a channel's state
    K  steps that the convolution sees    R  rank of the step sizes    V  vocabulary
    (In the block, A, B, C and D are also the paper's names of matrices; no shape there is called by them.)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlbook.layers.operands import check_tokens
from dlbook.layers.selective_scan import selective_scan

#: Of a block: the last K - 1 inputs of the convolution (B, K - 1, D), and the state (B, N, D).
State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MambaConfig:
    """What makes one Mamba different from another.

    Attributes:
        vocab_size: Kinds of tokens, V.
        hidden_size: Features of a token, H.
        num_layers: Blocks.
        state_size: Numbers in the state of each channel, N.
        conv_kernel: Steps that the convolution sees, K.
        expand: Channels within a block, D, for each feature.
        dt_rank: Rank of the product that gives the step sizes, R; H / 16, rounded up, if 0.

    Raises:
        ValueError: If a number is not positive.
    """

    vocab_size: int = 50280
    hidden_size: int = 768
    num_layers: int = 24
    state_size: int = 16
    conv_kernel: int = 4
    expand: int = 2
    dt_rank: int = 0

    def __post_init__(self) -> None:
        least = {"vocab_size": 1, "hidden_size": 1, "num_layers": 1, "state_size": 1, "conv_kernel": 1, "expand": 1}
        for name, value in {**least, "dt_rank": 0}.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")


#: The models that the authors released, by the table in https://github.com/state-spaces/mamba (two blocks for each layer
#: of a Transformer); the vocabulary is GPT-NeoX's, filled up to a multiple of 8.
SIZES = {
    "mamba_130m": MambaConfig(hidden_size=768, num_layers=24),
    "mamba_370m": MambaConfig(hidden_size=1024, num_layers=48),
    "mamba_790m": MambaConfig(hidden_size=1536, num_layers=48),
    "mamba_1.4b": MambaConfig(hidden_size=2048, num_layers=48),
    "mamba_2.8b": MambaConfig(hidden_size=2560, num_layers=64),
    # For two cores: an alphabet instead of words, and a sixth of the width and of the depth of the smallest.
    "mamba_mini": MambaConfig(vocab_size=128, hidden_size=128, num_layers=4),
    "mamba_tiny": MambaConfig(vocab_size=128, hidden_size=32, num_layers=2, state_size=8),
}


class MambaBlock(nn.Module):
    """Residual block of section 3.4: a gated convolution and selective state space.

    ::

        x, z = W_in norm(input)                x = silu(convolution of the last K steps of x)
        dt, B, C = W_x x                       dt = softplus(W_dt dt + b_dt)
        h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t          y_t = C_t h_t + D x_t
        output = input + W_out (y * silu(z))

    Weights start as in the authors' code: A = -1, -2, ..., -N, so that the state remembers at N time scales; D = 1; step
    sizes between 0.001 and 0.1, evenly in their logarithm; linear layers and the convolution as PyTorch starts them. The
    authors train A_log and D without weight decay.

    Args:
        hidden_size: Features, H.
        state_size: Numbers in the state of each channel, N.
        conv_kernel: Steps that the convolution sees, K.
        expand: Channels within the block, D, for each feature.
        dt_rank: Rank of the product that gives the step sizes, R; H / 16, rounded up, if 0.

    Shapes:
        x: (B, L, H).
        returns: (B, L, H).

    Raises:
        ValueError: If x or a state has another shape.

    Example:
        >>> block = MambaBlock(hidden_size=6, state_size=3)
        >>> block(torch.zeros(2, 5, 6)).shape
        torch.Size([2, 5, 6])
        >>> y, state = block.step(torch.zeros(2, 6))
        >>> y.shape, [part.shape for part in state]
        (torch.Size([2, 6]), [torch.Size([2, 3, 12]), torch.Size([2, 3, 12])])
    """

    def __init__(
        self, hidden_size: int, *, state_size: int = 16, conv_kernel: int = 4, expand: int = 2, dt_rank: int = 0
    ) -> None:
        super().__init__()
        width = expand * hidden_size
        self.hidden_size, self.width, self.state_size, self.conv_kernel = hidden_size, width, state_size, conv_kernel
        self.dt_rank = dt_rank or math.ceil(hidden_size / 16)
        self.norm = nn.RMSNorm(hidden_size, eps=1e-5)
        self.in_proj = nn.Linear(hidden_size, 2 * width, bias=False)
        self.conv = nn.Conv1d(width, width, conv_kernel, groups=width)
        self.x_proj = nn.Linear(width, self.dt_rank + 2 * state_size, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, width)
        self.A_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        self.out_proj = nn.Linear(width, hidden_size, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            dt = torch.empty(width).uniform_(math.log(1e-3), math.log(0.1)).exp()
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # where softplus is dt

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x)[0]

    def read(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Any number of steps (B, L, H) at once, from a state; returns the outputs and the state behind them."""
        if x.ndim != 3 or x.shape[2] != self.hidden_size:
            raise ValueError(f"x must be (batch, length, {self.hidden_size}), got {tuple(x.shape)}")
        last, h = self._state(x, state)
        if x.shape[1] == 0:
            return x, (last, h)
        u, z = self.in_proj(self.norm(x)).chunk(2, dim=2)  # each (B, L, D)
        u = torch.cat([last.to(u.dtype), u], dim=1)  # (B, K - 1 + L, D)
        last = u[:, x.shape[1] :]
        u = F.silu(self.conv(u.transpose(1, 2))).transpose(1, 2)  # (B, L, D)
        y, h = selective_scan(u, *self._selected(u), h)
        return x + self.out_proj((y + self.D * u) * F.silu(z)), (last, h)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step (B, H), from a state; the equations above as they stand."""
        if x.ndim != 2 or x.shape[1] != self.hidden_size:
            raise ValueError(f"x must be (batch, {self.hidden_size}), got {tuple(x.shape)}")
        last, h = self._state(x, state)
        u, z = self.in_proj(self.norm(x)).chunk(2, dim=1)  # each (B, D)
        window = torch.cat([last.to(u.dtype), u.unsqueeze(1)], dim=1)  # (B, K, D)
        u = (window * self.conv.weight.squeeze(1).t()).sum(1)
        u = F.silu(u if self.conv.bias is None else u + self.conv.bias)
        dt, A, B, C = self._selected(u)  # (B, D), (D, N), (B, N) twice
        h = torch.exp(dt.unsqueeze(1) * A.t()) * h + (dt * u).unsqueeze(1) * B.unsqueeze(2)  # (B, N, D)
        y = (C.unsqueeze(2) * h).sum(1).to(u.dtype)  # (B, D)
        return x + self.out_proj((y + self.D * u) * F.silu(z)), (window[:, 1:], h)

    def _selected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step sizes (..., D), A (D, N), B and C (..., N)."""
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.state_size, self.state_size], dim=-1)
        precise = torch.promote_types(
            self.A_log.dtype, torch.float32
        )  # rates near 1 rounded to bfloat16 forget at once
        return F.softplus(self.dt_proj(dt)), -self.A_log.to(precise).exp(), B, C

    def _state(self, x: Tensor, state: State | None) -> State:
        shapes = (x.shape[0], self.conv_kernel - 1, self.width), (x.shape[0], self.state_size, self.width)
        if state is None:
            return x.new_zeros(shapes[0]), x.new_zeros(shapes[1], dtype=torch.promote_types(x.dtype, torch.float32))
        if len(state) != 2 or tuple(part.shape for part in state) != shapes:
            raise ValueError(f"state must be of shapes {shapes}, got {tuple(tuple(part.shape) for part in state)}")
        return state


class Mamba(nn.Module):
    """Language model: embedding, blocks, normalisation, and the embedding again for the logits.

    The embedding starts with a standard deviation of 0.02; what each block adds to the sum of all starts divided by
    the root of their number.

    Args:
        config: One of `SIZES`, or your own.

    Shapes:
        tokens: (B, L) int64.
        returns: logits (B, L, V) of what follows each token.

    Raises:
        ValueError: If tokens are not (B, L) whole numbers, or a state does not fit.

    Example:
        >>> model = Mamba(SIZES["mamba_tiny"])
        >>> tokens = torch.tensor([[5, 3, 8]])
        >>> logits = model(tokens)
        >>> logits.shape
        torch.Size([1, 3, 128])
        >>> first, state = model.step(tokens[:, 0])
        >>> second, state = model.step(tokens[:, 1], state)
        >>> torch.allclose(second, logits[:, 1], atol=1e-5)
        True
    """

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            MambaBlock(
                config.hidden_size,
                state_size=config.state_size,
                conv_kernel=config.conv_kernel,
                expand=config.expand,
                dt_rank=config.dt_rank,
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=1e-5)
        nn.init.normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            for block in self._blocks():
                block.out_proj.weight /= math.sqrt(config.num_layers)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(tokens)[0]

    def read(self, tokens: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Any number of tokens (B, L) at once, from a state; returns logits (B, L, V) and the state behind them."""
        check_tokens(tokens, 2, state, len(self.blocks))
        x = self.embedding(tokens)  # (B, L, H)
        states = []
        for i, block in enumerate(self._blocks()):
            x, after = block.read(x, None if state is None else state[i])
            states.append(after)
        return self._logits(x), states

    def step(self, tokens: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """One token (B,) of each sequence, from a state; returns logits (B, V) and the next state.

        Time and memory for a token do not depend on how many there were before.
        """
        check_tokens(tokens, 1, state, len(self.blocks))
        x = self.embedding(tokens)  # (B, H)
        states = []
        for i, block in enumerate(self._blocks()):
            x, after = block.step(x, None if state is None else state[i])
            states.append(after)
        return self._logits(x), states

    def _blocks(self) -> list[MambaBlock]:
        return cast(list[MambaBlock], list(self.blocks))

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(x), self.embedding.weight)


def convert_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``transformers.MambaForCausalLM`` under this module's names.

    Args:
        state_dict: What ``MambaForCausalLM.state_dict()`` gives; its head is its embedding.

    Example:
        >>> list(convert_transformers({"backbone.layers.0.mixer.conv1d.weight": torch.zeros(3, 1, 4)}))
        ['blocks.0.conv.weight']
    """
    names = {
        "backbone.": "", "embeddings.": "embedding.", "layers.": "blocks.", "mixer.": "", "conv1d": "conv",
        "norm_f": "norm",
    }  # fmt: skip
    converted = {}
    for name, tensor in state_dict.items():
        if name != "lm_head.weight":
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            converted[name] = tensor
    return converted
