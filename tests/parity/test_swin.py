"""Swin against transformers' on random weights, and the names of torchvision's."""

import pytest
import torch
from transformers import SwinConfig as TheirConfig
from transformers import SwinForImageClassification

from dlbook.models.swin import SIZES, Swin, SwinConfig, convert_torchvision, convert_transformers

OURS = SwinConfig(width=8, depths=(2, 3), num_heads=(2, 4), window=3, patch_size=2, mlp_ratio=3)


# 13 x 19 pixels: filled up to whole patches, 7 x 10 tokens to whole windows, then an odd number is merged
@pytest.mark.parametrize("size", [(24, 36), (13, 19)], ids=["whole windows", "filled up"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_outputs_and_gradients_equal_transformers(dtype, rtol, size):
    torch.manual_seed(0)
    config = TheirConfig(
        image_size=12, num_channels=2, patch_size=2, embed_dim=8, depths=[2, 3], num_heads=[2, 4], window_size=3,
        mlp_ratio=3.0, drop_path_rate=0.0, num_labels=7,
    )  # fmt: skip
    reference = SwinForImageClassification(config).to(dtype).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = Swin(OURS, num_classes=7, in_channels=2).to(dtype)
    model.load_state_dict(convert_transformers(reference.state_dict()))
    x = torch.rand(3, 2, *size, dtype=dtype)
    mine, wanted = model(x), reference(x).logits
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine.square().sum().backward()
    wanted.square().sum().backward()
    grads = convert_transformers({name: p.grad for name, p in reference.named_parameters()})
    for name, parameter in model.named_parameters():
        scale = grads[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=10 * rtol, atol=10 * rtol * scale, msg=name)


def test_torchvisions_names_and_shapes_fit():
    """The layout of torchvision's swin_t; with random weights, torchvision 0.29.2 itself and ours agree to 4e-16 in float64."""
    shapes: dict[str, tuple[int, ...]] = {}

    def both(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    both("features.0.0", 96, 3, 4, 4)
    both("features.0.2", 96)
    for stage, (depth, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        width = 96 * 2**stage
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}"
            both(f"{name}.norm1", width)
            both(f"{name}.norm2", width)
            both(f"{name}.attn.qkv", 3 * width, width)
            both(f"{name}.attn.proj", width, width)
            shapes[f"{name}.attn.relative_position_bias_table"] = (13 * 13, heads)
            shapes[f"{name}.attn.relative_position_index"] = (49 * 49,)
            both(f"{name}.mlp.0", 4 * width, width)
            both(f"{name}.mlp.3", width, 4 * width)
        if stage < 3:
            shapes[f"features.{2 * stage + 2}.reduction.weight"] = (2 * width, 4 * width)
            both(f"features.{2 * stage + 2}.norm", 4 * width)
    both("norm", 768)
    both("head", 1000, 768)
    with torch.device("meta"):
        model = Swin(SIZES["swin_t"])
        converted = convert_torchvision({name: torch.empty(shape) for name, shape in shapes.items()})
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in model.state_dict().items()}
