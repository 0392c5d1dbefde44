"""Names and shapes of torchvision's weights, which ours load as they are.

torchvision cannot be imported beside every build of PyTorch. So what is kept here is a digest of the sorted lines
"name shape" of its models' state dicts, taken from torchvision 0.28.0.
"""

import hashlib

import pytest
import torch

from dlbook.models import alexnet, efficientnet, resnet, vgg

DIGESTS = {
    alexnet.AlexNet: (alexnet.SIZES, {"alexnet": "935c1ea73a7869ee"}),
    vgg.VGG: (
        vgg.SIZES,
        {
            "vgg11": "b11acd4f90d9643f",
            "vgg13": "79ca8fd7a1480aa7",
            "vgg16": "ba63c2556d912509",
            "vgg19": "393fac8b08b63fbe",
            "vgg11_bn": "56ed5816909a8132",
            "vgg13_bn": "e4f52ce016e5e82f",
            "vgg16_bn": "86bad13b66635552",
            "vgg19_bn": "faf0fdbb92f698c6",
        },
    ),
    resnet.ResNet: (
        resnet.SIZES,
        {
            "resnet18": "5191d63ec3989592",
            "resnet34": "f8de2a1812ef85e4",
            "resnet50": "a87e91cd6bd1f939",
            "resnet101": "dbc3ca74fffafc72",
            "resnet152": "7d486dbdc941506e",
        },
    ),
    efficientnet.EfficientNet: (
        efficientnet.SIZES,
        {
            "efficientnet_b0": "98a6d92c040c4bca",
            "efficientnet_b1": "391b882d956123d4",
            "efficientnet_b2": "35d7528e6debccfe",
            "efficientnet_b3": "cf2f96a4b05e716c",
            "efficientnet_b4": "f55c08c98724c959",
            "efficientnet_b5": "16e12ed3d4b769a0",
            "efficientnet_b6": "63246a7d29b7e31c",
            "efficientnet_b7": "f44ee38885b1d8f5",
        },
    ),
}
CASES = {
    name: (model, sizes[name], digest) for model, (sizes, them) in DIGESTS.items() for name, digest in them.items()
}


@pytest.mark.parametrize(("model", "config", "digest"), CASES.values(), ids=CASES)
def test_names_and_shapes_are_torchvisions(model, config, digest):
    with torch.device("meta"):
        state = model(config).state_dict()
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest
