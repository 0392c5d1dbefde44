"""dlbook.scale: which size a chapter runs at, and the line that says so."""

import dataclasses
import re

import pytest
import torch

import dlbook
from dlbook import scale as module
from dlbook.scale import Run, current, resolve, start


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("DLBOOK_SCALE", raising=False)
    monkeypatch.setattr(module, "_current", None)


@pytest.mark.parametrize(
    ("argument", "variable", "cuda", "expected"),
    [
        ("smoke", "cpu", True, "smoke"),
        ("gpu", "smoke", False, "gpu"),
        (None, "smoke", True, "smoke"),
        (None, None, True, "gpu"),
        (None, None, False, "cpu"),
        (None, "", False, "cpu"),
    ],
)
def test_scale_comes_from_argument_then_environment_then_hardware(monkeypatch, argument, variable, cuda, expected):
    if variable is not None:
        monkeypatch.setenv("DLBOOK_SCALE", variable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve(argument) == expected


def test_an_unknown_scale_is_refused_with_the_three_and_its_origin(monkeypatch):
    with pytest.raises(ValueError, match=r"^scale must be 'smoke', 'cpu' or 'gpu', got 'full'$"):
        start("full")
    monkeypatch.setenv("DLBOOK_SCALE", "CPU")
    with pytest.raises(ValueError, match=r"^DLBOOK_SCALE must be 'smoke', 'cpu' or 'gpu', got 'CPU'$"):
        start()
    assert current() is None


@pytest.mark.parametrize(("scale", "expected"), [("smoke", 1), ("cpu", 8), ("gpu", 40)])
def test_pick_returns_the_value_of_the_scale(scale, expected):
    run = Run(scale, seed=0, device=torch.device("cpu"))
    assert run.pick(smoke=1, cpu=8, gpu=40) == expected


def test_a_run_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Run("cpu", 0, torch.device("cpu")).scale = "gpu"


def test_start_prints_one_line_and_remembers_its_run(capsys):
    run = start("smoke", seed=3)
    out, err = capsys.readouterr()
    assert re.fullmatch(
        rf"dlbook {re.escape(dlbook.__version__)} · scale smoke · seed 3 · .+ · torch \d+\.\d+\.\d+\S*\n", out
    )
    assert err == ""
    assert current() is run
    assert (run.scale, run.seed) == ("smoke", 3)


def test_start_seeds_and_sets_the_style():
    import matplotlib

    matplotlib.rcdefaults()
    plain = matplotlib.rcParams.copy()
    start("smoke", seed=4)
    first = torch.rand(2)
    assert torch.equal(first, torch.rand(2, generator=torch.Generator().manual_seed(4)))
    assert matplotlib.rcParams != plain
    matplotlib.rcdefaults()


@pytest.mark.parametrize(
    ("was_first", "threads", "kind", "warned"),
    [(True, 2, "cpu", True), (True, 1, "cpu", False), (False, 2, "cpu", False), (True, 2, "mps", False)],
)
def test_busy_waiting_is_mentioned_only_where_it_costs(monkeypatch, was_first, threads, kind, warned):
    monkeypatch.setattr(dlbook, "TORCH_WAS_FIRST", was_first)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    line = module._line(Run("cpu", 0, torch.device(kind)))
    assert ("import dlbook first" in line) == warned
