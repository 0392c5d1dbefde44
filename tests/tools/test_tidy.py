import base64
import io

import numpy as np
import pytest
from nbformat.v4 import new_output
from PIL import Image

from tests.tools.notebooks import code, notebook
from tools import ROOT
from tools.tidy import WIDGET_VIEW, smaller_png, store_outputs, tidy, without_paths


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)


def drawing():
    """Three coloured areas on white, their edges in many shades, as in a figure."""
    x = np.linspace(0, 1, 300)[None, :, None] * np.ones((200, 1, 3))
    steps = np.clip((x - np.array([0.2, 0.5, 0.8])) * 40, 0, 1)
    return 255 - 200 * steps


def noise():
    return np.random.default_rng(0).integers(0, 256, (120, 90, 3))


def test_drawing_becomes_smaller_and_looks_the_same():
    before = png(drawing())
    after = smaller_png(before)
    assert len(after) < len(before)
    assert np.abs(pixels(after) - pixels(before)).mean() < 0.5


def test_picture_of_many_colours_stays_as_it_is():
    assert smaller_png(png(noise())) == png(noise())


def test_transparent_picture_stays_as_it_is():
    transparent = png(np.concatenate([drawing(), np.full((200, 300, 1), 128)], axis=-1))
    assert smaller_png(transparent) == transparent


def test_photograph_keeps_its_colours():
    shades = np.linspace(0, 255, 300)[None, :, None] * np.linspace(0.5, 1, 200)[:, None, None] * np.array([1, 0.9, 0.7])
    output = new_output("display_data", data={"image/png": png(shades)})
    assert (pixels(tidy(output, photo=True).data["image/png"]) == pixels(png(shades))).all()


def test_grey_picture_keeps_one_channel():
    grey = np.repeat(noise()[..., :1], 3, axis=2)
    before = png(np.concatenate([grey, np.full((120, 90, 1), 255)], axis=-1))
    after = smaller_png(before, photo=True)
    assert len(after) < 0.6 * len(before)
    assert (pixels(after) == grey).all()


def test_progress_bars_go_and_warnings_stay():
    bar = "\r 50%|#####     | 5/10 [00:01<00:01,  4.9it/s]\n"
    kept = tidy(new_output("stream", name="stderr", text=f"{bar}UserWarning: look\n{bar}"))
    assert kept.text == "UserWarning: look\n"
    assert tidy(new_output("stream", name="stderr", text=bar)) is None
    assert tidy(new_output("stream", name="stdout", text="50%|\n")) is not None


def test_widget_view_goes():
    data = {WIDGET_VIEW: {"model_id": "x"}, "text/html": "<p>", "text/plain": "p"}
    assert set(tidy(new_output("display_data", data=data)).data) == {"text/html", "text/plain"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{ROOT}/dlbook/scale.py:12: UserWarning", "dlbook/scale.py:12: UserWarning"),
        ("/var/x/ipykernel_4242/17.py:3: UserWarning", "cell:3: UserWarning"),
        ("a/b is not a path of this machine", "a/b is not a path of this machine"),
    ],
)
def test_paths_of_this_machine_go(text, kept):
    assert without_paths(text) == kept


def test_store_outputs_changes_outputs_alone():
    kept = notebook("# T", code("1", "parameters"), code("2"))
    ran = notebook("# T", code("1", "parameters"), code("2"))
    for number, cell in enumerate(ran.cells[1:], start=1):
        cell.execution_count = number
        cell.outputs = [new_output("execute_result", {"text/plain": str(number)}, execution_count=number)]
        cell.metadata["papermill"] = {"duration": 1.5}
        cell.metadata["execution"] = {"iopub.status.busy": "now"}
    ids = [cell.id for cell in kept.cells]
    kept.metadata.widgets = {"state": {}}
    store_outputs(kept, ran)
    assert [cell.id for cell in kept.cells] == ids
    assert [cell.execution_count for cell in kept.cells[1:]] == [1, 2]
    assert kept.cells[2].outputs[0].data["text/plain"] == "2"
    assert [dict(cell.metadata) for cell in kept.cells] == [{}, {"tags": ["parameters"]}, {}]
    assert kept.metadata.kernelspec.name == "python3"
    assert "widgets" not in kept.metadata
