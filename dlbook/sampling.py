"""Choose the next token from the logits of a language model.

Top-k: Fan et al. (2018), https://arxiv.org/abs/1805.04833. Top-p: Holtzman et al. (2020),
https://arxiv.org/abs/1904.09751. Min-p: Nguyen et al. (2025), https://arxiv.org/abs/2407.01082. Repetition penalty: Keskar
et al. (2019), https://arxiv.org/abs/1909.05858.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    V  vocabulary
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest of each row; -inf for all others (those equal to the k-th stay).

    Example:
        >>> keep_top_k(torch.tensor([1.0, 3, 2]), 2)
        tensor([-inf, 3., 2.])
    """
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The most probable, as few as have probability p together; -inf for all others.

    Example:
        >>> keep_top_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.7).exp()
        tensor([0.5000, 0.3000, 0.0000])
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # of those that are more probable
    ordered = ordered.masked_fill((before >= p) & (before > 0), -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Those at least p times as probable as the most probable; -inf for all others.

    Example:
        >>> keep_min_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.5).exp()
        tensor([0.5000, 0.3000, 0.0000])
    """
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -torch.inf)


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make what was seen (..., V) less probable: positive logits divided by the penalty, negative ones times it.

    Example:
        >>> penalize(torch.tensor([1.0, 3, -2]), torch.tensor([False, True, True]), 2.0)
        tensor([ 1.0000, 1.5000, -4.0000])
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the logits; what is listed first is applied first.

    Attributes:
        repetition_penalty: Makes tokens that are there already less probable where above 1.
        temperature: What the logits are divided by; 0 takes the most probable token (greedy).
        top_k: Only so many most probable tokens stay; all if 0.
        top_p: Only the most probable tokens stay that have this probability together; all if 1.
        min_p: Only tokens stay that are this many times as probable as the most probable.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> Sampling(top_k=2).probabilities(torch.tensor([[0.2, 0.6, 0.3]]).log())
        tensor([[0.0000, 0.6667, 0.3333]])
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or self.repetition_penalty <= 0:
            raise ValueError(f"temperature and top_k must not be negative, repetition_penalty positive, got {self}")
        if not (0 < self.top_p <= 1 and 0 <= self.min_p <= 1):
            raise ValueError(f"top_p must be above 0 and at most 1, min_p within 0 and 1, got {self}")

    def filtered(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Logits (B, V) after penalty and temperature, -inf where a token is out of question."""
        if self.repetition_penalty != 1 and seen is not None:
            logits = penalize(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return logits
        logits = logits / self.temperature
        if self.top_k:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = keep_top_p(logits, self.top_p)
        return keep_min_p(logits, self.min_p) if self.min_p > 0 else logits

    def probabilities(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Of each token, (B, V); one is 1 if greedy."""
        logits = self.filtered(logits.float(), seen)
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
        return logits.softmax(dim=-1)

    def choose(self, logits: Tensor, seen: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """One token for each row, (B,)."""
        if self.temperature == 0:
            return self.filtered(logits, seen).argmax(dim=-1)
        return torch.multinomial(self.probabilities(logits, seen), 1, generator=generator).squeeze(1)


#: The most probable token each time.
GREEDY = Sampling(temperature=0)
