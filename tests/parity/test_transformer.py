"""The Transformer of 2017 against torch.nn.Transformer, on embeddings instead of tokens."""

import pytest
import torch
from torch import nn

from dlbook.models.transformer import Transformer, TransformerConfig, convert_torch

B, S, T, D, N, H = 3, 7, 5, 12, 3, 20


class Identity(nn.Module):
    """What was embedded already."""

    def forward(self, x):
        return x


@pytest.fixture
def pair():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, N, H, 0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=None, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, N, H, 0.0, batch_first=True), 2, norm=None)
    theirs = nn.Transformer(D, N, custom_encoder=encoder, custom_decoder=decoder, batch_first=True).double()
    for name, parameter in theirs.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.4)
    ours = Transformer(TransformerConfig(11, D, 2, N, H)).double()
    missing, unexpected = ours.load_state_dict(convert_torch(theirs.state_dict()), strict=False)
    assert missing == ["embedding.weight"]
    assert not unexpected
    return ours, theirs


VALID = torch.arange(S) < torch.tensor([[7], [3], [5]])
TARGET_VALID = torch.arange(T) < torch.tensor([[5], [4], [2]])


@pytest.mark.parametrize("padded", [False, True])
def test_features_and_gradients_equal_torch(pair, padded):
    ours, theirs = pair
    source, target = torch.randn(B, S, D, dtype=torch.float64), torch.randn(B, T, D, dtype=torch.float64)
    masks = {"tgt_mask": nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)}
    if padded:
        hide = {"src": ~VALID, "memory": ~VALID, "tgt": ~TARGET_VALID}
        masks |= {  # of the kind that the other mask is
            f"{name}_key_padding_mask": torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf)
            for name, mask in hide.items()
        }
    wanted = theirs(source, target, **masks)
    x, y, valid, target_valid = source, target, VALID if padded else None, TARGET_VALID if padded else None
    for block in ours.encoder:
        x = block(x, valid)
    for block in ours.decoder:
        y = block(y, x, target_valid, valid)
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-11)
    weights = torch.randn_like(y)
    if padded:
        weights = weights * TARGET_VALID.unsqueeze(2)
    (y * weights).sum().backward()
    (wanted * weights).sum().backward()
    grads = convert_torch({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        if name != "embedding.weight":
            torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-8, atol=1e-9, msg=name)
