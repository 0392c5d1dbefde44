"""Mamba against transformers' on random weights."""

import pytest
import torch
from torch.nn import functional as F
from transformers import MambaConfig as TheirConfig
from transformers import MambaForCausalLM
from transformers.models.mamba import modeling_mamba

from dlbook.models.mamba import SIZES, Mamba, MambaConfig, convert_transformers

CONFIGS = {
    "small": MambaConfig(vocab_size=23, hidden_size=20, num_layers=3, state_size=5, conv_kernel=3, expand=3, dt_rank=4),
    "as published": MambaConfig(vocab_size=29, hidden_size=24, num_layers=2),
}


def reference(config: MambaConfig) -> MambaForCausalLM:
    torch.manual_seed(0)
    theirs = TheirConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        state_size=config.state_size,
        conv_kernel=config.conv_kernel,
        expand=config.expand,
        time_step_rank=config.dt_rank or "auto",
        residual_in_fp32=False,
    )
    model = MambaForCausalLM(theirs)
    for name, parameter in model.named_parameters():
        if "A_log" not in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return model.train()  # without a cache


@pytest.mark.parametrize("name", [name for name in SIZES if name[-1] in "bm"])
def test_published_sizes_have_as_many_parameters(name):
    config = SIZES[name]
    theirs = TheirConfig(hidden_size=config.hidden_size, num_hidden_layers=config.num_layers)  # all else is its default
    with torch.device("meta"):
        counts = [sum(p.numel() for p in model.parameters()) for model in (Mamba(config), MambaForCausalLM(theirs))]
    assert counts[0] == counts[1]


@pytest.fixture
def in_float64(monkeypatch):
    """Theirs computes in float32 here and there, whatever the weights; not so in this test."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(
        modeling_mamba.MambaRMSNorm,
        "forward",
        lambda self, x: F.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon),
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_logits_and_gradients_equal_transformers(config, dtype, rtol, request):
    if dtype == torch.float64:
        request.getfixturevalue("in_float64")
    theirs = reference(config).to(dtype)
    ours = Mamba(config).to(dtype)
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
