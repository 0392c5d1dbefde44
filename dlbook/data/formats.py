"""Reading the file formats of image data sets; nothing here runs code from a file.

Shapes: N pictures, C channels, H rows, W columns.
"""

import math
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CIFAR_SHAPE = (3, 32, 32)


def read_idx(content: bytes) -> Tensor:
    """Tensor in an IDX file of unsigned bytes, as MNIST's are.

    Args:
        content: The whole file, uncompressed: two zeros, 8 for unsigned bytes, the number of axes, each axis' length as
            a big-endian 32-bit number, then the values.

    Shapes:
        Returns uint8 of the shape that the file states: (N, H, W) or (N,).

    Raises:
        ValueError: If it is no such file or its length does not fit its shape.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        tensor([7, 8, 9], dtype=torch.uint8)

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] == 0:
        raise ValueError(f"not an IDX file of unsigned bytes: it begins with {content[:4]!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"IDX file cut short: {len(content)} bytes do not hold {content[3]} lengths")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"IDX file of shape {shape} needs {math.prod(shape)} values, has {len(content) - start}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def read_cifar(content: bytes) -> tuple[Tensor, Tensor]:
    """Pictures and labels in a file of CIFAR-10's binary version.

    Args:
        content: Records of 3,073 bytes: the label, then red, green and blue, each row by row.

    Shapes:
        Returns uint8 (N, 3, 32, 32) and int64 (N,).

    Raises:
        ValueError: If the length is no multiple of a record or a label is above 9.

    Example:
        >>> images, labels = read_cifar(bytes([6] + 3072 * [255]))
        >>> images.shape, labels
        (torch.Size([1, 3, 32, 32]), tensor([6]))

    Source: A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html
    """
    record = 1 + math.prod(CIFAR_SHAPE)
    if not content or len(content) % record:
        raise ValueError(f"{len(content)} bytes are no whole number of records of {record} bytes")
    table = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, record).copy())
    labels = table[:, 0].long()
    if labels.max() > 9:
        raise ValueError(f"label {int(labels.max())} in a data set of 10 classes")
    return table[:, 1:].reshape(-1, *CIFAR_SHAPE), labels  # (N, 3, 32, 32), (N,)


def read_nifti(content: bytes) -> Tensor:
    """Volume in a NIfTI-1 file of unsigned bytes, without its place in space.

    Args:
        content: The whole file, uncompressed, in little-endian order.

    Shapes:
        Returns uint8 (Z, Y, X); the file states X, Y and Z, and X changes fastest.

    Raises:
        ValueError: If it is no such file, has more axes, scales its values, or is cut short.

    Source: the NIfTI-1 data format, https://nifti.nimh.nih.gov/nifti-1.
    """
    if len(content) < 352 or content[344:348] != b"n+1\0":
        raise ValueError(f"not a NIfTI-1 file in one piece: {len(content)} bytes, marked {content[344:348]!r}")
    axes, *lengths = struct.unpack("<8h", content[40:56])
    kind, bits = struct.unpack("<2h", content[70:74])
    offset, slope, shift = struct.unpack("<3f", content[108:120])
    if axes != 3 or (kind, bits) != (2, 8) or slope not in (0, 1) or shift:
        raise ValueError(
            f"only volumes of unsigned bytes that are not scaled can be read; this one has {axes} axes, type {kind} of "
            f"{bits} bits, slope {slope} and shift {shift}"
        )
    x, y, z = lengths[:3]
    if min(x, y, z) < 1 or offset < 352 or len(content) != int(offset) + x * y * z:
        raise ValueError(f"{x} x {y} x {z} values from byte {offset:.0f} on do not fit {len(content)} bytes")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=int(offset)).reshape(z, y, x).copy())


def read_tar(path: Path, names: Sequence[str]) -> list[bytes]:
    """Contents of named files in a tar archive.

    Nothing is unpacked to disk, so no name in the archive can lead out of a folder.

    Args:
        path: The archive, compressed or not.
        names: Full names inside it; gone through in the archive's order, returned in the order given.

    Raises:
        ValueError: If one is missing or is no plain file.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name in names:
                file = archive.extractfile(member)
                assert file is not None  # a plain file always has content
                found[member.name] = file.read()
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path} does not hold the file {missing[0]}")
    return [found[name] for name in names]
