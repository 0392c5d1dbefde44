import pytest
import torch

from dlbook.models.vit import SIZES, Patches, ViT, ViTConfig

COUNTS = {  # torchvision's documentation for B, L, H; table 1 of DeiT (5 M, 22 M) for Ti and S
    "vit_b_16": 86_567_656,
    "vit_b_32": 88_224_232,
    "vit_l_16": 304_326_632,
    "vit_l_32": 306_535_400,
    "vit_h_14": 632_045_800,
    "vit_ti_16": 5_717_416,
    "vit_s_16": 22_050_664,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = ViT(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_patches_are_what_a_convolution_sees():
    torch.manual_seed(0)
    config = ViTConfig(image_size=12, patch_size=3, width=8, depth=1, num_heads=2)
    patches = Patches(config, in_channels=2).double()
    conv = torch.nn.Conv2d(2, 8, 3, stride=3, dtype=torch.float64)
    conv.load_state_dict({"weight": patches.linear.weight.view(8, 2, 3, 3), "bias": patches.linear.bias})
    x = torch.rand(5, 2, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(patches(x), conv(x).flatten(2).mT)


def test_without_positions_the_order_of_the_patches_does_not_matter():
    torch.manual_seed(0)
    model = ViT(ViTConfig(image_size=6, patch_size=2, width=8, depth=2, num_heads=2), num_classes=3).eval()
    x = torch.rand(2, 3, 6, 6)
    moved = x.roll(2, dims=-1)  # by one patch
    assert not torch.allclose(model(x), model(moved), atol=1e-6)
    torch.nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(x), model(moved))


def test_overfits_one_batch():
    torch.manual_seed(0)
    model = ViT(ViTConfig(image_size=8, patch_size=4, width=16, depth=2, num_heads=2), num_classes=3, in_channels=1)
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 28, 32), (3, 28, 28)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"images must be \(batch, 3, 28, 28\), got \({shape[0]}, "):
        ViT(SIZES["vit_small"])(torch.zeros(shape))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 30}, "patch_size=16 does not divide image_size=30"),
        ({"num_heads": 5}, "num_heads=5 does not divide width=768"),
        ({"depth": 0}, "sizes must be positive, got .*depth=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig(**sizes)
