"""Photographs that come inside scikit-image and scikit-learn, with their sources and licences."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NASA = "NASA, public domain"
CC0 = "CC0"
# name: (package, what it shows, source, licence), as the packages state them
PHOTOS = {
    "astronaut": ("skimage", "the astronaut Eileen Collins in front of a flag", "NASA Great Images", NASA),
    "camera": ("skimage", "a photographer at his camera, in grey", "Lav Varshney", CC0),
    "coffee": ("skimage", "a cup of coffee on a wooden table", "Rachel Michetti, Pikolo Espresso Bar", CC0),
    "cat": ("skimage", "the face of a cat", "Stefan van der Walt", CC0),
    "rocket": ("skimage", "a rocket at launch", "SpaceX, DSCOVR on a Falcon 9", "public domain"),
    "coins": ("skimage", "Greek coins from Pompeii, in grey", "Brooklyn Museum", "no known restrictions"),
    "hubble_deep_field": ("skimage", "galaxies in the Hubble eXtreme Deep Field", "HubbleSite", NASA),
    "retina": ("skimage", "a human retina", "Mikael Häggström, doi:10.15347/wjm/2014.008", CC0),
    "immunohistochemistry": ("skimage", "stained tissue of the colon", "CMMI", "no known restrictions"),
    "brick": ("skimage", "a brick wall, in grey", "CC0Textures, Bricks25", CC0),
    "grass": ("skimage", "grass, in grey", "linolafett, Grass 01", CC0),
    "gravel": ("skimage", "gravel, in grey", "CC0Textures, Gravel04", CC0),
    "china": (
        "sklearn",
        "a Chinese temple",
        "danielbuechele, flickr.com/photos/danielbuechele/6061409035",
        "CC BY 2.0",
    ),
    "flower": ("sklearn", "a dahlia", "vultilion, flickr.com/photos/vultilion/6056698931", "CC BY 2.0"),
}


@dataclass(frozen=True, eq=False)
class Photo:
    """One photograph.

    Attributes:
        image: Its pixels, 0 dark to 1 bright, float32; one channel where it is grey, else red, green, blue.
        alt: What it shows, in words.
        source: Who made it or where it is from.
        licence: Under which terms.

    Shapes:
        ``image`` (C, H, W).
    """

    image: Tensor
    alt: str
    source: str
    licence: str


def photos(*names: str) -> dict[str, Photo]:
    """Photographs by name, without a network.

    Args:
        names: Which ones; all where none is given. ``PHOTOS`` lists them.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> cat = photos("cat")["cat"]
        >>> cat.image.shape, cat.alt
        (torch.Size([3, 300, 451]), 'the face of a cat')
    """
    if unknown := [name for name in names if name not in PHOTOS]:
        raise ValueError(f"there is no photograph {unknown[0]!r}; there are {', '.join(PHOTOS)}")
    return {name: _load(name) for name in names or PHOTOS}


def _load(name: str) -> Photo:
    package, alt, source, licence = PHOTOS[name]
    if package == "skimage":
        import skimage.data

        pixels = getattr(skimage.data, name)()
    else:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    image = torch.from_numpy(np.array(pixels)) / 255  # (H, W) or (H, W, C)
    image = image.unsqueeze(0) if image.dim() == 2 else image.permute(2, 0, 1).contiguous()  # (C, H, W)
    return Photo(image, alt, source, licence)
