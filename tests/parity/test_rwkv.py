"""RWKV against transformers' on random weights."""

import pytest
import torch
from transformers import RwkvConfig as TheirConfig
from transformers import RwkvForCausalLM

from dlbook.models.rwkv import RWKV, RWKVConfig, convert_transformers

CONFIGS = {
    "deep": RWKVConfig(vocab_size=23, hidden_size=20, num_layers=5),
    "wide": RWKVConfig(vocab_size=29, hidden_size=33, num_layers=2),
}


def reference(config: RWKVConfig) -> RwkvForCausalLM:
    torch.manual_seed(0)
    theirs = TheirConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        attention_hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        use_cache=False,
    )
    model = RwkvForCausalLM(theirs)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("ln" in name and "weight" in name), std=0.3)
    return model.train()  # without a cache, and with the weights as they are


@pytest.fixture
def in_float64(monkeypatch):
    """Theirs computes in float32 here and there, whatever the weights; not so in this test."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_logits_and_gradients_equal_transformers(config, dtype, rtol, request):
    if dtype == torch.float64:
        request.getfixturevalue("in_float64")
    theirs = reference(config).to(dtype)
    ours = RWKV(config).to(dtype)
    ours.load_state_dict(convert_transformers(theirs.state_dict()))
    tokens = torch.randint(config.vocab_size, (3, 37))
    mine, wanted = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine.square().mean().backward()
    wanted.square().mean().backward()
    grads = convert_transformers({name: p.grad for name, p in theirs.named_parameters()})
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        scale = grads[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=10 * rtol, atol=10 * rtol * scale, msg=name)
    state, logits = None, []
    with torch.no_grad():
        for token in tokens.unbind(1):
            step, state = ours.step(token, state)
            logits.append(step)
    torch.testing.assert_close(torch.stack(logits, 1), wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
