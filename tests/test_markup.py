"""dlbook.markup: colours, escaping, and showing an output with and without a kernel."""

import html
import re

import nbformat
import pytest
from nbclient import NotebookClient

from dlbook import evidence, source
from dlbook.evidence import verdicts
from dlbook.markup import DARK_COLOURS, LIGHT_COLOURS, escape, show, style

NOT_TEXT = {"back", "edge"}


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_contrast_itself():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.005)  # WCAG's well-known lightest grey


@pytest.mark.parametrize("name", sorted(LIGHT_COLOURS.keys() - NOT_TEXT))
@pytest.mark.parametrize("colours", [LIGHT_COLOURS, DARK_COLOURS], ids=["light", "dark"])
def test_text_can_be_read_in_both_themes(colours, name):
    assert contrast(colours[name], colours["back"]) >= 4.5


def test_both_themes_name_the_same_colours():
    assert LIGHT_COLOURS.keys() == DARK_COLOURS.keys()
    assert luminance(LIGHT_COLOURS["back"]) > 0.8
    assert luminance(DARK_COLOURS["back"]) < 0.05


@pytest.mark.parametrize("rules", [evidence.RULES, source.RULES], ids=["card", "listing"])
def test_every_colour_used_is_defined(rules):
    tone = {"tone"}  # set by the card itself
    used = set(re.findall(r"var\(--dl-(\w+)\)", style(rules)))
    assert used <= LIGHT_COLOURS.keys() | tone
    assert style(rules).count("{") == style(rules).count("}")


@pytest.mark.parametrize("rules", [evidence.RULES, source.RULES], ids=["card", "listing"])
def test_a_later_output_does_not_undo_the_style_of_an_earlier_one(rules):
    # Each output repeats the frame `.dlbook{border...}`; what a kind of output changes about it must weigh more.
    own = re.findall(r"([^{}]+)\{([^{}]*)\}", rules)
    frame = re.search(r"\.dlbook\{(background[^}]*)\}", style(""))[1]
    properties = {part.partition(":")[0].split("-")[0] for part in frame.split(";")}
    for selector, body in own:
        if re.fullmatch(r"\S*\.dlbook-(claim|source)", selector):
            changed = {part.partition(":")[0].split("-")[0] for part in body.split(";")}
            assert selector.startswith(".dlbook.dlbook-") or not changed & properties, selector


def test_dark_rules_reach_every_place_the_book_is_read():
    block = re.search(r"\}([^{}]*)\{" + re.escape(f"--dl-back:{DARK_COLOURS['back']}"), style(""))[1]
    places = {
        "html[data-theme=dark]": "the book",
        "body[data-jp-theme-light=false]": "JupyterLab",
        "html[theme=dark]": "Colab",
        "body.vscode-dark": "VS Code",
    }
    assert set(block.split(",")) == {f"{place} .dlbook" for place in places}


def test_escape_round_trips_and_leaves_no_markup():
    text = "<a href=\"x\" title='y'>&amp;</a>"
    assert html.unescape(escape(text)) == text
    assert not set("<>\"'") & set(escape(text))


def test_without_a_kernel_the_plain_text_is_printed(capsys):
    show({"text/plain": "plain", "text/html": "<b>rich</b>"})
    assert capsys.readouterr().out == "plain\n"


def test_a_kernel_stores_all_forms():
    code = """
from dlbook import start
from dlbook.device import available_cores
from dlbook.evidence import claim
from dlbook.source import show_source
run = start("cpu", 0)
claim("2.1", holds=True, because="so")
show_source(available_cores)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    line, card, listing = notebook.cells[0].outputs
    assert line.output_type == "stream"
    assert card.data.keys() == {"text/plain", "text/html", evidence.MIME}
    assert listing.data.keys() == {"text/plain", "text/html", source.MIME}
    assert listing.data[source.MIME] == {"object": "dlbook.device:available_cores"}
    assert verdicts(notebook)["2.1"]["scale"] == "cpu"
