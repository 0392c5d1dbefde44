"""Medical pictures with a label for every pixel: slices of a brain, and nuclei under a microscope.

Letters for shapes in this file:
    N  pictures    H  rows    W  columns
"""

import gzip
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dlbook.data.files import check_sha256, package_folder
from dlbook.data.formats import read_nifti

TISSUES = ("outside", "fluid", "grey matter", "white matter")
BRAIN_SHA256 = {  # of the files in nilearn 0.10 to 0.14
    "t1": "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    "gm": "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    "wm": "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
}
SLICES = slice(12, 146)  # of 189, from below: those that hold some brain
BLOCKS = 6  # of neighbouring slices; the last quarter of each is for testing
GAP = 3  # slices, which are millimetres, left out between training and testing
NUCLEI_SHA256 = {  # of the files in stardist 0.9
    "img2d.tif": "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    "mask2d.tif": "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
}


@dataclass(frozen=True, eq=False)
class Masks:
    """Pictures with the class of every pixel, split once and for all into training and test data.

    Attributes:
        train_images: Training pictures, 0 dark to 1 bright, float32.
        train_masks: The class of each of their pixels, an index into ``classes``, int64.
        test_images: Pictures to be looked at only in the end.
        test_masks: The class of each of their pixels.
        classes: Names of the classes; the first is the background.
        source: Where the pictures come from.
        licence: Under which terms.

    Shapes:
        images (N, 1, H, W), masks (N, H, W).
    """

    train_images: Tensor
    train_masks: Tensor
    test_images: Tensor
    test_masks: Tensor
    classes: tuple[str, ...]
    source: str
    licence: str


def brain() -> Masks:
    """Slices of a brain, 112 x 96 pixels of 2 mm, with three tissues, without a network: 69 to train on, 32 to test on.

    The volume is the average of 152 healthy adults, turned and warped onto one another: no single patient, and smoother
    than any. The tissue of a pixel is the likeliest one by the maps of grey and white matter that come with it; within
    the skull what is neither is fluid. The slices lie across the head from below upwards, 1 mm apart. Neighbours look
    alike, so the split is by blocks: each of six blocks ends in test slices, with three slices left out on either side.

    Raises:
        ModuleNotFoundError: If nilearn is not installed.
        ValueError: If one of its files is not the one this was written for.

    Example:
        >>> data = brain()
        >>> data.train_images.shape, data.classes[1:]
        (torch.Size([69, 1, 112, 96]), ('fluid', 'grey matter', 'white matter'))

    Source: V. Fonov et al., Unbiased nonlinear average age-appropriate brain templates, 2009,
    https://doi.org/10.1016/S1053-8119(09)70884-5.
    """
    folder = package_folder("nilearn", "nilearn>=0.10", alone=True) / "datasets" / "data"
    volumes = {}
    for name, digest in BRAIN_SHA256.items():
        path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        content = gzip.decompress(check_sha256(path.read_bytes(), digest, f"{path} (right in nilearn 0.10 to 0.14)"))
        volume = read_nifti(content)[SLICES].flip(1)  # the forehead up: (slices, 233, 197)
        halved = F.avg_pool2d(volume.unsqueeze(1).float() / 255, 2)  # (slices, 1, 116, 98)
        volumes[name] = halved[:, :, 2:114, 1:97].contiguous()
    grey, white = volumes["gm"], volumes["wm"]
    likely = torch.cat([(1 - grey - white).clamp(min=0), grey, white], 1)  # (slices, 3, 112, 96)
    inside = volumes["t1"][:, 0] > 0.04
    masks = torch.where(inside, likely.argmax(1) + 1, 0)  # (slices, 112, 96)
    train, test = _blocks(len(masks))
    return Masks(
        volumes["t1"][train],
        masks[train],
        volumes["t1"][test],
        masks[test],
        TISSUES,
        "MNI ICBM 152 symmetric template 2009a (Fonov et al.), as packed in nilearn",
        "permissive, of the McConnell Brain Imaging Centre, McGill University; nilearn: BSD 3-Clause",
    )


def _blocks(count: int) -> tuple[Tensor, Tensor]:
    """Which slices are for training and which for testing, with gaps between them."""
    position = torch.arange(count) * BLOCKS % count / count  # within its block, 0 to 1
    is_test = position >= 0.75
    near = F.max_pool1d(is_test.float().view(1, 1, -1), 2 * GAP + 1, 1, GAP).flatten() > 0
    return torch.where(~near)[0], torch.where(is_test)[0]


def nuclei(size: int = 64) -> Masks:
    """Nuclei of cells under a fluorescence microscope, in tiles, without a network; the classes are background and nucleus.

    One picture of 512 x 512 pixels with 125 outlined nuclei. Its left three quarters are for training, the rest for
    testing; the tiles do not overlap.

    Args:
        size: Side of a tile, pixels; must divide 128.

    Raises:
        ModuleNotFoundError: If stardist is not installed.
        ValueError: If ``size`` does not divide 128, or a file is not the one this was written for.

    Example:
        >>> data = nuclei()
        >>> data.train_images.shape, data.test_masks.shape
        (torch.Size([48, 1, 64, 64]), torch.Size([16, 64, 64]))

    Source: a picture of the 2018 Data Science Bowl (Caicedo et al., 2019, https://doi.org/10.1038/s41592-019-0612-7).
    """
    if size < 1 or 128 % size:
        raise ValueError(f"size must divide 128, got {size}")
    from skimage.io import imread

    folder = package_folder("stardist", "stardist>=0.9", alone=True) / "data" / "images"
    pixels = {}
    for name, digest in NUCLEI_SHA256.items():
        check_sha256((folder / name).read_bytes(), digest, f"{folder / name} (right in stardist 0.9)")
        pixels[name] = torch.from_numpy(imread(folder / name).astype(np.int64))
    image = pixels["img2d.tif"] / pixels["img2d.tif"].max()
    parts = []
    for columns in (slice(0, 384), slice(384, 512)):
        for picture in (image, (pixels["mask2d.tif"] > 0).long()):
            tiles = picture[:, columns].unfold(0, size, size).unfold(1, size, size)  # (rows, columns, size, size)
            parts.append(tiles.flatten(0, 1).contiguous())
    train_images, train_masks, test_images, test_masks = parts
    return Masks(
        train_images.unsqueeze(1).float(),
        train_masks,
        test_images.unsqueeze(1).float(),
        test_masks,
        ("background", "nucleus"),
        "a picture of the 2018 Data Science Bowl, BBBC038v1, as packed in stardist",
        "CC0; stardist: BSD 3-Clause",
    )
