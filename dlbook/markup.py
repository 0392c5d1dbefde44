"""The HTML that statement cards and code listings share: colours for light and dark, escaping, display.

Every output brings its own few lines of CSS, because Colab and VS Code show each in a page of its own. Where style
is stripped (GitHub, a notebook that JupyterLab does not trust yet) plain headings, paragraphs and code remain.
"""

import html
from collections.abc import Mapping
from typing import Any

# The surroundings say that they are dark: this book, JupyterLab, Colab, VS Code.
DARK = (
    "html[data-theme=dark]",
    "body[data-jp-theme-light=false]",
    "html[theme=dark]",
    "body.vscode-dark",
)

# Every colour of text below has a contrast of at least 4.5 to 1 with `back`; a test computes it.
LIGHT_COLOURS = {
    "back": "#f7f8fa",
    "edge": "#c9ced6",
    "text": "#1f2328",
    "quiet": "#57606a",
    "link": "#0a58b8",
    "good": "#19692c",
    "mixed": "#855400",
    "bad": "#b3261e",
    "keyword": "#8a1f8f",
    "name": "#0a58b8",
    "string": "#1b6633",
    "number": "#8f4a00",
    "comment": "#5d656e",
}
DARK_COLOURS = {
    "back": "#1b1f26",
    "edge": "#454c57",
    "text": "#e4e7eb",
    "quiet": "#a8b0bb",
    "link": "#80b8ff",
    "good": "#7ccf8f",
    "mixed": "#f0b95b",
    "bad": "#ff9a91",
    "keyword": "#d9a0ee",
    "name": "#80b8ff",
    "string": "#93d3a2",
    "number": "#f2b27a",
    "comment": "#a0a8b3",
}


def style(rules: str) -> str:
    """Return a style element: the colours of both themes as variables, then the rules that use them.

    Args:
        rules: CSS that names colours as ``var(--dl-text)`` and so on.

    Example:
        >>> "--dl-text:#1f2328" in style(".dlbook{color:var(--dl-text)}")
        True
    """
    dark = ",".join(f"{place} .dlbook" for place in DARK)
    frame = (
        ".dlbook{background:var(--dl-back);color:var(--dl-text);border:1px solid var(--dl-edge);"
        "border-radius:6px;margin:.5em 0;line-height:1.5;overflow:hidden}"
        ".dlbook a{color:var(--dl-link);text-decoration:underline}"
        # The book's theme lays a light sheet under every HTML output in dark mode; ours need none.
        "div.cell_output .text_html:has(>.dlbook){background:none!important;padding:0!important}"
    )
    return f"<style>.dlbook{{{_variables(LIGHT_COLOURS)}}}{dark}{{{_variables(DARK_COLOURS)}}}{frame}{rules}</style>"


def _variables(colours: Mapping[str, str]) -> str:
    return ";".join(f"--dl-{name}:{value}" for name, value in colours.items())


def escape(text: str) -> str:
    """Return the text safe for an element or a quoted attribute.

    Example:
        >>> escape('a < b & "c"')
        'a &lt; b &amp; &quot;c&quot;'
    """
    return html.escape(text, quote=True)


def show(bundle: Mapping[str, Any]) -> None:
    """Show an output in all its forms; outside IPython, print its plain text.

    Args:
        bundle: From MIME type to content; "text/plain" must be there.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        print(bundle["text/plain"])  # noqa: T201
    else:
        shell.display_pub.publish(dict(bundle))
