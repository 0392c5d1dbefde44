"""The parsers on files made here, whole and damaged."""

import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from dlbook.data.formats import read_cifar, read_idx, read_tar


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_round_trip():
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    assert torch.equal(read_idx(idx(array)), torch.from_numpy(array))
    assert read_idx(idx(array)).shape == (3, 5, 7)


def test_idx_lengths_are_big_endian():
    assert read_idx(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258)).shape == (258,)


ARRAY = np.zeros((3, 5, 7), dtype=np.uint8)
BAD_IDX = {
    "nothing": (b"", "not an IDX file"),
    "a page of HTML": (b"<html>not found</html>", "not an IDX file"),
    "another type": (b"\0\0\x0d\x01" + bytes(8), "not an IDX file"),
    "no axes": (b"\0\0\x08\0", "not an IDX file"),
    "cut in its head": (idx(ARRAY)[:10], "cut short"),
    "cut in its values": (idx(ARRAY)[:-1], "needs 105 values, has 104"),
    "too long": (idx(ARRAY) + b"\0", "needs 105 values, has 106"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_bad_idx_files_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_idx(content)


def test_cifar_round_trip():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    content = b"".join(bytes([label]) + image.tobytes() for label, image in zip([7, 0, 9, 3], images, strict=True))
    read, labels = read_cifar(content)
    assert torch.equal(read, torch.from_numpy(images))
    assert labels.tolist() == [7, 0, 9, 3]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "0 bytes"), (bytes(3074), "3074 bytes"), (bytes([10] + 3072 * [0]), "label 10")]
)
def test_bad_cifar_files_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_cifar(content)


def make_tar(path, files, *, link=None):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)


def test_named_files_come_in_the_order_asked_for(tmp_path):
    make_tar(tmp_path / "a.tar.gz", {"d/one": b"1", "d/other": b"-", "d/two": b"22"})
    assert read_tar(tmp_path / "a.tar.gz", ["d/two", "d/one"]) == [b"22", b"1"]


def test_an_archive_that_wants_out_of_its_folder_writes_nothing(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    make_tar(folder / "a.tar.gz", {"../escaped": b"x", "/tmp/escaped-dlbook": b"x", "d/one": b"1"}, link="d/link")
    assert read_tar(folder / "a.tar.gz", ["d/one"]) == [b"1"]
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "a.tar.gz"]
    with pytest.raises(ValueError, match="does not hold the file d/link"):
        read_tar(folder / "a.tar.gz", ["d/link"])


def test_a_missing_file_is_named(tmp_path):
    make_tar(tmp_path / "a.tar.gz", {"d/one": b"1"})
    with pytest.raises(ValueError, match="does not hold the file d/three"):
        read_tar(tmp_path / "a.tar.gz", ["d/one", "d/three"])
