"""Data: what is embedded in packages, what is downloaded once, and batches of it."""

from dlbook.data.batches import Batches
from dlbook.data.images import Images, cifar10, digits, fashion_mnist, mnist, mnist5k
from dlbook.data.photos import Photo, photos
from dlbook.data.text import Text, python_topics, shakespeare

__all__ = [
    "Batches",
    "Images",
    "Photo",
    "Text",
    "cifar10",
    "digits",
    "fashion_mnist",
    "mnist",
    "mnist5k",
    "photos",
    "python_topics",
    "shakespeare",
]
