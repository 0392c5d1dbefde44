"""Importing dlbook: fast, silent and without side effects."""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

import dlbook

HEAVY = ["matplotlib", "IPython", "sklearn", "skimage", "scipy", "ipywidgets", "pandas", "yaml", "mlxtend"]


def fresh(code, **environment):
    """Run code in a new interpreter and return what it prints, read as JSON."""
    env = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_version_is_the_one_of_the_metadata():
    assert dlbook.__version__ == importlib.metadata.version("dlbook")


def test_public_names():
    assert set(dlbook.__all__) == {"Run", "__version__", "start"}
    assert all(hasattr(dlbook, name) for name in dlbook.__all__)


def test_import_is_fast_once_torch_is_there():
    # CPU time, not wall clock, and up to three tries, so that a busy machine does not decide.
    code = "import time, torch; a = time.process_time(); import dlbook; print(time.process_time() - a)"
    assert any(fresh(code) < 0.1 for _ in range(3))


def test_import_loads_nothing_heavy_and_prints_nothing():
    code = "import dlbook, json, sys; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert fresh(code.format(heavy=HEAVY)) == []


def test_import_leaves_random_state_style_and_torch_settings_alone():
    # All modules, submodules included: none may seed or restyle on import.
    code = """
import json, random, pkgutil, importlib
import matplotlib, numpy, torch

def state():
    return (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
            dict(matplotlib.rcParams), torch.get_num_threads(), torch.get_float32_matmul_precision(),
            torch.get_default_dtype(), matplotlib.get_backend())

before = state()
import dlbook
for module in pkgutil.walk_packages(dlbook.__path__, "dlbook."):
    importlib.import_module(module.name)
print(json.dumps(state() == before))
"""
    assert fresh(code, MPLBACKEND="agg") is True


def test_threads_wait_passively_from_before_torch_loads():
    code = """
import json, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(json.dumps(os.environ.get("OMP_WAIT_POLICY")))
            sys.meta_path.remove(self)

sys.meta_path.insert(0, Watch())
import dlbook
"""
    assert fresh(code) == "PASSIVE"


@pytest.mark.parametrize(
    ("code", "chosen", "expected"),
    [
        ("import dlbook", "ACTIVE", ["ACTIVE", False]),
        ("import torch, dlbook", None, ["PASSIVE", True]),
    ],
)
def test_the_readers_choice_stays_and_a_late_import_is_noticed(code, chosen, expected):
    code += "; import json, os; print(json.dumps([os.environ['OMP_WAIT_POLICY'], dlbook.TORCH_WAS_FIRST]))"
    environment = {"OMP_WAIT_POLICY": chosen} if chosen else {}
    assert fresh(code, **environment) == expected
