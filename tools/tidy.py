"""Make the outputs of a run fit to be kept: small, the same from run to run, and showing something without a kernel."""

import base64
import io
import re
from pathlib import Path

import numpy as np
from nbformat import NotebookNode
from PIL import Image

from tools import ROOT
from tools.fingerprint import has_tag

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
PROGRESS = re.compile(r"\r|\d(it/s|s/it)\b|\d+%\|")
CELL_FILE = re.compile(r"\S*[/\\]ipykernel_\d+[/\\]\d+\.py")  # the file in which a kernel keeps a cell
PALETTES = (128, 256)  # tried in this order


def store_outputs(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Put the outputs of `executed`, tidied, into `notebook`, whose cells otherwise stay as they are."""
    for cell, ran in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.execution_count = ran.execution_count
            cell.outputs = [kept for output in ran.outputs if (kept := tidy(output, photo=has_tag(cell, "photo")))]
            cell.metadata.pop("execution", None)
    notebook.metadata.kernelspec = NotebookNode(KERNELSPEC)
    notebook.metadata.language_info = NotebookNode(LANGUAGE)
    # The state of the widgets is large, and without a kernel it moves nothing.
    notebook.metadata.pop("widgets", None)


def tidy(output: NotebookNode, *, photo: bool = False) -> NotebookNode | None:
    """Return an output as it is to be stored, or None when nothing of it is left.

    Args:
        output: one output of a cell; it may be changed.
        photo: whether its picture is a photograph, whose colours have to stay as they are.
    """
    if output.output_type == "stream":
        if output.name == "stderr":  # progress bars go, warnings stay to be seen
            output.text = "".join(line for line in re.split(r"(?<=\n)", output.text) if not PROGRESS.search(line))
        output.text = without_paths(output.text)
        return output if output.text.strip() else None
    data = output.get("data", {})
    data.pop(WIDGET_VIEW, None)  # it points into the state of the widgets, which is not stored
    for kind, value in data.items():
        if kind == "image/png":
            data[kind] = smaller_png(value, photo=photo)
        elif kind.startswith("text/"):
            data[kind] = without_paths(value)
    return output


def without_paths(text: str, root: Path = ROOT) -> str:
    """Replace the paths of this machine: those below `root` by relative ones, a cell's own file by "cell"."""
    return CELL_FILE.sub("cell", text).replace(f"{root}/", "").replace(f"{root}\\", "")


def smaller_png(encoded: str, *, photo: bool = False) -> str:
    """Return a PNG (base64) that looks the same and is smaller, if there is one.

    One channel does for a grey picture, three for an opaque one. Unless it is a photograph, a palette may stand for its
    colours, if they are off by less than half a step in 255 on average, and by at most 32 steps in all but one pixel in
    a thousand.
    """
    before = base64.b64decode(encoded)
    image = Image.open(io.BytesIO(before))
    if image.mode not in ("RGB", "RGBA") or (image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)):
        return encoded
    full = image.convert("RGB")
    red, green, blue = full.split()
    found = [before, saved(red if red.tobytes() == green.tobytes() == blue.tobytes() else full)]
    for colors in () if photo else PALETTES:
        reduced = full.quantize(colors, dither=Image.Dither.NONE)
        difference = np.abs(np.asarray(full, np.int16) - np.asarray(reduced.convert("RGB"), np.int16)).max(axis=-1)
        if difference.mean() < 0.5 and np.quantile(difference, 0.999) <= 32:
            found.append(saved(reduced))
            break
    smallest = min(found, key=len)
    return encoded if smallest is before else base64.b64encode(smallest).decode()


def saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
