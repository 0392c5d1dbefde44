"""Byte-pair encoding: pieces of text as numbers, learned by merging what most often stands side by side.

A new algorithm for data compression (C Users Journal, 1994); Sennrich et al. (2016), https://arxiv.org/abs/1508.07909,
for words; on bytes and with this splitting by Radford et al. (2019), Language models are unsupervised multitask learners
(GPT-2).

Chapter: chapters/06-transformers.ipynb

Letters for shapes in this file:
    L  tokens
"""

import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

Pair = tuple[int, int]

# GPT-2 writes each byte as one visible character, so that merges can be kept in a file of words and spaces: bytes that
# Latin-1 shows stand for themselves and get the first numbers; the others (33 and more codes) follow from U+0100 on.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = _VISIBLE + [
    byte for byte in range(256) if byte not in _VISIBLE
]  # the byte that each of the numbers 0-255 means
_NUMBER = {byte: number for number, byte in enumerate(BYTES)}
_LETTERS = {
    byte: chr(byte if number < len(_VISIBLE) else 256 + number - len(_VISIBLE)) for byte, number in _NUMBER.items()
}
_BYTE_OF = {letter: byte for byte, letter in _LETTERS.items()}

_WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's; Python's \s has four more
_KEPT_WORDS = 2**17  # words whose tokens are remembered by `encode`


def split(text: str) -> list[str]:
    r"""A text in the words within which GPT-2 merges: letters, digits or other signs, each with a space before it.

    The pattern is ``'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+``, written without the
    classes that Python's ``re`` does not know. What is a letter is decided by the Unicode version of this Python.

    Raises:
        TypeError: If ``text`` is no string.

    Example:
        >>> split("They're 12 monkeys...   so what?")
        ['They', "'re", ' 12', ' monkeys', '...', '  ', ' so', ' what', '?']
    """
    return _pattern().findall(_string(text))


class BytePairEncoding:
    """Tokens of one or more bytes: the 256 bytes, one for each merge of two tokens, and special ones.

    Training counts all pairs of neighbours within words and makes one token of the most frequent pair, again and again;
    of equally frequent pairs the one with the smaller numbers comes first. Encoding applies to each word the merge that
    was learned first, until there is none. Nothing is unknown, as every text is bytes.

    Args:
        merges: Pairs of tokens in the order in which they become one; the first makes the token 256.
        special: Tokens that no text contains by itself, such as the end of a document. They get the last numbers.

    Attributes:
        merges: The merges.
        tokens: The bytes of each token; a special one's are its name.
        special: The number of each special token.

    Raises:
        ValueError: If a merge names a token that no merge before it made, or stands there twice, or a special token is
            empty or stands there twice.

    Example:
        >>> bpe = BytePairEncoding.train("low lower lowest slow slower slowest " * 9, 261, special=["<end>"])
        >>> tokens = bpe.encode("slow flow")
        >>> [bpe.tokens[token] for token in tokens]
        [b's', b'low', b' ', b'f', b'low']
        >>> bpe.decode(tokens), len(bpe), bpe.special
        ('slow flow', 261, {'<end>': 260})
    """

    def __init__(self, merges: Iterable[Pair], special: Iterable[str] = ()) -> None:
        self.merges = list(merges)
        self.tokens = [bytes([byte]) for byte in BYTES]
        number = {token: i for i, token in enumerate(self.tokens)}
        self._merge: dict[Pair, tuple[int, int]] = {}  # which merge it is, and the token that it makes
        for rank, (a, b) in enumerate(self.merges):
            if not (0 <= a < len(self.tokens) and 0 <= b < len(self.tokens)):
                raise ValueError(f"merge {rank} joins {a} and {b}, but there are only {len(self.tokens)} tokens so far")
            if (a, b) in self._merge:
                raise ValueError(f"merge {rank} joins {a} and {b}, as merge {self._merge[a, b][0]} does")
            joined = self.tokens[a] + self.tokens[b]
            # Bytes that two merges lead to (ab + c, a + bc) are one token.
            self._merge[a, b] = rank, number.setdefault(joined, len(self.tokens))
            if len(number) > len(self.tokens):
                self.tokens.append(joined)
        self.special: dict[str, int] = {}
        for name in special:
            if not _string(name) or name in self.special:
                raise ValueError(f"special tokens must not be empty and differ, got {name!r}")
            self.special[name] = len(self.tokens)
            self.tokens.append(name.encode("utf-8"))
        longest_first = sorted(self.special, key=len, reverse=True)
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if special else None
        self._known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def train(
        cls, texts: str | Iterable[str], vocab_size: int, *, special: Sequence[str] = (), min_frequency: int = 2
    ) -> "BytePairEncoding":
        """Learn the merges from texts; see `learn_merges`, which does it.

        Args:
            texts: One text or several, such as the documents of a collection.
            vocab_size: Tokens, the 256 bytes and the special ones included; fewer if the texts have no more pairs.
            special: As for the class.
            min_frequency: How often a pair must occur to become a token.

        Raises:
            TypeError: If a text is no string.
            ValueError: If the vocabulary does not even hold the bytes and the special tokens.
        """
        if vocab_size < 256 + len(special):
            raise ValueError(f"vocab_size={vocab_size} must be at least 256 bytes + {len(special)} special tokens")
        words: Counter[str] = Counter()
        for text in [texts] if isinstance(texts, str) else texts:
            words.update(split(text))
        as_bytes = {_utf8(word): count for word, count in words.items()}
        return cls(learn_merges(as_bytes, vocab_size - len(special), min_frequency), special)

    def encode(self, text: str, *, special: bool = False) -> Tensor:
        """The tokens of a text.

        Args:
            text: Any text.
            special: Whether names of special tokens in the text become these tokens; if not, they are text like any
                other, so that nobody can end a document by writing so.

        Shapes: returns (L,), int64.

        Raises:
            TypeError: If ``text`` is no string.
            ValueError: If it has half a surrogate pair, which is no character.
        """
        parts = [_string(text)]
        if special and self._special_pattern:
            parts = self._special_pattern.split(text)  # text, special token, text, ..., text
        known = self._known
        tokens: list[int] = []
        for place, part in enumerate(parts):
            if place % 2:
                tokens.append(self.special[part])
                continue
            for word in split(part):
                found = known.get(word)
                if found is None:
                    found = self._encode_word(_utf8(word))
                    if len(known) < _KEPT_WORDS and len(word) < 32:
                        known[word] = found
                tokens += found
        return torch.tensor(tokens, dtype=torch.int64)

    def decode(self, tokens: Tensor | Sequence[int], *, errors: str = "replace") -> str:
        """The text of some tokens.

        Args:
            tokens: Numbers of tokens.
            errors: What happens to bytes that are no whole character, which a sequence cut anywhere may begin or end
                with: ``"replace"`` shows them as U+FFFD, ``"strict"`` raises UnicodeDecodeError, which is a ValueError.

        Shapes: ``tokens`` (L,), of integers.

        Raises:
            ValueError: If a number stands for no token, or there is more than one axis.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors)

    def decode_bytes(self, tokens: Tensor | Sequence[int]) -> bytes:
        """As `decode`, but the bytes, which need not be whole characters."""
        if isinstance(tokens, Tensor):
            if tokens.ndim != 1 or tokens.is_floating_point() or tokens.is_complex():
                raise ValueError(f"expected integers (L,), got the shape {tuple(tokens.shape)} of {tokens.dtype}")
            tokens = tokens.tolist()
        for token in tokens:
            if not 0 <= token < len(self.tokens):
                raise ValueError(f"tokens must be 0 to {len(self.tokens) - 1}, got {token}")
        return b"".join([self.tokens[token] for token in tokens])

    def save(self, path: str | Path) -> None:
        """Write the merges as GPT-2's ``vocab.bpe`` has them, one a line.

        The first line, which other readers skip, says how many there are and names the special tokens.
        """
        about = json.dumps({"merges": len(self.merges), "special": list(self.special)})
        written = ["".join(_LETTERS[byte] for byte in token) for token in self.tokens]
        lines = [f"#version: 0.2 {about}", *(f"{written[a]} {written[b]}" for a, b in self.merges)]
        Path(path).write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8"))

    @classmethod
    def load(cls, path: str | Path, *, special: Sequence[str] | None = None) -> "BytePairEncoding":
        """Read what `save` wrote, or the merges of GPT-2 and whoever else uses its form.

        Args:
            path: The file.
            special: Special tokens; those that the file names if left out.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no such file or not all of it. Of a file by others, which does not say how many merges
                it has, only a cut within a line is noticed.
        """
        try:
            lines = Path(path).read_bytes().decode("utf-8").split("\n")
            about = json.loads(lines[0].removeprefix("#version: 0.2").strip() or "{}")
            expected, named = about.get("merges"), about.get("special", [])
        except (ValueError, AttributeError):
            raise ValueError(f"{path} does not begin as a file of merges does: '#version: 0.2'") from None
        if lines.pop():
            raise ValueError(f"{path} ends within line {len(lines) + 1}: it is truncated")
        if not lines:
            raise ValueError(f"{path} is empty")
        if expected is not None and expected != len(lines) - 1:
            raise ValueError(f"{path} should hold {expected} merges and holds {len(lines) - 1}: it is truncated")
        number = {_LETTERS[byte]: i for i, byte in enumerate(BYTES)}
        merges = []
        for place, line in enumerate(lines[1:], start=2):
            parts = line.removesuffix("\r").split(" ")
            unknown = [part for part in parts if part not in number]
            if len(parts) != 2 or unknown:
                raise ValueError(f"{path}, line {place}: expected two tokens that were made before, got {line!r}")
            merges.append((number[parts[0]], number[parts[1]]))
            number.setdefault("".join(parts), len(number))
        return cls(merges, named if special is None else special)

    def _encode_word(self, word: bytes) -> list[int]:
        """Merge within a word, in n log n steps, as one of a million letters may come.

        Each place where a token begins knows the places of its neighbours; a heap has the possible merges, the one
        learned first at the top, and of the same the leftmost. One whose tokens have changed since is passed over.
        """
        token = [_NUMBER[byte] for byte in word]
        n = len(token)
        following, before = list(range(1, n + 1)), list(range(-1, n - 1))
        merge = self._merge
        heap = [(*merge[pair], i, pair) for i, pair in enumerate(pairwise(token)) if pair in merge]
        heapify(heap)
        while heap:
            _, joined, i, (a, b) = heappop(heap)
            j = following[i]
            if token[i] != a or j == n or token[j] != b:
                continue
            h, k = before[i], following[j]
            token[i], token[j], following[i] = joined, -1, k
            if k < n:
                before[k] = i
                if (pair := (joined, token[k])) in merge:
                    heappush(heap, (*merge[pair], i, pair))
            if h >= 0 and (pair := (token[h], joined)) in merge:
                heappush(heap, (*merge[pair], h, pair))
        return [number for number in token if number >= 0]


def learn_merges(words: dict[bytes, int], size: int, min_frequency: int = 2) -> list[Pair]:
    """The merges of byte-pair encoding.

    All different words stand one after the other. A merge visits only the places where its pair is and changes the
    counts there; each takes away a token, so that all merges together make fewer steps than there are bytes, times the
    logarithm for the heap that finds the most frequent pair.

    Args:
        words: How often each word occurs.
        size: Tokens wanted, the 256 bytes included.
        min_frequency: How often a pair must occur to become a token.

    Example:
        >>> [(BYTES[a], BYTES[b]) for a, b in learn_merges({b"aaab": 3, b"ab": 2}, 257)]
        [(97, 97)]

    Source: the algorithm of Sennrich et al. (2016), section 3.2, and their advice to keep the counts up to date.
    """
    # Place i has a token, the places of its neighbours in the word (-1: none) and how often its word occurs.
    token = [_NUMBER[byte] for word in words for byte in word]
    weight = [count for word, count in words.items() for _ in word]
    following, before = list(range(1, len(token) + 1)), list(range(-1, len(token) - 1))
    start = 0
    for word in words:
        if word:
            before[start] = following[start + len(word) - 1] = -1
            start += len(word)

    count: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, list[int]] = defaultdict(list)  # places where a pair begins, or began
    for i, j in enumerate(following):
        if j >= 0:
            count[token[i], token[j]] += weight[i]
            where[token[i], token[j]].append(i)
    # Counts in the heap may be out of date, but only too large: they grow only while their pair's token is being made.
    heap = [(-number, pair) for pair, number in count.items()]
    heapify(heap)

    merges: list[Pair] = []
    while heap and 256 + len(merges) < size:
        negative, pair = heappop(heap)
        if count[pair] != -negative:
            if 0 < count[pair] < -negative:
                heappush(heap, (-count[pair], pair))
            continue
        if count[pair] < max(min_frequency, 1):
            break
        # A new token each time: whatever stands around them, the same bytes are merged in the same order.
        a, b = pair
        joined = 256 + len(merges)
        merges.append(pair)

        grown = set()
        for i in where.pop(pair):  # from left to right, as they were found, which matters for aaa
            j = following[i]
            if token[i] != a or j < 0 or token[j] != b:
                continue
            w, h, k = weight[i], before[i], following[j]
            count[pair] -= w
            if h >= 0:
                count[token[h], a] -= w
                left = token[h], joined
                count[left] += w
                where[left].append(h)
                grown.add(left)
            if k >= 0:
                count[b, token[k]] -= w
                right = joined, token[k]
                count[right] += w
                where[right].append(i)
                grown.add(right)
                before[k] = i
            token[i], token[j], following[i] = joined, -1, k
        for new in grown:
            if count[new] > 0:
                heappush(heap, (-count[new], new))
    return merges


@cache
def _pattern() -> re.Pattern[str]:
    """GPT-2's pattern; the digits are looked up once, which takes a tenth of a second."""
    digits, first = "", -1
    for code in range(sys.maxunicode + 2):
        is_digit = code <= sys.maxunicode and unicodedata.category(chr(code)).startswith("N")
        if is_digit and first < 0:
            first = code
        elif not is_digit and first >= 0:
            digits, first = digits + f"\\U{first:08x}-\\U{code - 1:08x}", -1
    letter, other = f"[^\\W{digits}_]", f"(?:[^\\w{_WHITE}]|_)"  # \w is letters, digits of all kinds and _
    pattern = rf"'(?:[sdmt]|ll|ve|re)| ?{letter}+| ?[{digits}]+| ?{other}+|[{_WHITE}]+(?![^{_WHITE}])|[{_WHITE}]+"
    return re.compile(pattern)


def _string(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    return text


def _utf8(word: str) -> bytes:
    try:
        return word.encode("utf-8")
    except UnicodeEncodeError as error:
        half = word[error.start]
        raise ValueError(f"the text has half a surrogate pair, {half!r}, which is no character") from None
