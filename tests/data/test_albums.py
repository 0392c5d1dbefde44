"""The larger sets of photographs, on small archives made here in the published layout and served by this machine."""

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image

from dlbook.data import albums
from dlbook.data.files import DownloadError

RED, GREEN, BLUE, GREY = (230, 20, 20), (20, 220, 20), (10, 30, 240), (90, 90, 90)
CLOSE = {"rtol": 0, "atol": 4 / 255}  # what JPEG does to a plain colour


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder whose files a server on this machine hands out, put in the place of the published addresses."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("DLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(albums, "IMAGENETTE_URLS", (f"{url}imagenette2-160.tgz",))
        monkeypatch.setattr(albums, "PETS_MIRRORS", (url,))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def archive(path, files: dict[str, bytes]) -> str:
    """Write the files into an archive; its SHA-256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def encoded(picture: Image.Image, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **({"quality": 95, "subsampling": 0} if form == "JPEG" else {}))
    return file.getvalue()


def striped(colours, width: int, height: int) -> Image.Image:
    """Upright stripes of the same width."""
    picture = Image.new("RGB", (len(colours), 1))
    picture.putdata(colours)
    return picture.resize((width, height), Image.Resampling.NEAREST)


def colour(numbers) -> torch.Tensor:
    return torch.tensor(numbers) / 255


FOLDERS = tuple(albums.IMAGENETTE_CLASSES)


@pytest.fixture
def imagenette(served, monkeypatch):
    """Two training pictures of each kind but the last, which has one, and a test picture of each."""
    files = {}
    for i, folder in reversed(list(enumerate(FOLDERS))):  # not in the order of the classes
        shades = [(10 * i, 100, 200 - 10 * i), (10 * i, 200, 200 - 10 * i)]
        for number, shade in enumerate(shades[: 1 if i == 9 else 2]):
            files[f"imagenette2-160/train/{folder}/{folder}_{number}.JPEG"] = encoded(Image.new("RGB", (9, 7), shade))
            files[f"imagenette2-160/train/{folder}/._{folder}_{number}.JPEG"] = b"what macOS leaves"
        files[f"imagenette2-160/val/{folder}/{folder}_7.JPEG"] = encoded(Image.new("L", (7, 11), 25 * i))
    files["imagenette2-160/noisy_imagenette.csv"] = b"path,label\n"
    monkeypatch.setattr(albums, "IMAGENETTE_SHA256", archive(served / "imagenette2-160.tgz", files))
    return files


def test_imagenette_keeps_its_parts_and_labels_and_goes_round_the_kinds(imagenette):
    data = albums.imagenette(size=5)
    assert data.train_images.shape == (19, 3, 5, 5)
    assert data.test_images.shape == (10, 3, 5, 5)
    assert data.train_images.dtype == data.test_images.dtype == torch.float32
    assert data.train_labels.tolist() == [*range(10), *range(9)]
    assert data.test_labels.tolist() == [*range(10)]
    assert data.train_labels.dtype == torch.int64
    assert data.classes[0] == "tench"
    assert data.classes[9] == "parachute"
    green = [100] * 10 + [200] * 9
    expected = [colour((10 * k, green[n], 200 - 10 * k)) for n, k in enumerate(data.train_labels.tolist())]
    torch.testing.assert_close(data.train_images[:, :, 2, 3], torch.stack(expected), **CLOSE)
    grey = (torch.arange(10) * 25 / 255)[:, None].expand(10, 3)  # a picture without colours has three equal channels
    torch.testing.assert_close(data.test_images[:, :, 4, 0], grey, **CLOSE)
    assert data.source
    assert data.licence


def test_it_is_downloaded_once(imagenette, served):
    first = albums.imagenette(size=4)
    (served / "imagenette2-160.tgz").unlink()
    assert torch.equal(albums.imagenette(size=4).train_images, first.train_images)


@pytest.mark.parametrize(("width", "height"), [(40, 16), (80, 32)])
def test_the_middle_square_is_cut_out(width, height, served, monkeypatch):
    picture = striped([RED, GREEN, GREEN, GREEN, BLUE], width, height)  # the square reaches a quarter beyond the middle
    turned = picture.transpose(Image.Transpose.ROTATE_90)  # blue on top
    names = [f"imagenette2-160/{part}/{FOLDERS[0]}/a.JPEG" for part in ("train", "val")]
    files = dict(zip(names, (encoded(picture, "PNG"), encoded(turned, "PNG")), strict=True))
    monkeypatch.setattr(albums, "IMAGENETTE_SHA256", archive(served / "imagenette2-160.tgz", files))
    data = albums.imagenette(size=16)
    for image in (data.train_images[0], data.test_images[0]):
        assert torch.equal(image[:, 8, 8], colour(GREEN))
        assert torch.equal(image[:, [0, -1], [0, -1]], colour(GREEN)[:, None].expand(3, 2))


def test_of_a_jpeg_that_ends_early_its_upper_part_is_kept(served, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (64, 64, 3), generator=generator, dtype=torch.uint8)
    content = encoded(Image.fromarray(pixels.numpy()))
    names = [f"imagenette2-160/{part}/{FOLDERS[3]}/a.JPEG" for part in ("train", "val")]
    files = dict(zip(names, (content, content[: len(content) * 3 // 4]), strict=True))
    monkeypatch.setattr(albums, "IMAGENETTE_SHA256", archive(served / "imagenette2-160.tgz", files))
    data = albums.imagenette(size=64)
    assert torch.equal(data.train_images[0, :, :40], data.test_images[0, :, :40])
    assert not torch.equal(data.train_images[0, :, 56:], data.test_images[0, :, 56:])


def test_another_archive_is_refused_with_the_way_out(imagenette, monkeypatch):
    monkeypatch.setattr(albums, "IMAGENETTE_SHA256", 64 * "0")
    with pytest.raises(DownloadError, match=r"(?s)bytes with another SHA-256.*Without a network: .*silhouettes\(\)"):
        albums.imagenette()


def test_an_archive_cut_short_is_refused(imagenette, served, tmp_path):
    path = served / "imagenette2-160.tgz"
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:half])
    with pytest.raises(DownloadError, match=f"sent {half} bytes with another SHA-256"):
        albums.imagenette()
    assert not list((tmp_path / "cache").rglob("*.tgz"))


def test_what_is_not_served_is_named(served):
    with pytest.raises(DownloadError, match=r"(?s)imagenette2-160.tgz: HTTP 404.*photos\(\)"):
        albums.imagenette()
    with pytest.raises(DownloadError, match=r"(?s)images.tar.gz: HTTP 404.*nuclei\(\)"):
        albums.oxford_pets()


def test_a_file_that_is_no_picture_is_named(served, monkeypatch):
    files = {f"imagenette2-160/train/{FOLDERS[0]}/broken.JPEG": b"<html>"}
    monkeypatch.setattr(albums, "IMAGENETTE_SHA256", archive(served / "imagenette2-160.tgz", files))
    with pytest.raises(ValueError, match=r"broken\.JPEG is no picture that can be read"):
        albums.imagenette()


# Breeds are numbered in the order of their names, cats and dogs mixed; three stand for the 37 here.
TRAINVAL = "Abyssinian_5 1 1 1\nAbyssinian_12 1 1 1\namerican_bulldog_3 2 2 1\nSphynx_2 3 1 2\nSphynx_9 3 1 2\n"
TEST = "#Image CLASS-ID SPECIES BREED ID\nSphynx_1 3 1 2\nAbyssinian_1 1 1 1\n"
ORDER = ["Abyssinian_5", "american_bulldog_3", "Sphynx_2", "Abyssinian_12", "Sphynx_9", "Abyssinian_1", "Sphynx_1"]


def shade(name: str) -> tuple[int, int, int]:
    return 30 * ORDER.index(name), 255 - 30 * ORDER.index(name), 40


@pytest.fixture
def pets(served, monkeypatch):
    """Lets a test change the files before they are packed; returns what packs them."""
    pictures = {f"images/{name}.jpg": encoded(Image.new("RGB", (40, 16), shade(name)), "PNG") for name in ORDER}
    palette = Image.new("RGB", (40, 16), shade(ORDER[1])).quantize(4)  # some are no JPEG, whatever they are called
    pictures[f"images/{ORDER[1]}.jpg"] = encoded(palette, "GIF")
    trimap = Image.new("L", (5, 1))
    trimap.putdata([2, 1, 1, 3, 2])  # of 40 columns the middle 16 are those of the second to fourth stripe
    trimap = encoded(trimap.resize((40, 16), Image.Resampling.NEAREST), "PNG")
    annotations = {"./annotations/trainval.txt": TRAINVAL.encode(), "./annotations/test.txt": TEST.encode()}
    annotations |= {f"./annotations/trimaps/._{name}.png": b"what macOS leaves" for name in ORDER}
    annotations |= {f"./annotations/trimaps/{name}.png": trimap for name in ORDER}

    def pack(pictures=pictures, annotations=annotations):
        digests = {
            name: archive(served / name, files)
            for name, files in {"images.tar.gz": pictures, "annotations.tar.gz": annotations}.items()
        }
        monkeypatch.setattr(albums, "PETS_SHA256", digests)

    pack.pictures, pack.annotations = pictures, annotations
    return pack


def test_pets_have_breed_species_and_a_class_for_every_pixel(pets):
    pets()
    data = albums.oxford_pets(size=16)
    assert data.train_images.shape == (5, 3, 16, 16)
    assert data.test_images.shape == (2, 3, 16, 16)
    assert data.train_masks.shape == (5, 16, 16)
    assert data.test_masks.shape == (2, 16, 16)
    assert data.train_images.dtype == torch.float32
    assert data.train_labels.dtype == data.train_masks.dtype == data.test_masks.dtype == torch.int64
    assert data.train_labels.tolist() == [0, 1, 2, 0, 2]
    assert data.test_labels.tolist() == [0, 2]
    assert data.classes == ("Abyssinian", "american bulldog", "Sphynx")
    assert data.species == ("cat", "dog", "cat")
    found = torch.cat([data.train_images, data.test_images])[:, :, 9, 4]
    torch.testing.assert_close(found, torch.stack([colour(shade(name)) for name in ORDER]), **CLOSE)
    row = torch.tensor([albums.MASK_CLASSES.index("pet")] * 12 + [albums.MASK_CLASSES.index("border")] * 4)
    assert torch.equal(data.train_masks, row.expand(5, 16, 16))
    assert torch.equal(data.test_masks, row.expand(2, 16, 16))
    assert data.mask_classes == ("background", "pet", "border")
    assert data.source
    assert data.licence


def test_masks_shrink_without_mixing_their_classes(pets):
    pets()
    assert set(albums.oxford_pets(size=3).train_masks.unique().tolist()) <= {1, 2}


def test_a_picture_that_a_list_names_and_the_archive_lacks_is_named(pets):
    del pets.pictures["images/Sphynx_9.jpg"]
    pets()
    with pytest.raises(ValueError, match=r"images\.tar\.gz does not hold the file images/Sphynx_9\.jpg"):
        albums.oxford_pets(size=8)


def test_an_archive_without_its_list_is_named(pets):
    del pets.annotations["./annotations/test.txt"]
    pets()
    with pytest.raises(ValueError, match=r"does not hold the file annotations/test\.txt"):
        albums.oxford_pets(size=8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(Image.new("L", (6, 5), 4), "PNG"), "holds other values than 1 pet"),
        (encoded(Image.new("L", (6, 5), 1), "PNG")[:40], "is no picture that can be read"),
    ],
)
def test_a_mask_of_another_kind_is_named(content, message, pets):
    pets.annotations["./annotations/trimaps/Sphynx_2.png"] = content
    pets()
    with pytest.raises(ValueError, match=rf"annotations/trimaps/Sphynx_2\.png {message}"):
        albums.oxford_pets(size=8)


def test_every_digest_is_one():
    digests = [albums.IMAGENETTE_SHA256, *albums.PETS_SHA256.values()]
    assert len(set(digests)) == 3
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)
