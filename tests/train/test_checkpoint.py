"""Training that was interrupted ends with the same bits; damaged and foreign checkpoints are refused."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from dlbook.data.batches import Batches
from dlbook.train import checkpoint, fit

LOSS = nn.functional.cross_entropy
SCHEDULES = torch.optim.lr_scheduler
EPOCHS = 5

SETUPS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), None),
    "momentum, steps": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda o: SCHEDULES.MultiStepLR(o, milestones=[7, 16]),
    ),
    "adam, one cycle": (lambda p: torch.optim.Adam(p, lr=0.01), lambda o: SCHEDULES.OneCycleLR(o, 0.02, 6 * EPOCHS)),
    "adamw, warm-up then cosine": (
        lambda p: torch.optim.AdamW(p, lr=0.01),
        lambda o: SCHEDULES.SequentialLR(
            o, [SCHEDULES.LinearLR(o, total_iters=5), SCHEDULES.CosineAnnealingLR(o, 25)], milestones=[5]
        ),
    ),
    "sgd, a function": (
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda o: SCHEDULES.LambdaLR(o, lambda step: 0.95**step),
    ),
}


class Run:
    """A small training with dropout, batch normalisation and a shuffled order, made anew as in a new process."""

    def __init__(self, setup: str = "adam, one cycle", seed: int = 3, hidden: int = 7) -> None:
        torch.manual_seed(seed)
        x = torch.randn(23, 5)
        optimizer, scheduler = SETUPS[setup]
        self.model = nn.Sequential(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.3), nn.Linear(hidden, 3))
        self.data = Batches(x, x[:, :3].argmax(1), 4, shuffle=True, generator=torch.Generator().manual_seed(seed + 1))
        self.optimizer = optimizer(self.model.parameters())
        self.scheduler = scheduler(self.optimizer) if scheduler else None

    def fit(self, **arguments):
        return fit(
            self.model,
            self.data,
            LOSS,
            self.optimizer,
            **({"epochs": EPOCHS, "scheduler": self.scheduler, "val_data": [(self.data.x, self.data.y)]} | arguments),
        )


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def stop_after(epochs: int, error: type[BaseException] = KeyboardInterrupt):
    def stop(history):
        if history.epochs == epochs:
            raise error

    return stop


@pytest.mark.parametrize("setup", SETUPS)
def test_a_resumed_run_ends_with_the_same_bits(setup, tmp_path):
    whole = Run(setup)
    history = whole.fit()

    with pytest.raises(RuntimeError):
        Run(setup).fit(checkpoint=tmp_path / "c.pt", on_epoch=stop_after(2, RuntimeError))
    torch.manual_seed(99)  # another process has other random states
    resumed = Run(setup, seed=3)
    torch.manual_seed(77)
    assert resumed.fit(checkpoint=tmp_path / "c.pt") == history
    assert_same_bits(resumed.model, whole.model)


def test_an_interrupt_in_the_middle_of_an_epoch_costs_that_epoch_only(tmp_path):
    whole = Run()
    history = whole.fit()
    broken = Run()
    calls = iter(range(15))  # 6 batches an epoch: the third epoch breaks off

    def interrupt(*_):
        if next(calls, None) is None:
            raise KeyboardInterrupt

    hook = broken.model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(checkpoint=tmp_path / "c.pt", val_data=None)
    hook.remove()
    assert broken.model(broken.data.x).isfinite().all()
    resumed = Run()
    assert resumed.fit(checkpoint=tmp_path / "c.pt", val_data=None)["loss"] == history["loss"]
    assert_same_bits(resumed.model, whole.model)


def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(tmp_path):
    """SIGKILL at an arbitrary moment: the process writes one checkpoint after the other until it is gone."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_checkpoint import Run\n"
        "Run('sgd').fit(epochs=100_000, checkpoint=sys.argv[2])"
    )
    path = tmp_path / "c.pt"
    child = subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent), str(path)])
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert child.poll() is None, "the training ended by itself"
            assert time.monotonic() < deadline, "no checkpoint after 60 s"
            time.sleep(0.01)
        time.sleep(0.3)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()

    done = len(checkpoint.read(path)["history"]["loss"])
    assert done >= 1
    whole = Run("sgd")
    history = whole.fit(epochs=done + 2)
    resumed = Run("sgd")
    assert resumed.fit(epochs=done + 2, checkpoint=path) == history
    assert_same_bits(resumed.model, whole.model)
    assert not list(tmp_path.glob("*.part"))


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = Run()
    history = first.fit(checkpoint=tmp_path / "c.pt")
    again = Run(seed=3)
    assert again.fit(checkpoint=tmp_path / "c.pt") == history
    assert_same_bits(again.model, first.model)


def test_more_epochs_than_asked_for_are_refused(tmp_path):
    Run().fit(checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="has 5 epochs, more than epochs=4"):
        Run().fit(checkpoint=tmp_path / "c.pt", epochs=4)


def test_the_folder_is_made_and_nothing_else_is_left_in_it(tmp_path):
    Run().fit(checkpoint=tmp_path / "new" / "folder" / "c.pt", epochs=1)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["c.pt"]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused_and_changes_nothing(keep, tmp_path):
    path = tmp_path / "c.pt"
    Run().fit(checkpoint=path, epochs=2)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    run, fresh = Run(), Run()
    with pytest.raises(ValueError, match=r"c\.pt cannot be read as a checkpoint: it is damaged"):
        run.fit(checkpoint=path)
    assert_same_bits(run.model, fresh.model)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    path = tmp_path / "c.pt"
    run = Run()
    run.fit(checkpoint=path, epochs=1)
    content = bytearray(path.read_bytes())
    place = content.index(run.model[0].weight.detach().numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        Run().fit(checkpoint=path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    for write, message in (
        (lambda: path.write_text("hello"), "cannot be read as a checkpoint: .* file. Delete it to start anew"),
        (lambda: torch.save({"model": {}}, path), "is not a 'dlbook checkpoint, version 2'"),
        (lambda: torch.save([1], path), "is not a 'dlbook checkpoint, version 2'"),
    ):
        write()
        with pytest.raises(ValueError, match=rf"c\.pt {message}"):
            Run().fit(checkpoint=path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"format": checkpoint.FORMAT, "bomb": Bomb()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        Run().fit(checkpoint=tmp_path / "c.pt")
    assert not (tmp_path / "ran").exists()


OTHERS = {
    r"0\.weight is \(7, 5\) torch\.float32 there and \(9, 5\) torch\.float32 here": {"hidden": 9},
    "optimizer is Adam there and AdamW here": {"setup": "adamw, warm-up then cosine"},
    "scheduler is OneCycleLR there and missing here": {"setup": "sgd"},
}


@pytest.mark.parametrize(("message", "other"), OTHERS.items(), ids=range(len(OTHERS)))
def test_a_checkpoint_of_another_training_is_refused_and_changes_nothing(message, other, tmp_path):
    Run().fit(checkpoint=tmp_path / "c.pt", epochs=1)
    run, fresh = Run(**other), Run(**other)
    with pytest.raises(ValueError, match=message):
        run.fit(checkpoint=tmp_path / "c.pt")
    assert_same_bits(run.model, fresh.model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": [1.0]}, "AttributeError: 'list' object"),
        ({"history": {"loss": 1.0}}, "TypeError: object of type 'float'"),
        ({"random": [{}]}, r"another training: cpu is missing there and \(5056,\) torch.uint8 here"),
        ({"scaler": 1.0}, "another training: scaler is float there and dict here"),
        ({"kinds": {"data": "List", "optimizer": "A", "scheduler": "B"}}, "scaler is missing there"),
    ],
)
def test_a_part_of_another_kind_is_refused(change, message, tmp_path):
    Run().fit(checkpoint=tmp_path / "c.pt", epochs=1)
    checkpoint.write(checkpoint.read(tmp_path / "c.pt") | change, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=message):
        Run().fit(checkpoint=tmp_path / "c.pt")


@pytest.mark.parametrize("part", ["model", "optimizer", "kinds", "random"])
def test_a_part_that_is_missing_is_named(part, tmp_path):
    Run().fit(checkpoint=tmp_path / "c.pt", epochs=1)
    state = checkpoint.read(tmp_path / "c.pt")
    del state[part]
    checkpoint.write(state, tmp_path / "c.pt")
    lacks = (
        rf"lacks a part or holds one of another kind \(KeyError: '{part}'\)\. Delete it to start anew, or name another"
    )
    with pytest.raises(ValueError, match=lacks):
        Run().fit(checkpoint=tmp_path / "c.pt")


def test_three_differences_are_told_and_the_others_counted(tmp_path):
    path = tmp_path / "c.pt"
    Run().fit(checkpoint=path, epochs=1)
    with pytest.raises(
        ValueError, match=r": 0\.bias is [^;]*; 0\.weight is [^;]*; 1\.bias is [^;]* \(and 4 more\)\. Del"
    ):
        Run(hidden=9).fit(checkpoint=path)
    state = checkpoint.read(path)
    state["kinds"] |= {"data": "A", "optimizer": "B", "scheduler": "C"}
    checkpoint.write(state, path)
    with pytest.raises(ValueError, match=r"is C there and OneCycleLR here\. Delete it to start anew, or name"):
        Run().fit(checkpoint=path)
    state["kinds"] |= {"scaler": "D"}
    checkpoint.write(state, path)
    with pytest.raises(ValueError, match=r"c\.pt belongs to another training: .* \(and 1 more\)\. Delete"):
        Run().fit(checkpoint=path)


def test_other_groups_of_parameters_are_refused(tmp_path):
    run = Run("sgd")
    run.fit(checkpoint=tmp_path / "c.pt", epochs=1)
    groups = [
        {"params": run.model[0].parameters()},
        {"params": [*run.model[1].parameters(), *run.model[3].parameters()]},
    ]
    run.optimizer = torch.optim.SGD(groups, lr=0.1)
    with pytest.raises(ValueError, match=r"the optimizer has \[6\] parameters in its groups there and \[2, 4\] here"):
        run.fit(checkpoint=tmp_path / "c.pt")


def test_data_without_a_state_resume_from_their_start(tmp_path):
    def train(**arguments):
        run = Run("sgd")
        batches = [(run.data.x[:9], run.data.y[:9]), (run.data.x[9:], run.data.y[9:])]
        fit(run.model, batches, LOSS, run.optimizer, **arguments)
        return run.model

    whole = train(epochs=3)
    train(epochs=2, checkpoint=tmp_path / "c.pt")
    assert "data" not in checkpoint.read(tmp_path / "c.pt")
    assert_same_bits(train(epochs=3, checkpoint=tmp_path / "c.pt"), whole)


def test_other_data_are_refused_and_change_nothing(tmp_path):
    Run().fit(checkpoint=tmp_path / "c.pt", epochs=1)
    run, fresh = Run(), Run()
    run.data.batch_size = 6
    with pytest.raises(ValueError, match="batch_size 4 there, 6 here"):
        run.fit(checkpoint=tmp_path / "c.pt")
    assert_same_bits(run.model, fresh.model)


def test_what_a_checkpoint_holds(tmp_path):
    Run().fit(checkpoint=tmp_path / "c.pt", epochs=1)
    state = checkpoint.read(tmp_path / "c.pt")
    kinds = {"data": "Batches", "model": "Sequential", "optimizer": "Adam", "scaler": "GradScaler"}
    assert state["kinds"] == kinds | {"scheduler": "OneCycleLR"}
    assert state.keys() == {"format", "kinds", "history", "random", *state["kinds"]}
    assert state["scaler"] == {}  # it scales in float16 only
    assert [random.keys() for random in state["random"]] == [{"cpu", "cuda"}]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    (tmp_path / "c.pt.part").write_text("half a checkpoint")
    checkpoint.write({"a": 1}, tmp_path / "c.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_system_that_cannot_open_folders_writes_nevertheless(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("a folder")

    monkeypatch.setattr(os, "open", refuse)
    checkpoint.write({"format": checkpoint.FORMAT}, tmp_path / "c.pt")
    assert checkpoint.read(tmp_path / "c.pt") == {"format": checkpoint.FORMAT}


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    Run().fit(checkpoint=path, epochs=1)
    before = path.read_bytes()

    def full(state, file):
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        Run().fit(checkpoint=path, epochs=3)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_diverging_run_keeps_the_checkpoint_before(tmp_path):
    run = Run("sgd")
    run.fit(checkpoint=tmp_path / "c.pt", epochs=1)
    before = (tmp_path / "c.pt").read_bytes()
    with torch.no_grad():
        run.data.x[0] = torch.nan
    with pytest.raises(FloatingPointError, match="in epoch 2"):
        run.fit(checkpoint=tmp_path / "c.pt", epochs=3)
    assert (tmp_path / "c.pt").read_bytes() == before


def test_the_folder_is_brought_to_disk_after_the_rename(tmp_path, monkeypatch):
    """The order that a power cut asks for: content, rename, folder."""
    order = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_fsync(descriptor)

    def replace(*paths):
        order.append("rename")
        real_replace(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    checkpoint.write({"a": 1}, tmp_path / "c.pt")
    assert order == ["file", "rename", "folder"]
