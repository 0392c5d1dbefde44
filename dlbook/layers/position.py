"""Where a token stands: attention alone sees a set, so the order has to be told to it.

Added to the embedding, sinusoidal: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, section 3.5 (a learned table
is ``nn.Embedding``). Turning queries and keys, rotary: Su et al. (2021), https://arxiv.org/abs/2104.09864; stretched to
longer texts: Chen et al. (2023), https://arxiv.org/abs/2306.15595, and Grattafiori et al. (2024),
https://arxiv.org/abs/2407.21783. Added to the scores, ALiBi: Press et al. (2022), https://arxiv.org/abs/2108.12409, and
the buckets of T5: Raffel et al. (2020), https://arxiv.org/abs/1910.10683, section 2.1.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    T  tokens that look    S  tokens that are looked at, the last T of them those    D  width of a token
    N  heads    K  width of a head     V  context, the longest sequence
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def sinusoidal(length: int, width: int, *, base: float = 10000.0) -> Tensor:
    """Positions as waves: feature 2i is sin(t / base^(2i / D)), feature 2i + 1 the cosine of the same.

    A step to the right turns each pair (sine, cosine) by an angle that does not depend on t.

    Args:
        length: Positions, T.
        width: Features, D; even.
        base: The longest wave is almost 2 pi times this, in tokens.

    Shapes: returns (T, D).

    Raises:
        ValueError: If the width is odd or a number is not positive.

    Example:
        >>> waves = [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]
        >>> torch.allclose(sinusoidal(3, 4)[1], torch.tensor(waves))
        True
    """
    angles = _angles(length, width, base)  # (T, D / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def _angles(length: int, width: int, base: float, scaling: "RotaryScaling | None" = None) -> Tensor:
    """t / base^(2i / D) in float64, since float32 is off by 0.01 at position 100,000."""
    if length < 1 or width < 2 or width % 2 or base <= 0:
        raise ValueError(f"length and base must be positive, width even, got {length=}, {width=}, {base=}")
    frequencies = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)  # (D / 2,)
    if scaling is not None:
        frequencies = scaling(frequencies)
    return torch.arange(length, dtype=torch.float64).unsqueeze(1) * frequencies


@dataclass(frozen=True)
class RotaryScaling:
    """Stretches rotary positions, so that a model reads longer texts than it was trained on.

    Position interpolation (Chen et al.) divides all frequencies by ``factor``. LLaMA 3.1 leaves waves alone that fit
    ``high`` times into the original context, divides those that do not fit ``low`` times, and blends in between: near
    neighbours keep their distances.

    Attributes:
        factor: How many times longer the texts become.
        low: Waves that fit less often than this are stretched in full.
        high: Waves that fit more often than this are not stretched; 0 stretches all alike (position interpolation).
        original_context: Tokens of the texts before.

    Raises:
        ValueError: If the factor or the context is not positive, or ``high`` is neither 0 nor above ``low``.

    Example:
        >>> RotaryScaling(factor=4, high=0)(torch.tensor([1.0, 0.1]))
        tensor([0.2500, 0.0250])
    """

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        if self.factor <= 0 or self.original_context < 1 or (self.high and self.high <= self.low):
            raise ValueError(f"factor and original_context must be positive, high 0 or above low, got {self}")

    def __call__(self, frequencies: Tensor) -> Tensor:
        if not self.high:
            return frequencies / self.factor
        fits = self.original_context * frequencies / (2 * math.pi)  # how often the wave fits into the context
        keep = ((fits - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequencies * (keep + (1 - keep) / self.factor)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Turn pairs of features by angles: (a, b) becomes (a cos - b sin, a sin + b cos).

    Two layouts are about, and weights made for one give nonsense in the other. The paper and the LLaMA that Meta
    published pair neighbours, features 2i and 2i + 1 (``interleaved``). GPT-NeoX, and the LLaMA of the transformers
    library, pair feature i with feature i + K / 2: two long slices instead of many short ones, which is faster. Scores
    are sums over the features, so the two give equal models if the rows of the matrices for queries and keys are
    reordered: `half_from_interleaved`.

    Args:
        x: Queries or keys.
        cos: Cosines of the angles.
        sin: Their sines.
        interleaved: Whether neighbours are pairs.

    Shapes:
        x: (..., T, K).
        cos, sin: broadcast to (..., T, K / 2).
        returns: as x.

    Example:
        >>> x, quarter = torch.tensor([[1.0, 2, 3, 4]]), (torch.zeros(1, 2), torch.ones(1, 2))
        >>> rotate(x, *quarter), rotate(x, *quarter, interleaved=True)
        (tensor([[-3., -4.,  1.,  2.]]), tensor([[-2.,  1., -4.,  3.]]))
    """
    if interleaved:
        a, b = torch.unflatten(x, -1, (-1, 2)).unbind(-1)  # each (..., T, K / 2)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def half_from_interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of a matrix for queries or keys from the layout of pairs of neighbours to that of halves.

    Args:
        weight: Maps tokens to ``num_heads`` queries or keys.
        num_heads: Heads, N.

    Shapes: weight (N K, ...); returns the same.

    Example:
        >>> half_from_interleaved(torch.arange(8), num_heads=2)
        tensor([0, 2, 1, 3, 4, 6, 5, 7])
    """
    return torch.unflatten(weight, 0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


class Rotary(nn.Module):
    """Turns queries and keys by angles that grow with their position.

    The product of a query at t and a key at s then depends on t - s alone, because turning both by the same angle
    changes nothing.

    Args:
        size: Features of a head, K; even.
        context: Positions that the table holds, V.
        base: As in `sinusoidal`.
        scaling: Stretches the positions; not at all if None.
        interleaved: Which features are pairs, see `rotate`.

    Shapes:
        x: (B, N, T, K).
        positions: (B, T) or (T,) int64; ``start``, ``start + 1``, ... if left out.
        returns: as x.

    Raises:
        ValueError: If the size is odd, or positions go beyond the context.

    Example:
        >>> turn, x = Rotary(size=4, context=16), torch.randn(2, 3, 5, 4)
        >>> torch.allclose(turn(x)[:, :, 3:], turn(x[:, :, 3:], start=3))
        True
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        size: int,
        context: int,
        *,
        base: float = 10000.0,
        scaling: RotaryScaling | None = None,
        interleaved: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.interleaved = context, interleaved
        angles = _angles(context, size, base, scaling)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor, start: int = 0, positions: Tensor | None = None) -> Tensor:
        if positions is not None:
            cos, sin = self.cos[positions], self.sin[positions]  # (..., T, K / 2)
            if positions.ndim == 2:
                cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B, 1, T, K / 2)
        else:
            end = start + x.shape[-2]
            if end > self.context:
                raise ValueError(f"positions up to {end} go beyond a context of {self.context}")
            cos, sin = self.cos[start:end], self.sin[start:end]  # (T, K / 2)
        return rotate(x, cos.to(x.dtype), sin.to(x.dtype), interleaved=self.interleaved)


def alibi_slopes(num_heads: int) -> Tensor:
    """How fast a head's scores fall with distance: 2^(-8 / N), 2^(-16 / N), ..., 2^-8.

    Where N is no power of two, as in the authors' code: those of the next smaller power, then every other one of the
    next greater.

    Args:
        num_heads: Heads, N.

    Shapes: returns (N,).

    Raises:
        ValueError: If there is no head.

    Example:
        >>> alibi_slopes(3)
        tensor([0.0625, 0.0039, 0.2500])
    """
    if num_heads < 1:
        raise ValueError(f"num_heads must be positive, got {num_heads}")
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = 2.0 ** (-8 / power * torch.arange(1, power + 1))
    between = 2.0 ** (-4 / power * torch.arange(1, 2 * (num_heads - power) + 1, 2))
    return torch.cat([slopes, between])


def alibi(num_heads: int, length: int, total: int = 0) -> Tensor:
    """Bias of scores that falls linearly with distance; no position is learned, none is too far.

    Args:
        num_heads: Heads, N.
        length: Tokens that look, T.
        total: Tokens that are looked at, S; the last T of them are those that look. T if 0.

    Shapes: returns (N, T, S), for the ``mask`` of `dlbook.layers.multi_head.MultiHeadAttention`.

    Example:
        >>> 2**8 * alibi(1, 2, 3)
        tensor([[[-1., -0., -1.],
                 [-2., -1., -0.]]])
    """
    return -alibi_slopes(num_heads).view(-1, 1, 1) * distances(length, total or length).abs()


def distances(length: int, total: int, device: torch.device | None = None) -> Tensor:
    """s - t for each token t that looks and each token s that is looked at, (T, S); negative where s came before."""
    if length < 1 or total < length:
        raise ValueError(f"length must be positive and at most total, got {length=}, {total=}")
    looks = torch.arange(total - length, total, device=device)
    return torch.arange(total, device=device) - looks.unsqueeze(1)


class T5Bias(nn.Module):
    """A learned bias of scores for each head and each bucket of distances.

    The buckets hold one distance each up to a half (of those for one direction), then more and more of them, up to
    ``max_distance``; all beyond share the last. Starts at a standard deviation of 1 over the root of ``width``.

    Args:
        num_heads: Heads, N.
        num_buckets: Buckets, a multiple of 4 if bidirectional, else even.
        max_distance: From here on, in tokens, all is one.
        bidirectional: Whether what comes later has buckets of its own; else it counts as distance 0.
        width: Features of a token, for the start.

    Shapes:
        length, total: numbers of tokens T and S as in `alibi`.
        returns: (N, T, S).

    Raises:
        ValueError: If buckets do not divide, or the distance is within the half that is exact.

    Example:
        >>> T5Bias(num_heads=2)(3, 5).shape
        torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        width: int = 512,
    ) -> None:
        super().__init__()
        if num_buckets < 2 or num_buckets % (4 if bidirectional else 2) or max_distance <= num_buckets // 2:
            raise ValueError(f"{num_buckets=} does not fit {max_distance=} and {bidirectional=}")
        self.num_buckets, self.max_distance, self.bidirectional = num_buckets, max_distance, bidirectional
        self.table = nn.Embedding(num_buckets, num_heads)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def buckets(self, length: int, total: int = 0) -> Tensor:
        """Number of the bucket of each distance, (T, S)."""
        distance = distances(length, total or length, self.table.weight.device)  # (T, S)
        count = self.num_buckets
        offset = torch.zeros_like(distance)
        if self.bidirectional:
            count //= 2
            offset = (distance > 0) * count
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = count // 2
        ratio = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        wide = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
        return offset + torch.where(distance < exact, distance, wide)

    def forward(self, length: int, total: int = 0) -> Tensor:
        bias: Tensor = self.table(self.buckets(length, total))  # (T, S, N)
        return bias.permute(2, 0, 1)  # (N, T, S)
