import pytest
import torch

from dlbook.models.rwkv import RWKV, SIZES, RWKVBlock, RWKVConfig

B, L, H, V = 3, 19, 12, 11
CONFIG = RWKVConfig(vocab_size=V, hidden_size=H, num_layers=2)
# the first exactly, by its released weights; the others as the paper rounds them
COUNTS = {
    "rwkv4_169m": 169_342_464,
    "rwkv4_430m": 4.304e8,
    "rwkv4_1.5b": 1.515e9,
    "rwkv4_3b": 2.985e9,
    "rwkv4_7b": 7.393e9,
    "rwkv4_14b": 1.415e10,
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = RWKV(CONFIG).double()
    for parameter in made.parameters():  # those too that start at 0
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.fixture
def tokens():
    return torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = RWKV(SIZES[name])
    found = sum(p.numel() for p in model.parameters())
    assert found == count if isinstance(count, int) else float(f"{found:.3e}") == count


def one_at_a_time(model, tokens, state=None):
    outputs = []
    for token in tokens.unbind(1):
        output, state = model.step(token, state)
        outputs.append(output)
    return torch.stack(outputs, 1), state


def test_parallel_and_recurrent_forms_are_equal_with_gradients(model, tokens):
    weights = torch.randn(B, L, V, dtype=torch.float64)
    parameters = list(model.parameters())
    logits = model(tokens), one_at_a_time(model, tokens)[0]
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-11)
    for mine, wanted in zip(*(torch.autograd.grad(part, parameters, weights) for part in logits), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item())


@pytest.mark.parametrize("cut", [0, 1, 2, 7, L - 1, L])
def test_a_state_carries_on_in_either_form(model, tokens, cut):
    whole, end = model.read(tokens)
    first, state = model.read(tokens[:, :cut])
    second, after = model.read(tokens[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    if cut < L:
        stepped, after_steps = one_at_a_time(model, tokens[:, cut:], state)
        torch.testing.assert_close(stepped, second)
        assert len(after_steps) == CONFIG.num_layers
        for one, two in zip(after_steps, after, strict=True):
            torch.testing.assert_close(one, two)
    for one, two in zip(after, end, strict=True):
        torch.testing.assert_close(one, two)


def test_what_comes_later_changes_nothing_before(model, tokens):
    changed = tokens.clone()
    changed[:, 8] = (changed[:, 8] + 1) % V
    one, two = model(tokens), model(changed)
    torch.testing.assert_close(one[:, :8], two[:, :8])
    assert not torch.isclose(one[:, 8:], two[:, 8:]).all(-1).any()  # and everything after


def test_weights_start_as_the_authors_do():
    torch.manual_seed(0)
    model = RWKV(RWKVConfig(vocab_size=100, hidden_size=25, num_layers=3))
    for block in model.blocks:
        time, channel = block.time_mixing, block.channel_mixing
        x = torch.randn(2, 7, 25)
        assert torch.equal(block(x), x)  # nothing is added
        for linear in (time.key, time.receptance, time.output, channel.receptance, channel.value):
            assert not linear.weight.any()
        torch.testing.assert_close(time.value.weight @ time.value.weight.mT, torch.eye(25), rtol=0, atol=1e-5)
        torch.testing.assert_close(channel.key.weight.mT @ channel.key.weight, 4 * torch.eye(25), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.head.weight.mT @ model.head.weight, torch.eye(25), rtol=0, atol=1e-5)  # (2 / 2)^2
    assert 0.9e-4 < model.embedding.weight.abs().max() <= 1e-4
    decay = [block.time_mixing.decay for block in model.blocks]
    assert all(d[0] == -5 and d[-1] == 3 for d in decay)
    torch.testing.assert_close(decay[0][12], torch.tensor(8 * 0.5**0.7 - 5))
    torch.testing.assert_close(decay[2][12], torch.tensor(8 * 0.5**2 - 5))
    bonus = model.blocks[1].time_mixing.bonus
    torch.testing.assert_close(bonus[:3], torch.tensor(0.3).log() + torch.tensor([0.0, 0.5, -0.5]))
    torch.testing.assert_close(model.blocks[1].time_mixing.mix_k[5], torch.tensor(0.2 ** (2 / 3)))
    torch.testing.assert_close(model.blocks[1].time_mixing.mix_v[5], torch.tensor(0.2 ** (2 / 3) + 0.15))
    torch.testing.assert_close(model.blocks[1].time_mixing.mix_r[5], torch.tensor(0.2 ** (1 / 3)))
    torch.testing.assert_close(model.blocks[0].channel_mixing.mix_r[5], torch.tensor(0.2))


def test_one_batch_is_learned_by_heart(tokens):
    torch.manual_seed(0)
    model = RWKV(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # guessing gives log 11 = 2.4


def test_bfloat16_stays_near_float64(model, tokens):
    exact = model(tokens)
    for logits in (model.bfloat16()(tokens), one_at_a_time(model, tokens)[0]):
        assert (logits.double() - exact).norm() < 0.05 * exact.norm()


def test_a_state_is_read_in_any_precision(model, tokens):
    _, state = model.float().read(tokens[:, :7])
    model.bfloat16()
    for read, rest in ((model.read, tokens[:, 7:]), (model.step, tokens[:, 7])):
        logits, _ = read(rest, state)
        assert logits.dtype == torch.bfloat16
        assert logits.isfinite().all()


def test_nan_stays_in_its_row(model, tokens):
    block = model.blocks[0]
    x = torch.randn(B, L, H, dtype=torch.float64)
    expected = block(x)
    x[1, 4] = torch.nan
    y = block(x)
    torch.testing.assert_close(y[::2], expected[::2])
    assert y[1, 4:].isnan().any(-1).all()
    torch.testing.assert_close(y[1, :4], expected[1, :4])


def test_autocast_trains(tokens):
    model = RWKV(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tokens).float().square().mean()
        loss = loss + one_at_a_time(model, tokens)[0].float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_layers"])
def test_a_size_that_is_not_positive_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        RWKVConfig(**{name: 0})


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="got layer=2 and num_layers=2"):
        RWKVBlock(H, layer=2, num_layers=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(torch.zeros(B, dtype=torch.int64)), r"tokens must be \(batch, length\).*\(3,\)"),
        (lambda model: model(torch.zeros(B, L)), r"got \(3, 19\) of torch\.float32"),
        (lambda model: model.step(torch.zeros(B, L, dtype=torch.int64)), r"must be \(batch,\).*\(3, 19\)"),
        (lambda model: model.step(torch.zeros(B, dtype=torch.int64), []), r"each of 2 blocks, got 0"),
        (lambda model: model.blocks[0](torch.zeros(B, H)), r"x must be \(batch, length, 12\), got \(3, 12\)"),
        (
            lambda model: model.blocks[0](torch.zeros(B, L, H + 1)),
            r"x must be \(batch, length, 12\), got \(3, 19, 13\)",
        ),
        (lambda model: model.blocks[0].step(torch.zeros(B, L, H)), r"x must be \(batch, 12\), got \(3, 19, 12\)"),
    ],
)
def test_what_is_no_sequence_is_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_state_of_another_batch_is_named():
    block = RWKVBlock(H)
    _, state = block.step(torch.zeros(B, H))
    with pytest.raises(ValueError, match=r"state must be five times \(4, 12\), got \[\(3, 12\), "):
        block.step(torch.zeros(4, H), state)
    with pytest.raises(ValueError, match="state must be five times"):
        block.read(torch.zeros(B, L, H), state[:1])


def test_length_0_and_1(model):
    empty, state = model.read(torch.zeros(B, 0, dtype=torch.int64))
    assert empty.shape == (B, 0, V)
    assert model.read(torch.zeros(B, 1, dtype=torch.int64), state)[0].shape == (B, 1, V)
