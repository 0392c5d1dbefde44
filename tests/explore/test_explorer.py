"""The explorer's forms: live, without a kernel, still; and what it refuses."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from dlbook.explore import Explorer, frames
from dlbook.explore.explorer import WIDGET_VIEW
from dlbook.scale import Run


def draw(colour: str, power: int, shift: float = 0.0) -> Figure:
    figure, ax = frames.fixed_axes(height=2.0)
    ax.plot([0, 1, 2], [x**power + shift for x in (0, 1, 2)], color="#0072b2" if colour == "blue" else "#d04a00")
    ax.set(xlabel="x", ylabel="y", ylim=(0, 12), title=f"power {power}")
    return figure


def explorer(**options) -> Explorer:
    start = {"power": 2}
    return Explorer(draw, alt="A power of x", start=start, colour=["blue", "red"], power=[1, 2, 3], **options)


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def frames(self) -> list[dict]:
        return json.loads(self.scripts[0])


def picture(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))).convert("RGBA")


def test_the_page_holds_a_frame_for_every_combination_with_its_own_words() -> None:
    page = Page(explorer().html)
    assert len(page.frames) == 6
    assert [frame["alt"] for frame in page.frames][:2] == [
        "A power of x: colour blue, power 1",
        "A power of x: colour blue, power 2",
    ]
    (image,) = page.all("img")
    assert image["class"] == "dl-frame"
    assert (image["src"], image["alt"]) == (page.frames[1]["src"], page.frames[1]["alt"])
    assert (image["width"], image["height"]) == ("640", "200")
    assert not any("id" in attributes for _, attributes in page.elements)  # may stand on a page twice
    assert "src" not in page.all("script")[0] | page.all("script")[1]  # asks nobody for anything


def test_each_frame_over_its_base_shows_the_figure() -> None:
    shown = explorer()
    stored = Page(shown.html).frames
    for values, frame in zip(shown.combinations, stored, strict=True):
        layers = picture(stored[frame["over"]]["src"])
        layers.alpha_composite(picture(frame["src"]))
        away = np.abs(np.asarray(layers.convert("RGB")).astype(int) - shown.pixels(**values))
        assert away.max() < 40  # few colours are kept, at the edges of lines
        assert away.mean() < 0.5
        assert shown.combinations[frame["over"]] == {**values, "power": 2}


def test_frames_that_change_little_are_small() -> None:
    sizes = [len(frame["src"]) for frame in Page(explorer().html).frames]
    assert max(sizes[0], sizes[2]) < 0.6 * sizes[1]


def test_what_differs_is_stored_with_a_rim() -> None:
    base = np.full((40, 60, 3), 255, dtype=np.uint8)
    image = base.copy()
    image[20, 30] = 0
    stored = np.asarray(Image.open(io.BytesIO(frames.png(image, over=base))).convert("RGBA"))
    rows, columns = np.nonzero(stored[..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (18, 22, 28, 32)
    assert (stored[18:23, 28:33, :3] == image[18:23, 28:33]).all()


def test_a_frame_of_another_size_is_stored_whole() -> None:
    base, image = (np.full((height, 60, 3), 255, dtype=np.uint8) for height in (40, 50))
    assert Image.open(io.BytesIO(frames.png(image, over=base))).convert("RGBA").getextrema()[3] == (255, 255)
    assert Image.open(io.BytesIO(frames.png(base, over=base))).convert("RGBA").getextrema()[3] == (0, 0)


def test_flat_colours_stay_exact() -> None:
    image = explorer().pixels(colour="red", power=3)
    stored = np.asarray(Image.open(io.BytesIO(frames.png(image))).convert("RGB"))
    for colour in ((255, 255, 255), (0xD0, 0x4A, 0x00)):
        there = (image == colour).all(axis=-1)
        assert there.sum() > 100
        assert (stored[there] == colour).all()


def test_two_runs_give_equal_bytes_whatever_the_style_around() -> None:
    first = explorer()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        second = explorer()
        assert first.html == second.html
    assert first.png(colour="red", power=1) == second.png(colour="red", power=1)
    other = Explorer(draw, alt="Another", start={"power": 2}, colour=["blue", "red"], power=[1, 2, 3])
    key = re.compile('data-dl-explorer="([^"]+)"')
    assert key.search(first.html).group(1) != key.search(other.html).group(1)
    assert not plt.get_fignums()


def test_labels_are_text_and_never_markup() -> None:
    evil = '</script><script>alert("1")</script>'
    shown = Explorer(lambda kind: draw("blue", 1), alt=f"About {evil}", kind=[evil, "<b>&amp;"])
    page = Page(shown.html)
    assert len(page.all("script")) == 2
    assert not page.all("b")
    assert page.all("img")[0]["alt"] == page.frames[0]["alt"] == f"About {evil}: kind {evil}"


def test_controls_are_named_and_reachable() -> None:
    page = Page(explorer(shift=[0.0, 0.25]).html)
    assert len(page.frames) == 12
    power, shift = page.all("input")
    assert (power["type"], power["min"], power["max"], power["value"]) == ("range", "0", "2", "1")
    assert (power["aria-label"], power["aria-valuetext"]) == ("power", "2")
    assert json.loads(shift["data-texts"]) == ["0", "0.25"]
    assert [option["value"] for option in page.all("option")] == ["0", "1"]
    assert len(page.all("label")) == 3
    assert page.all("noscript")
    assert page.all("div")[0]["role"] == "group"


def test_words_may_depend_on_the_values() -> None:
    shown = Explorer(draw, alt=lambda colour, power: f"{colour} to the {power}", colour=["blue"], power=[1, 2])
    assert [frame["alt"] for frame in Page(shown.html).frames] == ["blue to the 1", "blue to the 2"]


@pytest.mark.parametrize(
    ("controls", "start", "message"),
    [
        ({}, None, "at least one control"),
        ({"a": []}, None, "control 'a' has no values"),
        ({"a": [1, "b"]}, None, r"control 'a' mixes numbers and texts: \[1, 'b'\]"),
        ({"a": [1, 1.0]}, None, r"control 'a' has values that read alike: \['1', '1'\]"),
        ({"a": range(9), "b": range(8)}, None, "9 x 8 = 72 figures are more than 64"),
        ({"a": [1, 2]}, {"a": 3}, r"start=\{'a': 3\} is not among the values \{'a': \[1, 2\]\}"),
        ({"a": [1, 2]}, {"b": 1}, r"start=\{'b': 1\} is not among"),
    ],
)
def test_an_explorer_refuses_what_does_not_fit(controls: dict, start: dict | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Explorer(draw, alt="x", start=start, **controls)


def test_the_figure_is_closed_when_drawing_it_fails() -> None:
    def broken(a: int) -> Figure:
        figure, ax = plt.subplots()
        ax.set_title("$\\nonsense{$")
        return figure

    with pytest.raises(ValueError, match="nonsense"):
        Explorer(broken, alt="x", a=[1]).png(a=1)
    assert not plt.get_fignums()


def test_the_bundle_holds_all_forms_and_at_smoke_scale_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlbook.explore.explorer.current", lambda: Run("cpu", 0, torch.device("cpu")))
    shown = explorer()
    data, metadata = shown._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "image/png", WIDGET_VIEW}
    assert base64.b64decode(data["image/png"]) == shown.png(**shown.start)
    assert metadata == {"image/png": {"width": 640, "height": 200}}
    monkeypatch.setattr("dlbook.explore.explorer.current", lambda: Run("smoke", 0, torch.device("cpu")))
    assert set(shown._repr_mimebundle_()[0]) == {"text/plain", "image/png", WIDGET_VIEW}


def test_a_kernel_shows_a_widget_that_redraws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # or the kernel does not take its own, which shows open figures
    source = (
        "from matplotlib import pyplot as plt\nfrom dlbook.explore import Explorer\n"
        "def draw(kind, power):\n"
        "    figure, ax = plt.subplots(figsize=(3, 2))\n"
        "    ax.plot([0, 1, 2], [x**power for x in (0, 1, 2)], '-' if kind == 'line' else 'o')\n"
        "    return figure\n"
        "explorer = Explorer(draw, alt='A power', kind=['line', 'dots'], power=[1, 2])\nexplorer"
    )
    change = (
        "kind, power, image = (box := explorer.widget()).children\n"
        "seen = [image.value]\n"
        "power.value = 2\nseen.append(image.value)\n"
        "kind.value = 'dots'\nseen.append(image.value)\n"
        "assert len(set(seen)) == 3 and seen[2] == explorer.png(kind='dots', power=2)\n"
        "assert [type(w).__name__ for w in box.children] == ['Dropdown', 'SelectionSlider', 'Image']\nbox"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (source, change)])
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for cell in notebook.cells:
        (output,) = cell.outputs  # the figures are closed: the inline backend adds none
        assert WIDGET_VIEW in output.data
    assert {"text/html", "image/png", "text/plain"} < set(notebook.cells[0].outputs[0].data)
