"""Two processes under torchrun train what one process trains, and go down together.

torchrun starts this file twice, since importing torch takes most of the time: once to train (`job_train`), at the end
of which the second process raises; once to resume (`job_resume`), after which it trains until it is killed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dlbook.data.batches import Batches
from dlbook.train import accuracy, checkpoint, evaluate, fit

ROOT = Path(__file__).resolve().parents[2]
LOSS = nn.functional.cross_entropy
N, INPUTS, H, K = 23, 5, 7, 3  # 23 examples in batches of 4: the shares of the last batch have 2 and 1
SHARES = {"rank": int(os.environ.get("RANK", 0)), "world_size": int(os.environ.get("WORLD_SIZE", 1))}

# name: (size of the batches, further arguments of fit)
SETUPS = {
    "shares of unequal size": (4, {}),
    "accumulated, clipped": (5, {"accumulate": 2, "max_grad_norm": 0.3}),
    "one batch": (23, {}),
}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(N, INPUTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[-1] *= 9  # so that the smaller share has another loss
    return x, x[:, :K].argmax(1)


def together(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model) if SHARES["world_size"] > 1 else model


class Run:
    """A training in float64, made alike in every process."""

    def __init__(self, batch_size: int = 4, *between: nn.Module) -> None:
        torch.manual_seed(1)
        self.inside = nn.Sequential(nn.Linear(INPUTS, H), *between, nn.Tanh(), nn.Linear(H, K)).double()
        self.model = together(self.inside)
        order = torch.Generator().manual_seed(2)
        self.data = Batches(*data(), batch_size, shuffle=True, generator=order, **SHARES)
        self.held_out = Batches(*data(), 9, **SHARES)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.97)
        torch.manual_seed(3 + SHARES["rank"])  # dropout of its own in each process

    def fit(self, **arguments) -> dict[str, object]:
        given = {"epochs": 4, "scheduler": self.scheduler, "val_data": self.held_out, "metrics": {"accuracy": accuracy}}
        history = fit(self.model, self.data, LOSS, self.optimizer, **(given | arguments))
        return {"history": dict(history), "weights": self.inside.state_dict()}


def dropout_run() -> Run:
    return Run(8, nn.BatchNorm1d(H), nn.Dropout(0.3))


def all_setups() -> dict[str, dict[str, object]]:
    results = {}
    for name, (batch_size, arguments) in SETUPS.items():
        run = Run(batch_size)
        results[name] = run.fit(**arguments)
        results[name]["measured"] = evaluate(run.model, run.held_out, LOSS, {"accuracy": accuracy})
    return results


def refusal(function) -> str:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the test reads the message
        function()
    return str(raised.value)


def job_train(folder: Path) -> dict[str, object]:
    """All set-ups, a whole run, half a run with a checkpoint, and what is refused."""
    seen: list[str] = []
    write, checkpoint.write = checkpoint.write, lambda *arguments: (seen.append("write"), write(*arguments))
    results: dict[str, object] = {"setups": all_setups(), "whole": dropout_run().fit()}
    dropout_run().fit(epochs=2, checkpoint=folder / "c.pt", on_epoch=lambda history: seen.append("on_epoch"))
    results["seen"] = seen
    if SHARES["rank"] == 0:
        shutil.copy(folder / "c.pt", folder / "half.pt")
    run = Run()
    x, y = data()
    pieces = [(x[:9], y[:9]), (x[9:16], y[9:16]), (x[16:], y[16:])]
    results["held out, 2 batches and 1"] = evaluate(run.model, pieces[SHARES["rank"] :: 2], LOSS)
    results["alone"] = refusal(lambda: fit(run.inside, run.data, LOSS, run.optimizer, epochs=1))
    run.data = pieces[SHARES["rank"] :: 2]
    results["other lengths"] = refusal(run.fit)
    return results


def job_resume(folder: Path) -> dict[str, object]:
    if SHARES["rank"] > 0:
        folder = folder / "another machine's disk"
    return {"resumed": dropout_run().fit(checkpoint=folder / "c.pt")}


def stumble(folder: Path) -> None:
    run = Run()

    def raise_in_the_second(*_) -> None:
        if SHARES["rank"] == 1 and run.scheduler.last_epoch == 10:
            raise ZeroDivisionError("the second process stumbled")

    run.inside.register_forward_hook(raise_in_the_second)
    run.fit(epochs=100_000)


def train_on(folder: Path) -> None:
    Run().fit(epochs=100_000, on_epoch=lambda history: (folder / "trains").touch())


JOBS = {"train": (job_train, stumble), "resume": (job_resume, train_on)}


def main(job: str, folder: Path) -> None:
    (folder / f"{SHARES['rank']}.pid").write_text(str(os.getpid()))
    dist.init_process_group()
    first, then = JOBS[job]
    torch.save(first(folder), folder / f"{job}-{SHARES['rank']}.pt")
    then(folder)


class Torchrun:
    """Two processes at work, in a folder of theirs."""

    def __init__(self, job: str, folder: Path) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.job, self.folder = job, folder
        self.process = subprocess.Popen([*command, __file__, job, folder], env=environment, **pipes)

    def finish(self, seconds: float) -> None:
        try:
            self.output = self.process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            self.process.terminate()  # torchrun passes it on
            pytest.fail(f"{self.job} still runs after {seconds} s: {self.process.communicate()[0]}")

    def pids(self) -> list[int]:
        return [int((self.folder / f"{rank}.pid").read_text()) for rank in range(2)]

    def results(self) -> list[dict]:
        paths = [self.folder / f"{self.job}-{rank}.pt" for rank in range(2)]
        assert all(path.exists() for path in paths), self.output
        return [torch.load(path, weights_only=True) for path in paths]


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def raised(tmp_path_factory) -> Torchrun:
    run = Torchrun("train", tmp_path_factory.mktemp("distributed"))
    run.finish(200)
    return run


@pytest.fixture(scope="module")
def trained(raised) -> list[dict]:
    return raised.results()


@pytest.fixture(scope="module")
def killed(raised) -> Torchrun:
    """The second process is killed once the training that was resumed is over and another is under way."""
    run = Torchrun("resume", raised.folder)
    try:
        wait_until(lambda: (run.folder / "trains").exists() or run.process.poll() is not None, 200)
        os.kill(run.pids()[1], signal.SIGKILL)
    finally:
        run.finish(30)
    return run


@pytest.fixture(scope="module")
def alone() -> dict[str, dict]:
    return all_setups()


@pytest.mark.parametrize("name", SETUPS)
def test_two_processes_train_what_one_does(name, trained, alone):
    for result in trained:
        found = result["setups"][name]
        torch.testing.assert_close(found["weights"], alone[name]["weights"], rtol=0, atol=1e-12)
        for numbers in ("history", "measured"):
            assert found[numbers].keys() == alone[name][numbers].keys()
            for key, number in found[numbers].items():
                rel = 1e-12 if key.endswith("loss") else 1e-6  # accuracy is a float32
                assert number == pytest.approx(alone[name][numbers][key], rel=rel), key


def test_both_processes_have_the_same_bits(trained):
    for name in SETUPS:
        one, other = (result["setups"][name] for result in trained)
        assert one["history"] == other["history"]
        torch.testing.assert_close(one["weights"], other["weights"], rtol=0, atol=0)


def test_held_out_data_may_come_in_different_numbers_of_batches(trained):
    expected = LOSS(Run().model(data()[0]), data()[1]).item()
    for result in trained:
        assert result["held out, 2 batches and 1"]["loss"] == pytest.approx(expected, rel=1e-12)


def test_only_the_first_process_writes_and_draws(trained):
    assert [result["seen"] for result in trained] == [["write", "on_epoch", "write", "on_epoch"], []]


def test_what_cannot_be_trained_together_is_refused(trained):
    for rank, result in enumerate(trained):
        assert "put the model into torch.nn.parallel.DistributedDataParallel" in result["alone"]
        assert f"this process has {1 - rank} batches for a step and all 2 together have 1" in result["other lengths"]


def test_a_resumed_run_ends_with_the_same_bits_in_both(trained, killed):
    """The second process sees no file; its dropout must go on where it stood."""
    before = checkpoint.read(killed.folder / "half.pt")
    assert not torch.equal(*(state["cpu"] for state in before["random"]))
    for whole, result in zip(trained, killed.results(), strict=True):
        assert result["resumed"]["history"] == whole["whole"]["history"]
        torch.testing.assert_close(result["resumed"]["weights"], whole["whole"]["weights"], rtol=0, atol=0)


def test_one_process_goes_on_from_the_checkpoint_of_two(raised, trained):
    history = dropout_run().fit(epochs=3, checkpoint=raised.folder / "half.pt")["history"]
    assert history["loss"][:2] == trained[0]["whole"]["history"]["loss"][:2]
    assert len(history["loss"]) == 3


def test_a_process_that_raises_ends_all_with_its_traceback(raised):
    assert raised.process.returncode != 0
    assert "in raise_in_the_second" in raised.output
    assert "ZeroDivisionError: the second process stumbled" in raised.output
    assert wait_until(lambda: not any(map(runs, raised.pids())), 5)


def test_a_process_that_is_killed_ends_all(killed):
    assert killed.process.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.output
    assert wait_until(lambda: not any(map(runs, killed.pids())), 5)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
