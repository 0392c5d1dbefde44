"""`dlbook.data.Batches` against `DataLoader`, on one shuffled pass over MNIST-5k's training pictures."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Row, compare
from dlbook.data import Batches, mnist5k

BATCH_SIZE = 64


def run(rounds: int, epochs: int = 10) -> list[Row]:
    """The loader without workers, which is its fastest for tensors in memory."""
    data = mnist5k()
    x, y = data.train_images, data.train_labels

    def go_through(batches: Batches | DataLoader[tuple[torch.Tensor, ...]]) -> int:
        return sum(len(labels) for _ in range(epochs) for _, labels in batches)

    batches = Batches(x, y, BATCH_SIZE, shuffle=True, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(x, y), BATCH_SIZE, shuffle=True, generator=torch.Generator().manual_seed(1))
    if not go_through(batches) == go_through(loader) == epochs * len(x):
        raise AssertionError("the two do not give the same number of examples: the comparison is void")
    return [
        compare(
            "Batches / DataLoader (4,000 pictures, batch 64)",
            lambda: go_through(batches),
            lambda: go_through(loader),
            target=0.5,
            rounds=rounds,
        )
    ]
