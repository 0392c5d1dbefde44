"""Write text with a language model: greedily, by chance, by beams, or by a small model that a large one checks.

Beams and their length penalty: Wu et al. (2016), https://arxiv.org/abs/1609.08144. Speculative decoding: Leviathan et al.
(2023), https://arxiv.org/abs/2211.17192. How a single token is drawn: `dlbook.sampling`.

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    B  batch    L  length of the prompt    M  new tokens    K  beams    V  vocabulary
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dlbook.sampling import GREEDY, Sampling


@contextmanager
def _reading(*models: nn.Module) -> Iterator[None]:
    """Without dropout and gradients; afterwards each model is in the mode that it was in."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def _check(model: Any, prompt: Tensor, max_new_tokens: int, valid: Tensor | None, limited: bool) -> None:
    if prompt.ndim != 2 or prompt.is_floating_point():
        raise ValueError(f"prompt must be (batch, length) whole numbers, got {tuple(prompt.shape)} of {prompt.dtype}")
    if prompt.numel() == 0:
        raise ValueError(f"the prompt is empty, {tuple(prompt.shape)}: start with at least one token")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    kinds, context = (getattr(getattr(model, "config", None), name, None) for name in ("vocab_size", "context"))
    if kinds is not None and not 0 <= int(prompt.min()) <= int(prompt.max()) < kinds:
        raise ValueError(f"the model knows tokens 0 to {kinds - 1}, got {int(prompt.min())} to {int(prompt.max())}")
    if limited and context is not None and prompt.shape[1] + max_new_tokens > context:
        raise ValueError(
            f"{prompt.shape[1]} tokens and {max_new_tokens} new ones are more than the context of {context}; "
            "slide=True forgets the oldest"
        )
    if valid is not None:
        if valid.shape != prompt.shape or valid.dtype != torch.bool:
            raise ValueError(f"valid must be {tuple(prompt.shape)} bool, got {tuple(valid.shape)} {valid.dtype}")
        if not bool(valid[:, -1].all()):
            raise ValueError("prompts must be padded on the left: their last tokens must be valid")


def _first(model: Any, prompt: Tensor, cache: Any, valid: Tensor | None) -> tuple[Tensor, Any]:
    """Logits (B, V) behind a prompt, and the cache; decoders do not compute logits for the tokens before the last."""
    if not hasattr(model, "features"):  # a recurrent model
        logits, state = model.read(prompt, cache)
        return logits[:, -1], state
    cache = model.read(prompt[:, :0])[1] if cache is None else cache
    return model.logits(model.features(prompt, valid, cache)[:, -1]), cache


def generate(
    model: nn.Module,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    *,
    valid: Tensor | None = None,
    stop: int | None = None,
    cache: Any = None,
    use_cache: bool = True,
    slide: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue a prompt token by token.

    Args:
        model: Has ``read`` and ``step`` as `dlbook.models.gpt.GPT`, or as `dlbook.models.mamba.Mamba`.
        prompt: Tokens to start with.
        max_new_tokens: Most tokens to add, M.
        sampling: How each is chosen.
        valid: False where the prompt is padding, which has to be on the left.
        stop: Token behind which a row ends; the rest of it is filled with the same.
        cache: To start from, such as what ``T5.start`` gives.
        use_cache: Whether the model remembers; if not, it reads all again for each token, to the same result.
        slide: What happens when the context is full: an error, or (True) the older half of the tokens is forgotten and
            the rest read again as if the text began there. Not with padding.
        generator: Source of chance.

    Shapes:
        prompt: (B, L) int64.
        valid: (B, L) bool.
        returns: (B, L + M), prompt included; shorter if all rows stop earlier.

    Raises:
        ValueError: If the prompt is empty, padded on the right, or holds tokens that the model does not know; or if the
            context is too short.

    Example:
        >>> from dlbook.models.gpt import GPT, SIZES
        >>> model, prompt = GPT(SIZES["gpt_tiny"]), torch.tensor([[5, 3, 8]])
        >>> generate(model, prompt, 4).shape
        torch.Size([1, 7])
        >>> generate(model, prompt, 4, Sampling(top_k=10), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([1, 7])
    """
    _check(model, prompt, max_new_tokens, valid, limited=not slide and cache is None)
    if slide and valid is not None:
        raise ValueError("slide=True takes no padding")
    if not use_cache and (cache is not None or not hasattr(model, "features")):
        raise ValueError("use_cache=False needs a decoder that starts without a cache")
    context = getattr(getattr(model, "config", None), "context", None)
    B, L = prompt.shape
    tokens = torch.cat([prompt, prompt.new_zeros(B, max_new_tokens)], dim=1)
    done = prompt.new_zeros(B, dtype=torch.bool)
    begin, end, logits, counts = 0, L, None, None  # the model has read, or will read, from begin on
    net: Any = model
    with _reading(model):
        while end < tokens.shape[1]:
            if slide and context is not None and end - begin > context:
                begin, cache, logits = end - (context + 1) // 2, None, None
            if logits is None or not use_cache:
                seen = None if valid is None else torch.cat([valid, valid.new_ones(B, end - L)], dim=1)
                logits, state = _first(net, tokens[:, begin:end], cache, seen)
                cache = state if use_cache else None
            else:
                logits, cache = net.step(tokens[:, end - 1], cache)
            if sampling.repetition_penalty != 1:
                if counts is None:
                    present = torch.ones_like(prompt) if valid is None else valid.long()
                    counts = prompt.new_zeros(logits.shape).scatter_add_(1, prompt, present)
                else:
                    counts.scatter_add_(1, tokens[:, end - 1 : end], torch.ones_like(tokens[:, :1]))
            chosen = sampling.choose(logits, None if counts is None else counts > 0, generator)  # (B,)
            if stop is not None:
                chosen = chosen.masked_fill(done, stop)
                done = done | (chosen == stop)
            tokens[:, end] = chosen
            end += 1
            if stop is not None and (end - L) % 8 == 0 and bool(done.all()):  # asking makes a GPU wait
                break
    if stop is None or end == L:
        return tokens[:, :end]
    ended = (tokens[:, L:end] == stop).long().cumsum(dim=1) > 0  # (B, M)
    return tokens[:, : L + min(end - L, int((~ended).sum(dim=1).max()) + 1)]


def beam_search(
    model: nn.Module,
    prompt: Tensor,
    max_new_tokens: int,
    num_beams: int = 4,
    *,
    valid: Tensor | None = None,
    stop: int | None = None,
    length_penalty: float = 1.0,
    cache: Any = None,
) -> Tensor:
    """The continuation of greatest probability among those found by keeping the K best at each step.

    A text's score is the sum of the logarithms of its tokens' probabilities, divided by their number to the power of the
    length penalty, without which short texts would win. A row ends once its K best ended texts all score at least as
    well as the best open one does now.

    Args:
        model: A decoder, such as `dlbook.models.gpt.GPT`.
        prompt: Tokens to start with.
        max_new_tokens: Most tokens to add, M.
        num_beams: Texts to keep, K.
        valid: False where the prompt is padding, which has to be on the left.
        stop: Token with which a text ends; rows that end earlier are filled with it.
        length_penalty: 0 compares sums, 1 means.
        cache: To start from, such as what ``T5.start`` gives.

    Shapes:
        prompt: (B, L) int64.
        returns: (B, L + M), prompt included; shorter if all rows stop earlier.

    Raises:
        ValueError: As `generate`, or if there is no beam.

    Example:
        >>> from dlbook.models.gpt import GPT, SIZES
        >>> model, prompt = GPT(SIZES["gpt_tiny"]), torch.tensor([[5, 3, 8]])
        >>> torch.equal(beam_search(model, prompt, 4, num_beams=1), generate(model, prompt, 4))
        True
    """
    _check(model, prompt, max_new_tokens, valid, limited=cache is None)
    if num_beams < 1:
        raise ValueError(f"num_beams must be positive, got {num_beams}")
    B, K, device = prompt.shape[0], num_beams, prompt.device
    fill = 0 if stop is None else stop
    found = prompt.new_full((B, K, max_new_tokens), fill)  # ended texts, best first
    found_scores = torch.full((B, K), -torch.inf, device=device)
    texts = prompt.new_full((B, K, max_new_tokens), fill)  # open ones
    scores = torch.full((B, K), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all K are the same at first: one counts
    opened = torch.ones(B, 1, dtype=torch.bool, device=device)
    rows = torch.arange(B, device=device).unsqueeze(1)
    net: Any = model
    with _reading(model):
        for m in range(max_new_tokens):
            if m == 0:
                logits, cache = _first(net, prompt, cache, valid)
                cache.select(rows.expand(-1, K).flatten())
                logits = logits.repeat_interleave(K, dim=0)
            else:
                logits, cache = net.step(texts[:, :, m - 1].flatten(), cache)  # (B K, V)
            V = logits.shape[-1]
            ahead = scores.unsqueeze(2) + logits.float().log_softmax(dim=-1).view(B, K, V)
            best, which = ahead.flatten(1).topk(min(K if stop is None else 2 * K, K * V), dim=1)  # (B, 2 K)
            beam, token = which // V, which % V
            longer = texts.gather(1, beam.unsqueeze(2).expand(-1, -1, max_new_tokens))
            longer[:, :, m] = token
            last = m == max_new_tokens - 1
            ends = torch.ones_like(token, dtype=torch.bool) if last else torch.zeros_like(token, dtype=torch.bool)
            if stop is not None:
                ends = ends | (token == stop)
            # A text that ends counts only if it is among the K best of this step.
            ended = (best / (m + 1) ** length_penalty).masked_fill(~ends | ~opened, -torch.inf)
            ended[:, K:] = -torch.inf
            found_scores, order = torch.cat([found_scores, ended], dim=1).topk(K, dim=1)
            found = torch.cat([found, longer], dim=1).gather(1, order.unsqueeze(2).expand(-1, -1, max_new_tokens))
            if last:
                break
            scores, order = best.masked_fill(ends, -torch.inf).topk(K, dim=1)
            texts = longer.gather(1, order.unsqueeze(2).expand(-1, -1, max_new_tokens))
            opened = opened & (scores[:, :1] / (m + 1) ** length_penalty > found_scores[:, -1:])
            if stop is not None and not bool(opened.any()):
                break
            cache.select((rows * K + beam.gather(1, order)).flatten())
    answer = found[:, 0]  # (B, M)
    if stop is not None and max_new_tokens:
        length = int(((answer == stop).long().cumsum(dim=1) == 0).sum(dim=1).max()) + 1
        answer = answer[:, :length]
    return torch.cat([prompt, answer], dim=1)


class Speculation(NamedTuple):
    """Text of speculative decoding, and how often the small model was right."""

    tokens: Tensor
    proposed: int
    accepted: int
    reads: int


def speculate(
    model: nn.Module,
    draft: nn.Module,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    *,
    ahead: int = 4,
    generator: torch.Generator | None = None,
) -> Speculation:
    """Let a small model propose tokens and a large one check all of them in one reading.

    Token x, proposed with probability q(x), is kept with probability min(1, p(x) / q(x)); else one is drawn from
    max(p - q, 0), scaled to 1. Each token then comes with probability p, that of the large model: see `accept`.

    Args:
        model: The large model, a decoder.
        draft: The small one, of the same vocabulary.
        prompt: Tokens to start with, of one text.
        max_new_tokens: Tokens to add, M.
        sampling: How tokens are chosen; without a repetition penalty.
        ahead: Tokens that are proposed at once.
        generator: Source of chance.

    Shapes:
        prompt: (1, L) int64.
        returns: tokens (1, L + M), tokens proposed, tokens accepted, readings of the large model.

    Raises:
        ValueError: As `generate`, or if there are several texts, two vocabularies, or a repetition penalty.

    Example:
        >>> from dlbook.models.gpt import GPT, SIZES
        >>> large, small = GPT(SIZES["gpt_mini"]), GPT(SIZES["gpt_tiny"])
        >>> prompt = torch.tensor([[5, 3, 8]])
        >>> torch.equal(speculate(large, small, prompt, 6).tokens, generate(large, prompt, 6))
        True
    """
    for one in (model, draft):
        _check(one, prompt, max_new_tokens, None, limited=True)
    kinds = [getattr(getattr(one, "config", None), "vocab_size", None) for one in (model, draft)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"both models must know the same tokens, got vocabularies of {kinds[0]} and {kinds[1]}")
    if prompt.shape[0] != 1 or ahead < 1 or sampling.repetition_penalty != 1:
        raise ValueError(
            f"one text, ahead at least 1, no repetition penalty; got {prompt.shape[0]}, {ahead}, {sampling}"
        )
    big: Any = model
    small: Any = draft
    tokens, wanted = prompt, prompt.shape[1] + max_new_tokens
    proposed = accepted = reads = 0
    with _reading(model, draft):
        caches = [one.read(prompt[:, :0])[1] for one in (big, small)]
        while tokens.shape[1] < wanted:
            length = tokens.shape[1]
            guesses, q = tokens, []
            for _ in range(min(ahead, wanted - length - 1)):
                logits, _ = small.read(guesses[:, len(caches[1]) :], caches[1])
                q.append(sampling.probabilities(logits[:, -1]))
                guesses = torch.cat([guesses, torch.multinomial(q[-1], 1, generator=generator)], dim=1)
            logits, _ = big.read(guesses[:, len(caches[0]) :], caches[0])
            p = sampling.probabilities(logits[0, -len(q) - 1 :])  # (proposed + 1, V)
            guessed = guesses[0, length:]
            kept, token = accept(p, torch.cat(q) if q else p[:0], guessed, generator)
            tokens = torch.cat([tokens, guessed[:kept].unsqueeze(0), token.view(1, 1)], dim=1)
            proposed, accepted, reads = proposed + len(q), accepted + kept, reads + 1
            for cache in caches:
                cache.truncate(min(len(cache), tokens.shape[1] - 1))
    return Speculation(tokens, proposed, accepted, reads)


def accept(p: Tensor, q: Tensor, guessed: Tensor, generator: torch.Generator | None = None) -> tuple[int, Tensor]:
    """How many of the guesses stay, and the token behind them.

    That x comes out has probability q(x) min(1, p(x) / q(x)) + r max(p(x) - q(x), 0) / r = p(x), where r, the
    probability that a guess is refused, is the sum of max(p - q, 0).

    Args:
        p: Probabilities of the large model at each guess and behind the last.
        q: Probabilities of the small model, of which the guesses were drawn.
        guessed: Tokens.
        generator: Source of chance.

    Shapes: p (n + 1, V), q (n, V), guessed (n,); returns a number and ().

    Example:
        >>> sure = torch.eye(3)
        >>> accept(sure[[1, 2, 0]], sure[[1, 0]], torch.tensor([1, 0]))
        (1, tensor(2))
    """
    n = guessed.shape[0]
    places = torch.arange(n, device=p.device)
    chance = torch.rand(n, device=p.device, generator=generator)
    stays = chance * q[places, guessed] < p[places, guessed]
    kept = int(stays.long().cumprod(dim=0).sum())
    rest = p[kept] if kept == n else (p[kept] - q[kept]).clamp(min=0)
    return kept, torch.multinomial(rest, 1, generator=generator).squeeze(0)
