"""Mixture of experts: many feed-forward layers, of which each token uses a few.

Shazeer et al. (2017), https://arxiv.org/abs/1701.06538; Fedus et al. (2022), Switch transformers,
https://arxiv.org/abs/2101.03961; Jiang et al. (2024), Mixtral of experts, https://arxiv.org/abs/2401.04088.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    M  tokens, of all texts    D  width    H  hidden units    E  experts    K  experts for each token
    C  capacity, the tokens that an expert takes
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixtureOfExperts(nn.Module):
    """A router gives each token to K of E SwiGLU layers and adds up what they return, weighted.

    ::

        p = softmax(W_r x)        y = sum of p_e expert_e(x), over the K largest p, which are scaled to a sum of 1

    All experts compute at once, each on a table of C places; so shapes do not depend on what the router says, and
    nothing waits for it. Without a ``capacity`` each expert has a place for every token, which is safe and costs as much
    as using all experts; with it, tokens that come too late to a full expert get nothing from it (all first choices come
    before all second ones).

    Args:
        width: Features of a token, D.
        num_experts: Experts, E.
        top_k: Experts for each token, K.
        hidden: Hidden units of an expert, H; 8 D / 3, rounded up to a multiple of 8, if 0.
        capacity: Places of an expert, as a multiple of its share K M / E; 1.25 in Switch transformers. 0 for all.
        normalize: Whether the K weights are scaled to a sum of 1; where K is 1 they would all be 1, and the router would
            learn nothing.

    Shapes:
        x: (..., D).
        returns: y (..., D), and the balance (), E times the sum over experts of the share of tokens that it gets and its
            mean probability: 1 if all get as much, up to E if one gets all. To be added to the loss, times 0.01.

    Raises:
        ValueError: If sizes do not fit one another, or x has another width.

    Example:
        >>> layer = MixtureOfExperts(width=6, num_experts=4)
        >>> y, balance = layer(torch.randn(2, 5, 6))
        >>> y.shape, balance.shape
        (torch.Size([2, 5, 6]), torch.Size([]))
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        top_k: int = 2,
        hidden: int = 0,
        capacity: float = 0.0,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if width < 1 or hidden < 0 or not 1 <= top_k <= num_experts or capacity < 0:
            raise ValueError(
                f"sizes must be positive and top_k at most num_experts, got {width=}, {hidden=}, {num_experts=}, {top_k=}, "
                f"{capacity=}"
            )
        self.width, self.num_experts, self.top_k = width, num_experts, top_k
        self.capacity, self.normalize = capacity, normalize
        hidden = hidden or -(-8 * width // 24) * 8
        self.router = nn.Linear(width, num_experts, bias=False)
        self.expand = nn.Parameter(torch.empty(num_experts, width, 2 * hidden))  # gate, then up, of each expert
        self.reduce = nn.Parameter(torch.empty(num_experts, hidden, width))
        for weight in (self.expand, self.reduce):  # as nn.Linear starts
            nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim < 1 or x.shape[-1] != self.width:
            raise ValueError(f"x must be (..., {self.width}), got {tuple(x.shape)}")
        tokens = x.reshape(-1, self.width)  # (M, D)
        weights, chosen, balance = self.route(tokens)  # (M, K) twice
        M, E, K = tokens.shape[0], self.num_experts, self.top_k
        C = min(M, math.ceil(self.capacity * K * M / E)) if self.capacity else M

        expert = chosen.t().flatten()  # (K M,): first choices of all tokens, then second ones
        asked = F.one_hot(expert, E)  # (K M, E)
        place = asked.cumsum(dim=0).gather(1, expert.unsqueeze(1)).squeeze(1) - 1  # how many asked before
        slot = torch.where(place < C, expert * C + place, E * C)  # the last is for those that come too late
        table = tokens.new_zeros(E * C + 1, self.width).index_add(0, slot, tokens.repeat(K, 1))
        gate, up = torch.bmm(table[:-1].view(E, C, -1), self.expand.to(table.dtype)).chunk(2, dim=2)  # (E, C, H)
        done = torch.bmm(F.silu(gate) * up, self.reduce.to(gate.dtype)).flatten(0, 1)  # (E C, D)
        done = torch.cat([done, done.new_zeros(1, self.width)])[slot].view(K, M, -1)  # (K, M, D)
        y = (weights.t().unsqueeze(2).to(done.dtype) * done).sum(dim=0)  # (M, D)
        return y.view(x.shape), balance

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For tokens (M, D): weights (M, K) and numbers (M, K) of the experts, best first, and the balance ()."""
        logits = self.router(tokens)
        p = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))  # (M, E); small ones count
        weights, chosen = p.topk(self.top_k, dim=-1)
        if self.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        share = F.one_hot(chosen, self.num_experts).to(p.dtype).mean(dim=(0, 1))  # (E,), sum 1
        return weights, chosen, self.num_experts * (share * p.mean(dim=0)).sum()
