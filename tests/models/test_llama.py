import pytest
import torch

from dlbook.layers.position import half_from_interleaved
from dlbook.models.llama import SIZES, Llama, LlamaBlock, LlamaConfig, convert_meta, convert_transformers

B, L, D, V = 3, 19, 12, 11
CONFIG = LlamaConfig(V, D, num_layers=2, num_heads=3, num_kv_heads=1, hidden=20, context=24)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Llama(CONFIG).double()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.5)
    return made


@pytest.fixture
def tokens():
    return torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))


# As published with the weights, or added up from them.
COUNTS = {
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama_33b": 32_528_943_616,
    "llama_65b": 65_285_660_672,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama3.1_70b": 70_553_706_496,
    "llama3.1_405b": 405_853_388_800,
    "llama3.2_1b": 1_235_814_400,
    "llama3.2_3b": 3_212_749_824,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = Llama(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def one_at_a_time(model, tokens, cache=None):
    outputs = []
    for token in tokens.unbind(1):
        output, cache = model.step(token, cache)
        outputs.append(output)
    return torch.stack(outputs, 1), cache


@torch.no_grad()
@pytest.mark.parametrize("cut", [0, 1, 7, L - 1, L])
def test_a_cache_carries_on(model, tokens, cut):
    whole = model(tokens)
    first, cache = model.read(tokens[:, :cut])
    second, cache = model.read(tokens[:, cut:], cache)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    if cut < L:
        cache.truncate(cut)
        torch.testing.assert_close(one_at_a_time(model, tokens[:, cut:], cache)[0], second)
    assert len(cache) == L


@torch.no_grad()
def test_a_block_alone_takes_numbers_and_steps():
    torch.manual_seed(0)
    block, x = LlamaBlock(D, 3, num_kv_heads=1, context=L), torch.randn(B, L, D)
    whole, cache = block(x), None
    first, cache = block.read(x[:, :7])
    outputs = []
    for i in range(7, L):
        y, cache = block.step(x[:, i], cache)
        outputs.append(y)
    torch.testing.assert_close(torch.cat([first, torch.stack(outputs, 1)], 1), whole)
    with pytest.raises(ValueError, match="go beyond a context of 19"):
        block.step(x[:, 0], cache)
    assert block.read(x[:, :0])[0].shape == (B, 0, D)


def test_left_padding_changes_nothing(model, tokens):
    padded = torch.cat([torch.zeros(B, 4, dtype=torch.int64), tokens], 1)
    valid = torch.cat([torch.zeros(B, 4, dtype=torch.bool), torch.ones_like(tokens, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(padded, valid)[:, 4:], model(tokens))
    with torch.no_grad():
        _, cache = model.read(padded[:, :9], valid=valid[:, :9])
        torch.testing.assert_close(one_at_a_time(model, padded[:, 9:], cache)[0], model(tokens)[:, 5:])


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
    assert not torch.isclose(one[:, 8:], two[:, 8:]).all(-1).any()  # and everything after


def test_weights_start_small_and_branches_smaller():
    torch.manual_seed(0)
    model = Llama(LlamaConfig(V, 96, num_layers=8, num_heads=3, hidden=200))
    block = model.blocks[3]
    for weight in (block.attention.qkv.weight, block.feedforward.gate.weight):
        assert 0.0195 < weight.std() < 0.0205
    for weight in (block.attention.out.weight, block.feedforward.reduce.weight):
        assert 0.0048 < weight.std() < 0.0052
    assert (model.norm.weight == 1).all()


def test_one_batch_is_learned_by_heart(tokens):
    torch.manual_seed(0)
    model = Llama(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # guessing gives log 11 = 2.4


def test_metas_layout_gives_the_same_model(model, tokens):
    """Rows of queries and keys in pairs of neighbours, turned in pairs of neighbours."""
    theirs = {}
    names = {
        "out": "attention.wo",
        "reduce": "feed_forward.w2",
        "gate": "feed_forward.w1",
        "up": "feed_forward.w3",
        "norm1": "attention_norm",
        "norm2": "ffn_norm",
    }
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] != "blocks":
            renamed = {"embedding": "tok_embeddings", "head": "output", "norm": "norm"}[parts[0]]
            theirs[f"{renamed}.weight"] = tensor
            continue
        start = f"layers.{parts[1]}."
        if parts[-2] in names:
            theirs[f"{start}{names[parts[-2]]}.weight"] = tensor
        else:
            stack = (("attention.wq", 12), ("attention.wk", 4), ("attention.wv", 4))
            for part, rows in zip(stack, tensor.split([rows for _, rows in stack]), strict=True):
                theirs[f"{start}{part[0]}.weight"] = rows
    theirs["rope.freqs"] = torch.zeros(2)
    wanted = Llama(CONFIG).double()
    wanted.load_state_dict(model.state_dict())
    for block in wanted.blocks:
        block.attention.rotary.interleaved = True
    model.load_state_dict(convert_meta(theirs, CONFIG))
    torch.testing.assert_close(model(tokens), wanted(tokens))
    rows = model.blocks[0].attention.qkv.weight[:12]
    assert torch.equal(rows, half_from_interleaved(wanted.blocks[0].attention.qkv.weight[:12], 3))


def test_weights_of_another_vocabulary_are_refused(model):
    with pytest.raises(RuntimeError, match=r"size mismatch for embedding\.weight.*\[11, 12\].*\[13, 12\]"):
        Llama(LlamaConfig(13, D, 2, 3, 1, 20, 24)).load_state_dict(model.state_dict())


def test_tied_weights_drop_the_head():
    state = {"model.embed_tokens.weight": torch.zeros(2, 3), "lm_head.weight": torch.zeros(2, 3)}
    assert list(convert_transformers(state, tied=True)) == ["embedding.weight"]
    assert list(convert_transformers(state)) == ["embedding.weight", "head.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in ("vocab_size", "width", "num_layers", "context")
        ),
        ({"width": 36, "num_heads": 12}, "width=36 is no even number for each of num_heads=12"),
        ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide num_heads=32"),
        ({"num_kv_heads": -1}, "num_kv_heads=-1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**options)


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
        (lambda model, x: model.blocks[0].step(torch.zeros(B, L, D)), r"x must be \(batch, width\), got \(3, 19, 12\)"),
        (
            lambda model, x: model.blocks[0](torch.zeros(B, L, 13)),
            r"x must be \(batch, length, 12\), got \(3, 19, 13\)",
        ),
    ],
)
def test_what_is_no_sequence_is_named(model, tokens, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, tokens)
