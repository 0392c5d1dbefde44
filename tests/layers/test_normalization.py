"""Normalisation against torch.nn: outputs, gradients, running statistics, state dicts."""

import pytest
import torch
from torch import Tensor, nn

from dlbook.layers.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm

N, C = 5, 6


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=generator) + 2


def alike(ours: nn.Module, right: nn.Module) -> None:
    """The same weights at random in both, by way of the state dict."""
    for seed, p in enumerate(right.parameters(), 10):
        p.data = numbers(*p.shape, seed=seed)
    ours.double().load_state_dict(right.double().state_dict())


def assert_equal(ours: nn.Module, right: nn.Module, x: Tensor) -> None:
    xs = [x.clone().requires_grad_() for _ in range(2)]
    ys = [module(x) for module, x in zip((ours, right), xs, strict=True)]
    torch.testing.assert_close(*ys, rtol=1e-12, atol=1e-12)
    weights = numbers(*x.shape, seed=7)
    gradients = [
        torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])
        for module, x, y in zip((ours, right), xs, ys, strict=True)
    ]
    assert gradients[0][0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("kind", "places"), [(nn.BatchNorm1d, ()), (nn.BatchNorm2d, (4, 3)), (nn.BatchNorm3d, (2, 4, 3))]
)
def test_batch_norm(kind, places, affine, momentum):
    ours, right = BatchNorm(C, 1e-3, momentum, affine), kind(C, 1e-3, momentum, affine)
    alike(ours, right)
    for seed in range(3):
        assert_equal(ours, right, numbers(N + seed, C, *places, seed=seed))
        torch.testing.assert_close(ours.state_dict(), right.state_dict(), rtol=1e-12, atol=1e-12)
    ours.eval(), right.eval()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    assert_equal(ours, right, numbers(N, C, *places, seed=5))
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


def test_batch_norm_of_one_example_in_evaluation():
    ours, right = BatchNorm(C).double().eval(), nn.BatchNorm1d(C).double().eval()
    torch.testing.assert_close(ours(numbers(1, C)), right(numbers(1, C)))


@pytest.mark.parametrize("shape", [3, (3,), (4, 3)])
def test_layer_norm_and_rms_norm(shape):
    for ours, right in (
        (LayerNorm(shape), nn.LayerNorm(shape)),
        (LayerNorm(shape, eps=0.1), nn.LayerNorm(shape, eps=0.1)),
        (RMSNorm(shape), nn.RMSNorm(shape)),
        (RMSNorm(shape, eps=0.1), nn.RMSNorm(shape, eps=0.1)),
    ):
        alike(ours, right)
        assert_equal(ours, right, numbers(N, C, 4, 3))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("places", [(2,), (7,), (4, 3)])
def test_group_norm(groups, places):
    ours, right = GroupNorm(groups, C, eps=0.01), nn.GroupNorm(groups, C, eps=0.01)
    alike(ours, right)
    assert_equal(ours, right, numbers(N, C, *places))


def test_what_each_is_taken_over():
    """Change one example, one place, one channel: who notices?"""
    x = numbers(N, C, 4).float()
    other = x.clone()
    other[1, 2, 3] += 9
    for module, examples, channels in (
        (BatchNorm(C), N, [2]),
        (GroupNorm(3, C), 1, [2, 3]),
        (GroupNorm(1, C), 1, list(range(C))),
        (LayerNorm(4), 1, [2]),
    ):
        changed = (module(x) - module(other)).abs().amax(2) > 1e-6  # (N, C)
        assert changed.any(1).sum() == examples
        assert changed.any(0).nonzero().flatten().tolist() == channels


@pytest.mark.parametrize(
    "module", [BatchNorm(C), LayerNorm(4), GroupNorm(2, C), RMSNorm(4)], ids=lambda m: type(m).__name__
)
def test_dtype_and_device_are_kept(module):
    x = torch.randn(N, C, 4)
    assert module.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert module.to("meta")(x.to("meta")).shape == x.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BatchNorm(0), "num_features must be at least 1, got 0"),
        (lambda: BatchNorm(C, momentum=1.1), "momentum must be from 0 to 1 or None, got 1.1"),
        (lambda: BatchNorm(C)(torch.zeros(N, 5)), r"x must be \(batch, 6, ...\), got \(5, 5\)"),
        (lambda: BatchNorm(C)(torch.zeros(6)), r"got \(6,\)"),
        (lambda: BatchNorm(C)(torch.zeros(1, C)), "more than one number"),
        (lambda: LayerNorm(()), "sizes of at least 1"),
        (lambda: LayerNorm((4, 3))(torch.zeros(N, 3)), r"must be \(4, 3\), got \(5, 3\)"),
        (lambda: RMSNorm(4)(torch.zeros(N, 3)), r"must be \(4,\), got \(5, 3\)"),
        (lambda: GroupNorm(4, C), "num_groups=4 does not divide num_channels=6"),
        (lambda: GroupNorm(2, C)(torch.zeros(N, 4)), r"x must be \(batch, 6, ...\), got \(5, 4\)"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
