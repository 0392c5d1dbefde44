"""Published weights: the right file in the right network, and nothing else."""

import hashlib
import os
import re
import warnings

import pytest
import torch
from torch import nn

from dlbook import pretrained
from dlbook.data.files import DownloadError
from dlbook.pretrained import WEIGHTS, Weights, from_pretrained


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder in the place of the server, and a function that publishes a small file there."""
    monkeypatch.setenv("DLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path.as_uri() + "/")

    def publish(content, digest=None):
        path = tmp_path / "made.pth"
        torch.save(content, path)
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        path.rename(tmp_path / f"small-{digest}.pth")
        weights = Weights(
            f"small-{digest}.pth", lambda: nn.Linear(3, 2), "good", lambda s: {n[2:]: t for n, t in s.items()}
        )
        monkeypatch.setitem(WEIGHTS, "small", weights)
        return tmp_path / weights.file

    return publish


def test_the_weights_arrive_and_the_file_is_kept(published):
    path = published({"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)})
    model = from_pretrained("small")
    assert not model.training
    assert model(torch.ones(3)).tolist() == [4, 13]
    path.unlink()
    assert torch.equal(from_pretrained("small").weight, model.weight)  # without the server


def test_another_file_is_refused_and_not_kept(published, tmp_path):
    published({"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}, digest="01234567")
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"begins with 01234567(.|\n)*Check the network"):
            from_pretrained("small")
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_what_would_run_is_not_run(published, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    published({"a.weight": Hostile()})
    with pytest.raises(DownloadError, match="small-"):
        from_pretrained("small")
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("DLBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "FOLDER", "http://127.0.0.1:9/")
    monkeypatch.setitem(WEIGHTS, "small", Weights("small-01234567.pth", lambda: nn.Linear(3, 2), "good"))
    with pytest.raises(DownloadError, match=r"http://127.0.0.1:9/small-01234567.pth(.|\n)*put the file into"):
        from_pretrained("small")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet51'.*resnet50"):
        from_pretrained("resnet51")


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_entry_makes_its_network_and_names_a_digest(name):
    assert re.search(r"-[0-9a-f]{8}\.pth$", WEIGHTS[name].file)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of first weights that are not drawn on the meta device
        model = WEIGHTS[name].make()
    assert sum(p.numel() for p in model.parameters()) > 4e6
