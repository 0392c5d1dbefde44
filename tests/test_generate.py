import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dlbook.generate import accept, beam_search, generate, speculate
from dlbook.layers.cache import DecoderCache
from dlbook.models.gpt import GPT, GPTConfig
from dlbook.models.llama import Llama, LlamaConfig
from dlbook.models.mamba import Mamba, MambaConfig
from dlbook.sampling import GREEDY, Sampling, penalize

V = 11
PROMPT = torch.tensor([[5, 3, 8], [1, 2, 10]])


def sharp(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.4)
    return model


@pytest.fixture(params=["gpt", "llama"])
def model(request):
    made = GPT(GPTConfig(V, 12, 2, 3, 32, dropout=0.5)) if request.param == "gpt" else Llama(
        LlamaConfig(V, 12, 2, 3, 1, 20, 32))  # fmt: skip
    return sharp(made)


class Chain(nn.Module):
    """The next token depends on the last alone: a table of probabilities, read as a decoder is."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table.log()
        self.config = SimpleNamespace(vocab_size=len(table), context=64)

    def features(self, tokens, valid=None, cache=None):
        cache.see(valid, tokens.shape[1])
        held = tokens[:, None, :, None].float()
        cache.layers[0].append(held, held)
        return tokens

    def logits(self, features):
        return self.table[features]

    def read(self, tokens, cache=None):
        cache = DecoderCache(1, 64) if cache is None else cache
        if tokens.shape[1] == 0:
            return None, cache
        return self.logits(self.features(tokens, None, cache)), cache

    def step(self, tokens, cache=None):
        logits, cache = self.read(tokens.unsqueeze(1), cache)
        return logits[:, 0], cache


def chain(seed: int, size: int = 3) -> Chain:
    return Chain(torch.rand(size, size, generator=torch.Generator().manual_seed(seed)).pow(2).softmax(-1).double())


def test_greedy_takes_the_most_probable_each_time(model):
    tokens = generate(model, PROMPT, 9)
    model.eval()
    assert torch.equal(tokens[:, :3], PROMPT)
    with torch.no_grad():
        assert torch.equal(model(tokens).argmax(-1)[:, 2:-1], tokens[:, 3:])


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.5, 0.8, top_k=7, top_p=0.9), Sampling(min_p=0.1)], ids=str)
def test_with_a_cache_equals_without(model, sampling):
    texts = [
        generate(model, PROMPT, 20, sampling, use_cache=cached, generator=torch.Generator().manual_seed(3))
        for cached in (True, False)
    ]
    assert torch.equal(*texts)


def test_left_padding_changes_nothing(model):
    padded = torch.cat([torch.zeros(2, 4, dtype=torch.int64), PROMPT], 1)
    valid = torch.arange(7).expand(2, -1) >= 4
    for sampling in (GREEDY, Sampling(0.5, 0.0)):
        wanted = generate(model, PROMPT, 9, sampling)
        assert torch.equal(generate(model, padded, 9, sampling, valid=valid)[:, 4:], wanted)


@pytest.mark.parametrize("length", [3, 8, 20])
def test_what_slides_goes_on_from_the_newer_half(model, length):
    model.config = GPTConfig(V, 12, 2, 3, 8) if isinstance(model, GPT) else LlamaConfig(V, 12, 2, 3, 1, 20, 8)
    prompt = torch.randint(V, (2, length), generator=torch.Generator().manual_seed(0))
    tokens = generate(model, prompt, 15, slide=True)
    uncached = generate(model, prompt, 15, slide=True, use_cache=False)
    assert torch.equal(tokens, uncached)
    begin, model = 0, model.eval()
    for end in range(length, length + 15):
        begin = begin if end - begin <= 8 else end - 4
        with torch.no_grad():
            assert torch.equal(model(tokens[:, begin:end])[:, -1].argmax(-1), tokens[:, end])


def test_the_penalty_counts_what_is_there(model):
    tokens = generate(model, PROMPT, 12, Sampling(repetition_penalty=1.7, temperature=0))
    assert not torch.equal(tokens, generate(model, PROMPT, 12))
    model.eval()
    for end in range(3, 15):
        seen = nn.functional.one_hot(tokens[:, :end], V).sum(1) > 0
        with torch.no_grad():
            logits = penalize(model(tokens[:, :end])[:, -1], seen, 1.7)
        assert torch.equal(logits.argmax(-1), tokens[:, end])


def test_chance_comes_from_the_generator(model):
    one, two, three = (
        generate(model, PROMPT, 9, Sampling(), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_rows_stop_on_their_own():
    table = torch.eye(5)[[1, 2, 3, 4, 0]] + 1e-9  # each number is followed by the next
    model = Chain(table)
    tokens = generate(model, torch.tensor([[0], [2], [3]]), 30, stop=4)
    assert tokens.tolist() == [[0, 1, 2, 3, 4], [2, 3, 4, 4, 4], [3, 4, 4, 4, 4]]
    assert generate(model, torch.tensor([[0]]), 3, stop=4).tolist() == [[0, 1, 2, 3]]
    assert generate(model, torch.tensor([[0]]), 0, stop=4).tolist() == [[0]]
    assert beam_search(model, torch.tensor([[0], [3]]), 30, 2, stop=4).tolist() == [[0, 1, 2, 3, 4], [3, 4, 4, 4, 4]]


def test_recurrent_models_write_too():
    model = sharp(Mamba(MambaConfig(V, 12, 2, 5)))
    tokens = generate(model, PROMPT, 9)
    with torch.no_grad():
        assert torch.equal(model(tokens).argmax(-1)[:, 2:-1], tokens[:, 3:])


def test_the_mode_is_restored(model):
    generate(model, PROMPT, 2)
    assert model.training
    model.eval()
    beam_search(model, PROMPT, 2)
    assert not model.training
    with pytest.raises(ValueError, match="context"):
        generate(model.train(), PROMPT, 99)
    assert model.training


def test_enough_beams_find_the_most_probable_text():
    model = chain(1, size=4)
    prompt = torch.tensor([[0], [2]])
    found = beam_search(model, prompt, 4, num_beams=64)
    for row in range(2):
        best = max(
            itertools.product(range(4), repeat=4),
            key=lambda text: sum(
                model.table[a, b] for a, b in zip((prompt[row].item(), *text[:-1]), text, strict=True)
            ),
        )
        assert found[row, 1:].tolist() == list(best)


def test_more_beams_than_greedy_finds():
    """The best first token leads to bad ones: 0 -> 1 has 0.6, but 0 -> 2 -> 2 has 0.4 where 0 -> 1 -> x has 0.2."""
    table = torch.tensor([[1e-9, 0.6, 0.4], [0.34, 0.33, 0.33], [1e-9, 1e-9, 1.0]])
    assert generate(Chain(table), torch.tensor([[0]]), 2).tolist() == [[0, 1, 0]]
    assert beam_search(Chain(table), torch.tensor([[0]]), 2, 2).tolist() == [[0, 2, 2]]


def test_a_text_that_ends_behind_the_best_does_not_count():
    """After 0, the second best is to stop; all that follows the best is so improbable that stopping would have won."""
    table = torch.tensor([[0.1, 0.5, 0.4], [0.33, 0.34, 0.33], [0.4, 0.3, 0.3]])
    assert beam_search(Chain(table), torch.tensor([[0]]), 3, 1, stop=2).tolist() == [[0, 1, 1, 1]]


def test_what_speculation_accepts_has_the_large_models_probabilities():
    """The exact distribution of the token, summed over what the small model may propose."""
    torch.manual_seed(0)
    p, q = torch.rand(2, 6, dtype=torch.float64).pow(4).softmax(-1) + torch.eye(6, dtype=torch.float64)[:2]
    p, q = p / p.sum(), q / q.sum()
    kept = q * torch.minimum(torch.ones_like(p), p / q)
    refused = (p - q).clamp(min=0)
    torch.testing.assert_close(kept + (1 - kept.sum()) * refused / refused.sum(), p, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("ahead", [1, 3])
def test_speculation_gives_the_distribution_of_the_large_model(ahead):
    """All 27 texts of three tokens, counted, against their probabilities under the large model alone."""
    large, small = chain(1), chain(7)
    generator, counts, draws = torch.Generator().manual_seed(0), torch.zeros(27, dtype=torch.float64), 4000
    for _ in range(draws):
        tokens = speculate(large, small, torch.tensor([[0]]), 3, Sampling(), ahead=ahead, generator=generator).tokens
        counts[int(tokens[0, 1:] @ torch.tensor([9, 3, 1]))] += 1
    table = large.table.exp()
    wanted = draws * torch.einsum("a,ab,bc->abc", table[0], table, table).flatten()
    assert ((counts - wanted).square() / wanted).sum() < 54.1  # chi-squared, 26 degrees of freedom: 0.1 %


def test_accept_by_counting():
    p, q = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]]), torch.tensor([[0.5, 0.1, 0.4]])
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(3)
    kept_all = 0
    for _ in range(6000):
        guess = torch.multinomial(q[0], 1, generator=generator)
        kept, token = accept(p, q, guess, generator)
        kept_all += kept
        counts[guess[0] if kept else token] += 1
    torch.testing.assert_close(counts / 6000, p[0], rtol=0, atol=0.02)
    assert abs(kept_all / 6000 - 0.6) < 0.02  # the sum of the smaller of both


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_greedy_speculation_equals_the_large_model(model, ahead):
    small = sharp(GPT(GPTConfig(V, 8, 1, 2, 32)))
    for draft in (small, model):
        result = speculate(model, draft, PROMPT[:1], 20, ahead=ahead)
        assert torch.equal(result.tokens, generate(model, PROMPT[:1], 20))
        assert 0 <= result.accepted <= result.proposed
    assert result.accepted == result.proposed  # its own guesses
    assert result.reads == -(-20 // (ahead + 1))


@pytest.mark.parametrize("write", [generate, beam_search])
@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (PROMPT[:, :0], {}, r"the prompt is empty, \(2, 0\)"),
        (PROMPT[0], {}, r"prompt must be \(batch, length\) whole numbers, got \(3,\)"),
        (PROMPT.float(), {}, "float32"),
        (PROMPT + 1, {}, "the model knows tokens 0 to 10, got 2 to 11"),
        (PROMPT - 2, {}, "got -1 to 8"),
        (PROMPT, {"max_new_tokens": 30}, "3 tokens and 30 new ones are more than the context of 32"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens must not be negative, got -1"),
        (PROMPT, {"valid": PROMPT < 6}, "padded on the left"),
        (PROMPT, {"valid": PROMPT[:, 1:] > 0}, r"valid must be \(2, 3\) bool, got \(2, 2\)"),
        (PROMPT, {"valid": torch.zeros(2, 3, dtype=torch.bool)}, "their last tokens must be valid"),
    ],
)
def test_bad_input_is_named(model, write, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        write(model, prompt, **{"max_new_tokens": 4, **options})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: beam_search(model, PROMPT, 4, 0), "num_beams must be positive, got 0"),
        (lambda model: speculate(model, chain(1), PROMPT[:1] % 3, 4), "got vocabularies of 11 and 3"),
        (lambda model: speculate(model, model, PROMPT, 4), "one text"),
        (lambda model: speculate(model, model, PROMPT[:1], 4, ahead=0), "ahead at least 1"),
        (lambda model: speculate(model, model, PROMPT[:1], 4, Sampling(1.1)), "no repetition penalty"),
        (lambda model: generate(model, PROMPT, 4, slide=True, valid=PROMPT > 0), "slide=True takes no padding"),
        (lambda model: generate(sharp(Mamba(MambaConfig(V, 12))), PROMPT, 4, use_cache=False), "needs a decoder"),
    ],
)
def test_bad_options_are_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)
