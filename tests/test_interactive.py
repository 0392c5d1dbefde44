"""A chapter in the hands of a reader on Colab.

The package comes by the set-up cell, cells run twice, training is stopped, the kernel starts anew.
"""

import re
from pathlib import Path

import pytest

from tests.kernel import ON_COLAB, cells, kernel, served_here
from tools.structure import all_chapters

# In the kernel, around a cell: the third step of any optimizer gets the signal that "interrupt" sends. PyTorch's gets
# it at the end of the step; the book's own engine in the middle, when some parameters have changed and some have not.
ARM = """
def _arm():
    import os, signal, sys
    steps = iter(range(3))
    def count(*_):
        if next(steps, None) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    undo = get_ipython().undo = []
    if "torch" in sys.modules:
        from torch.optim.optimizer import register_optimizer_step_post_hook
        undo.append(register_optimizer_step_post_hook(count).remove)
    if engine := sys.modules.get("dlbook.autograd"):
        whole = engine.gradients_of
        def step_of_the_engine(parameters):
            for number, pair in enumerate(whole(parameters)):
                if number == 1:
                    count()
                yield pair
        engine.gradients_of = step_of_the_engine
        undo.append(lambda: setattr(engine, "gradients_of", whole))
_arm()
del _arm
"""
DISARM = "for _undo in get_ipython().undo: _undo()"
IMPORTS_ENGINE = re.compile(r"^from dlbook\.autograd import .*\b(?:SGD|Adam)\b", re.M)


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.path.stem)
def test_cells_run_twice_and_after_an_interrupt(chapter, wheel_sources: Path, tmp_path: Path):
    """Each cell that trains is interrupted in its first steps; each cell runs twice in a row; then restart and run all."""
    folder, target = tmp_path / "empty", tmp_path / "installed"
    folder.mkdir()
    target.mkdir()
    environment = served_here(wheel_sources, tmp_path / "repository.git")
    # Into a folder of its own, with what this machine has: the set-up cell itself is left as it is.
    environment |= {"PIP_TARGET": str(target), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    environment |= {"PYTHONPATH": str(target), "DLBOOK_SCALE": "smoke"}
    sources, stopped = cells(chapter.path), []
    with kernel(folder, environment) as reader:
        run = reader.run
        assert run(ON_COLAB).error == ""
        for source in sources:
            assert run(ARM).error == ""
            first = run(source)
            assert run(DISARM).error == ""
            interrupted = first.error == "KeyboardInterrupt"
            stopped += [first.text] if interrupted else []
            again = [run(source), run(source)] if interrupted else [first, run(source)]
            assert [answer.error for answer in again] == ["", ""], source + again[0].text + again[1].text
        reader.restart()
        assert run("print(run)").error == "NameError", "the kernel did not start anew"
        assert run(ON_COLAB).error == ""
        for source in sources:
            answer = run(source)
            assert answer.error == "", source + answer.text
        where = run("import dlbook\nprint(dlbook.__file__)").text.strip()
    assert where == str(target / "dlbook" / "__init__.py"), "the set-up cell did not install the package"
    assert stopped, "no cell trains: nothing was interrupted"
    if any(map(IMPORTS_ENGINE.search, sources)):
        assert any("step_of_the_engine" in text for text in stopped), "the engine's training was not interrupted"
    assert list(folder.iterdir()) == []
