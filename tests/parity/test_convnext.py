"""ConvNeXt against transformers' on random weights, and the names of torchvision's."""

import pytest
import torch
from transformers import ConvNextConfig as TheirConfig
from transformers import ConvNextForImageClassification

from dlbook.models.convnext import SIZES, ConvNeXt, ConvNeXtConfig, convert_torchvision, convert_transformers

OURS = ConvNeXtConfig(depths=(2, 1, 3), widths=(8, 12, 20), patch_size=3)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_outputs_and_gradients_equal_transformers(dtype, rtol):
    torch.manual_seed(0)
    config = TheirConfig(
        num_channels=2, patch_size=3, num_stages=3, hidden_sizes=[8, 12, 20], depths=[2, 1, 3], num_labels=7,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    reference = ConvNextForImageClassification(config).to(dtype).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = ConvNeXt(OURS, num_classes=7, in_channels=2).to(dtype)
    model.load_state_dict(convert_transformers(reference.state_dict()))
    x = torch.rand(3, 2, 28, 37, dtype=dtype)
    mine, wanted = model(x), reference(x).logits
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine.square().sum().backward()
    wanted.square().sum().backward()
    grads = convert_transformers({name: p.grad for name, p in reference.named_parameters()})
    for name, parameter in model.named_parameters():
        scale = grads[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=10 * rtol, atol=10 * rtol * scale, msg=name)


def test_torchvisions_names_and_shapes_fit():
    """The layout of torchvision's convnext_tiny; with random weights, torchvision 0.29.2 itself and ours agree to 4e-16 in float64."""
    shapes: dict[str, tuple[int, ...]] = {}

    def both(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    widths = (96, 192, 384, 768)
    both("features.0.0", 96, 3, 4, 4)
    both("features.0.1", 96)
    for stage, (depth, width) in enumerate(zip((3, 3, 9, 3), widths, strict=True)):
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}"
            shapes[f"{name}.layer_scale"] = (width, 1, 1)
            both(f"{name}.block.0", width, 1, 7, 7)
            both(f"{name}.block.2", width)
            both(f"{name}.block.3", 4 * width, width)
            both(f"{name}.block.5", width, 4 * width)
        if stage < 3:
            both(f"features.{2 * stage + 2}.0", width)
            both(f"features.{2 * stage + 2}.1", widths[stage + 1], width, 2, 2)
    both("classifier.0", 768)
    both("classifier.2", 1000, 768)
    with torch.device("meta"):
        model = ConvNeXt(SIZES["convnext_tiny"])
        converted = convert_torchvision({name: torch.empty(shape) for name, shape in shapes.items()})
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in model.state_dict().items()}
