"""Training curves, after a run and live: on a terminal, and in the notebook that a run leaves behind."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from numpy.testing import assert_allclose

from dlbook.plot import LiveCurves, curves
from dlbook.plot.curves import table

HISTORY = {"loss": [3.0, 2.0, 1.0], "val_loss": [3.5, 2.5, 2.0], "val_accuracy": [0.2, 0.5, 0.75]}


def test_one_panel_for_each_quantity() -> None:
    first = curves(HISTORY)
    loss, accuracy = first.figure.axes
    assert first is loss
    assert [line.get_label() for line in loss.lines] == ["loss", "val_loss"]
    assert [line.get_label() for line in accuracy.lines] == ["val_accuracy"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["val_accuracy"]
    assert_allclose(loss.lines[1].get_data(), [[1, 2, 3], [3.5, 2.5, 2.0]])
    assert (loss.get_xlabel(), loss.get_ylabel(), accuracy.get_ylabel()) == ("epoch", "loss", "accuracy")


def test_a_given_axes_takes_one_quantity() -> None:
    ax = curves({"loss": [1.0]})
    assert curves(HISTORY, ax=ax, quantity="accuracy") is ax
    assert len(ax.figure.axes) == 1
    assert_allclose(ax.lines[-1].get_ydata(), HISTORY["val_accuracy"])


def test_curves_refuse_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="history is empty"):
        curves({"loss": []})
    with pytest.raises(ValueError, match=r"quantity='f1' is not in the history, which has \['loss', 'accuracy'\]"):
        curves(HISTORY, quantity="f1")
    with pytest.raises(ValueError, match="no epoch yet"):
        LiveCurves()({"loss": []})


@pytest.mark.parametrize("epochs", [1, 9, 10, 11, 40, 101])
def test_the_table_is_short_and_holds_both_ends(epochs: int) -> None:
    rows = table({"loss": [float(number) for number in range(1, epochs + 1)]}).splitlines()
    assert len(rows) <= 11
    assert rows[0].split() == ["epoch", "1", "loss", "1"]
    assert rows[-1].split() == ["epoch", str(epochs), "loss", str(epochs)]


def test_a_terminal_gets_lines_that_grow_rarer(capsys: pytest.CaptureFixture[str]) -> None:
    history: dict[str, list[float]] = {"loss": []}
    live = LiveCurves()
    for number in range(120):
        history["loss"].append(1 / (number + 1))
        live(history)
    shown = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert shown == [*range(1, 11), 20, 50, 100]


def test_a_notebook_keeps_one_figure_and_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # or the kernel does not take its own, which shows open figures
    notebook = nbformat.v4.new_notebook()
    train = (
        "history = {'loss': [], 'val_loss': []}\nlive = LiveCurves(title='Two runs')\n"
        "for epoch in range(25):\n    history['loss'].append(1 / (epoch + 1))\n    history['val_loss'].append(0.5)\n"
        "    live(history)\n"
    )
    notebook.cells = [
        nbformat.v4.new_code_cell("from dlbook.plot import LiveCurves, use_style\nuse_style()"),
        nbformat.v4.new_code_cell(train),
        nbformat.v4.new_code_cell(train + "raise ValueError('stop')", metadata={"tags": ["raises-exception"]}),
        nbformat.v4.new_code_cell("live(history)"),
    ]
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for number, cell in enumerate(notebook.cells[1:]):
        kinds = [output.output_type for output in cell.outputs]
        assert kinds == ["display_data", "display_data"] + (["error"] if number == 1 else [])
        figure, text = cell.outputs[:2]
        assert set(figure.data) == {"image/png", "text/plain"}
        assert figure.metadata["image/png"]["width"] < 700  # twice as many pixels as that: crisp on phones
        assert text.data["text/plain"].splitlines()[-1].split() == ["epoch", "25", "loss", "0.04", "val_loss", "0.5"]
        assert len(text.data["text/plain"].splitlines()) <= 11
    assert not notebook.cells[0].outputs
