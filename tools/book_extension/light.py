"""What a page asks for, made small: one style sheet of what the pages use, icons cut to those that occur, no idle scripts.

The theme brings the whole of Bootstrap, of sphinx-design and of an icon font. All pages are looked at when they are
written, and what occurs in none of them is left out.
"""

import hashlib
import html
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

import tinycss2
from sphinx.application import Sphinx
from tinycss2.ast import Node

from .offline import FACES, cut_font

STYLE = re.compile(r'\s*<link (?=[^>]*rel="stylesheet")[^>]*href="([^"]*?_static/([^"?]+))[^"]*"[^>]*>')
ICON_PARTS = re.compile(r'<script [^>]*/fontawesome/[^>]*></script>|<link rel="preload"[^>]*/webfonts/fa-[^>]*>')
EARLY = re.compile(r'<link rel="preload" as="script"[^>]*>')  # scripts come after the text and its letters
SCRIPT = re.compile(r'<script([^>]*) src="([^"?]*/|)([^"?/]+\.js)([^"]*)"></script>')
OPTIONS = "documentation_options.js"
# The theme first says "auto", and its script, which comes late, then light or dark: sizes and colours would jump.
THEME = 'localStorage.getItem("theme") || "auto"'
THEME_AT_ONCE = (
    'localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")'
)
# What is far below is laid out (see book.css) when the reader first moves, or at once where the page does not open at its
# top; from then on every link leads exactly where it says.
AWAKE = """<script>(() => {
  const awake = () => { document.documentElement.classList.add("dl-awake"); dispatchEvent(new Event("resize")); };
  const top = !location.hash && performance.getEntriesByType("navigation")[0]?.type === "navigate";
  for (const sign of top ? ["scroll", "keydown", "pointerdown", "focusin", "beforeprint"] : ["DOMContentLoaded"])
    addEventListener(sign, awake, { once: true });
  if (!top) document.documentElement.classList.add("dl-awake");
})();</script>
</head>"""
# The theme asks of every block of code whether it scrolls, which would lay out the whole page: not before it is awake.
SCROLLS = "e.tabIndex=e.scrollWidth>"
SCROLLS_IF_SEEN = "e.tabIndex=!e.checkVisibility({contentVisibilityAuto:!0})||e.scrollWidth>"
SCROLLING = '"pre, .nboutput'
SCROLLING_HERE = '"pre, .dlbook-table, .nboutput'
RESIZED = 'window.addEventListener("resize",t)'
RESIZED_OR_LETTERS = f"{RESIZED},document.fonts.ready.then(t)"  # letters that come late are wider
# Scripts that a page loads only if this occurs in it.
NEEDED_BY = {
    "mathjax.js": r'class="(?:[^"]* )?math[ "]',
    "design-tabs.js": 'class="sd-tab',
    "togglebutton.js": r'class="(?:[^"]* )?(?:toggle\b|admonition[^"]* dropdown)',
}
# Code: names, punctuation, blanks and operators have the colour of the text, and need no element of their own.
PRE = re.compile(r"<pre>.*?</pre>", re.DOTALL)
PLAIN = re.compile(r'<span class="(?:n|nn|p|w|o)">([^<]*)</span>')
# Class names that Bootstrap's script gives to what the theme uses of it: tooltips, menus, the mark in the contents.
FROM_BOOTSTRAP = {"tooltip", "tooltip-inner", "tooltip-arrow", "bs-tooltip-auto", "fade", "show", "active"}
FROM_BOOTSTRAP |= {"dropdown", "dropdown-menu", "dropdown-item", "collapse", "collapsing", "collapsed", "disabled"}
PRINTED = {"dl-contents", "dl-title", "h1", "h2"}  # what tools/make_pdf.py puts in front
WORD = re.compile(r"[A-Za-z_][\w-]*")
NAMED = re.compile(r'(?:class|id)="([^"]*)"')
INLINE = re.compile(r"<script(?![^>]*json)[^>]*>(.*?)</script>", re.DOTALL)
ADDRESS = re.compile(
    r"""(?P<import>@import )?(?:url\(|(?<=@import ))["']?(?!data:|#|https?:)(?P<to>[^)"']+)["']?\)?(?(import);)"""
)
ICON = re.compile(r"\\([ef][0-9a-f]{3})\b|([\ue000-\uf8ff])")
FONT_FILES = re.compile(r"(fa-[a-z0-9-]+)\.woff2\) format\(\"woff2\"\),url\([^)]*\.ttf\) format\(\"truetype\"\)")


def lighten(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    pages = {path: path.read_text(encoding="utf-8") for path in Path(app.outdir).rglob("*.html")}
    pages = {
        path: EARLY.sub("", ICON_PARTS.sub("", PRE.sub(merged, page)))
        for path, page in pages.items()
        if static not in path.parents
    }
    pages = {path: page.replace(THEME, THEME_AT_ONCE) for path, page in pages.items()}
    words = used_words(pages.values(), static)
    sheets = list(dict.fromkeys(name for page in pages.values() for _, name in STYLE.findall(page)))
    style = cut_icons(living("".join(sheet(static, name) for name in sheets), words), static)
    style += (static / "mathjax" / FACES).read_text(encoding="utf-8")
    (static / "pages.css").write_text(style, encoding="utf-8")
    version = hashlib.sha256(style.encode()).hexdigest()[:8]
    cut_letters(pages.values(), Path(app.srcdir, "_static", "fonts"), static / "fonts")
    wait_for_layout(static / "scripts" / "pydata-sphinx-theme.js")
    for path, page in pages.items():
        page = lazy_scripts(one_style(page, version), static).replace("</head>", AWAKE, 1)
        path.write_text(page, encoding="utf-8")


# ---- style sheets


def used_words(pages: Iterable[str], static: Path) -> set[str]:
    """Return the names of classes and ids in the pages, and every word of the scripts, which may name one."""
    words = FROM_BOOTSTRAP | PRINTED
    for page in pages:
        for names in NAMED.findall(page):
            words.update(names.split())
        for code in INLINE.findall(page):
            words.update(WORD.findall(code))
    for script in [*static.glob("*.js"), *static.glob("scripts/*theme.js")]:
        words.update(WORD.findall(script.read_text(encoding="utf-8")))
    return words


def sheet(static: Path, name: str) -> str:
    """Return a style sheet, and in it those that it imports, with addresses that hold in the folder of all sheets."""

    def moved(match: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), match["to"]))
        return sheet(static, place) if match["import"] else f"url({place})"

    return ADDRESS.sub(moved, (static / name).read_text(encoding="utf-8").removeprefix('@charset "UTF-8";'))


def living(css: str, words: set[str]) -> str:
    """Leave out the rules for classes and ids that do not occur."""
    return "".join(written(rule, words) for rule in tinycss2.parse_stylesheet(css, skip_whitespace=True))


def written(rule: Node, words: set[str]) -> str:
    if rule.type == "comment":
        return rule.serialize() if rule.value.startswith("!") else ""  # a licence
    if rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports") and rule.content:
        inside = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
        kept = "".join(written(part, words) for part in inside)
        return f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{kept}}}\n" if kept else ""
    if rule.type != "qualified-rule":
        return rule.serialize() + "\n"
    kept = [tinycss2.serialize(selector).strip() for selector in selectors(rule.prelude) if occurs(selector, words)]
    body = re.sub(r"\s*\n\s*", "", tinycss2.serialize([token for token in rule.content if token.type != "comment"]))
    return f"{','.join(kept)}{{{body.strip()}}}\n" if kept and body.strip() else ""


def selectors(prelude: list[Node]) -> list[list[Node]]:
    """Split what stands before a rule at its commas."""
    found: list[list[Node]] = [[]]
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            found.append([])
        elif token.type != "comment":
            found[-1].append(token)
    return found


def occurs(selector: list[Node], words: set[str]) -> bool:
    """Whether all classes and ids that a selector asks for occur; what stands in :not(...) and :is(...) does not count."""
    for before, token in zip([None, *selector], selector, strict=False):
        after_dot = before is not None and before.type == "literal" and before.value == "."
        if (token.type == "hash" or (token.type == "ident" and after_dot)) and token.value not in words:
            return False
    return True


def one_style(page: str, version: str) -> str:
    """Put one link in the place of those to all the style sheets."""
    first = STYLE.search(page)
    if not first:
        return page
    link = f'\n<link rel="stylesheet" href="{first[1].removesuffix(first[2])}pages.css?v={version}">'
    return page[: first.start()] + link + STYLE.sub("", page[first.start() :])


def cut_icons(style: str, static: Path) -> str:
    """Cut the icon fonts to the icons that the style sheet still names."""
    codes = {int(code, 16) if code else ord(letter) for code, letter in ICON.findall(style)}
    [folder] = static.glob("vendor/fontawesome/*/webfonts")
    for path in folder.glob("*.ttf"):
        cut_font(path, path.with_suffix(".woff2"), codes)
        path.unlink()
    return FONT_FILES.sub(r'\1.woff2) format("woff2")', style)


def cut_letters(pages: Iterable[str], source: Path, target: Path) -> None:
    """Cut the fonts of the text to the characters that occur in the pages, and those that a script may write."""
    letters = {*map(ord, html.unescape("".join(pages))), *range(0x20, 0x7F)}
    for path in source.glob("*.woff2"):
        cut_font(path, target / path.name, letters)


# ---- scripts


def wait_for_layout(script: Path) -> None:
    code = script.read_text(encoding="utf-8")
    if SCROLLS_IF_SEEN not in code:  # pages are often built into a folder that holds the last ones
        for old, new in ((SCROLLS, SCROLLS_IF_SEEN), (SCROLLING, SCROLLING_HERE), (RESIZED, RESIZED_OR_LETTERS)):
            if code.count(old) != 1:
                raise ValueError(
                    f"the theme's script has changed: {old!r} stands in it {code.count(old)} times, expected once"
                )
            code = code.replace(old, new)
        script.write_text(code, encoding="utf-8")


def merged(code: re.Match[str]) -> str:
    return PLAIN.sub(r"\1", code[0])


def lazy_scripts(page: str, static: Path) -> str:
    """Let no script hold the page up, and leave out those for things that it has not."""

    def replaced(match: re.Match[str]) -> str:
        attributes, folder, name, version = match.groups()
        if name == OPTIONS:
            return f"<script>{(static / OPTIONS).read_text(encoding='utf-8')}</script>"
        if name in NEEDED_BY and not re.search(NEEDED_BY[name], page):
            return ""
        if "async" in attributes or "defer" in attributes:
            return match[0]
        return f'<script defer{attributes} src="{folder}{name}{version}"></script>'

    return SCRIPT.sub(replaced, page)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", lighten, priority=900)
