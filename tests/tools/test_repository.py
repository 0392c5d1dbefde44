"""All copies of the repository's address are equal, and one command changes them all."""

import subprocess

import pytest

from tools.repository import FORM, address, owners, rewrite, texts


def test_all_copies_are_equal():
    owner, name = FORM.fullmatch(address()).groups()
    others = {str(path): found for path, text in texts().items() if (found := owners(text, name) - {owner})}
    # these two speak of other repositories on purpose
    assert {path for path in others if not path.endswith(("test_repository.py", "tools/repository.py"))} == set()


@pytest.fixture
def project(tmp_path):
    files = {
        "pyproject.toml": '[project]\n[project.urls]\nRepository = "https://github.com/ada/book"\n',
        "README.md": "https://github.com/ada/book, https://github.com/ada/book.git, https://github.com/ada/bookshop",
        "a/_config.yml": "https://colab.research.google.com/github/ada/book/blob/main/x.ipynb ada.github.io/book",
        "other.md": "https://github.com/bob/book and ada/book",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff github.com/ada/book")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def test_rewrite(project):
    changed = rewrite("https://github.com/eve/deep.learning/", project)
    assert {path.name for path in changed} == {"pyproject.toml", "README.md", "_config.yml"}
    assert address(project) == "https://github.com/eve/deep.learning"
    new = "https://github.com/eve/deep.learning"
    assert (project / "README.md").read_text() == f"{new}, {new}.git, https://github.com/ada/bookshop"
    config = (project / "a" / "_config.yml").read_text()
    assert config == (
        "https://colab.research.google.com/github/eve/deep.learning/blob/main/x.ipynb eve.github.io/deep.learning"
    )
    assert rewrite("https://github.com/eve/deep.learning", project) == []


@pytest.mark.parametrize("wrong", ["https://gitlab.com/ada/book", "ada/book", "https://github.com/ada"])
def test_address_of_another_form(project, wrong):
    with pytest.raises(ValueError, match="not of the form"):
        rewrite(wrong, project)


def test_owners():
    assert owners("github.com/ada/book, research.google.com/github/bob/book/x, github.com/cy/bookshop", "book") == {
        "ada",
        "bob",
    }
