"""Gated recurrent unit (GRU).

Cho et al. (2014), https://doi.org/10.3115/v1/D14-1179. The paper resets the last state before its weights are applied,
W (r * h); this is the form of cuDNN and ``torch.nn``, which resets what the weights gave, r * (W h), so that one product
serves all three gates.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    T  time steps    I  input size    H  hidden size    N  num_layers    D  directions, 1 or 2
"""

import torch
from torch import Tensor

from dlbook.layers.recurrence import Recurrence, States


class GRU(Recurrence[Tensor]):
    """A state that a gate carries on or replaces.

    At step t, with gates r (reset) and z (update) and candidate n, each with its own weights::

        r, z = sigmoid(W_x x_t + b_x + W_h h_{t-1} + b_h)
        n    = tanh(W_x x_t + b_x + r * (W_h h_{t-1} + b_h))
        h_t  = (1 - z) * n + z * h_{t-1}

    Args:
        input_size: Features per time step, I.
        hidden_size: Features of the state, H.
        num_layers: Each layer reads the outputs of the one below.
        bias: Whether there are biases.
        dropout: Share of the outputs between layers that are set to 0 while training.
        bidirectional: Read from the end as well; outputs are both directions side by side.
        fused: By the fused kernel; if False by :meth:`cell`. Both give the same numbers and gradients.

    Weights start as in ``torch.nn.GRU``, from U(-1/sqrt(H), 1/sqrt(H)), and have its names, stacked in the order r, z, n.

    Shapes:
        x: (B, T, I) float.
        state: h (N D, B, H); zeros if left out.
        lengths: (B,) whole numbers from 0 to T, in any order, if rows end early.
        returns: outputs (B, T, D H), zeros behind a row's end, and the last h (N D, B, H).

    Raises:
        ValueError: If a size is not positive, dropout is not within 0 to 1 or has no layer to act before, or x, state
            or lengths have other shapes or values.

    Example:
        >>> gru = GRU(input_size=4, hidden_size=3, num_layers=2)
        >>> outputs, h = gru(torch.zeros(2, 5, 4))
        >>> outputs.shape, h.shape
        (torch.Size([2, 5, 3]), torch.Size([2, 2, 3]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers,
            bias=bias, dropout=dropout, bidirectional=bidirectional, fused=fused,
        )  # fmt: skip

    def cell(self, from_input: Tensor, from_hidden: Tensor, state: States) -> States:
        """From W_x x_t + b_x and W_h h_{t-1} + b_h, both (B, 3H), and h_{t-1} to h_t."""
        r_x, z_x, n_x = from_input.chunk(3, dim=1)  # each (B, H)
        r_h, z_h, n_h = from_hidden.chunk(3, dim=1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return ((1 - z) * n + z * state[0],)
