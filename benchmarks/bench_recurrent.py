"""A training step of chapter 4's LSTM and GRU against torch.nn's, with the same weights and sequences.

Both sides call the same kernels; what is compared is all that stands around them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.harness import Row, compare
from dlbook.models.gru import GRU
from dlbook.models.lstm import LSTM

TARGET = 1.05  # no slower, within what two runs of the same code differ by
STEPS, FEATURES, HIDDEN, LAYERS = 64, 64, 256, 2


def packed(model: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """Outputs of torch.nn's on rows that end early."""
    together = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(model(together)[0], batch_first=True, total_length=x.shape[1])[0]


def run(rounds: int, batch: int = 64) -> list[Row]:
    """Forward, backward and optimiser: LSTM and GRU, and LSTM on rows of different lengths."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, STEPS, FEATURES, generator=generator)
    lengths = torch.randint(1, STEPS + 1, (batch,), generator=generator)
    sizes = f"{FEATURES}-{HIDDEN}, {LAYERS} layers, {STEPS} steps, batch {batch}"

    def whole(model: nn.Module) -> Tensor:
        return model(x)[0]

    rows = []
    for name, kind, peer_kind, our_outputs, peer_outputs in (
        ("LSTM", LSTM, nn.LSTM, whole, whole),
        ("GRU", GRU, nn.GRU, whole, whole),
        (
            "LSTM on different lengths",
            LSTM,
            nn.LSTM,
            lambda model: model(x, lengths=lengths)[0],
            lambda model: packed(model, x, lengths),
        ),
    ):
        ours, peer = kind(FEATURES, HIDDEN, LAYERS), peer_kind(FEATURES, HIDDEN, LAYERS, batch_first=True)
        ours.load_state_dict(peer.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(our_outputs(ours), peer_outputs(peer), rtol=1e-4, atol=1e-5)
        functions = step(ours, our_outputs), step(peer, peer_outputs)
        rows.append(compare(f"{name} / torch.nn ({sizes}), training step", *functions, target=TARGET, rounds=rounds))
    return rows


def step(model: nn.Module, outputs: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
    """One training step of one side."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def once() -> None:
        optimizer.zero_grad()
        outputs(model).square().mean().backward()
        optimizer.step()

    return once
