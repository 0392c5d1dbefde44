"""Simple recurrent network (RNN): the new state is a layer of the input and of the last state.

Elman (1990), https://doi.org/10.1207/s15516709cog1402_1.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch    T  time steps    I  input size    H  hidden size    N  num_layers    D  directions, 1 or 2
"""

import torch
from torch import Tensor

from dlbook.layers.recurrence import Recurrence, States


class RNN(Recurrence[Tensor]):
    """h_t = tanh(W_x x_t + b_x + W_h h_{t-1} + b_h), the same weights at every step.

    Args:
        input_size: Features per time step, I.
        hidden_size: Features of the state, H.
        num_layers: Each layer reads the outputs of the one below.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: Whether there are biases.
        dropout: Share of the outputs between layers that are set to 0 while training.
        bidirectional: Read from the end as well; outputs are both directions side by side.
        fused: By the fused kernel; if False by :meth:`cell`. Both give the same numbers and gradients.

    Weights start as in ``torch.nn.RNN``, from U(-1/sqrt(H), 1/sqrt(H)), and have its names.

    Shapes:
        x: (B, T, I) float.
        state: h (N D, B, H); zeros if left out.
        lengths: (B,) whole numbers from 0 to T, in any order, if rows end early.
        returns: outputs (B, T, D H), zeros behind a row's end, and the last h (N D, B, H).

    Raises:
        ValueError: If a size is not positive, the non-linearity is unknown, dropout is not within 0 to 1 or has no
            layer to act before, or x, state or lengths have other shapes or values.

    Example:
        >>> rnn = RNN(input_size=4, hidden_size=3)
        >>> outputs, h = rnn(torch.zeros(2, 5, 4), lengths=[5, 1])
        >>> outputs.shape, h.shape
        (torch.Size([2, 5, 3]), torch.Size([1, 2, 3]))
        >>> output, h = rnn.step(torch.zeros(2, 4), h)  # the next time step of both
        >>> output.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        fused: bool = True,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers,
            bias=bias, dropout=dropout, bidirectional=bidirectional, fused=fused,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def cell(self, from_input: Tensor, from_hidden: Tensor, state: States) -> States:
        """From W_x x_t + b_x and W_h h_{t-1} + b_h, both (B, H), to h_t."""
        sums = from_input + from_hidden
        return (torch.tanh(sums) if self.nonlinearity == "tanh" else torch.relu(sums),)
