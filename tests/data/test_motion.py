"""The recordings of the watch: all there, cut into windows as asked, people kept apart."""

import importlib.util
import sys

import pytest
import torch

from dlbook.data import motion
from dlbook.data.motion import EXERCISES, Motions, watch

needs_seglearn = pytest.mark.skipif(not importlib.util.find_spec("seglearn"), reason="needs seglearn")


def counted():
    """Two people; each number says where it stood."""
    recordings = tuple(torch.arange(6.0 * n).view(n, 6) for n in (7, 10, 3))
    return Motions(recordings, torch.tensor([2, 0, 1]), torch.tensor([1, 5, 5]), EXERCISES, motion.CHANNELS, "", "")


def test_windows_are_cut_in_order_and_labelled():
    x, y = counted().windows(4, 3, people=(1, 5))
    assert x.shape == (2 + 3, 4, 6)
    assert y.tolist() == [2, 2, 0, 0, 0]
    assert torch.equal(x[1], torch.arange(18.0, 42.0).view(4, 6))


def test_people_are_kept_apart():
    x, y = counted().windows(7, 1, people=(1,))
    assert (len(x), y.tolist()) == (1, [2])
    with pytest.raises(ValueError, match=r"no recording of the people \(3,\)"):
        counted().windows(4, 3, people=(3,))


@needs_seglearn
def test_all_recordings_are_there():
    data = watch()
    assert len(data.recordings) == len(data.exercises) == 140
    assert data.people.bincount().tolist() == [0] + [14] * 10
    assert data.exercises.bincount(minlength=7).tolist() == [20] * 7
    assert sum(map(len, data.recordings)) == 244_102
    assert data.recordings[0].shape == (1333, 6)
    gravity = torch.cat(data.recordings)[:, :3].square().sum(1).sqrt().mean()
    assert 0.9 < gravity < 1.2  # at rest the watch feels 1 g, so that columns and rows are not mixed up
    assert "seglearn" not in sys.modules


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install --no-deps "seglearn==1.2.5"'):
        watch()


def test_another_file_than_expected_is_refused(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "watch_dataset.npy").write_bytes(b"something else")
    monkeypatch.setattr(motion, "package_folder", lambda *_, **__: tmp_path)
    with pytest.raises(ValueError, match=r"\(right in seglearn 1\.2\.5\): expected SHA-256 eb122f23"):
        watch()
