"""Metrics against counting by hand."""

import re

import pytest
import torch

from dlbook.train.metrics import accuracy


def test_accuracy_counts_right_answers():
    outputs = torch.tensor([[0.1, 0.9, 0.0], [3.0, 1.0, 2.0], [0.0, 1.0, 5.0], [1.0, 0.0, -1.0]])
    assert accuracy(outputs, torch.tensor([1, 0, 1, 2])).item() == 0.5


def test_accuracy_of_sequences_has_the_classes_on_the_second_axis():
    outputs = torch.zeros(2, 5, 3)  # (N, K, T)
    outputs[0, 4], outputs[1, 2] = 1.0, 1.0
    y = torch.tensor([[4, 4, 4], [2, 2, 0]])
    assert accuracy(outputs, y).item() == pytest.approx(5 / 6)


def test_labels_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\) do not go with labels of shape \(4, 1\)"):
        accuracy(torch.zeros(4, 3), torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"\(4,\) do not go with labels of shape \(4,\)"):
        accuracy(torch.zeros(4), torch.zeros(4))


@pytest.mark.parametrize(("outputs", "y"), [((0, 3), (0,)), ((2, 0), (2,)), ((2, 3, 0), (2, 0))])
def test_nothing_has_no_accuracy(outputs, y):
    with pytest.raises(ValueError, match=re.escape(f"shape {outputs} hold no example or no class")):
        accuracy(torch.zeros(outputs), torch.zeros(y))
