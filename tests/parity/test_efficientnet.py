"""EfficientNet against transformers' with the same random weights."""

import pytest
import torch
from transformers import EfficientNetConfig as TheirConfig
from transformers import EfficientNetForImageClassification

from dlbook.models.efficientnet import EfficientNet, EfficientNetConfig, Stage, convert_transformers

STAGES = (Stage(1, 3, 1, 8, 1), Stage(6, 3, 2, 16, 2), Stage(4, 5, 2, 24, 2), Stage(4, 3, 1, 16, 1))
OURS = EfficientNetConfig(STAGES, stem=16, head=640, padding="tensorflow", norm_eps=1e-3, norm_momentum=0.99)


def both(dtype):
    torch.manual_seed(0)
    expand, kernel, stride, width, depth = (list(column) for column in zip(*STAGES, strict=True))
    theirs = EfficientNetForImageClassification(
        TheirConfig(
            num_channels=2,
            width_coefficient=0.5,  # their stem and head are 32 and 1280 times this
            depth_coefficient=1.0,
            in_channels=[32, *(2 * w for w in width[:-1])],
            out_channels=[2 * w for w in width],
            kernel_sizes=kernel,
            strides=stride,
            num_block_repeats=depth,
            expand_ratios=expand,
            hidden_dim=640,
            num_labels=5,
        )
    )
    for tensor in theirs.state_dict().values():
        if tensor.ndim > 1:
            tensor.normal_(std=tensor[0].numel() ** -0.5)
        elif tensor.is_floating_point():  # statistics, scales and biases that are not 0 and 1
            tensor.uniform_(0.5, 1.5)
    ours = EfficientNet(OURS, in_channels=2, num_classes=5)
    ours.load_state_dict(convert_transformers(theirs.state_dict(), OURS))
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_same_weights_same_logits(dtype, tolerance):
    ours, theirs = both(dtype)
    x = torch.randn(3, 2, 32, 40, dtype=dtype)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x).logits, rtol=tolerance, atol=tolerance)


def test_same_gradients():
    ours, theirs = both(torch.float64)
    x, y = torch.randn(3, 2, 32, 40, dtype=torch.float64), torch.tensor([4, 0, 2])
    torch.nn.functional.cross_entropy(ours.eval()(x), y).backward()
    torch.nn.functional.cross_entropy(theirs.eval()(x).logits, y).backward()
    gradients = convert_transformers({name: p.grad for name, p in theirs.named_parameters()}, OURS)
    assert len(gradients) == len(list(ours.parameters()))
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_a_name_that_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"encoder\.weight' is no name"):
        convert_transformers({"efficientnet.encoder.weight": torch.zeros(1)}, OURS)
