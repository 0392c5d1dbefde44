"""ResNet against transformers' with the same random weights."""

import pytest
import torch
from transformers import ResNetConfig as TheirConfig
from transformers import ResNetForImageClassification

from dlbook.models.resnet import ResNet, ResNetConfig, convert_transformers

CASES = {
    "basic": ResNetConfig((2, 1, 2), (4, 6, 10)),
    "bottleneck": ResNetConfig((1, 2, 1), (4, 8, 6), bottleneck=True),
    "bottleneck of 2015": ResNetConfig((1, 2, 1), (4, 8, 6), bottleneck=True, stride_first=True),
}


def both(config, dtype):
    torch.manual_seed(0)
    theirs = ResNetForImageClassification(
        TheirConfig(
            num_channels=2,
            embedding_size=config.widths[0],
            hidden_sizes=list(config.out_channels),
            depths=list(config.depths),
            layer_type="bottleneck" if config.bottleneck else "basic",
            downsample_in_bottleneck=config.stride_first,
            num_labels=5,
        )
    )
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics and scales that are not 0 and 1
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    ours = ResNet(config, in_channels=2, num_classes=5)
    ours.load_state_dict(convert_transformers(theirs.state_dict()))
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_same_weights_same_logits(config, dtype, tolerance):
    ours, theirs = both(config, dtype)
    x = torch.randn(3, 2, 33, 40, dtype=dtype)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x).logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_same_gradients_and_statistics_in_training(config):
    ours, theirs = both(config, torch.float64)
    x, y = torch.randn(3, 2, 33, 40, dtype=torch.float64), torch.tensor([4, 0, 2])
    torch.nn.functional.cross_entropy(ours.train()(x), y).backward()
    torch.nn.functional.cross_entropy(theirs.train()(x).logits, y).backward()
    gradients = convert_transformers({name: p.grad for name, p in theirs.named_parameters()})
    assert len(gradients) == len(list(ours.parameters()))
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(ours.state_dict(), {**ours.state_dict(), **convert_transformers(theirs.state_dict())})


def test_a_name_that_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"encoder\.weight' is no name"):
        convert_transformers({"resnet.encoder.weight": torch.zeros(1)})
