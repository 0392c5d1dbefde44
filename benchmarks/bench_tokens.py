"""Byte-pair encoding against the tokenizers library, which is written in Rust: learning and applying the same merges.

Seconds of the processor count. The library reads one text with one core too; several it reads with all of them.
"""

import json

from benchmarks.harness import Row, compare
from dlbook.data import shakespeare
from dlbook.data.tokens import BytePairEncoding

TRAINING, ENCODING = 1.5, 1.0  # the largest ratios wanted
ENCODED = 500_000  # characters


def run(rounds: int, characters: int = 5_000_000, size: int = 8192) -> list[Row]:
    """The plays of Shakespeare; encoding starts without remembered words on both sides."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    text = shakespeare().text[:characters]
    part = text[:ENCODED]

    def ours() -> BytePairEncoding:
        return BytePairEncoding.train(text, size)

    def theirs() -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator([text], trainer)
        return tokenizer

    mine, peer = ours(), theirs()
    if mine.encode(part).tolist() != peer.encode(part).ids:
        raise AssertionError("the two do not give the same tokens: the comparison is void")
    saved, merges = peer.to_str(), mine.merges
    if len(json.loads(saved)["model"]["merges"]) != len(merges):
        raise AssertionError("the two did not learn the same number of merges: the comparison is void")
    about = f"{characters / 1e6:g} million characters, {size} tokens"
    return [
        compare(f"BytePairEncoding.train / tokenizers ({about})", ours, theirs, target=TRAINING, rounds=min(rounds, 9)),
        compare(
            f"BytePairEncoding.encode / tokenizers ({len(part) / 1e6:g} million characters)",
            lambda: BytePairEncoding(merges).encode(part),
            lambda: Tokenizer.from_str(saved).encode(part).ids,
            target=ENCODING,
            rounds=rounds,
        ),
    ]
