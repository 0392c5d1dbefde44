"""Operations counted by hand, by ours, and by PyTorch's counter."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlbook.flops import FlopCounter, count_flops
from dlbook.models import alexnet, efficientnet, lenet, resnet, vgg

MODELS = {
    name: (model, sizes[name])
    for model, sizes, names in [
        (alexnet.AlexNet, alexnet.SIZES, ["alexnet", "alexnet_2012", "alexnet_small"]),
        (vgg.VGG, vgg.SIZES, ["vgg16", "vgg_small"]),
        (resnet.ResNet, resnet.SIZES, ["resnet18", "resnet50", "resnet20", "plain20", "resnet_small"]),
        (efficientnet.EfficientNet, efficientnet.SIZES, ["efficientnet_b0", "efficientnet_small"]),
    ]
    for name in names
}


def theirs(model, x):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize(("model", "config"), MODELS.values(), ids=MODELS)
def test_every_classifier_has_pytorchs_count(model, config):
    with torch.device("meta"):
        made, x = model(config).eval(), torch.zeros(2, 3, 64, 96)
    assert count_flops(made, x) == pytest.approx(theirs(made, x), rel=0.01)


@pytest.mark.parametrize(
    ("model", "config", "published"),
    [
        (resnet.ResNet, resnet.SIZES["resnet18"], 1.8),  # He et al. (2015), table 1, multiply-adds in 1e9
        (resnet.ResNet, resnet.SIZES["resnet34"], 3.6),
        (efficientnet.EfficientNet, efficientnet.SIZES["efficientnet_b0"], 0.39),  # Tan & Le (2019), table 2
    ],
)
def test_the_papers_numbers(model, config, published):
    with torch.device("meta"):
        made, x = model(config).eval(), torch.zeros(1, 3, 224, 224)
    assert count_flops(made, x) / 2e9 == pytest.approx(published, rel=0.03)


def test_lenet_by_hand():
    c1, c3 = 28 * 28 * 6 * 25, 10 * 10 * 16 * 6 * 25
    linear = 400 * 120 + 120 * 84 + 84 * 10
    assert count_flops(lenet.LeNet(), torch.zeros(3, 1, 32, 32)) == 2 * 3 * (c1 + c3 + linear)


LAYERS = {
    "grouped": (nn.Conv2d(4, 6, (3, 2), groups=2), (2, 4, 7, 5), 2 * (2 * 6 * 5 * 4) * (2 * 6)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2), (2, 4, 7, 5), 2 * (2 * 6 * 3 * 1) * (4 * 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 7, 5), 2 * (2 * 4 * 7 * 5) * (3 * 9)),
    "one dimension": (nn.Conv1d(4, 6, 3), (2, 4, 7), 2 * (2 * 6 * 5) * (4 * 3)),
    "linear": (nn.Linear(5, 3), (2, 7, 5), 2 * (2 * 7) * 5 * 3),
    "without bias": (nn.Linear(5, 3, bias=False), (7, 5), 2 * 7 * 5 * 3),
}


@pytest.mark.parametrize(("layer", "shape", "count"), LAYERS.values(), ids=LAYERS)
def test_layers_by_hand(layer, shape, count):
    x = torch.zeros(shape)
    assert count_flops(layer, x) == count == theirs(layer, x)
    with torch.inference_mode():  # where PyTorch keeps some operations whole
        assert count_flops(layer, x) == count


class Attention(nn.Module):
    def forward(self, x):
        key, value = x[:, :, 1:], x[:, :, 1:, :6]
        return F.scaled_dot_product_attention(x, key, value)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_by_hand(device):
    x = torch.zeros(2, 3, 5, 8, device=device)
    assert count_flops(Attention(), x) == 2 * (2 * 3) * 5 * 4 * (8 + 6)


def test_a_transformer_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    B, T, C = 3, 5, 8
    count = 2 * B * T * (4 * C * C + 2 * C * 16) + 2 * 2 * B * T * T * C
    assert count_flops(layer, torch.zeros(B, T, C)) == count
    assert count_flops(layer.eval(), torch.zeros(B, T, C)) == count


def test_products_of_vectors_and_kinds_of_operations():
    with FlopCounter() as counter:
        torch.zeros(3, 4) @ torch.zeros(4)
        torch.zeros(4) @ torch.zeros(4)
        torch.zeros(2, 3, 4) @ torch.zeros(2, 4, 5)
        torch.einsum("ij,kj->ik", torch.zeros(2, 3), torch.zeros(5, 3))
    assert counter.total == 2 * (3 * 4 + 4 + 2 * 3 * 4 * 5 + 2 * 3 * 5)
    assert counter.by_operation["mv"] == 24


def test_the_mode_and_the_gradients_are_left_alone():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval()
    count_flops(model, torch.randn(2, 2, 5, 5))
    assert not model.training
    assert model[0].weight.grad is None
    assert model[1].num_batches_tracked == 0
