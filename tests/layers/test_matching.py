"""Which boxes learn which object, and which are drawn."""

import torch

from dlbook.layers.matching import match, sample

Y = torch.tensor([[[3.0, 0, 0, 10, 10], [1, 50, 50, 60, 60], [-1, 0, 0, 10, 10]], [[-1.0, 0, 0, 0, 0]] * 3])


def test_labels_by_overlap():
    boxes = torch.tensor([[0.0, 0, 10, 12], [0, 0, 10, 20], [30, 30, 40, 40], [50, 50, 60, 65], [50, 50, 60, 85]])
    labels, rows = match(boxes, Y, low=0.3, high=0.7)
    assert labels.tolist() == [[1, -1, 0, -1, 0], [0] * 5]  # IoU 0.83, 0.5, 0, 0.67, 0.29
    assert rows[0, [0, 1, 3, 4]].tolist() == [0, 0, 1, 1]  # never the empty row, which lies where the first object does
    labels, _ = match(boxes, Y, low=0.3, high=0.7, at_least_one=True)
    assert labels.tolist() == [[1, -1, 0, 1, 0], [0] * 5]


def test_boxes_of_each_image():
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0.0, 0, 10, 10]]])
    assert match(boxes, Y, low=0.5, high=0.5)[0].tolist() == [[1], [0]]


def test_sample_keeps_its_shares():
    labels = torch.tensor([[1] * 20 + [0] * 70 + [-1] * 10, [1] * 3 + [0] * 5 + [-1] * 92])
    index, drawn = sample(labels, 16, 0.25, torch.Generator().manual_seed(0))
    found = labels.gather(1, index).masked_fill(~drawn, -9)
    assert found.tolist() == [[1] * 4 + [0] * 12, [1] * 3 + [0] * 5 + [-9] * 8]
    assert all(len(set(row.tolist())) == 16 for row in index)


def test_sample_draws_every_box_as_often():
    labels = torch.tensor([[1] * 6 + [0] * 4]).expand(4000, 10)
    index, drawn = sample(labels, 4, 0.5, torch.Generator().manual_seed(0))
    often = torch.bincount(index[drawn], minlength=10) / 4000
    torch.testing.assert_close(often, torch.tensor([2 / 6] * 6 + [2 / 4] * 4), rtol=0, atol=0.04)
    again = sample(labels, 4, 0.5, torch.Generator().manual_seed(0))[0]
    assert torch.equal(index, again)
