import pytest
import torch

from dlbook.data import Batches
from dlbook.models.mae import MAE, SIZES, MAEConfig, patchify, unpatchify
from dlbook.models.vit import ViTConfig
from dlbook.train import fit

TINY = MAEConfig(
    ViTConfig(image_size=8, patch_size=2, width=8, depth=1, num_heads=2),
    decoder_width=4, decoder_depth=1, decoder_heads=1, normalize_pixels=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "count"), [("mae_base", 111_907_840), ("mae_large", 329_541_888), ("mae_huge", 657_074_508)]
)
def test_published_sizes(name, count):
    """Fixed positions counted, as in transformers; test_mae.py under parity counts its base model."""
    with torch.device("meta"):
        model = MAE(SIZES[name])
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == count


def test_patches_are_cut_row_by_row_and_put_together_again():
    images = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6)
    patches = patchify(images, 2)
    assert torch.equal(patches[1, 4].view(2, 2, 3), images[1, :, 2:4, 2:4].permute(1, 2, 0))  # the middle of 3 x 3
    assert torch.equal(unpatchify(patches, 2), images)


def test_hidden_pixels_have_no_influence():
    torch.manual_seed(0)
    model, x, noise = MAE(TINY), torch.rand(2, 3, 8, 8), torch.rand(2, 16)
    prediction, mask = model(x, noise)
    assert mask.sum(1).tolist() == [12, 12]
    assert torch.equal(mask == 0, noise <= noise.sort(1).values[:, 3:4])  # the four lowest stay visible
    hidden = unpatchify(mask[:, :, None].expand(-1, -1, 12), 2)  # (2, 3, 8, 8), 1 where a pixel is hidden
    torch.testing.assert_close(model(x + hidden, noise)[0], prediction)
    assert not torch.allclose(model(x + (1 - hidden) * torch.rand_like(x), noise)[0], prediction)


def test_the_loss_counts_hidden_patches_alone():
    model, x = MAE(TINY), torch.rand(2, 3, 8, 8)
    target, mask = model.targets(x), torch.zeros(2, 16)
    mask[0, 3] = mask[1, 5] = 1
    wrong = target.clone()
    wrong[0, 3] += 1
    wrong[1, 2] += 7  # visible
    assert model.loss((wrong, mask), x).item() == pytest.approx(0.5)


def test_normalised_targets():
    model = MAE(MAEConfig(**{**TINY.__dict__, "normalize_pixels": True}))
    target = model.targets(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 16, dtype=torch.float64))
    torch.testing.assert_close(target.var(-1), torch.ones(2, 16, dtype=torch.float64), rtol=1e-3, atol=0)
    assert model.targets(torch.ones(1, 3, 8, 8)).abs().max() == 0  # a patch of one colour, no division by 0


def test_the_generator_decides_the_masks():
    one, two = (MAE(TINY, generator=torch.Generator().manual_seed(3))(torch.zeros(5, 3, 8, 8))[1] for _ in range(2))
    assert torch.equal(one, two)
    assert len(one.unique(dim=0)) > 1  # each picture has its own


def test_fit_trains_it_and_the_encoder_goes_on_as_a_classifier():
    torch.manual_seed(0)
    model = MAE(TINY, in_channels=1, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(0, 1, 8).expand(12, 1, 8, 8) * torch.rand(12, 1, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = fit(model, Batches(x, x, 6), model.loss, optimizer, epochs=40)["loss"]
    assert losses[-1] < 0.2 * losses[0]
    vit = model.classifier(num_classes=3)
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        tokens = model.patches(images) + model.positions[:, 1:]
        torch.testing.assert_close(vit.features(images), model._encode(tokens))
        vit.patches.linear.weight.zero_()  # a copy: the autoencoder does not change with it
    assert model.patches.linear.weight.abs().max() > 0


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"mask_ratio": 1.0}, r"mask_ratio=1.0 leaves 0 of 196 patches visible"),
        ({"mask_ratio": 0.0}, r"mask_ratio=0.0 leaves 196 of 196 patches visible"),
        ({"decoder_width": 30}, "widths must be multiples of 4, got 768 and 30"),
        ({"decoder_heads": 3}, "decoder_heads=3 does not divide decoder_width=512"),
        ({"decoder_depth": 0}, "sizes must be positive, got .*decoder_depth=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        MAEConfig(**sizes)


def test_other_shapes_are_refused():
    model = MAE(TINY)
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, 8, 8\), got \(2, 1, 8, 8\)"):
        model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"noise must be \(2, 16\), got \(2, 15\)"):
        model(torch.zeros(2, 3, 8, 8), torch.zeros(2, 15))
