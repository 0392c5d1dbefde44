"""The book's reverse-mode engine against torch, on training steps of chapter 2's perceptron from the same start.

Twice torch's time is the target: then the chapter trains with its own engine in its own time.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Row, compare
from dlbook import autograd
from dlbook.autograd import Array
from dlbook.data import mnist5k

BATCH_SIZE = 64


def weights() -> list[np.ndarray]:
    """First-layer weights and biases, then the second's, as float32."""
    torch.manual_seed(0)
    layers = nn.Linear(784, 256), nn.Linear(256, 10)
    return [p.detach().numpy().copy() for layer in layers for p in (layer.weight, layer.bias)]


def engine_steps(x: np.ndarray, y: np.ndarray, optimizer: type, **settings: float) -> Callable[[], list[float]]:
    """Train with `dlbook.autograd`, one pass."""

    def steps() -> list[float]:
        w1, b1, w2, b2 = parameters = [Array(w.T if w.ndim == 2 else w, requires_grad=True) for w in weights()]
        updater = optimizer(parameters, **settings)
        losses = []
        for start in range(0, len(x), BATCH_SIZE):
            hidden = autograd.relu(Array(x[start : start + BATCH_SIZE]) @ w1 + b1)  # (B, 256)
            loss = autograd.cross_entropy(hidden @ w2 + b2, y[start : start + BATCH_SIZE])
            loss.backward()
            updater.step()
            losses.append(loss.item())
        return losses

    return steps


def torch_steps(x: np.ndarray, y: np.ndarray, optimizer: type, **settings: float) -> Callable[[], list[float]]:
    """The same with torch."""
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def steps() -> list[float]:
        model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
        with torch.no_grad():
            for p, w in zip(model.parameters(), weights(), strict=True):
                p.copy_(torch.from_numpy(w))
        updater = optimizer(model.parameters(), **settings)
        losses = []
        for start in range(0, len(x), BATCH_SIZE):
            loss = nn.functional.cross_entropy(
                model(inputs[start : start + BATCH_SIZE]), labels[start : start + BATCH_SIZE]
            )
            updater.zero_grad()
            loss.backward()
            updater.step()
            losses.append(loss.item())
        return losses

    return steps


def run(rounds: int, examples: int = 4000) -> list[Row]:
    """Plain gradient descent and Adam."""
    data = mnist5k()
    x, y = data.train_images[:examples].flatten(1).numpy(), data.train_labels[:examples].numpy()
    rows = []
    for name, engine, peer, rate in (
        ("SGD", autograd.SGD, torch.optim.SGD, 0.1),
        ("Adam", autograd.Adam, torch.optim.Adam, 0.001),
    ):
        ours, theirs = engine_steps(x, y, engine, learning_rate=rate), torch_steps(x, y, peer, lr=rate)
        if not np.allclose(ours(), theirs(), rtol=1e-3):
            raise AssertionError(f"the engine and torch give different losses with {name}: the comparison is void")
        rows.append(compare(f"autograd / torch, {name} (784-256-10, batch 64)", ours, theirs, target=2, rounds=rounds))
    return rows
