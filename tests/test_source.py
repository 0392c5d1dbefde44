"""dlbook.source: listings of the package's own code."""

import html
import inspect
import math
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dlbook
from dlbook import device, evidence, markup, source
from dlbook.source import MIME, RULES, highlight, listing, render, repository, show_source

ROOT = Path(dlbook.__file__).parents[1]
SHOWN = [evidence.Estimate, evidence.Estimate.text, evidence.claim, evidence._book, device]


class Page(HTMLParser):
    """The attributes of every element, and the text within `pre`."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.code, self.inside = [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside |= tag == "pre"

    def handle_endtag(self, tag):
        self.inside &= tag != "pre"

    def handle_data(self, text):
        if self.inside:
            self.code += text

    def only(self, tag):
        (attributes,) = (attributes for name, attributes in self.elements if name == tag)
        return attributes


def without_tags(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize("obj", SHOWN, ids=lambda obj: obj.__name__)
def test_a_listing_holds_the_lines_that_its_link_names(obj):
    page = Page(listing(obj)["text/html"])
    path, first, last = re.fullmatch(
        re.escape(repository()) + r"/blob/main/(dlbook/\w+\.py)#L(\d+)-L(\d+)", page.only("a")["href"]
    ).groups()
    lines = (ROOT / path).read_text().splitlines()[int(first) - 1 : int(last)]
    assert page.code == inspect.cleandoc("\n" + "\n".join(lines))
    assert page.code in listing(obj)["text/plain"]
    assert (inspect.getdoc(obj) or "").partition("\n")[0] in page.code


def test_the_link_names_the_first_and_last_line_of_the_object():
    lines = (ROOT / "dlbook/device.py").read_text().splitlines()
    first = lines.index("def best_device() -> torch.device:") + 1
    last = lines.index("def available_cores() -> int:") - 2  # two blank lines between
    assert f"dlbook/device.py#L{first}-L{last}" in listing(device.best_device)["text/html"]


def test_a_decorator_is_part_of_the_listing():
    assert Page(listing(evidence.Estimate)["text/html"]).code.startswith("@dataclass(frozen=True)\nclass Estimate:")
    assert Page(listing(evidence._book)["text/html"]).code.startswith("@cache\ndef _book()")


def test_a_method_is_shown_flush_left():
    assert Page(listing(evidence.Estimate.text)["text/html"]).code.startswith("def text(self")
    bound = evidence.Estimate(1, 0, 2, 3).text
    assert listing(bound) == listing(evidence.Estimate.text)


@pytest.mark.parametrize("obj", SHOWN, ids=lambda obj: obj.__name__)
def test_render_repeats_the_listing_from_its_stored_name(obj):
    assert render(listing(obj)[MIME]["object"]) == listing(obj)


@pytest.mark.parametrize(
    ("obj", "name"),
    [
        (evidence.Statement, "dlbook.evidence:Statement"),
        (evidence.Estimate.text, "dlbook.statistics:Estimate.text"),
        (dlbook.start, "dlbook.scale:start"),
        (device, "dlbook.device"),
    ],
)
def test_the_stored_name_is_that_of_the_definition(obj, name):
    assert listing(obj)[MIME] == {"object": name}


def local():
    def inner():
        """Inside a function of the tests."""

    inner.__module__ = "dlbook.evidence"
    return inner


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (len, "with Python code, got <built-in function len>"),
        (math, "not 'math'"),
        (int, "not 'builtins:int'"),
        (3, "got 3"),
        ("dlbook.evidence:claim", "takes a class, function, method or module"),
        (evidence.Estimate(1, 0, 2, 3), "takes a class, function, method or module"),
        (torch.nn.Linear, "shows code of dlbook .* not 'torch"),
        (Page, "shows code of dlbook"),
        (local(), "that a name leads to"),
    ],
    ids=["builtin", "module", "type", "number", "name", "instance", "torch", "test", "local"],
)
def test_what_cannot_be_shown_is_refused(obj, message):
    with pytest.raises(ValueError, match=message):
        show_source(obj)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch.nn:Linear", "not within dlbook"),
        ("dlbook_evil:x", "not within dlbook"),
        ("dlbook.nowhere:x", "there is no 'dlbook.nowhere:x'"),
        ("dlbook.evidence:Nothing", "there is no 'dlbook.evidence:Nothing'"),
        ("dlbook.evidence:math", "not 'math'"),
    ],
)
def test_render_refuses_names_that_lead_nowhere(name, message):
    with pytest.raises(ValueError, match=message):
        render(name)


def test_the_block_scrolls_and_can_be_reached_by_keyboard():
    block = Page(listing(device.autocast)["text/html"]).only("pre")
    assert block == {"tabindex": "0", "role": "region", "aria-label": "Code of dlbook.device.autocast"}
    assert re.search(r"\.dlbook\.dlbook-source pre\{[^}]*overflow:auto", RULES)


def test_the_address_is_the_one_of_pyproject():
    assert f'Repository = "{repository()}"' in (ROOT / "pyproject.toml").read_text()


# ---- colours


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(dlbook.__path__) if not module.ispkg])
def test_highlighting_changes_no_character_of_the_package(name):
    code = (ROOT / "dlbook" / f"{name}.py").read_text()
    assert without_tags(highlight(code)) == code


@given(st.text(st.characters(exclude_characters="\r\ufeff", exclude_categories=["Cs"])))
def test_highlighting_changes_no_character_of_anything(code):
    assert without_tags(highlight(code)) == code


def test_each_kind_has_its_class():
    code = '@wrap\ndef f(x: int) -> bool:\n    """Doc."""\n    return x in (1, 2.5) or f"{x}<" == None  # why\n'
    marked = highlight(code)
    for kind, text in {"n": "@wrap", "k": "def", "s": "&quot;&quot;&quot;Doc.&quot;&quot;&quot;", "m": "2.5"}.items():
        assert f'<span class="{kind}">{text}</span>' in marked
    assert '<span class="c"># why</span>' in marked
    assert '<span class="n">f</span>' in marked
    assert "&lt;" in marked


def test_every_class_used_has_a_colour():
    used = set(re.findall(r'<span class="(\w+)">', highlight((ROOT / "dlbook/evidence.py").read_text())))
    coloured = set(re.findall(r"\.dlbook-source \.(\w)\{color:var", RULES))
    assert used == coloured


def test_names_and_links_are_escaped(monkeypatch):
    monkeypatch.setattr(source, "repository", lambda: 'https://example.org/"><script>')
    assert "<script>" not in listing(markup.escape)["text/html"]
