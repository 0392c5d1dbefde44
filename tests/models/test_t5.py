import pytest
import torch

from dlbook.generate import beam_search, generate
from dlbook.models.t5 import SIZES, T5, T5Config

B, S, T, V = 3, 7, 5, 11
CONFIG = T5Config(V, 12, 2, 3, 6, 20, num_buckets=8, max_distance=6)
SOURCE = torch.randint(V, (B, S), generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
VALID = torch.arange(S) < torch.tensor([[7], [3], [5]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = T5(CONFIG).double()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.5)
    return made


@pytest.mark.parametrize(
    ("name", "count"), {"t5_small": 60_506_624, "t5_base": 222_903_552, "t5_large": 737_668_096}.items()
)
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = T5(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


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


def test_texts_that_are_all_padding_give_no_nan(model):
    valid, target_valid = VALID.clone(), torch.ones_like(TARGET, dtype=torch.bool)
    valid[1], target_valid[2] = False, False
    logits = model(SOURCE, TARGET, valid, target_valid)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_what_comes_later_changes_nothing_before(model):
    changed = TARGET.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V
    one, two = model(SOURCE, TARGET), model(SOURCE, changed)
    torch.testing.assert_close(one[:, :3], two[:, :3])
    assert not torch.isclose(one[:, 3:], two[:, 3:]).all(-1).any()


@torch.no_grad()
def test_writing_equals_reading_what_was_written(model):
    start = TARGET[:, :1]
    tokens = generate(model, start, 8, cache=model.start(SOURCE, VALID))
    assert torch.equal(model(SOURCE, tokens, VALID).argmax(-1)[:, :-1], tokens[:, 1:])
    assert torch.equal(beam_search(model, start, 8, 1, cache=model.start(SOURCE, VALID)), tokens)


def test_weights_of_another_vocabulary_are_refused(model):
    with pytest.raises(RuntimeError, match=r"size mismatch for embedding\.weight"):
        T5(T5Config(13, 12, 2, 3, 6, 20, num_buckets=8, max_distance=6)).load_state_dict(model.state_dict())


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = T5(T5Config(500, 64, 1, 4, 25, 144))
    assert abs(model.embedding.weight.std() - 1) < 0.02
    queries, keys, values = model.decoder[0].attention.qkv.weight.chunk(3)
    assert abs(queries.std() - 1 / 40) < 0.001
    assert abs(model.decoder[0].cross.q.weight.std() - 1 / 40) < 0.001
    assert abs(torch.cat([keys, values]).std() - 1 / 8) < 0.003
    assert abs(model.decoder[0].attention.out.weight.std() - 1 / 10) < 0.003
    assert abs(model.encoder[0].feedforward.reduce.weight.std() - 1 / 12) < 0.003
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: T5Config(head_size=0), "head_size must be at least 1, got 0"),
        (lambda: T5Config(dropout=1.0), "dropout must be at least 0 and below 1, got 1.0"),
        (lambda: T5(T5Config(9, 12, 1, 3, num_buckets=6)), "num_buckets=6"),
        (lambda: T5(CONFIG)(SOURCE[0], TARGET), r"source must be \(batch, length\).*\(7,\)"),
        (lambda: T5(CONFIG)(SOURCE, TARGET.float()), r"tokens must be .*float32"),
        (lambda: T5(CONFIG).step(TARGET[:, 0]), "no source has been read"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
