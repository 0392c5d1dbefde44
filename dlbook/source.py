"""Show the package's own code in a chapter: highlighted, with its docstring and a link to its lines.

Pages show a listing that is rendered afresh from the code when the book is built (`render`), so that better wording in
a docstring reaches the page without running the chapter again.
"""

import importlib
import importlib.metadata
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from dlbook.markup import escape, show, style

MIME = "application/vnd.dlbook.source+json"
PACKAGE = "dlbook"
ROOT = Path(__file__).resolve().parents[1]
RULES = (
    ".dlbook-source .dl-head{margin:0;padding:.4em .9em;display:flex;flex-wrap:wrap;justify-content:space-between;"
    "gap:0 1em;font-size:.88em;border-bottom:1px solid var(--dl-edge)}"
    ".dlbook.dlbook-source pre{margin:0;padding:.7em .9em;overflow:auto;max-height:34em;background:none;border:0;"
    "color:inherit;font-size:.85em;line-height:1.45}"
    ".dlbook.dlbook-source .dl-code{background:none;border:0;padding:0;color:inherit;font-size:1em;font-family:"
    "var(--pst-font-family-monospace,ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace)}"
    ".dlbook.dlbook-source pre,.dlbook.dlbook-source pre .dl-code{white-space:pre;word-break:normal}"
    ".dlbook-source pre:focus-visible{outline:2px solid var(--dl-link);outline-offset:-2px}"
    ".dlbook-source .k{color:var(--dl-keyword)}.dlbook-source .n{color:var(--dl-name)}"
    ".dlbook-source .s{color:var(--dl-string)}.dlbook-source .m{color:var(--dl-number)}"
    ".dlbook-source .c{color:var(--dl-comment)}"
    "@media print{.dlbook.dlbook-source pre,.dlbook.dlbook-source pre .dl-code{max-height:none;white-space:pre-wrap}}"
)


def show_source(obj: Callable[..., object] | ModuleType) -> None:
    """Show the code of a class, function, method or module of this package.

    Args:
        obj: The object itself, not its name.

    Raises:
        ValueError: If it is something else, or does not belong to this package.

    Example:
        >>> from dlbook.markup import escape
        >>> show_source(escape)
        # dlbook/markup.py, lines ...
        def escape(text: str) -> str:
        ...
    """
    show(listing(obj))


def render(name: str) -> dict[str, Any]:
    """Return the listing of an object by its name, as a chapter's stored output gives it.

    Args:
        name: The module, then, unless the whole module is meant, a colon and the object within it.

    Raises:
        ValueError: If this package has no such object.

    Example:
        >>> render("dlbook.markup:escape")["application/vnd.dlbook.source+json"]
        {'object': 'dlbook.markup:escape'}
    """
    module, _, inside = name.partition(":")
    if module.partition(".")[0] != PACKAGE:
        raise ValueError(f"{name!r} is not within {PACKAGE}")
    try:
        obj = importlib.import_module(module)
        return listing(attrgetter(inside)(obj) if inside else obj)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"there is no {name!r}: {error}") from error


def listing(obj: Any) -> dict[str, Any]:
    """Return the code of an object in all its forms: plain text, HTML and its name.

    Args:
        obj: A class, function, method or module of this package.

    Raises:
        ValueError: If it is something else, or does not belong to this package.
    """
    obj = inspect.unwrap(obj)  # below decorators such as functools.cache
    name = _name(obj)
    lines, first = inspect.getsourcelines(obj)
    first = max(first, 1)  # a module starts at 0
    last = first + len(lines) - 1
    code = textwrap.dedent("".join(lines)).rstrip()
    path = Path(inspect.getsourcefile(obj) or "").resolve().relative_to(ROOT).as_posix()
    place = f"{path}, lines {first} to {last}"
    dotted = escape(name.replace(":", "."))
    link = escape(f"{repository()}/blob/main/{path}#L{first}-L{last}")

    markup = (
        f'{style(RULES)}<div class="dlbook dlbook-source"><p class="dl-head"><code class="dl-code">{dotted}</code> '
        f'<a href="{link}">{escape(place)}</a></p><pre tabindex="0" role="region" aria-label="Code of {dotted}">'
        f'<code class="dl-code">{highlight(code)}</code></pre></div>'
    )
    return {"text/plain": f"# {place}\n{code}", "text/html": markup, MIME: {"object": name}}


def highlight(code: str) -> str:
    """Return Python code as HTML: keywords, names being defined, strings, numbers and comments in colour.

    Args:
        code: Python, ending in any way.

    Example:
        >>> highlight("x = 1  # one")
        'x = <span class="m">1</span>  <span class="c"># one</span>'
    """
    return "".join(
        f'<span class="{kind}">{escape(text)}</span>' if kind else escape(text) for kind, text in _pieces(code)
    )


def _pieces(code: str) -> Iterator[tuple[str, str]]:
    """Yield runs of text of one kind: k keyword, n name defined, s string, m number, c comment, "" the rest."""
    from pygments import lexers, token  # type: ignore[import-untyped]

    kinds = {
        token.Comment: "c",
        token.String: "s",
        token.Number: "m",
        token.Keyword: "k",
        token.Operator.Word: "k",
        token.Name.Function: "n",
        token.Name.Class: "n",
        token.Name.Decorator: "n",
    }

    def kind_of(piece: tuple[Any, str]) -> str:
        return next((kind for parent, kind in kinds.items() if piece[0] in parent), "")

    pieces = lexers.PythonLexer(stripnl=False, ensurenl=False).get_tokens(code)
    for kind, run in groupby(pieces, kind_of):
        yield kind, "".join(text for _, text in run)


@cache
def repository() -> str:
    """Return the address of the repository, from the package's metadata.

    Example:
        >>> repository().startswith("https://")
        True
    """
    entries = importlib.metadata.metadata(PACKAGE).get_all("Project-URL") or []
    addresses = dict(entry.split(", ", 1) for entry in entries)
    return str(addresses["Repository"])


def _name(obj: Any) -> str:
    """Name an object as `render` takes it, or say why it cannot be shown."""
    if inspect.ismodule(obj):
        module, name = obj.__name__, obj.__name__
    elif inspect.isclass(obj) or inspect.isfunction(obj) or inspect.ismethod(obj):
        module, name = obj.__module__, f"{obj.__module__}:{obj.__qualname__}"
    else:
        raise ValueError(f"show_source takes a class, function, method or module with Python code, got {obj!r}")
    if module.partition(".")[0] != PACKAGE or "<" in name:  # <locals>, <lambda>
        raise ValueError(f"show_source shows code of {PACKAGE} that a name leads to, not {name!r}")
    return name
