import pytest
import torch

from dlbook.models.bert import SIZES, Bert, BertClassifier, BertConfig, BertMaskedLM, hide_tokens

B, L, V = 3, 13, 11
CONFIG = BertConfig(V, 12, 2, 3, 20, context=16)
TOKENS = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "name", "count"),
    [
        (Bert, "bert_base", 109_482_240),
        (Bert, "bert_large", 335_141_888),
        (BertMaskedLM, "bert_base", 109_514_298),
    ],
)
def test_published_sizes(make, name, count):
    with torch.device("meta"):
        model = make(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("make", [Bert, BertMaskedLM, lambda config: BertClassifier(config, 4)])
def test_padding_changes_nothing_and_gives_no_nan(make):
    torch.manual_seed(0)
    model = make(CONFIG).double()
    valid = torch.arange(L) < torch.tensor([[13], [0], [4]])
    outputs = model(TOKENS, valid=valid)
    assert outputs.isfinite().all()
    wanted = model(TOKENS[2:, :4])
    torch.testing.assert_close(outputs[2:] if outputs.ndim == 2 else outputs[2:, :4], wanted)
    outputs.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_every_token_sees_every_other():
    torch.manual_seed(0)
    model, changed = Bert(CONFIG), TOKENS.clone()
    changed[:, 6] = (changed[:, 6] + 1) % V
    assert not torch.isclose(model(TOKENS), model(changed)).all(-1).any()


def test_tokens_are_hidden_as_published():
    tokens = torch.randint(5, 1000, (50, 400), generator=torch.Generator().manual_seed(0))
    valid = torch.arange(400).expand(50, -1) < 300
    hidden, labels = hide_tokens(tokens, 3, 1000, valid=valid, generator=torch.Generator().manual_seed(1))
    chosen = labels != -100
    assert not chosen[:, 300:].any()
    assert abs(chosen[:, :300].float().mean() - 0.15) < 0.01
    assert torch.equal(labels[chosen], tokens[chosen])
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    assert abs((hidden[chosen] == 3).float().mean() - 0.8) < 0.02
    assert abs((hidden[chosen] == tokens[chosen]).float().mean() - 0.1) < 0.02
    again = hide_tokens(tokens, 3, 1000, valid=valid, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again[0], hidden)


def test_it_learns_to_fill_gaps():
    torch.manual_seed(0)
    tokens = torch.arange(9).unsqueeze(1).repeat(1, L)  # each token says all others
    model = BertMaskedLM(BertConfig(10, 32, 1, 2, 64, context=16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        hidden, labels = hide_tokens(tokens, 9, 9, rate=0.3)
        loss = torch.nn.functional.cross_entropy(model(hidden).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hidden = tokens.clone()
    hidden[:, 5] = 9
    assert (model(hidden)[:, 5].argmax(-1) == tokens[:, 5]).all()


def test_weights_start_small():
    torch.manual_seed(0)
    model = BertClassifier(BertConfig(500, 96, 1, 3, 200), 4)
    for weight in (model.bert.embedding.weight, model.bert.blocks[0].attention.qkv.weight, model.bert.pool.weight):
        assert 0.0195 < weight.std() < 0.0205
    assert (model.bert.blocks[0].feedforward.expand.bias == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BertConfig(num_kinds=0), "num_kinds must be at least 1, got 0"),
        (lambda: BertConfig(num_heads=5), "num_heads=5 does not divide width=768"),
        (lambda: BertConfig(dropout=1.0), "dropout must be"),
        (lambda: BertClassifier(CONFIG, 0), "num_classes must be positive, got 0"),
        (lambda: Bert(CONFIG)(TOKENS[0]), r"tokens must be \(batch, length\).*\(13,\)"),
        (lambda: Bert(CONFIG)(TOKENS.repeat(1, 2)), "26 tokens are more than the context of 16"),
        (lambda: Bert(CONFIG)(TOKENS, valid=TOKENS[:1] > 0), r"valid must be \(3, 13\) bool, as tokens, got \(1, 13\)"),
        (lambda: hide_tokens(TOKENS, 0, V, rate=1.5), "rate must be within 0 and 1, got 1.5"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
