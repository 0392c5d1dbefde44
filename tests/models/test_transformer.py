import pytest
import torch
from torch.nn import functional as F

from dlbook.generate import beam_search, generate
from dlbook.layers.position import sinusoidal
from dlbook.models.transformer import SIZES, Transformer, TransformerConfig

B, S, T, D, V = 3, 7, 5, 12, 11
CONFIG = TransformerConfig(V, D, 2, 3, 20, context=16)
VALID = torch.arange(S) < torch.tensor([[7], [3], [5]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Transformer(CONFIG).double()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.5)
    return made


SOURCE = torch.randint(V, (B, S), generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def layers(width, hidden):
    """Matrices and biases of 3 attentions, 2 feed-forward layers, 5 normalisations."""
    return 12 * (width**2 + width) + 2 * (2 * width * hidden + hidden + width) + 5 * 2 * width


@pytest.mark.parametrize(
    ("name", "count"),
    {
        "transformer_base": 37000 * 512 + 6 * layers(512, 2048),  # 63 million; the paper says 65
        "transformer_big": 37000 * 1024 + 6 * layers(1024, 4096),  # 214 million; the paper says 213
    }.items(),
)
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = Transformer(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_tokens_are_scaled_and_placed(model):
    embedded = model.embed(SOURCE, slice(S))
    wanted = model.embedding.weight[SOURCE] * D**0.5 + sinusoidal(S, D)
    torch.testing.assert_close(embedded, wanted)


@torch.no_grad()
@pytest.mark.parametrize("valid", [None, VALID])
def test_a_cache_carries_on(model, valid):
    whole, cache = model(SOURCE, TARGET, valid), model.start(SOURCE, valid)
    first, cache = model.read(TARGET[:, :2], cache)
    outputs = [first]
    for token in TARGET[:, 2:].unbind(1):
        logits, cache = model.step(token, cache)
        outputs.append(logits.unsqueeze(1))
    torch.testing.assert_close(torch.cat(outputs, 1), whole)


def test_padding_changes_nothing(model):
    wanted = model(SOURCE[1:2, :3], TARGET[1:2])
    torch.testing.assert_close(model(SOURCE, TARGET, VALID)[1:2], wanted)
    padded = torch.cat([torch.zeros(B, 2, dtype=torch.int64), TARGET], 1)
    valid = torch.arange(T + 2).expand(B, -1) >= 2
    torch.testing.assert_close(model(SOURCE, padded, None, valid)[:, 2:], model(SOURCE, TARGET))


def test_a_source_that_is_all_padding_gives_no_nan(model):
    valid = VALID.clone()
    valid[1] = False
    logits = model(SOURCE, TARGET, valid)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_writing_equals_reading_what_was_written(model):
    start = TARGET[:, :1]
    with torch.no_grad():
        tokens = generate(model, start, 8, cache=model.start(SOURCE, VALID))
        assert torch.equal(model(SOURCE, tokens, VALID).argmax(-1)[:, :-1], tokens[:, 1:])
        one = beam_search(model, start, 8, 1, cache=model.start(SOURCE, VALID))
        assert torch.equal(one, tokens)
        found = beam_search(model, start, 8, 3, cache=model.start(SOURCE, VALID))

        def scores(tokens):
            logs = model(SOURCE, tokens, VALID).log_softmax(-1)[:, :-1]
            return logs.gather(2, tokens[:, 1:, None]).sum((1, 2))

        assert (scores(found) >= scores(tokens) - 1e-9).all()
        rows = [beam_search(model, start[i : i + 1], 8, 3, cache=model.start(SOURCE[i : i + 1], VALID[i : i + 1]))
                for i in range(B)]  # fmt: skip
        assert torch.equal(torch.cat(rows), found)


def test_it_learns_to_turn_a_sequence_around():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(8, 32, 1, 2, 64, context=8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        source = torch.randint(1, 8, (32, 4))
        target = source.flip(1)
        logits = model(source, torch.cat([torch.zeros(32, 1, dtype=torch.int64), target[:, :-1]], 1))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        source = torch.randint(1, 8, (32, 4))
        written = generate(model, torch.zeros(32, 1, dtype=torch.int64), 4, cache=model.start(source))[:, 1:]
    assert (written == source.flip(1)).float().mean() > 0.95


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(500, 64, 1, 2, 128))
    assert abs(model.embedding.weight.std() - 1 / 8) < 0.002
    weight = model.encoder[0].feedforward.expand.weight
    assert 0.98 * (6 / 192) ** 0.5 < weight.abs().max() <= (6 / 192) ** 0.5
    assert (model.decoder[0].feedforward.reduce.bias == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"width": 36}, "num_heads=8 does not divide it"),
        ({"width": 9, "num_heads": 3}, "width=9 is odd"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(SOURCE[0], TARGET), r"source must be \(batch, length\).*\(7,\)"),
        (lambda model: model(SOURCE, TARGET.float()), r"tokens must be .*float32"),
        (lambda model: model(SOURCE, TARGET, VALID[:, 1:]), r"valid must be \(3, 7\) bool, as source, got \(3, 6\)"),
        (lambda model: model(SOURCE.repeat(1, 3), TARGET), "21 tokens are more than the context of 16"),
        (lambda model: model(SOURCE, TARGET.repeat(1, 4)), "20 tokens are more than the context of 16"),
        (lambda model: model(SOURCE[:2], TARGET), r"context must be \(3, tokens, 12\), got \(2, 7, 12\)"),
        (lambda model: model.step(TARGET[:, 0]), "no source has been read"),
        (lambda model: generate(model, TARGET, 2), "no source has been read"),
    ],
)
def test_what_does_not_fit_is_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)
