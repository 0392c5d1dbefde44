"""Larger sets of photographs, downloaded once: ten kinds of things, and breeds of cats and dogs with their outlines.

The cache keeps the archives as they came. Pictures are decoded straight from them, nothing is unpacked to disk, so no
name in an archive can lead out of a folder.

Letters for shapes in this file:
    N  pictures    S  rows and columns
"""

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from dlbook.data.files import fetch
from dlbook.data.images import Images

IMAGENETTE_CLASSES = {  # by their numbers in WordNet, which the folders are named by
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
# Each SHA-256 was cross-checked in at least two public repositories that are independent of each other. That of
# imagenette is of the archive since February 2021, 99,003,388 bytes, as TensorFlow Datasets 4.9.10 has it: lists that
# still say 88daccb0..., 98,948,031 bytes, mean the one before it.
IMAGENETTE_SHA256 = "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5"
IMAGENETTE_URLS = (  # two addresses of one store; no other is known to have this archive
    "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
    "https://fast-ai-imageclas.s3.amazonaws.com/imagenette2-160.tgz",
)
PETS_SHA256 = {
    "images.tar.gz": "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
    "annotations.tar.gz": "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
}
PETS_MIRRORS = (
    "https://www.robots.ox.ac.uk/~vgg/data/pets/data/",
    "https://thor.robots.ox.ac.uk/datasets/pets/",
)
SPECIES = ("cat", "dog")  # numbered from 1 in the lists
MASK_CLASSES = ("background", "pet", "border")
TRIMAP = {1: MASK_CLASSES.index("pet"), 2: MASK_CLASSES.index("background"), 3: MASK_CLASSES.index("border")}
END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True, eq=False)
class Pets:
    """Pictures with a label and with the class of every pixel, split once and for all into training and test data.

    Attributes:
        train_images: Training pictures, 0 dark to 1 bright, float32.
        train_labels: Their breeds, an index into ``classes``, int64.
        train_masks: The class of each of their pixels, an index into ``mask_classes``, int64.
        test_images: Pictures to be looked at only in the end.
        test_labels: Their breeds.
        test_masks: The class of each of their pixels.
        classes: Names of the breeds.
        species: "cat" or "dog", for each breed.
        mask_classes: What a pixel can be; the first is the background, the last the border, where nobody decided.
        source: Where the pictures come from.
        licence: Under which terms.

    Shapes:
        images (N, 3, S, S), labels (N,), masks (N, S, S).
    """

    train_images: Tensor
    train_labels: Tensor
    train_masks: Tensor
    test_images: Tensor
    test_labels: Tensor
    test_masks: Tensor
    classes: tuple[str, ...]
    species: tuple[str, ...]
    mask_classes: tuple[str, ...]
    source: str
    licence: str


def imagenette(size: int = 64) -> Images:
    """13,394 photographs of ten kinds of things, 9,469 to train on; a 99 MB download the first time.

    The kinds are easily told apart. The shorter side, 160 pixels in the archive, is scaled to ``size`` and the middle
    square cut out. Both parts run through the kinds again and again, so any slice of 10 n pictures holds n of each, as
    long as no kind has run out. The test pictures are those that its author calls validation.

    At 64 pixels all pictures take 0.7 GB of memory, at 160 pixels 4.1 GB, and a quarter more while they are loaded.

    Args:
        size: Side of a picture, pixels.

    Shapes:
        pictures (N, 3, S, S).

    Raises:
        ValueError: If ``size`` is below 1.
        DownloadError: If it is not in the cache and cannot be downloaded.

    Example:
        >>> imagenette(size=0)
        Traceback (most recent call last):
            ...
        ValueError: size must be at least 1 pixel, got 0

    Source: J. Howard, Imagenette, https://github.com/fastai/imagenette, 2019; the photographs are ImageNet's.
    """
    _check_size(size)
    instead = "dlbook.data.images.silhouettes() (ten kinds of animals) or dlbook.data.photos() (a few photographs)"
    path = fetch("imagenette/imagenette2-160.tgz", IMAGENETTE_URLS, IMAGENETTE_SHA256, instead=instead)
    numbers = {folder: number for number, folder in enumerate(IMAGENETTE_CLASSES)}
    found: dict[str, list[tuple[str, int]]] = {"train": [], "val": []}
    with tarfile.open(path) as archive:
        for name in sorted(archive.getnames()):
            match = re.search(r"imagenette2-160/(train|val)/(\w+)/[^./][^/]*\.JPEG$", name)  # no ._ files of macOS
            if match and match[2] in numbers:
                found[match[1]].append((name, numbers[match[2]]))
    train, test = (_in_turn(part) for part in found.values())
    images = _pictures(path, [name for name, _ in train + test], size)
    return Images(
        images[: len(train)] / 255,
        torch.tensor([number for _, number in train]),
        images[len(train) :] / 255,
        torch.tensor([number for _, number in test]),
        tuple(IMAGENETTE_CLASSES.values()),
        "Imagenette (J. Howard, fast.ai, 2019), photographs of ImageNet, https://github.com/fastai/imagenette",
        "ImageNet's terms: research and teaching without profit; the photographs belong to those who took them",
    )


def oxford_pets(size: int = 64) -> Pets:
    """7,349 photographs of 37 breeds of cats and dogs, 3,680 to train on, with masks; an 811 MB download the first time.

    The shorter side is scaled to ``size`` and the middle square cut out, of the masks too, without mixing their classes.
    Between pet and background lies a border of some pixels that the authors left open. Both parts run through the
    breeds again and again, so any slice of 37 n pictures holds n of each, as long as no breed has run out.

    At 64 pixels all pictures and masks take 0.6 GB of memory, at 224 pixels 7.4 GB, and a fifth more while they are
    loaded.

    Args:
        size: Side of a picture, pixels.

    Raises:
        ValueError: If ``size`` is below 1.
        DownloadError: If it is not in the cache and cannot be downloaded.

    Example:
        >>> oxford_pets(size=-3)
        Traceback (most recent call last):
            ...
        ValueError: size must be at least 1 pixel, got -3

    Source: O. Parkhi, A. Vedaldi, A. Zisserman, C. Jawahar, Cats and dogs, 2012,
    https://www.robots.ox.ac.uk/~vgg/data/pets/.
    """
    _check_size(size)
    instead = "dlbook.data.medical.nuclei() (masks of cells) or dlbook.data.photos() (a few photographs)"
    pictures, annotations = (
        fetch(f"oxford_pets/{name}", [mirror + name for mirror in PETS_MIRRORS], digest, instead=instead)
        for name, digest in PETS_SHA256.items()
    )
    lists = ["annotations/trainval.txt", "annotations/test.txt"]
    texts = {name: content.decode("ascii") for name, content in _contents(annotations, lists)}
    breeds: dict[int, tuple[str, str]] = {}  # number: name and species
    parts = []
    for name in lists:
        part = []
        for line in texts[name].splitlines():
            if line.strip() and not line.startswith("#"):
                picture, number, species, _ = line.split()
                part.append((picture, int(number) - 1))
                breeds[int(number) - 1] = picture.rpartition("_")[0].replace("_", " "), SPECIES[int(species) - 1]
        parts.append(_in_turn(part))
    train, test = parts
    names = [name for name, _ in train + test]
    images = _pictures(pictures, [f"images/{name}.jpg" for name in names], size)
    masks = _trimaps(annotations, [f"annotations/trimaps/{name}.png" for name in names], size)
    return Pets(
        images[: len(train)] / 255,
        torch.tensor([number for _, number in train]),
        masks[: len(train)].long(),
        images[len(train) :] / 255,
        torch.tensor([number for _, number in test]),
        masks[len(train) :].long(),
        tuple(breeds[number][0] for number in range(len(breeds))),
        tuple(breeds[number][1] for number in range(len(breeds))),
        MASK_CLASSES,
        "The Oxford-IIIT Pet Dataset (Parkhi, Vedaldi, Zisserman, Jawahar, 2012), "
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        "CC BY-SA 4.0; the photographs belong to those who took them, and the archive asks for use in research only",
    )


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")


def _in_turn(part: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Names with their classes, the first of each class, then the second of each, and so on."""
    seen: Counter[int] = Counter()
    keys = []
    for _, number in part:
        keys.append((seen[number], number))
        seen[number] += 1
    return [part[i] for i in sorted(range(len(part)), key=keys.__getitem__)]


def _contents(path: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Named files of an archive one by one, in the archive's order: going back in it would mean to unpack it anew."""
    missing = dict.fromkeys(names)
    bar = tqdm(desc=path.name, total=len(names), unit="files", delay=1, leave=False)
    with tarfile.open(path) as archive, bar:
        for member in archive:
            name = member.name if member.name in missing else member.name.removeprefix("./")
            if member.isfile() and name in missing:
                file = archive.extractfile(member)
                assert file is not None  # a plain file always has content
                del missing[name]
                bar.update()
                yield name, file.read()
    if missing:
        raise ValueError(f"{path} does not hold the file {next(iter(missing))}, and {len(missing)} are missing in all")


def _opened(path: Path, name: str, content: bytes) -> Image.Image:
    """A picture of an archive, decoded."""
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (OSError, SyntaxError) as error:  # the latter is Pillow's for a damaged PNG
        raise ValueError(f"{path}: {name} is no picture that can be read: {error}") from error
    return picture


def _pictures(path: Path, names: Sequence[str], size: int) -> Tensor:
    """Pictures of an archive in the order of ``names``, uint8 (N, 3, S, S)."""
    images = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    row = {name: i for i, name in enumerate(names)}
    for name, content in _contents(path, names):
        opened = _opened(path, name, content + END_OF_JPEG)  # some JPEGs of the sets end early: what there is counts
        # A palette may hold transparent colours, which do not turn into RGB directly.
        picture = (opened.convert("RGBA") if opened.mode == "P" else opened).convert("RGB")
        square = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
        images[row[name]] = torch.from_numpy(np.array(square)).permute(2, 0, 1)  # (3, S, S)
    return images


def _trimaps(path: Path, names: Sequence[str], size: int) -> Tensor:
    """Masks of an archive in the order of ``names``, indices into ``MASK_CLASSES``, uint8 (N, S, S)."""
    masks = torch.empty(len(names), size, size, dtype=torch.uint8)
    row = {name: i for i, name in enumerate(names)}
    number = np.full(256, 255, np.uint8)
    number[list(TRIMAP)] = list(TRIMAP.values())
    for name, content in _contents(path, names):
        square = ImageOps.fit(_opened(path, name, content), (size, size), Image.Resampling.NEAREST)
        mask = number[np.asarray(square)]  # (S, S)
        if mask.max() == 255:
            raise ValueError(f"{path}: {name} holds other values than 1 pet, 2 background and 3 border")
        masks[row[name]] = torch.from_numpy(mask)
    return masks
