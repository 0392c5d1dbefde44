"""Small tasks with exact answers that tell what a sequence model can keep, for how long, and what it can compute.

Each call draws a fresh batch, of any length, without a loop over examples or steps. A probe of tokens gives ``(x, y)``
with ``y`` at every position, `IGNORE` where nothing is asked, as `torch.nn.functional.cross_entropy` reads it. The
numbers are drawn where the generator is, and stay on its device. Chapter 4.

Letters for shapes in this file:
    B  sequences    L  positions    S  symbols    P  pairs
"""

import torch
from torch import Tensor

IGNORE = -100  # the target where nothing is asked


def copy(
    batch: int, lag: int, *, symbols: int = 8, span: int = 10, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Say some symbols again, in order, each ``lag`` positions after it was read.

    The sequence is ``span`` symbols, blanks, one sign to go, and blanks while the answer is due. Without memory nothing
    beats guessing: 1 / ``symbols`` of the tokens right. Tokens: the symbols 0 to S - 1, blank S, go S + 1, so that a
    model needs a vocabulary of S + 2.

    Args:
        batch: Sequences.
        lag: Positions from a symbol to where it is due, more than ``span``.
        symbols: Different ones.
        span: How many are to be kept.
        generator: Where they are drawn from; None takes PyTorch's global one.

    Shapes: returns (B, L) and (B, L), int64, L = lag + span.

    Raises:
        ValueError: If a number is below 1, or ``lag`` is not above ``span``.

    Example:
        >>> x, y = copy(1, 6, span=3, generator=torch.Generator().manual_seed(0))
        >>> x.tolist(), y[:, 6:].tolist()
        ([[4, 7, 5, 8, 8, 9, 8, 8, 8]], [[4, 7, 5]])

    Source: S. Hochreiter, J. Schmidhuber, Long short-term memory, 1997; in this form M. Arjovsky, A. Shah, Y. Bengio,
        Unitary evolution recurrent neural networks, https://arxiv.org/abs/1511.06464, 2016.
    """
    _at_least_one(batch=batch, symbols=symbols, span=span)
    if lag <= span:
        raise ValueError(f"lag must be more than span={span}, got {lag}")
    device = _device(generator)
    kept = torch.randint(symbols, (batch, span), generator=generator, device=device)  # (B, span)
    x = torch.full((batch, lag + span), symbols, device=device)
    x[:, :span] = kept
    x[:, lag - 1] = symbols + 1
    y = torch.full_like(x, IGNORE)
    y[:, lag:] = kept
    return x, y


def selective_copy(
    batch: int, length: int, *, symbols: int = 8, span: int = 10, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Say some symbols again that stood among blanks, at other places in every sequence.

    Unlike in `copy`, no fixed delay gets them through: what is kept has to depend on what is read. After ``length``
    positions come a sign to go and ``span - 1`` blanks, and there the symbols are due, in their order. Tokens as in
    `copy`; guessing is right for 1 / ``symbols``.

    Args:
        batch: Sequences.
        length: Positions among which the symbols are spread, at least ``span``.
        symbols: Different ones.
        span: How many are to be kept.
        generator: Where all is drawn from; None takes PyTorch's global one.

    Shapes: returns (B, L) and (B, L), int64, L = length + span.

    Raises:
        ValueError: If a number is below 1, or ``length`` is below ``span``.

    Example:
        >>> x, y = selective_copy(1, 6, span=3, generator=torch.Generator().manual_seed(0))
        >>> x.tolist(), y[:, 6:].tolist()
        ([[4, 7, 8, 8, 8, 5, 9, 8, 8]], [[4, 7, 5]])

    Source: A. Gu, T. Dao, Mamba, https://arxiv.org/abs/2312.00752, 2023, section 3.1.
    """
    _at_least_one(batch=batch, symbols=symbols, span=span)
    if length < span:
        raise ValueError(f"length must be at least span={span}, got {length}")
    device = _device(generator)
    kept = torch.randint(symbols, (batch, span), generator=generator, device=device)  # (B, span)
    places = torch.rand(batch, length, generator=generator, device=device).argsort(1)[:, :span].sort(1).values
    x = torch.full((batch, length + span), symbols, device=device)
    x.scatter_(1, places, kept)
    x[:, length] = symbols + 1
    y = torch.full_like(x, IGNORE)
    y[:, length:] = kept
    return x, y


def adding(batch: int, length: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Add the two numbers that are marked, one in each half of the sequence.

    The numbers are even between 0 and 1. Who always answers 1 has a mean squared error of 1 / 6.

    Args:
        batch: Sequences.
        length: Numbers in each, at least 2.
        generator: Where all is drawn from; None takes PyTorch's global one.

    Shapes: returns (B, L, 2), the numbers beside their marks 0 or 1, and (B,), float32.

    Raises:
        ValueError: If there is no sequence, or ``length`` is below 2.

    Example:
        >>> x, y = adding(3, 7, generator=torch.Generator().manual_seed(0))
        >>> x.shape, torch.equal((x[:, :, 0] * x[:, :, 1]).sum(1), y)
        (torch.Size([3, 7, 2]), True)

    Source: S. Hochreiter, J. Schmidhuber, Long short-term memory, 1997; marks in the halves as in Q. Le, N. Jaitly,
        G. Hinton, A simple way to initialize recurrent networks, https://arxiv.org/abs/1504.00941, 2015.
    """
    _at_least_one(batch=batch)
    if length < 2:
        raise ValueError(f"length must be at least 2, got {length}")
    device, half = _device(generator), length // 2
    numbers = torch.rand(batch, length, generator=generator, device=device)  # (B, L)
    places = torch.stack(
        [
            torch.randint(half, (batch,), generator=generator, device=device),
            torch.randint(half, length, (batch,), generator=generator, device=device),
        ],
        1,
    )  # (B, 2)
    marks = torch.zeros_like(numbers).scatter_(1, places, 1.0)
    return torch.stack([numbers, marks], 2), numbers.gather(1, places).sum(1)


def recall(
    batch: int,
    pairs: int,
    *,
    keys: int = 64,
    values: int = 64,
    queries: int | None = None,
    gap: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Learn which value belongs to which key, from pairs read once, and name the value when the key comes again.

    The sequence is key, value, key, value, ..., blanks, and then keys alone, each at most once, in another order; the
    value is due where its key is read. In every sequence the pairs are others. Who only names a value of the sequence
    is right for 1 / ``pairs``. Tokens: the keys 0 to keys - 1, then the values, then one blank, so that a model needs a
    vocabulary of keys + values + 1; targets are the values' tokens.

    Args:
        batch: Sequences.
        pairs: In each, at most ``keys``.
        keys: Different ones.
        values: Different ones; two keys of a sequence may have the same.
        queries: Keys asked for, at most ``pairs``; None asks for all.
        gap: Blanks between the pairs and the first question.
        generator: Where all is drawn from; None takes PyTorch's global one.

    Shapes: returns (B, L) and (B, L), int64, L = 2 pairs + gap + queries.

    Raises:
        ValueError: If a number is below 1 (``gap``: below 0), or there are not so many keys or pairs.

    Example:
        >>> x, y = recall(1, 3, keys=5, values=5, gap=1, generator=torch.Generator().manual_seed(0))
        >>> x.tolist(), y[:, 7:].tolist()
        ([[2, 9, 3, 7, 4, 8, 10, 4, 2, 3]], [[8, 9, 7]])

    Source: J. Ba et al., Using fast weights to attend to the recent past, https://arxiv.org/abs/1610.06258, 2016; with
        many questions S. Arora et al., Zoology, https://arxiv.org/abs/2312.04927, 2023.
    """
    queries = pairs if queries is None else queries
    _at_least_one(batch=batch, pairs=pairs, keys=keys, values=values, queries=queries)
    if pairs > keys:
        raise ValueError(f"{pairs} pairs need as many different keys, and there are {keys}")
    if queries > pairs or gap < 0:
        raise ValueError(f"queries must be at most pairs={pairs} and gap at least 0, got {queries} and {gap}")
    device = _device(generator)
    key = torch.rand(batch, keys, generator=generator, device=device).argsort(1)[:, :pairs]  # (B, P)
    value = keys + torch.randint(values, (batch, pairs), generator=generator, device=device)  # (B, P)
    asked = torch.rand(batch, pairs, generator=generator, device=device).argsort(1)[:, :queries]  # (B, queries)
    blanks = torch.full((batch, gap), keys + values, device=device)
    x = torch.cat([torch.stack([key, value], 2).flatten(1), blanks, key.gather(1, asked)], 1)
    y = torch.full_like(x, IGNORE)
    y[:, 2 * pairs + gap :] = value.gather(1, asked)
    return x, y


def parity(batch: int, length: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Say after every bit whether the ones so far are odd in number: one bit of memory, but each input may turn it.

    Guessing is right half of the time.

    Args:
        batch: Sequences.
        length: Bits in each.
        generator: Where they are drawn from; None takes PyTorch's global one.

    Shapes: returns (B, L) and (B, L), int64.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> x, y = parity(1, 6, generator=torch.Generator().manual_seed(0))
        >>> x.tolist(), y.tolist()
        ([[0, 1, 1, 0, 1, 1]], [[0, 1, 0, 0, 1, 0]])

    Source: M. Hahn, Theoretical limitations of self-attention in neural sequence models,
        https://arxiv.org/abs/1906.06755, 2020.
    """
    _at_least_one(batch=batch, length=length)
    x = torch.randint(2, (batch, length), generator=generator, device=_device(generator))
    return x, x.cumsum(1) % 2


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
