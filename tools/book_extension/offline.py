"""MathJax from the book itself, so that the built book asks no other host."""

import re
import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

# The parts of MathJax 3 that a page can ask for: the program, its fonts, TeX extensions, speech for screen readers.
MATHJAX = ("tex-mml-chtml.js", "output/chtml", "input/tex/extensions", "a11y", "sre")
ICONS = re.compile(r'<script [^>]*/fontawesome/[^>]*></script>|<link rel="preload"[^>]*/webfonts/fa-[^>]*>')


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


def drop_icon_script(app: Sphinx, error: Exception | None) -> None:
    """Take out Font Awesome's script: its style sheet and fonts draw the same icons, and it weighs more than all else."""
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        page.write_text(ICONS.sub("", html), encoding="utf-8")


def show_lone_button(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Show the button for Colab by itself: the theme hides it in a menu with one entry."""
    buttons = context.get("header_buttons", [])
    for i, button in enumerate(buttons):
        if button.get("label") == "launch-buttons" and len(button["buttons"]) == 1:
            colab = button["buttons"][0]
            buttons[i] = {**colab, "tooltip": "Run this chapter on Google Colab", "label": "colab"}


def setup(app: Sphinx) -> None:
    app.connect("config-inited", use_local_mathjax)
    app.connect("html-page-context", show_lone_button, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", drop_icon_script)
