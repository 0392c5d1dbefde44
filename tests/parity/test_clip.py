"""CLIP against transformers' on random weights."""

import pytest
import torch
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPModel

from dlbook.models.clip import CLIP, CLIPConfig, TowerConfig, contrastive_loss, convert_transformers

B, V, L = 3, 23, 7
IMAGES = torch.randn(B, 2, 12, 12, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[5, 3, 8, 2, 9, 11, 22], [1, 4, 22, 22, 22, 22, 22], [7, 7, 1, 3, 22, 0, 0]])


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_loss_and_gradients_equal_transformers(dtype, rtol, padded):
    torch.manual_seed(0)
    text = {
        "vocab_size": V, "hidden_size": 12, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3,
        "max_position_embeddings": 9, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 20, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 5, "image_size": 12,
        "patch_size": 4, "num_channels": 2,
    }  # fmt: skip
    theirs = CLIPModel(TheirConfig(text_config=text, vision_config=vision, projection_dim=10))
    for name, parameter in theirs.named_parameters():
        if name != "logit_scale":
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
    ours = CLIP(CLIPConfig(TowerConfig(20, 3, 5), TowerConfig(12, 2, 3), 12, 4, 2, V, 9, 10)).to(dtype)
    theirs = theirs.to(dtype).eval()
    ours.load_state_dict(convert_transformers(theirs.state_dict()))
    valid = TOKENS != 0 if padded else torch.ones_like(TOKENS, dtype=torch.bool)
    output = theirs(
        input_ids=TOKENS, pixel_values=IMAGES.to(dtype), attention_mask=valid.long() if padded else None,
        return_loss=True,
    )  # fmt: skip
    mine = ours(IMAGES.to(dtype), TOKENS, valid if padded else None)
    wanted = output.logits_per_image
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    torch.testing.assert_close(ours.embed_texts(TOKENS), output.text_embeds, rtol=rtol, atol=rtol)
    torch.testing.assert_close(ours.embed_images(IMAGES.to(dtype)), output.image_embeds, rtol=rtol, atol=rtol)
    loss = contrastive_loss(mine)
    torch.testing.assert_close(loss, output.loss, rtol=rtol, atol=rtol)
    loss.backward()
    output.loss.backward()
    grads = convert_transformers({name: p.grad for name, p in theirs.named_parameters()})
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        scale = max(1.0, grads[name].abs().max().item())
        torch.testing.assert_close(parameter.grad, grads[name], rtol=50 * rtol, atol=50 * rtol * scale, msg=name)
