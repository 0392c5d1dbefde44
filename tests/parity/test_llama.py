"""LLaMA against transformers' on random weights."""

import pytest
import torch
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM
from transformers.models.llama import modeling_llama

from dlbook.layers.position import RotaryScaling, _angles
from dlbook.models.llama import Llama, LlamaConfig, convert_transformers

SCALED = RotaryScaling(8.0, low=1.0, high=4.0, original_context=16)
CONFIGS = {
    "1": LlamaConfig(23, 20, 3, 5, hidden=28, context=41, eps=1e-3),
    "2, grouped": LlamaConfig(29, 24, 2, 6, 2, hidden=20, context=41),
    "3, scaled, tied": LlamaConfig(29, 32, 2, 4, 1, 20, 64, rope_base=300.0, rope_scaling=SCALED, tied=True),
    "interpolated": LlamaConfig(29, 24, 2, 3, hidden=20, context=64, rope_scaling=RotaryScaling(3.0, high=0)),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def reference(config: LlamaConfig) -> LlamaForCausalLM:
    torch.manual_seed(0)
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": config.rope_base}
    if (scaling := config.rope_scaling) is not None:
        rope |= {"rope_type": "linear", "factor": scaling.factor}
        if scaling.high:
            rope |= {"rope_type": "llama3", "low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
            rope |= {"original_max_position_embeddings": scaling.original_context}
    theirs = TheirConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=config.hidden,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads or config.num_heads,
        max_position_embeddings=config.context,
        rms_norm_eps=config.eps,
        rope_parameters=rope,
        tie_word_embeddings=config.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(theirs)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return model.eval()


def pair(config: LlamaConfig, dtype: torch.dtype = torch.float32) -> tuple[Llama, LlamaForCausalLM]:
    theirs, ours = reference(config).to(dtype), Llama(config).to(dtype).eval()
    ours.load_state_dict(convert_transformers(theirs.state_dict(), tied=config.tied))
    return ours, theirs


@pytest.fixture
def in_float64(monkeypatch):
    """Theirs computes some parts in float32, ours takes the angles from a table of it; not so in this test."""

    def forward(self, x, position_ids):
        return self.exact[0][position_ids], self.exact[1][position_ids]

    def norm(self, x):
        return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)

    monkeypatch.setattr(modeling_llama.LlamaRotaryEmbedding, "forward", forward)
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)


def exact_angles(ours: Llama, theirs: LlamaForCausalLM) -> None:
    config = ours.config
    angles = _angles(config.context, config.width // config.num_heads, config.rope_base, config.rope_scaling)
    rotary = ours.blocks[0].attention.rotary
    rotary.cos, rotary.sin = angles.cos(), angles.sin()
    theirs.model.rotary_emb.exact = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


@every_config
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_logits_and_gradients_equal_transformers(config, dtype, rtol, request):
    ours, theirs = pair(config, dtype)
    if dtype == torch.float64:
        request.getfixturevalue("in_float64")
        exact_angles(ours, theirs)
    tokens = torch.randint(config.vocab_size, (3, 37))
    mine, wanted = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine.square().mean().backward()
    wanted.square().mean().backward()
    grads = convert_transformers({name: p.grad for name, p in theirs.named_parameters()}, tied=config.tied)
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        scale = grads[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=20 * rtol, atol=20 * rtol * scale, msg=name)


@every_config
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_equals_transformers(config, side):
    ours, theirs = pair(config)
    tokens = torch.randint(config.vocab_size, (3, 13))
    valid = torch.arange(13) < torch.tensor([[13], [9], [4]])
    valid = valid.flip(1) if side == "left" else valid
    with torch.no_grad():
        wanted = theirs(tokens, attention_mask=valid.long()).logits[valid]
        torch.testing.assert_close(ours(tokens, valid)[valid], wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@every_config
def test_greedy_text_with_a_cache_equals_transformers(config):
    ours, theirs = pair(config)
    tokens = torch.randint(1, config.vocab_size, (3, 7))
    valid = torch.arange(7) >= torch.tensor([[0], [2], [6]])
    tokens = tokens * valid
    wanted = theirs.generate(
        tokens, attention_mask=valid.long(), do_sample=False, max_new_tokens=20, min_new_tokens=20
    )  # fmt: skip
    with torch.no_grad():
        logits, cache = ours.read(tokens, valid=valid)
        new = [logits[:, -1].argmax(-1)]
        for _ in range(19):
            logits, cache = ours.step(new[-1], cache)
            new.append(logits.argmax(-1))
    assert torch.equal(torch.stack(new, 1), wanted[:, 7:])
