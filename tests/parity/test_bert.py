"""BERT against transformers' on random weights."""

import pytest
import torch
from transformers import BertConfig as TheirConfig
from transformers import BertForMaskedLM, BertModel

from dlbook.models.bert import Bert, BertConfig, BertMaskedLM, convert_transformers

CONFIG = BertConfig(23, 20, 3, 5, 28, context=17, num_kinds=3)
B, L = 3, 13
TOKENS = torch.randint(23, (B, L), generator=torch.Generator().manual_seed(0))
KINDS = torch.randint(3, (B, L), generator=torch.Generator().manual_seed(1))
VALID = torch.arange(L) < torch.tensor([[13], [9], [4]])


def pair(ours, theirs, dtype):
    torch.manual_seed(0)
    reference = theirs(
        TheirConfig(
            vocab_size=23, hidden_size=20, num_hidden_layers=3, num_attention_heads=5, intermediate_size=28,
            max_position_embeddings=17, type_vocab_size=3, pad_token_id=None,
        )
    )  # fmt: skip
    for name, parameter in reference.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("LayerNorm.weight" in name), std=0.3)
    reference, model = reference.to(dtype).eval(), ours(CONFIG).to(dtype).eval()
    model.load_state_dict(convert_transformers(reference.state_dict()))
    return model, reference


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_transformers(dtype, rtol, padded, masked):
    model, reference = pair(*((BertMaskedLM, BertForMaskedLM) if masked else (Bert, BertModel)), dtype)
    valid = VALID if padded else torch.ones_like(VALID)
    output = reference(TOKENS, attention_mask=valid.long(), token_type_ids=KINDS)
    mine = model(TOKENS, KINDS, valid if padded else None)
    if masked:
        pairs = [(mine[valid], output.logits[valid])]
    else:
        pairs = [(mine[valid], output.last_hidden_state[valid]), (model.pooled(mine), output.pooler_output)]
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    for side in zip(*pairs, strict=True):
        sum(part.square().mean() for part in side).backward()
    grads = convert_transformers({name: p.grad for name, p in reference.named_parameters()})
    assert grads.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        scale = max(1.0, grads[name].abs().max().item())
        torch.testing.assert_close(parameter.grad, grads[name], rtol=20 * rtol, atol=20 * rtol * scale, msg=name)


def test_a_segment_left_out_is_the_first():
    model, reference = pair(Bert, BertModel, torch.float64)
    torch.testing.assert_close(model(TOKENS), reference(TOKENS).last_hidden_state)
