import pytest
import torch

from dlbook.models.mamba import SIZES, Mamba, MambaBlock, MambaConfig

B, L, H, V = 3, 19, 12, 11
CONFIG = MambaConfig(vocab_size=V, hidden_size=H, num_layers=2, state_size=5, conv_kernel=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Mamba(CONFIG).double()
    for name, parameter in made.named_parameters():
        if "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.fixture
def tokens():
    return torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "count"), {"mamba_130m": 129_135_360}.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = Mamba(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


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


@pytest.mark.parametrize("cut", [0, 1, 2, 7, L - 1, L])  # 1 is shorter than what the convolution remembers
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
    model = Mamba(MambaConfig(vocab_size=V, hidden_size=64, num_layers=4))
    block = model.blocks[2]
    dt = torch.nn.functional.softplus(block.dt_proj.bias)
    assert 0.001 <= dt.min() < 0.0015
    assert 0.07 < dt.max() <= 0.1
    assert 0.007 < dt.log().mean().exp() < 0.014  # the middle of both logarithms is 0.01
    torch.testing.assert_close(-block.A_log.exp(), -torch.arange(1.0, 17).expand(128, 16))
    assert block.dt_rank == 4
    assert block.dt_proj.weight.abs().max() <= 0.5
    assert abs(model.embedding.weight.std() - 0.02) < 0.002
    bound = 128**-0.5 / 2  # of a linear layer on 128 channels, over the root of 4 blocks
    assert 0.98 * bound < block.out_proj.weight.abs().max() <= bound
    torch.testing.assert_close(model.blocks[0].D, torch.ones(128))


def test_one_batch_is_learned_by_heart(tokens):
    torch.manual_seed(0)
    model = Mamba(CONFIG)
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
    model = Mamba(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tokens).float().square().mean()
        loss = loss + one_at_a_time(model, tokens)[0].float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_layers", "state_size", "conv_kernel", "expand"])
def test_a_size_that_is_not_positive_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        MambaConfig(**{name: 0})


def test_a_negative_rank_is_named():
    with pytest.raises(ValueError, match="dt_rank must be at least 0, got -1"):
        MambaConfig(dt_rank=-1)


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
    block = MambaBlock(H, state_size=5, conv_kernel=3)
    _, state = block.step(torch.zeros(B, H))
    with pytest.raises(ValueError, match=r"shapes \(\(4, 2, 24\), \(4, 5, 24\)\), got \(\(3, 2, 24\), \(3, 5, 24\)\)"):
        block.step(torch.zeros(4, H), state)
    with pytest.raises(ValueError, match="state must be of shapes"):
        block.read(torch.zeros(B, L, H), state[:1])


def test_length_0_and_1(model):
    empty, state = model.read(torch.zeros(B, 0, dtype=torch.int64))
    assert empty.shape == (B, 0, V)
    assert model.read(torch.zeros(B, 1, dtype=torch.int64), state)[0].shape == (B, 1, V)
