"""A chapter in the hands of a reader on Colab: the package comes by its set-up cell, cells run twice, training is stopped.

Restarting and running all is what tests/test_chapters.py does: a new kernel, in a folder where nothing was left.
"""

from pathlib import Path

import pytest

from tests.kernel import ON_COLAB, cells, kernel, served_here
from tools.structure import all_chapters

# In the kernel, around a cell: the third step of any optimizer of PyTorch gets the signal that "interrupt" sends.
ARM = """
def _arm():
    import os, signal
    from torch.optim.optimizer import register_optimizer_step_post_hook
    steps = iter(range(3))
    def count(*_):
        if next(steps, None) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    get_ipython().armed = register_optimizer_step_post_hook(count)
import sys
if "torch" in sys.modules:
    _arm()
del _arm
"""
DISARM = "getattr(get_ipython(), 'armed', None) and get_ipython().armed.remove()"


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.path.stem)
def test_cells_run_twice_and_after_an_interrupt(chapter, wheel_sources: Path, tmp_path: Path):
    """Each cell that trains is interrupted in its first steps; then each cell runs twice in a row."""
    folder, target = tmp_path / "empty", tmp_path / "installed"
    folder.mkdir()
    target.mkdir()
    environment = served_here(wheel_sources, tmp_path / "repository.git")
    # Into a folder of its own, with what this machine has: the set-up cell itself is left as it is.
    environment |= {"PIP_TARGET": str(target), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    environment |= {"PYTHONPATH": str(target), "DLBOOK_SCALE": "smoke"}
    interrupted = 0
    with kernel(folder, environment) as run:
        assert run(ON_COLAB).error == ""
        for source in cells(chapter.path):
            assert run(ARM).error == ""
            first = run(source)
            assert run(DISARM).error == ""
            interrupted += first.error == "KeyboardInterrupt"
            again = [run(source), run(source)] if first.error == "KeyboardInterrupt" else [first, run(source)]
            assert [answer.error for answer in again] == ["", ""], source + again[0].text + again[1].text
        where = run("import dlbook\nprint(dlbook.__file__)").text.strip()
    assert where == str(target / "dlbook" / "__init__.py"), "the set-up cell did not install the package"
    assert interrupted, "no cell trains: nothing was interrupted"
    assert list(folder.iterdir()) == []
