"""The masked autoencoder against transformers' on random weights and the same masks, its loss too."""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from dlbook.models.mae import MAE, SIZES, MAEConfig, convert_transformers, grid_positions
from dlbook.models.vit import ViTConfig

OURS = MAEConfig(
    ViTConfig(image_size=20, patch_size=5, width=24, depth=3, num_heads=4, mlp_ratio=2),
    decoder_width=16,
    decoder_depth=2,
    decoder_heads=2,
    mask_ratio=0.6,
)
THEIRS = {
    "image_size": 20, "patch_size": 5, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "num_channels": 2, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 64, "mask_ratio": 0.6, "layer_norm_eps": 1e-6,
}  # fmt: skip


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_prediction_mask_loss_and_gradients_equal_transformers(dtype, rtol, normalize):
    torch.manual_seed(0)
    reference = ViTMAEForPreTraining(ViTMAEConfig(**THEIRS, norm_pix_loss=normalize)).to(dtype).eval()
    for parameter in reference.parameters():  # the fixed positions too: transformers 5.23 leaves them at 0
        torch.nn.init.normal_(parameter, std=0.2)
    config = MAEConfig(**{**OURS.__dict__, "normalize_pixels": normalize})
    model = MAE(config, in_channels=2).to(dtype)
    model.load_state_dict(convert_transformers(reference.state_dict()))
    x, noise = torch.rand(3, 2, 20, 20, dtype=dtype), torch.rand(3, 16)
    prediction, mask = outputs = model(x, noise)
    theirs = reference(x, noise=noise)
    assert torch.equal(mask, theirs.mask.to(dtype))
    torch.testing.assert_close(prediction, theirs.logits, rtol=rtol, atol=rtol * theirs.logits.abs().max().item())
    loss = model.loss(outputs, x)
    torch.testing.assert_close(loss, theirs.loss, rtol=rtol, atol=0)
    loss.backward()
    theirs.loss.backward()
    grads = convert_transformers({name: p.grad for name, p in reference.named_parameters() if p.requires_grad})
    for name, parameter in model.named_parameters():
        scale = grads[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=10 * rtol, atol=10 * rtol * scale, msg=name)


def test_fixed_positions_equal_transformers():
    """Its own function has the row first; it swaps the halves for the masked autoencoder, as the official weights do."""
    for side, width in ((4, 24), (5, 16)):
        rows_first = build_2d_sinusoidal_position_embedding(side, side, width)
        columns_first = rows_first.roll(width // 2, dims=1)
        torch.testing.assert_close(grid_positions(side, width), columns_first, rtol=0, atol=1e-7)


def test_as_many_numbers_as_transformers():
    with torch.device("meta"):
        reference, model = ViTMAEForPreTraining(ViTMAEConfig()), MAE(SIZES["mae_base"])
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    assert count == sum(p.numel() for p in reference.parameters()) == 111_907_840
    assert sum(p.numel() for p in model.parameters()) == 111_907_840 - 197 * (768 + 512)  # without the positions
