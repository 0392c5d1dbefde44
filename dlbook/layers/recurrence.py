"""What RNN, LSTM and GRU share: layers, directions, sequences of different lengths, and reading as the data come.

Elman (1990), https://doi.org/10.1207/s15516709cog1402_1; both directions: Schuster & Paliwal (1997),
https://doi.org/10.1109/78.650093.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    B  batch          T  time steps    I  input size    H  hidden size
    N  num_layers     D  directions, 1 or 2             G  gates, with the candidate: 1 (RNN), 4 (LSTM), 3 (GRU)
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

#: What a network carries from one step to the next: h, and in an LSTM h and c.
State = TypeVar("State", Tensor, tuple[Tensor, Tensor])
States = tuple[Tensor, ...]

#: The fused kernels, by the name that ``torch.nn.RNNBase`` has for them: MKL or oneDNN on a CPU, cuDNN on a GPU.
KERNELS: dict[str, Callable[..., Any]] = {
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
    "LSTM": torch.lstm,
    "GRU": torch.gru,
}


class Recurrence(nn.RNNBase, Generic[State]):
    """A cell applied step after step, in one direction or both, layer upon layer.

    ``RNN``, ``LSTM`` and ``GRU`` are this with their own equations in :meth:`cell`. ``torch.nn.RNNBase`` makes the
    parameters (their names are those of ``torch.nn.LSTM``, so that weights load either way), draws them from
    U(-1/sqrt(H), 1/sqrt(H)) and keeps them in one piece of memory for cuDNN; what is computed with them stands here.

    Args:
        mode: Which kernel: ``"RNN_TANH"``, ``"RNN_RELU"``, ``"LSTM"`` or ``"GRU"``.
        input_size: Features per time step, I.
        hidden_size: Features of the state, H.
        num_layers: Each layer reads the outputs of the one below.
        bias: Whether there are biases, two for each gate as cuDNN has them.
        dropout: Share of the outputs between layers that are set to 0 while training.
        bidirectional: Read from the end as well; outputs are both directions side by side.
        fused: Compute by the fused kernel; if False by :meth:`cell`, which is slower, can be read, and can be
            differentiated twice on a GPU too. Can be changed at any time: ``model.fused = False``.

    Shapes:
        x: (B, T, I) float. A row with NaN at step t gets NaN from t on (in both directions: everywhere); the others
            keep their values.
        state: (N D, B, H), in an LSTM a pair of these; zeros if left out.
        lengths: (B,) whole numbers from 0 to T, in any order, if the rows end early; best on the CPU, where they are
            needed. What stands in x behind a row's end has no influence. No row needs to be as long as T.
        returns: outputs (B, T, D H), zeros behind a row's end, and the state after each row's last step, (N D, B, H).

    Raises:
        ValueError: If a size is not positive, dropout is not within 0 to 1 or has no layer to act before, or x, state
            or lengths do not have these shapes and values.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bias: bool,
        dropout: float,
        bidirectional: bool,
        fused: bool,
    ) -> None:
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError(f"sizes must be positive, got {input_size=}, {hidden_size=} and {num_layers=}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be within 0 to 1, got {dropout}")
        if dropout > 0 and num_layers == 1:
            raise ValueError(f"dropout={dropout} acts between layers, and there is only one")
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first=True, dropout=dropout, bidirectional=bidirectional
        )  # fmt: skip
        self.fused = fused

    def cell(self, from_input: Tensor, from_hidden: Tensor, state: States) -> States:
        """The equations of one step: what input and last h contribute (B, G H), and the state -> the next state."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, State]:
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x must be (batch, time, {self.input_size}), got {tuple(x.shape)}")
        start = self._start(x, state)
        if lengths is None:
            outputs, last = self._run(x, start, None, None)
            return outputs, self._public(last)
        lengths = check_lengths(lengths, x)
        outside = (torch.arange(x.shape[1]) >= lengths.unsqueeze(1)).to(x.device).unsqueeze(2)  # (B, T, 1)
        # Emptied beforehand: a NaN behind the end would come back in the gradients, as 0 times NaN.
        outputs, last = self._run(x.masked_fill(outside, 0), start, lengths, outside)
        return outputs, self._public(last)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One time step, x (B, I) -> output (B, H) and the state to hand to the next call.

        Raises:
            ValueError: If the network reads in both directions: it would need the end first.
        """
        if self.bidirectional:
            raise ValueError("bidirectional=True needs the whole sequence and cannot read it step by step")
        if x.ndim != 2:
            raise ValueError(f"x must be (batch, {self.input_size}), one time step, got {tuple(x.shape)}")
        outputs, state = self(x.unsqueeze(1), state)
        return outputs.squeeze(1), cast(State, state)

    def _run(self, x: Tensor, start: States, lengths: Tensor | None, outside: Tensor | None) -> tuple[Tensor, States]:
        """By the path chosen; nothing to read leaves the state as it was."""
        if x.shape[1] == 0:
            return x.new_zeros(x.shape[0], 0, self.hidden_size * (1 + self.bidirectional)), start
        return self._by_kernel(x, start, lengths) if self.fused else self._by_cells(x, start, outside)

    def _by_cells(self, x: Tensor, start: States, outside: Tensor | None) -> tuple[Tensor, States]:
        """The readable path."""
        x = x.transpose(0, 1)  # (T, B, I)
        outside = None if outside is None else outside.transpose(0, 1)  # (T, B, 1)
        weights, states = iter(self.all_weights), zip(*start, strict=True)  # each N D long, layer by layer
        last = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            ways = []
            for backwards in (False, True)[: 1 + self.bidirectional]:
                outputs, state = self._one_way(x, next(states), next(weights), outside, backwards)
                ways.append(outputs)
                last.append(state)
            x = torch.cat(ways, dim=2)  # (T, B, D H)
        return x.transpose(0, 1), tuple(torch.stack(part) for part in zip(*last, strict=True))

    def _one_way(
        self, x: Tensor, state: States, weights: Sequence[Tensor], outside: Tensor | None, backwards: bool
    ) -> tuple[Tensor, States]:
        """One layer in one direction, x (T, B, any) -> (T, B, H)."""
        w_input, w_hidden, *biases = weights
        b_input, b_hidden = biases or (None, None)
        # What the input contributes waits for no earlier step: one product for all of them.
        steps = list(enumerate(F.linear(x, w_input, b_input).unbind(0)))  # T times (B, G H)
        outputs = []
        for t, from_input in reversed(steps) if backwards else steps:
            new = self.cell(from_input, F.linear(state[0], w_hidden, b_hidden), state)
            if outside is not None:  # a row that has ended, or read backwards has not begun, keeps its state
                new = tuple(torch.where(outside[t], old, now) for old, now in zip(state, new, strict=True))
            state = new
            outputs.append(state[0])
        together = torch.stack(outputs[::-1] if backwards else outputs)  # (T, B, H)
        return together if outside is None else together.masked_fill(outside, 0), state

    def _by_kernel(self, x: Tensor, start: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        """The fast path: the same parameters, all layers and steps in one call."""
        kernel, weights = KERNELS[self.mode], [weight for layer in self.all_weights for weight in layer]
        options = (self.bias, self.num_layers, float(self.dropout), self.training, self.bidirectional)
        if lengths is None:
            outputs, *last = kernel(x, self._public(start), weights, *options, self.batch_first)
            return outputs, tuple(last)
        # Packed, the longest row first: every step computes only the rows that still go on. Empty rows cannot be
        # packed; they run for one step of zeros, and what that gave is put back.
        packed = pack_padded_sequence(x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        assert order is not None
        assert back is not None
        arranged = tuple(part.index_select(1, order) for part in start)
        data, *last = kernel(packed.data, packed.batch_sizes, self._public(arranged), weights, *options)
        outputs, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])
        empty = (lengths == 0).to(x.device).unsqueeze(1)  # (B, 1)
        return outputs.masked_fill(empty.unsqueeze(2), 0), tuple(
            torch.where(empty, before, after.index_select(1, back)) for before, after in zip(start, last, strict=True)
        )

    def _start(self, x: Tensor, state: State | None) -> States:
        """The first state as a tuple, checked."""
        shape = (self.num_layers * (1 + self.bidirectional), x.shape[0], self.hidden_size)
        parts = 2 if self.mode == "LSTM" else 1
        if state is None:
            return (x.new_zeros(shape),) * parts
        states = (state,) if isinstance(state, Tensor) else tuple(state)
        if [tuple(part.shape) for part in states] != [shape] * parts:
            wanted = f"a pair of {shape}" if parts == 2 else f"one tensor {shape}"
            raise ValueError(f"state must be {wanted}, got {', '.join(str(tuple(part.shape)) for part in states)}")
        return states

    def _public(self, states: States) -> State:
        """As callers and kernels know it: a pair in an LSTM, else h alone."""
        return cast(State, states if self.mode == "LSTM" else states[0])


def check_lengths(lengths: Tensor | Sequence[int], x: Tensor) -> Tensor:
    """The lengths as a tensor on the CPU, or a complaint.

    Args:
        lengths: Steps of each row, 0 to T.
        x: The sequences, padded at their ends.

    Shapes: lengths (B,), x (B, T, ...).

    Raises:
        ValueError: If they are not B whole numbers within 0 to T.

    Example:
        >>> check_lengths([3, 0], torch.zeros(2, 3, 5))
        tensor([3, 0])
        >>> check_lengths([4, 1], torch.zeros(2, 3, 5))
        Traceback (most recent call last):
            ...
        ValueError: lengths must be within 0 to 3, the steps of x, got 1 to 4
    """
    checked = torch.as_tensor(lengths).cpu()
    if checked.shape != x.shape[:1] or checked.is_floating_point() or checked.dtype == torch.bool:
        wanted = f"{x.shape[0]} whole numbers, one for each row"
        raise ValueError(f"lengths must be {wanted}, got {tuple(checked.shape)} {checked.dtype}")
    if checked.numel() and not (checked.min() >= 0 and checked.max() <= x.shape[1]):
        found = f"{checked.min()} to {checked.max()}"
        raise ValueError(f"lengths must be within 0 to {x.shape[1]}, the steps of x, got {found}")
    return checked.long()
