"""The focal loss against numbers of torchvision and against cross-entropy."""

import pytest
import torch
from torch.nn import functional as F

from dlbook.layers.losses import sigmoid_focal_loss

LOGITS, TARGETS = torch.tensor([-2.0, -0.5, 0.3, 1.7]), torch.tensor([0.0, 1, 0, 1])


def test_numbers_of_torchvision():
    """torchvision.ops.sigmoid_focal_loss of torchvision 0.28.0, by default and with alpha=-1, gamma=1.5."""
    right = torch.tensor([0.0013526727, 0.0943528935, 0.2114427835, 0.0010008225])
    torch.testing.assert_close(sigmoid_focal_loss(LOGITS, TARGETS), right, rtol=1e-5, atol=0)
    right = torch.tensor([0.0052238181, 0.4783653617, 0.3719703555, 0.0101859542])
    torch.testing.assert_close(sigmoid_focal_loss(LOGITS, TARGETS, alpha=None, gamma=1.5), right, rtol=1e-5, atol=0)


def test_without_focus_it_is_cross_entropy():
    right = F.binary_cross_entropy_with_logits(LOGITS, TARGETS, reduction="none")
    torch.testing.assert_close(sigmoid_focal_loss(LOGITS, TARGETS, alpha=None, gamma=0), right)


def test_wrong_input():
    with pytest.raises(ValueError, match="same shape"):
        sigmoid_focal_loss(LOGITS, TARGETS[:2])
    with pytest.raises(ValueError, match="gamma=-1"):
        sigmoid_focal_loss(LOGITS, TARGETS, gamma=-1)
    with pytest.raises(ValueError, match="alpha=2"):
        sigmoid_focal_loss(LOGITS, TARGETS, alpha=2)
    with pytest.raises(ValueError, match=r"alpha=-0\.1"):
        sigmoid_focal_loss(LOGITS, TARGETS, alpha=-0.1)
    with pytest.raises(ValueError, match=r"logits \(4,\) and targets \(2,\)"):
        sigmoid_focal_loss(LOGITS, TARGETS[:2])


def test_alpha_0_and_1_leave_one_class_and_targets_may_lie_between():
    assert (sigmoid_focal_loss(LOGITS, TARGETS, alpha=1) == 0).tolist() == [True, False, True, False]
    assert (sigmoid_focal_loss(LOGITS, TARGETS, alpha=0) == 0).tolist() == [False, True, False, True]
    p, t = torch.tensor(0.8), torch.tensor(0.3)
    cross_entropy = -(0.3 * p.log() + 0.7 * (1 - p).log())
    wrong = 0.8 * 0.7 + 0.2 * 0.3  # 1 - p_t
    found = sigmoid_focal_loss(p.logit(), t, alpha=0.4, gamma=1.5)
    torch.testing.assert_close(found, cross_entropy * wrong**1.5 * (0.4 * 0.3 + 0.6 * 0.7))
