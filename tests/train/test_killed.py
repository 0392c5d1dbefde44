"""Training that is killed again and again, and checkpoints that are cut, altered or made to do harm."""

import io
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import traceback
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from dlbook.data.batches import Batches
from dlbook.train import checkpoint, fit

KILLS = 30
EPOCHS = 40
LONGEST = 0.1  # seconds that a life may last; a whole training takes several of them

# Loads torch once, with what an optimiser loads at its first step, and forks a trainer for every path that it reads.
# Until then nothing has been computed that starts a thread, which a fork would lose.
NURSERY = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_killed
run = test_killed.Run()
run.optimizer.step()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        test_killed.live(line.strip())
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class Run:
    """A training with everything that a resumed one could get wrong: dropout, momenta, a schedule, a shuffled order."""

    def __init__(self, hidden: int = 61) -> None:
        torch.manual_seed(5)
        x = torch.randn(23, 5)
        self.model = nn.Sequential(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.3), nn.Linear(hidden, 3))
        self.data = Batches(x, x[:, :3].argmax(1), 4, shuffle=True, generator=torch.Generator().manual_seed(6))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.02, 6 * EPOCHS)

    def fit(self, epochs: int = EPOCHS, **arguments):
        loss = nn.functional.cross_entropy
        return fit(self.model, self.data, loss, self.optimizer, epochs=epochs, scheduler=self.scheduler, **arguments)


def live(path: str) -> None:
    """What a forked trainer does: train to the end, noting each epoch of which it was told that it is safe."""
    code = 1
    try:
        with open(path + ".told", "ab") as told:
            Run().fit(checkpoint=path, on_epoch=lambda history: os.write(told.fileno(), b"%9d" % history.epochs))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class Nursery:
    def __init__(self) -> None:
        command = [sys.executable, "-c", NURSERY, str(Path(__file__).parent)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=environment)

    def life(self, path: Path, seconds: float) -> bool:
        """Let a trainer live for so long; whether it came to its end before."""
        self.process.stdin.write(f"{path}\n".encode())
        pid = int(self.process.stdout.readline())
        killed = not select.select([self.process.stdout], [], [], seconds)[0]
        if killed:
            os.kill(pid, signal.SIGKILL)  # it is there: its parent waits for it, and has not reported yet
        status = int(self.process.stdout.readline())
        assert status in ({0, signal.SIGKILL} if killed else {0}), "the trainer failed by itself"
        return status == 0


@pytest.fixture
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.process.stdin.close()
    nursery.process.wait(30)
    nursery.process.stdout.close()


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_nothing_is_lost_in_a_training_killed_at_thirty_random_moments(nursery, tmp_path):
    undisturbed = tmp_path / "undisturbed.pt"
    assert nursery.life(undisturbed, 300)
    expected = checkpoint.read(undisturbed)
    moments = random.Random(0)
    kills, runs, before = 0, 0, 0
    while True:
        path = tmp_path / f"{runs}.pt"
        if nursery.life(path, moments.uniform(0, LONGEST) if kills < KILLS else 300):
            assert equal(checkpoint.read(path), expected)  # weights, moments, history, random states: all bits
            if kills == KILLS:
                break
            runs, before = runs + 1, 0  # a new training, until there were enough kills
            continue
        kills += 1
        done = len(checkpoint.read(path)["history"]["loss"]) if path.exists() else 0
        told = Path(f"{path}.told")
        safe = int(told.read_bytes()[-9:] or 0) if told.exists() else 0
        assert done >= max(safe, before), f"{max(safe, before)} epochs were safe, {done} are left"
        before = done
    assert kills == KILLS
    assert not path.with_name(path.name + ".part").exists()  # what a kill left was written over and renamed


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "c.pt"
    Run(hidden=7).fit(checkpoint=path, epochs=2)
    return path.read_bytes()


def places(content: bytes) -> list[int]:
    """Where a file can be cut: in and between all its parts, in the directory at its end, and in the last bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        starts = [info.header_offset for info in archive.infolist()]
        directory = archive.start_dir
    edges = [*starts, directory, len(content)]
    inside = [(a + b) // 2 for a, b in pairwise(edges)]
    near = [edge + step for edge in edges for step in (-1, 1)]
    return sorted({place for place in edges + inside + near if 0 <= place < len(content)})


def test_a_file_cut_anywhere_is_refused(written, tmp_path):
    path = tmp_path / "c.pt"
    cuts = places(written)
    assert len(cuts) > 100
    for cut in cuts:
        path.write_bytes(written[:cut])
        with pytest.raises(ValueError, match=r"c\.pt cannot be read as a checkpoint: it is damaged, cut short"):
            checkpoint.read(path)


class Bomb:
    """Unpickled without care, it creates a folder."""

    place = ""

    def __reduce__(self):
        return os.mkdir, (self.place,)


def bombs(whole: dict, path: Path) -> dict:
    """Name -> how to write a file that runs code if it is unpickled without care."""
    inside = {**whole, "model": whole["model"] | {"0.weight": Bomb()}}
    return {
        **{f"in place of {name}": lambda name=name: torch.save(whole | {name: Bomb()}, path) for name in whole},
        "among the weights": lambda: torch.save(inside, path),
        "the whole file": lambda: torch.save(Bomb(), path),
        "a pickle without an archive": lambda: path.write_bytes(pickle.dumps(Bomb())),
        "in torch's old form": lambda: torch.save(inside, path, _use_new_zipfile_serialization=False),
    }


def test_no_code_in_a_file_is_run(written, tmp_path, monkeypatch):
    path, ran = tmp_path / "c.pt", tmp_path / "ran"
    monkeypatch.setattr(Bomb, "place", str(ran))
    path.write_bytes(written)
    forms = bombs(checkpoint.read(path), path)
    assert len(forms) > 10
    for name, write in forms.items():
        write()
        run, fresh = Run(hidden=7), Run(hidden=7)
        with pytest.raises(ValueError, match=r"c\.pt cannot be read"):
            run.fit(checkpoint=path)
        assert not ran.exists(), name
        for a, b in zip(run.model.state_dict().values(), fresh.model.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
    torch.save(Bomb(), path)
    torch.load(path, weights_only=False)  # the bomb is none if this does not set it off
    assert ran.exists()


def read_with_a_bit_flipped(written: bytes, place: int, path: Path):
    content = bytearray(written)
    content[place] ^= 1 << place % 8
    path.write_bytes(content)
    return checkpoint.read(path)


def test_a_flipped_bit_is_noticed_or_without_effect(written, tmp_path):
    path, refused = tmp_path / "c.pt", []
    path.write_bytes(written)
    whole = checkpoint.read(path)
    for place in range(3, len(written), 41):
        try:
            assert equal(read_with_a_bit_flipped(written, place, path), whole), place
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all("cannot be read as a checkpoint" in message for message in refused)


def test_a_flipped_bit_is_refused_in_plain_words(written, tmp_path):
    path = tmp_path / "c.pt"
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        name_in_directory = archive.start_dir + 46 + 3
    content = bytearray(written)
    content[name_in_directory] ^= 128
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt cannot be read as a checkpoint"):
        checkpoint.read(path)


PARTS = ["model", "optimizer", "scheduler", "scaler", "data", "kinds", "history", "random"]


WRONG = [(part, wrong) for part in PARTS for wrong in (None, 5, "text")]  # None: left out
WRONG += [("history", {"loss": 5}), ("random", [5]), ("random", [{"cpu": torch.zeros(3)}])] + [
    (part, {}) for part in ("model", "optimizer", "data", "kinds")
]


@pytest.mark.parametrize(("part", "wrong"), WRONG)
def test_a_part_that_is_missing_or_of_another_kind_is_refused_and_changes_nothing(part, wrong, written, tmp_path):
    path = tmp_path / "c.pt"
    path.write_bytes(written)
    state = checkpoint.read(path)
    assert set(state) == {"format", *PARTS}
    state = {name: value for name, value in state.items() if name != part} | (
        {part: wrong} if wrong is not None else {}
    )
    torch.save(state, path)
    run, fresh = Run(hidden=7), Run(hidden=7)
    with pytest.raises(ValueError, match=r"c\.pt|these batches are not the ones"):
        run.fit(checkpoint=path)
    assert equal(run.model.state_dict(), fresh.model.state_dict())
    assert equal(run.optimizer.state_dict(), fresh.optimizer.state_dict())


def test_a_file_that_may_not_be_opened_is_not_called_damaged(tmp_path):
    with pytest.raises(OSError, match="directory"):
        checkpoint.read(tmp_path)
