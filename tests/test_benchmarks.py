"""The benchmarks run, compare like with like, and their arithmetic is right. How fast things are is not tested here."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import (
    bench_autograd,
    bench_batches,
    bench_detection,
    bench_fit,
    bench_import,
    bench_optimizers,
    bench_recurrent,
    bench_sequence,
    bench_tokens,
    bench_transformers,
    bench_vision,
    harness,
)


class Clock:
    """Time that passes only when a function says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_median_ratio_of_alternating_rounds_is_reported():
    clock, order = Clock(), []

    def takes(name, seconds):
        durations = iter(seconds)

        def function():
            order.append(name)
            clock.now += next(durations)

        return function

    # the first call of each warms up and counts for nothing
    ours, peer = takes("a", [99, 3, 8, 6, 2]), takes("b", [99, 2, 4, 2, 2])
    row = harness.compare("a / b", ours, peer, target=1.6, rounds=4, clock=clock)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert (row.low, row.median, row.high) == (1.375, 1.75, 2.25)  # of 1.5, 2, 3, 1
    assert (row.ours, row.peer) == (4.5, 2.0)
    assert not row.met


@pytest.mark.parametrize(("median", "met"), [(1.0, True), (1.03, True), (1.031, False)])
def test_a_target_is_an_upper_bound(median, met):
    assert harness.Row("a / b", median, 1.0, 1.1, "x", 1.03).met is met


def test_the_table_shows_each_target_and_whether_it_was_met():
    rows = [
        harness.Row("a / b", 1.0, 0.9, 1.1, "x", 1.03, 2.0, 2.0),
        harness.summary("import", [0.2, 0.3, 0.4], "s", 0.1),
    ]
    lines = harness.table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "at most 1.03 x | met " in lines[2]
    assert "0.300 s" in lines[3]
    assert "NOT MET" in lines[3]


BENCHES = {
    "fit": lambda: bench_fit.run(rounds=2, epochs=1),
    "autograd": lambda: bench_autograd.run(rounds=2, examples=200),
    "batches": lambda: bench_batches.run(rounds=2, epochs=1),
    "import": lambda: bench_import.run(rounds=2),
    "vision": lambda: bench_vision.run(rounds=2, batch=2),
    "detection": lambda: bench_detection.run(rounds=2, count=20),
    "recurrent": lambda: bench_recurrent.run(rounds=2, batch=2),
    "sequence": lambda: bench_sequence.run(rounds=2, length=20, scans=(40,)),
    "transformers": lambda: bench_transformers.run(rounds=2, length=16, batch=2),
    "optimizers": lambda: bench_optimizers.run(rounds=2, sides={"110": 3}, work=1000, batch=8),
    "tokens": lambda: bench_tokens.run(rounds=2, characters=20_000),
}


def test_every_benchmark_is_tested_here():
    assert set(BENCHES) == set(command.NAMES)
    assert {path.stem for path in command.RESULTS.parent.glob("bench_*.py")} == {f"bench_{name}" for name in BENCHES}


@pytest.mark.parametrize("run", BENCHES.values(), ids=BENCHES)
def test_each_benchmark_runs_and_finds_both_sides_equal(run):
    for row in run():
        assert 0 < row.low <= row.median <= row.high


@pytest.mark.parametrize(("median", "code"), [(0.9, 0), (1.1, 1)])
def test_the_exit_code_says_whether_all_targets_were_met(median, code, monkeypatch, capsys):
    row = harness.Row("a / b", median, 0.5, 2.0, "x", 1.0)
    monkeypatch.setattr(bench_fit, "run", lambda rounds: [row])
    assert command.main(["--only", "fit"]) == code
    assert f"{1 - code} of 1 targets met" in capsys.readouterr().out


def test_results_are_written_only_when_asked_and_hold_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "machine", lambda: "Some CPU @ 2 GHz, 2 cores")
    monkeypatch.setattr(command, "machine", harness.machine)
    path = command.save([harness.Row("a / b", 0.5, 0.4, 0.6, "x", 1.0)], tmp_path / "results")
    assert path.name == "some-cpu-2-ghz-2-cores.json"
    stored = json.loads(path.read_text())
    assert stored["machine"] == "Some CPU @ 2 GHz, 2 cores"
    assert stored["rows"][0]["met"] is True
    assert "| a / b" in path.with_suffix(".md").read_text()


def test_a_part_saved_leaves_the_other_rows_that_were_measured_in_the_same_surroundings(tmp_path, monkeypatch):
    one, two = (harness.Row(name, 0.5, 0.4, 0.6, "x", 1.0, ours=2.0) for name in ("a / b", "c / d"))
    faster = harness.Row("c / d", 0.3, 0.2, 0.4, "x", 1.0)
    path = command.save([one, two], tmp_path)
    command.save([faster], tmp_path, part=True)
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["a / b", "c / d"]
    assert [row["median"] for row in json.loads(path.read_text())["rows"]] == [0.5, 0.3]
    assert "| a / b" in path.with_suffix(".md").read_text()
    command.save([faster], tmp_path)  # all of them, so what is gone is gone
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["c / d"]
    command.save([one, faster], tmp_path)
    monkeypatch.setattr(command, "environment", lambda: {"torch": "99"})
    command.save([faster], tmp_path, part=True)  # of another PyTorch
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["c / d"]


def test_too_few_rounds_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--rounds", "1"])
    assert "--rounds 1: quartiles need at least 2" in capsys.readouterr().err
