"""`dlbook.train.fit` against the loop that a reader would write, on chapter 2's perceptron."""

import torch
from torch import nn

from benchmarks.harness import Row, compare
from dlbook.data import Batches, mnist5k
from dlbook.train import fit

BATCH_SIZE = 64


def run(rounds: int, epochs: int = 2) -> list[Row]:
    """Two peers: the loop that indexes by hand, and one that takes the same batches as fit and waits for no loss."""
    data = mnist5k()
    x, y = data.train_images.flatten(1), data.train_labels
    loss_fn = nn.functional.cross_entropy

    def parts() -> tuple[nn.Module, torch.optim.Optimizer, torch.Generator]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
        return model, torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(1)

    def ours() -> list[float]:
        model, optimizer, generator = parts()
        batches = Batches(x, y, BATCH_SIZE, shuffle=True, generator=generator)
        return fit(model, batches, loss_fn, optimizer, epochs=epochs)["loss"]

    def plain() -> list[float]:
        model, optimizer, generator = parts()
        losses = []
        for _ in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(x), generator=generator).split(BATCH_SIZE):
                loss = loss_fn(model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            losses.append(total / len(x))
        return losses

    def same_batches() -> None:
        model, optimizer, generator = parts()
        batches = Batches(x, y, BATCH_SIZE, shuffle=True, generator=generator)
        for _ in range(epochs):
            total = torch.zeros(())
            for inputs, labels in batches:
                loss = loss_fn(model(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(labels)

    if ours() != plain():
        raise AssertionError("fit and the plain loop give different losses: the comparison is void")
    return [
        compare("fit / plain PyTorch loop (784-256-10, batch 64)", ours, plain, target=1.03, rounds=rounds),
        compare("fit / plain loop over the same Batches", ours, same_batches, target=1.03, rounds=rounds),
    ]
