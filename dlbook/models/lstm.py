"""Long short-term memory (LSTM).

Hochreiter & Schmidhuber (1997), https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gate of Gers et al. (2000),
https://doi.org/10.1162/089976600300015015.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    T  time steps    I  input size    H  hidden size    N  num_layers    D  directions, 1 or 2
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dlbook.layers.recurrence import Recurrence, States


class LSTM(Recurrence[tuple[Tensor, Tensor]]):
    """A memory c that gates write, keep and read.

    At step t, with gates i (input), f (forget), o (output) and candidate g, each with its own weights::

        i, f, o = sigmoid(W_x x_t + b_x + W_h h_{t-1} + b_h)        g = tanh(the same)
        c_t = f * c_{t-1} + i * g                                   h_t = o * tanh(c_t)

    Args:
        input_size: Features per time step, I.
        hidden_size: Features of the state, H.
        num_layers: Each layer reads the outputs of the one below.
        forget_bias: Added to the forget gate's bias at the start of training; 1.0 keeps early gradients alive
            (Jozefowicz et al., 2015, https://proceedings.mlr.press/v37/jozefowicz15.html). 0.0 starts as ``torch.nn``.
        bias: Whether there are biases.
        dropout: Share of the outputs between layers that are set to 0 while training.
        bidirectional: Read from the end as well; outputs are both directions side by side.
        fused: By the fused kernel; if False by :meth:`cell`. Both give the same numbers and gradients.

    Weights start from U(-1/sqrt(H), 1/sqrt(H)) and have the names of ``torch.nn.LSTM``, stacked in the order i, f, g, o.

    Shapes:
        x: (B, T, I) float.
        state: ``(h, c)``, each (N D, B, H); zeros if left out.
        lengths: (B,) whole numbers from 0 to T, in any order, if rows end early.
        returns: outputs (B, T, D H), zeros behind a row's end, and the last ``(h, c)``, each (N D, B, H).

    Raises:
        ValueError: If a size is not positive, dropout is not within 0 to 1 or has no layer to act before, or x, state
            or lengths have other shapes or values.

    Example:
        >>> lstm = LSTM(input_size=4, hidden_size=3)
        >>> outputs, (h, c) = lstm(torch.zeros(2, 5, 4), lengths=[3, 5])
        >>> outputs.shape, h.shape
        (torch.Size([2, 5, 3]), torch.Size([1, 2, 3]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        forget_bias: float = 1.0,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers,
            bias=bias, dropout=dropout, bidirectional=bidirectional, fused=fused,
        )  # fmt: skip
        with torch.no_grad():
            for _, _, *biases in self.all_weights:
                for from_input in biases[:1]:  # there is a second one, for what comes from h, or none at all
                    from_input.view(4, -1)[1] += forget_bias

    def cell(self, from_input: Tensor, from_hidden: Tensor, state: States) -> States:
        """From W_x x_t + b_x and W_h h_{t-1} + b_h, both (B, 4H), and (h_{t-1}, c_{t-1}) to (h_t, c_t)."""
        i, f, g, o = gates(from_input + from_hidden)  # each (B, H)
        c = f * state[1] + i * g
        return o * torch.tanh(c), c

    def opened(self, x: Tensor) -> dict[str, Tensor]:
        """The gates at every step, to look at: names i, f, g, o, c and h, each (B, T, H).

        Raises:
            ValueError: If there are several layers or directions.
        """
        if self.num_layers > 1 or self.bidirectional:
            raise ValueError(f"one layer, one direction: got {self.num_layers=} and {self.bidirectional=}")
        h, _ = self(x)  # (B, T, H)
        before = F.pad(h, (0, 0, 1, 0))[:, :-1]  # h_{t-1}
        w_input, w_hidden, *biases = self.all_weights[0]
        b_input, b_hidden = biases or (None, None)
        i, f, g, o = gates(F.linear(x, w_input, b_input) + F.linear(before, w_hidden, b_hidden))
        c, memories = torch.zeros_like(h[:, 0]), []
        for keep, write in zip(f.unbind(1), (i * g).unbind(1), strict=True):
            c = keep * c + write
            memories.append(c)
        return {"i": i, "f": f, "g": g, "o": o, "c": torch.stack(memories, dim=1), "h": h}


def gates(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """i, f, g and o, each (..., H), from the weighted sums of all four (..., 4H)."""
    i, f, g, o = sums.chunk(4, dim=-1)
    return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
