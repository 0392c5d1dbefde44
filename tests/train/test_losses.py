"""Losses against torch, or against their papers' formulas written out with loops; gradients as well."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dlbook.layers.losses import sigmoid_focal_loss
from dlbook.train.losses import (
    cross_entropy,
    focal_loss,
    huber_loss,
    info_nce,
    mse_loss,
    nt_xent,
    supervised_contrastive,
    triplet_loss,
)

N, K, D = 7, 5, 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def classes(*shape: int) -> Tensor:
    return torch.randint(K, shape, generator=torch.Generator().manual_seed(3))


def assert_equal(ours, right, *inputs: Tensor) -> None:
    """Both functions of the inputs: same value and same gradients, to 1e-12."""
    values = [function(*inputs) for function in (ours, right)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(value, inputs) for value in values]
    for a, b in zip(*gradients, strict=True):
        assert b.abs().max() > 1e-4, "no gradient: the comparison is void"
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("extra", [(), (4,), (4, 2)])
def test_cross_entropy_is_that_of_torch(smoothing, extra):
    y, p = classes(N, *extra), numbers(N, K, *extra, seed=1).detach().softmax(1)
    for targets in (y, p):
        assert_equal(
            lambda z, targets=targets: cross_entropy(z, targets, label_smoothing=smoothing),
            lambda z, targets=targets: F.cross_entropy(z, targets, label_smoothing=smoothing),
            numbers(N, K, *extra),
        )


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_cross_entropy_does_not_overflow(scale):
    z = (torch.tensor([[1.0, 0.0, -1.0]]) * scale).requires_grad_()
    for loss, right in ((cross_entropy, scale), (focal_loss, scale)):
        value = loss(z, torch.tensor([1]))
        assert value.item() == pytest.approx(right)
        (gradient,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0, 0.0]]))


def test_targets_need_not_sum_to_1():
    """Which is how torch smooths them, too."""
    targets = numbers(N, K, seed=1).detach().softmax(1) * 0.5
    ours = cross_entropy(numbers(N, K), targets, label_smoothing=0.2)
    right = F.cross_entropy(numbers(N, K), targets, label_smoothing=0.2)
    torch.testing.assert_close(ours, right, rtol=0, atol=1e-12)


def test_errors_are_those_of_torch():
    for ours, right in (
        (mse_loss, F.mse_loss),
        (huber_loss, F.huber_loss),
        (lambda a, b: huber_loss(a, b, delta=0.3), lambda a, b: F.huber_loss(a, b, delta=0.3)),
    ):
        assert_equal(ours, right, numbers(N, D), numbers(N, D, seed=1))
    assert huber_loss(torch.tensor([1.0]), torch.tensor([0.0])).item() == 0.5  # where both pieces meet


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_what_the_paper_writes(gamma):
    y = classes(N, 4)

    def right(z: Tensor) -> Tensor:
        p = z.softmax(1)
        return sum(-((1 - p[i, y[i, j], j]) ** gamma) * p[i, y[i, j], j].log() for i in range(N) for j in range(4)) / (
            4 * N
        )

    assert_equal(lambda z: focal_loss(z, y, gamma=gamma), right, numbers(N, K, 4))


def test_focal_loss_of_two_classes_is_that_of_a_detector():
    z, y = numbers(N), classes(N) % 2
    both = torch.stack([torch.zeros_like(z), z], dim=1)
    right = sigmoid_focal_loss(z, y.double(), alpha=None).mean()
    torch.testing.assert_close(focal_loss(both, y), right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_of_what_is_sure_has_no_gradient(gamma):
    z = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = focal_loss(z, torch.tensor([0]), gamma=gamma)
    loss.backward()
    assert loss.item() == 0
    assert z.grad.abs().max() == 0


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return a @ b / (a.norm() * b.norm())


@pytest.mark.parametrize("tau", [0.5, 0.07])
def test_nt_xent_is_what_the_paper_writes(tau):
    def right(one: Tensor, other: Tensor) -> Tensor:
        z = [*one, *other]
        total = 0
        for i in range(2 * N):
            j = (i + N) % (2 * N)
            below = sum((cosine(z[i], z[k]) / tau).exp() for k in range(2 * N) if k != i)
            total = total - ((cosine(z[i], z[j]) / tau).exp() / below).log()
        return total / (2 * N)

    assert_equal(lambda a, b: nt_xent(a, b, temperature=tau), right, numbers(N, D), numbers(N, D, seed=1))


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_is_what_the_paper_writes(symmetric):
    def one_way(queries: Tensor, keys: Tensor) -> Tensor:
        total = 0
        for i in range(N):
            below = sum((cosine(queries[i], keys[k]) / 0.2).exp() for k in range(N))
            total = total - ((cosine(queries[i], keys[i]) / 0.2).exp() / below).log()
        return total / N

    def right(a: Tensor, b: Tensor) -> Tensor:
        return (one_way(a, b) + one_way(b, a)) / 2 if symmetric else one_way(a, b)

    ours = lambda a, b: info_nce(a, b, temperature=0.2, symmetric=symmetric)  # noqa: E731
    assert_equal(ours, right, numbers(N, D), numbers(N, D, seed=1))


@pytest.mark.parametrize("margin", [1.0, 0.4])
def test_triplet_loss_is_that_of_torch(margin):
    assert_equal(
        lambda a, p, n: triplet_loss(a, p, n, margin=margin),
        lambda a, p, n: F.triplet_margin_loss(a, p, n, margin=margin),
        numbers(N, D),
        numbers(N, D, seed=1),
        numbers(N, D, seed=2),
    )


def test_supervised_contrastive_is_what_the_paper_writes():
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 4])  # two examples are alone in their classes

    def right(z: Tensor) -> Tensor:
        losses = []
        for i in range(N):
            same = [p for p in range(N) if p != i and labels[p] == labels[i]]
            below = sum((cosine(z[i], z[k]) / 0.3).exp() for k in range(N) if k != i)
            if same:
                losses.append(-sum(((cosine(z[i], z[p]) / 0.3).exp() / below).log() for p in same) / len(same))
        return sum(losses) / len(losses)

    assert_equal(lambda z: supervised_contrastive(z, labels, temperature=0.3), right, numbers(N, D))


def test_supervised_contrastive_of_pairs_is_nt_xent():
    a, b = numbers(N, D), numbers(N, D, seed=1)
    labels = torch.arange(N).repeat(2)
    found = supervised_contrastive(torch.cat([a, b]), labels, temperature=0.5)
    torch.testing.assert_close(found, nt_xent(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3])
def test_supervised_contrastive_without_any_pair_is_0(n):
    z = numbers(n, D)
    loss = supervised_contrastive(z, torch.arange(n))
    loss.backward()
    assert loss.item() == 0
    assert z.grad.abs().max() == 0


def test_embeddings_that_agree_are_better():
    z = numbers(N, D).detach()
    shuffled = z.roll(1, 0)
    for loss in (nt_xent, info_nce):
        assert loss(z, z) < loss(z, shuffled)
    assert math.isfinite(nt_xent(torch.zeros(N, D), torch.zeros(N, D)))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: cross_entropy(torch.zeros(4), torch.zeros(4)), r"\(examples, classes, ...\), got \(4,\)"),
        (lambda: cross_entropy(torch.zeros(4, 3), classes(3)), r"targets \(3,\) do not fit logits \(4, 3\)"),
        (lambda: cross_entropy(torch.zeros(4, 3), torch.zeros(4, 2)), r"outputs \(4, 3\) and targets \(4, 2\)"),
        (lambda: cross_entropy(torch.zeros(4, 3), classes(4), label_smoothing=1.1), "from 0 to 1, got 1.1"),
        (lambda: mse_loss(torch.zeros(4, 1), torch.zeros(4)), r"outputs \(4, 1\) and targets \(4,\)"),
        (lambda: huber_loss(torch.zeros(4, 1), torch.zeros(4)), "must have the same shape"),
        (lambda: huber_loss(torch.zeros(4), torch.zeros(4), delta=0.0), "delta must be positive, got 0.0"),
        (lambda: focal_loss(torch.zeros(4, 3), classes(4, 3)), r"targets \(4, 3\) do not fit logits \(4, 3\)"),
        (lambda: focal_loss(torch.zeros(4, 3), classes(4), gamma=-1.0), "gamma must be at least 0, got -1.0"),
        (lambda: nt_xent(torch.zeros(4, 3), torch.zeros(5, 3)), r"\(N, D\), got \(4, 3\) and \(5, 3\)"),
        (lambda: nt_xent(torch.zeros(4, 3), torch.zeros(4, 3), temperature=0.0), "temperature must be positive"),
        (lambda: info_nce(torch.zeros(4), torch.zeros(4)), r"\(N, D\), got \(4,\) and \(4,\)"),
        (lambda: triplet_loss(*[torch.zeros(4, 3)] * 2, torch.zeros(4, 2)), r"got \(4, 3\) and \(4, 2\)"),
        (lambda: triplet_loss(*[torch.zeros(4, 3)] * 3, margin=-1.0), "margin must be positive, got -1.0"),
        (lambda: supervised_contrastive(torch.zeros(4, 3), classes(3)), r"labels must be \(4,\), .* got \(3,\)"),
    ],
)
def test_wrong_input(loss, message):
    with pytest.raises(ValueError, match=message):
        loss()
