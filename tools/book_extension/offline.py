"""MathJax from the book itself, and no script that the pages do not need: the built book asks no other host."""

import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

# The parts of MathJax 3 that a page can ask for: the program, its fonts, TeX extensions, speech for screen readers.
MATHJAX = ("tex-mml-chtml.js", "output/chtml", "input/tex/extensions", "a11y", "sre")


def mathjax_folder() -> Path:
    """Where the PyPI package sphinx-mathjax-offline keeps MathJax."""
    for file in distribution("sphinx-mathjax-offline").files or []:
        if file.name == MATHJAX[0]:
            return Path(str(file.locate())).parent
    raise FileNotFoundError(f"{MATHJAX[0]} is not in the installed sphinx-mathjax-offline")


def use_local_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = "mathjax/" + MATHJAX[0]


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir, "_static", "mathjax")
    for name in MATHJAX:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source / name, target / name)


def tidy_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Drop thebe, which Jupyter Book always adds, and what is listed twice; show a lone launch button by itself."""
    for kind in ("script_files", "css_files"):
        seen: dict[str, Any] = {}
        for file in context.get(kind, []):
            body = getattr(file, "attributes", {}).get("body")
            name = str(body or getattr(file, "filename", None) or file)
            if "thebe" not in name.lower():
                seen.setdefault(name, file)
        context[kind] = list(seen.values())
    buttons = context.get("header_buttons", [])
    for i, button in enumerate(buttons):
        if button.get("label") == "launch-buttons" and len(button["buttons"]) == 1:
            colab = button["buttons"][0]
            buttons[i] = {**colab, "tooltip": "Run this chapter on Google Colab", "label": "colab"}


def setup(app: Sphinx) -> None:
    app.connect("config-inited", use_local_mathjax)
    app.connect("html-page-context", tidy_page, priority=900)
    app.connect("build-finished", copy_mathjax)
