"""Chapters on their way from stored notebook to page: listings, cards, pictures, numbers of figures."""

import base64
import hashlib
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

from dlbook import evidence, source

CHAPTER = re.compile(r"chapters/(\d\d)-")
SUMMARY = '<div class="dlbook dlbook-summary"'
FRAME = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
# What a page asks for only when a reader turns to an explorer: all its frames, so that none comes late.
AHEAD = """<script>document.querySelectorAll("[data-dl-explorer]").forEach(root => {
const ahead = () => { root.ahead ??= JSON.parse(root.querySelector('script[type="application/json"]').textContent)
.map(frame => Object.assign(new Image(), {src: frame.src})); };
["pointerover", "focusin"].forEach(turned => root.addEventListener(turned, ahead, {once: true}));
});</script>"""
SIZED = re.compile(r'(<img [^>]*?)style="width: (\d+)px; height: (\d+)px;?"')


def prepare(app: Sphinx, docname: str, text: list[str]) -> None:
    """Render listings and cards afresh, and keep of each output only the form that the page shows."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = json.loads(text[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = page_form(output["data"], app.env)
    notebook["cells"] = [part for cell in notebook["cells"] for part in around_figure(cell)]
    text[0] = json.dumps(notebook)


def page_form(data: dict[str, Any], env: BuildEnvironment) -> dict[str, Any]:
    """Return what the page shows of one output.

    A listing reads as its code does today and a card as its statement does, whatever the notebook stored; an explorer
    comes without the still of it. Of the forms made for programs none is left: Sphinx would warn of each.
    """
    if evidence.MIME in data:
        data = evidence.card(data[evidence.MIME])
    elif source.MIME in data:
        name = data[source.MIME]["object"]
        data = source.render(name)
        env.note_dependency(str(inspect.getsourcefile(importlib.import_module(name.partition(":")[0]))))
    dropped = {evidence.MIME, source.MIME} | ({"image/png"} if "text/html" in data else set())
    kept = {mime: content for mime, content in data.items() if mime not in dropped}
    if "text/html" in kept:  # the empty corner of a table heads nothing
        kept["text/html"] = "".join(kept["text/html"]).replace('<th scope="col"></th>', "<td></td>")
    return kept


def around_figure(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cell, and what it shows beside a captioned picture as a cell of its own below.

    myst-nb puts the caption around every output of the cell, and so would use the figure's name twice.
    """
    rest = [output for output in cell.get("outputs", []) if "image/png" not in output.get("data", {})]
    if not rest or "figure" not in cell["metadata"].get("mystnb", {}):
        return [cell]
    pictures = [output for output in cell["outputs"] if output not in rest]
    below = {"id": f"{cell['id']}-below", "source": "...", "outputs": rest, "metadata": {"tags": ["remove-input"]}}
    return [cell | {"outputs": pictures}, cell | below]


def number_figures(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number figures, equations and theorems by chapter: those of chapters/02-... are 2.1, 2.2 and so on.

    Sphinx takes the chapter's number from its place in the table of contents, where chapter 2 may come first, and
    would print it before every heading, which carries its number already. So the numbers of sections are lent to it
    for this one count.
    """
    own = env.toc_secnumbers
    chapters = {name: match for name in env.found_docs if (match := CHAPTER.match(name))}
    env.toc_secnumbers = {name: {"": (int(match[1]),)} for name, match in chapters.items()}
    changed = TocTreeCollector().assign_figure_numbers(env)
    env.toc_secnumbers = own
    return changed


def finish_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Give pictures their size as attributes, and mend what screen readers would stumble over.

    With attributes the browser keeps a picture's place before it has loaded, and CSS may shrink it in proportion;
    docutils writes the size as a style. myst-nb gives every folded cell a second name, which would hide the one that
    shows, docutils gives entries of a bibliography a role that is no longer in use, and the table of a chapter's verdicts
    scrolls on phones, which has to be possible by keyboard.
    """
    if "body" in context:
        body = SIZED.sub(r'\1width="\2" height="\3"', context["body"])
        body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
        body = body.replace(SUMMARY, SUMMARY + ' tabindex="0" role="region" aria-label="Verdicts of this chapter"')
        body = body.replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = frames_as_files(once_each(body), app, context["pathto"])


def frames_as_files(body: str, app: Sphinx, pathto: Any) -> str:
    """Put the frames of explorers into files: a notebook has to hold them itself, and a page would be heavy with them."""

    def stored(match: re.Match[str]) -> str:
        png = base64.b64decode(match[1])
        name = f"_images/frame-{hashlib.sha256(png).hexdigest()[:16]}.png"
        path = Path(app.outdir, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png)
        return str(pathto(name, 1))

    if "data-dl-explorer" not in body:
        return body
    return FRAME.sub(stored, body).replace('<img class="dl-frame"', '<img loading="lazy" class="dl-frame"') + AHEAD


def once_each(body: str) -> str:
    """Leave out the styles that a page has already: in a notebook each output brings its own."""
    seen: set[str] = set()

    def first(match: re.Match[str]) -> str:
        known = match[0] in seen
        seen.add(match[0])
        return "" if known else match[0]

    return STYLE.sub(first, body)


def load_images_late(app: Sphinx) -> None:
    app.env.settings["image_loading"] = "lazy"


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", load_images_late)
    app.connect("source-read", prepare)
    app.connect("env-get-updated", number_figures, priority=900)
    app.connect("html-page-context", finish_page, priority=900)
