import pytest
import torch

from dlbook.models.gpt import GPT, SIZES, GPTBlock, GPTConfig

B, L, D, V = 3, 19, 12, 11
CONFIG = GPTConfig(V, D, num_layers=2, num_heads=3, context=24, hidden=20)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = GPT(CONFIG).double()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.5)
    return made


@pytest.fixture
def tokens():
    return torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))


COUNTS = {
    "gpt2": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = GPT(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


@torch.no_grad()
@pytest.mark.parametrize("cut", [0, 1, 7, L - 1, L])
def test_a_cache_carries_on(model, tokens, cut):
    whole = model(tokens)
    first, cache = model.read(tokens[:, :cut])
    second, cache = model.read(tokens[:, cut:], cache)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    cache.truncate(cut)
    for i in range(cut, L):
        logits, cache = model.step(tokens[:, i], cache)
        torch.testing.assert_close(logits, whole[:, i])
    assert len(cache) == L


def test_left_padding_changes_nothing(model, tokens):
    padded = torch.cat([torch.zeros(B, 4, dtype=torch.int64), tokens], 1)
    valid = torch.cat([torch.zeros(B, 4, dtype=torch.bool), torch.ones_like(tokens, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(padded, valid)[:, 4:], model(tokens))
    with torch.no_grad():
        _, cache = model.read(padded[:, :9], valid=valid[:, :9])
        logits, _ = model.step(padded[:, 9], cache)
    torch.testing.assert_close(logits, model(tokens)[:, 5])


def test_a_row_that_is_all_padding_gives_no_nan(model, tokens):
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[1] = False
    logits = model(tokens, valid)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[[0, 2]], model(tokens[[0, 2]]))
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_what_comes_later_changes_nothing_before(model, tokens):
    changed = tokens.clone()
    changed[:, 8] = (changed[:, 8] + 1) % V
    one, two = model(tokens), model(changed)
    torch.testing.assert_close(one[:, :8], two[:, :8])
    assert not torch.isclose(one[:, 8:], two[:, 8:]).all(-1).any()


def test_weights_start_small_and_branches_smaller():
    torch.manual_seed(0)
    model = GPT(GPTConfig(V, 96, num_layers=8, num_heads=3))
    block = model.blocks[3]
    for weight in (block.attention.qkv.weight, block.feedforward.expand.weight, model.position.weight):
        assert 0.0195 < weight.std() < 0.0205
    for weight in (block.attention.out.weight, block.feedforward.reduce.weight):
        assert 0.0048 < weight.std() < 0.0052
    for name, parameter in model.named_parameters():
        assert (parameter == 0).all() or not name.endswith("bias")
    assert not any(name.endswith("bias") for name in GPT(GPTConfig(V, D, 1, 3, bias=False)).state_dict())


def test_dropout_is_for_training(tokens):
    model = GPT(GPTConfig(V, D, 2, 3, 24, dropout=0.3))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_one_batch_is_learned_by_heart(tokens):
    torch.manual_seed(0)
    model = GPT(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # guessing gives log 11 = 2.4


def test_autocast_trains(tokens):
    model = GPT(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tokens).float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_weights_of_another_vocabulary_are_refused(model):
    with pytest.raises(RuntimeError, match=r"size mismatch for embedding\.weight.*\[11, 12\].*\[13, 12\]"):
        GPT(GPTConfig(13, D, 2, 3, 24, hidden=20)).load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in ("vocab_size", "width", "num_layers", "context")
        ),
        ({"width": 36, "num_heads": 5}, "num_heads=5 does not divide width=36"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, x: model(x[0]), r"tokens must be \(batch, length\).*\(19,\)"),
        (lambda model, x: model(x.float()), r"got \(3, 19\) of torch\.float32"),
        (lambda model, x: model.step(x), r"must be \(batch,\).*\(3, 19\)"),
        (lambda model, x: model(x.repeat(1, 2)), "38 tokens are more than the context of 24"),
        (
            lambda model, x: model.read(x, model.read(x)[1]),
            "a context of 24 tokens is full: 19 are there, 19 more came",
        ),
        (lambda model, x: model(x, x[:, 1:] > 0), r"valid must be \(3, 19\) bool, as tokens, got \(3, 18\)"),
        (lambda model, x: GPTBlock(12, 3)(torch.zeros(B, L, 13)), r"\(3, 19, 13\)"),
    ],
)
def test_what_is_no_sequence_is_named(model, tokens, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, tokens)
