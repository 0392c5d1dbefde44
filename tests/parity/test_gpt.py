"""GPT-2 against transformers' on random weights."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from dlbook.generate import beam_search, generate
from dlbook.models.gpt import GPT, GPTConfig, convert_transformers

CONFIGS = {
    "small": GPTConfig(vocab_size=23, width=20, num_layers=3, num_heads=5, context=41),
    "as published": GPTConfig(vocab_size=29, width=24, num_layers=2, num_heads=2, context=43),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def pair(config: GPTConfig, dtype: torch.dtype = torch.float32, **options) -> tuple[GPT, GPT2LMHeadModel]:
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_embd=config.width,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_positions=config.context,
            **{"bos_token_id": None, "eos_token_id": None, **options},
        )
    )
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("ln_" in name and "weight" in name), std=0.3)
    theirs, ours = theirs.to(dtype).eval(), GPT(config).to(dtype).eval()
    ours.load_state_dict(convert_transformers(theirs.state_dict()))
    return ours, theirs


@every_config
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_logits_features_and_gradients_equal_transformers(config, dtype, rtol):
    ours, theirs = pair(config, dtype)
    tokens = torch.randint(config.vocab_size, (3, 37))
    mine, output = ours(tokens), theirs(tokens, output_hidden_states=True)
    wanted = output.logits
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    torch.testing.assert_close(ours.features(tokens), output.hidden_states[-1], rtol=rtol, atol=10 * rtol)
    mine.square().mean().backward()
    wanted.square().mean().backward()
    grads = convert_transformers({name: p.grad for name, p in theirs.named_parameters()})
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
    positions = (valid.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        wanted = theirs(tokens, attention_mask=valid.long(), position_ids=positions).logits[valid]
        torch.testing.assert_close(ours(tokens, valid)[valid], wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


def test_dropout_is_at_the_same_places():
    """As many features are set to zero: of the embedding, the weights of attention, and both branches."""
    config = GPTConfig(vocab_size=23, width=20, num_layers=1, num_heads=5, context=41, dropout=0.4)
    assert sum(isinstance(m, torch.nn.Dropout) and m.p == 0.4 for m in GPT(config).modules()) == 2
    assert GPT(config).blocks[0].attention.dropout == 0.4


STOP = 1


@every_config
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("use_cache", [False, True])
def test_greedy_text_equals_transformers(config, padded, use_cache):
    ours, theirs = pair(config, eos_token_id=STOP, pad_token_id=STOP)
    tokens = torch.randint(2, config.vocab_size, (5, 7))
    valid = torch.arange(7) >= torch.tensor([[0], [2], [6], [1], [0]]) if padded else torch.ones(5, 7, dtype=torch.bool)
    tokens = tokens.masked_fill(~valid, STOP)
    wanted = theirs.generate(tokens, attention_mask=valid.long(), do_sample=False, max_new_tokens=30)
    mine = generate(ours, tokens, 30, valid=valid if padded else None, stop=STOP, use_cache=use_cache)
    assert torch.equal(mine, wanted)


@every_config
@pytest.mark.parametrize("stop", [None, STOP])
@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (3, 1.0), (4, 0.0), (5, 2.0), (2, -1.0)])
def test_beams_equal_transformers(config, stop, beams, penalty):
    ours, theirs = pair(config, eos_token_id=stop, pad_token_id=stop)
    tokens = torch.randint(2, config.vocab_size, (6, 5))
    with torch.no_grad():  # flatter, so that stopping is likely and beams cross
        for model in (ours.norm, theirs.transformer.ln_f):
            model.weight *= 0.3
    wanted = theirs.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, num_beams=beams, max_new_tokens=20,
        length_penalty=penalty, early_stopping=False,
    )  # fmt: skip
    assert torch.equal(beam_search(ours, tokens, 20, beams, stop=stop, length_penalty=penalty), wanted)


def test_padded_beams_equal_transformers():
    config = CONFIGS["small"]
    ours, theirs = pair(config, eos_token_id=STOP, pad_token_id=STOP)
    valid = torch.arange(7) >= torch.tensor([[0], [2], [6]])
    tokens = torch.randint(2, config.vocab_size, (3, 7)).masked_fill(~valid, STOP)
    wanted = theirs.generate(
        tokens, attention_mask=valid.long(), do_sample=False, num_beams=3, max_new_tokens=20, early_stopping=False
    )
    assert torch.equal(beam_search(ours, tokens, 20, 3, stop=STOP, valid=valid), wanted)


@pytest.mark.parametrize("beams", [2, 3])
def test_beams_that_end_at_every_rank_equal_transformers(beams):
    """Few kinds of tokens and many rows, so that texts end within the K best and behind them."""
    ours, theirs = pair(GPTConfig(5, 20, 2, 5, 41), eos_token_id=STOP, pad_token_id=STOP)
    with torch.no_grad():
        for norm in (ours.norm, theirs.transformer.ln_f):
            norm.weight *= 0.3
    tokens = torch.randint(5, (60, 4)) // 2 * 2
    wanted = theirs.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, num_beams=beams, max_new_tokens=12,
        early_stopping=False,
    )  # fmt: skip
    assert torch.equal(beam_search(ours, tokens, 12, beams, stop=STOP), wanted)
