"""Brain slices and nuclei: right labels, and nothing of the test data among the training data."""

import struct

import pytest
import torch

from dlbook.data import medical
from dlbook.data.formats import read_nifti
from dlbook.data.medical import GAP, brain, nuclei


def nifti(shape=(2, 3, 4), kind=2, bits=8, slope=1.0, shift=0.0, axes=3):
    header = bytearray(352)
    header[40:56] = struct.pack("<8h", axes, *shape[::-1], 1, 1, 1, 1)
    header[70:74] = struct.pack("<2h", kind, bits)
    header[108:120] = struct.pack("<3f", 352, slope, shift)
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(range(24))


def test_nifti_reads_x_fastest():
    volume = read_nifti(nifti())
    assert volume.shape == (2, 3, 4)
    assert volume.flatten().tolist() == list(range(24))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "not a NIfTI-1 file"),
        (nifti()[:-1], "do not fit"),
        (nifti() + b"x", "do not fit"),
        (nifti(axes=4), "4 axes"),
        (nifti(kind=16, bits=32), "type 16"),
        (nifti(slope=2.0), "slope 2.0"),
        (nifti(shape=(2, 3, -4)), "do not fit"),
    ],
)
def test_other_nifti_files_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_nifti(content)


def test_brain():
    data = brain()
    assert data.train_images.shape == (69, 1, 112, 96)
    assert data.test_masks.shape == (32, 112, 96)
    assert data.train_images.dtype == torch.float32
    assert data.train_masks.dtype == torch.int64
    assert data.train_images.min() >= 0
    assert data.train_images.max() <= 1
    for masks in (data.train_masks, data.test_masks):
        assert masks.unique().tolist() == [0, 1, 2, 3]
        assert (masks > 0).sum((1, 2)).min() > 300  # every slice shows some brain
    brightness = [data.train_images[:, 0][data.train_masks == kind].mean() for kind in range(4)]
    assert brightness == sorted(brightness)  # in this kind of picture: outside, fluid, grey and white matter


def test_test_slices_lie_apart_from_training_slices():
    train, test = medical._blocks(134)
    assert not set(train.tolist()) & set(test.tolist())
    assert (train[:, None] - test).abs().min() == GAP + 1
    assert (test.diff() > 1).sum() == medical.BLOCKS - 1


def test_the_brain_stands_upright():
    # the back of the head is below: there, deep down, lies the cerebellum, and no forehead
    lowest = brain().train_masks[0] > 0
    assert lowest[56:].sum() > 10 * lowest[:40].sum()


def test_another_file_is_refused(monkeypatch):
    monkeypatch.setitem(medical.BRAIN_SHA256, "gm", "0" * 64)
    with pytest.raises(ValueError, match=r"gm_tal.*right in nilearn"):
        brain()


def test_nuclei():
    data = nuclei(32)
    assert data.train_images.shape == (192, 1, 32, 32)
    assert data.test_masks.shape == (64, 32, 32)
    assert data.train_images.max() == 1
    inside = data.train_images[:, 0][data.train_masks == 1].mean()
    assert inside > 2 * data.train_images[:, 0][data.train_masks == 0].mean()


def test_tiles_of_nuclei_put_together_are_the_picture():
    small, large = nuclei(32), nuclei(128)
    tiles = small.test_images.view(16, 4, 32, 32).transpose(1, 2).reshape(512, 128)
    assert torch.equal(tiles, large.test_images.view(512, 128))


@pytest.mark.parametrize("size", [0, 48, 256])
def test_tiles_must_fit(size):
    with pytest.raises(ValueError, match=f"got {size}"):
        nuclei(size)


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(
        medical, "package_folder", lambda name, need, alone: (_ for _ in ()).throw(ModuleNotFoundError(need))
    )
    with pytest.raises(ModuleNotFoundError, match="nilearn"):
        brain()
