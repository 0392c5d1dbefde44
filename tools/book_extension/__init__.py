"""What the rendered book needs beyond the settings in _config.yml, as one Sphinx extension.

notebooks  listings rendered afresh, pictures that shrink on phones, figures numbered by chapter
evidence   the page of statements and the count of verdicts, filled from the stored notebooks
offline    MathJax from the book itself, and no script that the pages do not need
"""

from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from . import evidence, notebooks, offline


def allow_parallel_reading(app: Sphinx, config: Config) -> None:
    """Two extensions of Jupyter Book keep nothing between pages, but do not say so; Sphinx then reads one by one."""
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", allow_parallel_reading, priority=999)
    for part in (notebooks, evidence, offline):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
