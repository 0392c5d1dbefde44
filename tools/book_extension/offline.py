"""Mathematics from the book itself, so that the built book asks no other host, and light enough for a slow line."""

import json
import re
import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.config import Config

# MathJax 3 comes in parts. These are joined into one script: TeX in, HTML out, and MathML for screen readers. Its whole
# (tex-mml-chtml.js) weighs half as much again, for a menu and for MathML as input.
FIRST = "startup.js"
PARTS = {
    "core": "core.js",
    "input/tex": "input/tex.js",
    "output/chtml": "output/chtml.js",
    "output/chtml/fonts/tex": "output/chtml/fonts/tex.js",
    "a11y/assistive-mml": "a11y/assistive-mml.js",
}
# What a page may ask for besides: letters, and TeX extensions by the commands that stand in it.
FONTS, EXTENSIONS = "output/chtml/fonts/woff-v2", "input/tex/extensions"
FACE = re.compile(r""""font-family":"(MJX[\w-]+)",src:'url\("%%URL%%/(\w+-?\w*)\.woff"\)""")
FACES = "faces.css"
# Fonts of many symbols are split in two: these characters, and all others, which few pages need. The blank is among the
# first, because a browser measures a font by it.
MOST = {
    "MathJax_AMS-Regular": " ABCDEFGHIJKLMNOPQRSTUVWXYZ□■",  # \\mathbb's letters
    "MathJax_Calligraphic-Regular": " ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "MathJax_Main-Regular": "".join(map(chr, range(0x20, 0x7F)))
    + "¬¯±×÷·ℓΓΔΘΛΞΠΣΥΦΨΩ′…←→↑↓↔↦⇐⇒⇔∀∂∃∅∇∈∉∑∏√∝∞∣∥‖̸∧∨∩∪∫∼≃≈≠≡≤≥≪≫⊂⊆⊕⊗⊙⊤⊥⋅⋮⋯⋱⌈⌉⌊⌋⟨⟩⟶ˆˉ˙˜⃗−∗∘",
}


def mathjax_folder() -> Path:
    """Where the PyPI package sphinx-mathjax-offline keeps MathJax."""
    for file in distribution("sphinx-mathjax-offline").files or []:
        if file.name == FIRST:
            return Path(str(file.locate())).parent
    raise FileNotFoundError(f"{FIRST} is not in the installed sphinx-mathjax-offline")


def use_local_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = "mathjax/mathjax.js"
    config.mathjax_options = {"async": "async"}  # the page does not wait for its formulas


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir, "_static", "mathjax")
    for name in (FONTS, EXTENSIONS):
        shutil.copytree(source / name, target / name, dirs_exist_ok=True)
    parts = [(source / name).read_text(encoding="utf-8") for name in (FIRST, *PARTS.values())]
    (target / FACES).write_text(font_faces("".join(parts), target / FONTS), encoding="utf-8")
    own = (Path(__file__).parent / "mathjax.js").read_text(encoding="utf-8")
    own = own.replace("$PARTS", json.dumps(list(PARTS)))
    (target / "mathjax.js").write_text(";\n".join([*parts, own]), encoding="utf-8")


def font_faces(script: str, folder: Path) -> str:
    """Return the rules that MathJax would add to a page, with its fonts packed tighter and some split in two.

    They belong into the style sheet: where a script adds a font, a browser looks again for all those that had come too
    late for the first drawing, and every line of the page may move.
    """
    rules = []
    for family, name in FACE.findall(script):
        path = folder / f"{name}.woff"
        known = set(TTFont(path).getBestCmap())
        most = known & set(map(ord, MOST[name])) if name in MOST else known
        for file, codes in {f"{name}-more.woff2": known - most, f"{name}.woff2": most}.items():
            if codes:
                cut_font(path, folder / file, codes)
                source = f"url(mathjax/{FONTS}/{file})format('woff2')"
                rules.append(f"@font-face{{font-family:{family};src:{source};unicode-range:{unicode_range(codes)}}}")
        path.unlink()
    return "\n".join(rules)


def unicode_range(codes: set[int]) -> str:
    starts = sorted(code for code in codes if code - 1 not in codes)
    ends = sorted(code for code in codes if code + 1 not in codes)
    return ",".join(f"U+{a:X}" if a == b else f"U+{a:X}-{b:X}" for a, b in zip(starts, ends, strict=True))


def cut_font(source: Path, target: Path, codes: set[int]) -> None:
    """Write a font, as WOFF2, with these characters alone."""
    options = subset.Options(flavor="woff2", hinting=False, ignore_missing_unicodes=True)
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=codes)
    cutter.subset(font)
    subset.save_font(font, str(target), options)


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
