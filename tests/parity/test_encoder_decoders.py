"""T5 and BART against transformers' on random weights."""

import pytest
import torch
from transformers import BartConfig as TheirBartConfig
from transformers import BartForConditionalGeneration, T5ForConditionalGeneration
from transformers import T5Config as TheirT5Config

from dlbook.generate import beam_search, generate
from dlbook.models import bart, t5

B, S, T, V = 3, 13, 9, 23
SOURCE = torch.randint(2, V, (B, S), generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(2, V, (B, T), generator=torch.Generator().manual_seed(1))
VALID = torch.arange(S) < torch.tensor([[13], [9], [4]])
TARGET_VALID = torch.arange(T) < torch.tensor([[9], [5], [7]])
START, STOP = 0, 1


def t5_pair():
    config = TheirT5Config(
        vocab_size=V, d_model=20, d_kv=6, d_ff=28, num_layers=3, num_heads=5, relative_attention_num_buckets=8,
        relative_attention_max_distance=11, decoder_start_token_id=START, eos_token_id=STOP, pad_token_id=0,
    )  # fmt: skip
    ours = t5.T5(t5.T5Config(V, 20, 3, 5, 6, 28, num_buckets=8, max_distance=11))
    return ours, T5ForConditionalGeneration(config), t5.convert_transformers


def bart_pair():
    config = TheirBartConfig(
        vocab_size=V, d_model=20, encoder_layers=3, decoder_layers=3, encoder_attention_heads=5,
        decoder_attention_heads=5, encoder_ffn_dim=28, decoder_ffn_dim=28, max_position_embeddings=31,
        decoder_start_token_id=START, eos_token_id=STOP, pad_token_id=0, bos_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    return (
        bart.Bart(bart.BartConfig(V, 20, 3, 5, 28, 31)),
        BartForConditionalGeneration(config),
        bart.convert_transformers,
    )


PAIRS = {"t5": t5_pair, "bart": bart_pair}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS.keys())
def made(request):
    torch.manual_seed(0)
    return request.param()


def trio(made, dtype):
    ours, theirs, convert = made
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
    if hasattr(theirs, "final_logits_bias"):
        theirs.final_logits_bias.normal_(std=0.3)
    theirs, ours = theirs.to(dtype).eval(), ours.to(dtype).eval()
    ours.load_state_dict(convert(theirs.state_dict()))
    return ours, theirs, convert


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_gradients_equal_transformers(made, dtype, rtol, padded, monkeypatch):
    ours, theirs, convert = trio(made, dtype)
    if dtype == torch.float64 and isinstance(ours, t5.T5):
        from transformers.models.t5 import modeling_t5

        def norm(self, x):  # theirs takes the mean square in float32
            return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)

        monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", norm)
    valid = VALID if padded else torch.ones_like(VALID)
    target_valid = TARGET_VALID if padded else torch.ones_like(TARGET_VALID)
    output = theirs(
        input_ids=SOURCE, attention_mask=valid.long(), decoder_input_ids=TARGET,
        decoder_attention_mask=target_valid.long(),
    )  # fmt: skip
    context = ours.encode(SOURCE, valid if padded else None)
    wanted = output.encoder_last_hidden_state
    torch.testing.assert_close(context[valid], wanted[valid], rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine = ours(SOURCE, TARGET, valid if padded else None, target_valid if padded else None)[target_valid]
    wanted = output.logits[target_valid]
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine.square().mean().backward()
    wanted.square().mean().backward()
    grads = convert({name: p.grad for name, p in theirs.named_parameters()})
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        scale = max(1.0, grads[name].abs().max().item())
        torch.testing.assert_close(parameter.grad, grads[name], rtol=20 * rtol, atol=20 * rtol * scale, msg=name)


@pytest.mark.parametrize("beams", [1, 3])
def test_writing_equals_transformers(made, beams):
    ours, theirs, _ = trio(made, torch.float32)
    with torch.no_grad():  # flatter, so that some rows stop
        for model in (ours, theirs):
            next(model.parameters()).mul_(0.5)
    wanted = theirs.generate(
        SOURCE, attention_mask=VALID.long(), num_beams=beams, do_sample=False, max_new_tokens=20, early_stopping=False,
        length_penalty=1.0, pad_token_id=STOP,
    )  # fmt: skip
    prompt, cache = torch.full((B, 1), START), ours.start(SOURCE, VALID)
    if beams == 1:
        mine = generate(ours, prompt, 20, stop=STOP, cache=cache)
    else:
        mine = beam_search(ours, prompt, 20, beams, stop=STOP, cache=cache)
    assert torch.equal(mine, wanted)
