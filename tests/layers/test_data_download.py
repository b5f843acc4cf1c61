"""Downloads, against a server on this machine: what arrives is checked and whole, and failures say what to do."""

import functools
import gzip
import hashlib
import http.server
import io
import re
import socket
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hal.errors import DataError
from nn.data import CIFAR10, MNIST, cifar, download, mnist

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
RAW = "MNIST/raw"


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; a file under short/ stops half-way."""

    url: str
    asked: list[str]


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        self.server.asked.append(self.path)

    def do_GET(self) -> None:
        if not self.path.startswith("/short/"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"\0" * 500)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "www").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "www"))
    with Server(("127.0.0.1", 0), handler) as server:
        server.url, server.asked = f"http://127.0.0.1:{server.server_address[1]}/", []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("no_proxy", "*")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A small MNIST that counts as the official one: the uncompressed content of each file."""
    files = {
        IMAGES: struct.pack(">HBB3I", 0, 8, 3, 4, 28, 28) + bytes(4 * 28 * 28),
        LABELS: struct.pack(">HBBI", 0, 8, 1, 4) + bytes([3, 1, 4, 1]),
    }
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setitem(mnist.CHECKSUMS, "MNIST", checksums)
    return files


def publish(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def mirrors(monkeypatch: pytest.MonkeyPatch, data_set: str, *urls: str) -> None:
    monkeypatch.setitem(download.MIRRORS, data_set, urls)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_missing_files_are_fetched_once(
    tmp_path: Path, server: Server, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "www", files)
    mirrors(monkeypatch, "MNIST", server.url)

    dataset = MNIST(tmp_path / "data", download=True)
    again = MNIST(tmp_path / "data", download=True)

    assert dataset.labels.tolist() == again.labels.tolist() == [3, 1, 4, 1]
    assert everything(tmp_path / "data") == [f"{RAW}/{IMAGES}.gz", f"{RAW}/{LABELS}.gz"]
    assert len(server.asked) == 2
    mask = (tmp_path / "data" / RAW / f"{LABELS}.gz").stat().st_mode & 0o777
    (tmp_path / "new").touch()
    assert mask == (tmp_path / "new").stat().st_mode & 0o777


def test_only_what_is_missing_is_fetched_and_into_the_same_folder(
    tmp_path: Path, server: Server, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "www", files)
    publish(tmp_path / "data", {IMAGES: files[IMAGES]})
    mirrors(monkeypatch, "MNIST", server.url)

    assert len(MNIST(tmp_path / "data", download=True)) == 4
    assert everything(tmp_path / "data") == [f"{IMAGES}.gz", f"{LABELS}.gz"]


def test_a_mirror_that_fails_is_followed_by_the_next(
    tmp_path: Path, server: Server, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "www/good", files)
    publish(tmp_path / "www/false", {name: content[:-1] + b"\1" for name, content in files.items()})
    mirrors(monkeypatch, "MNIST", *(server.url + part for part in ("none/", "short/", "false/", "good/")))

    assert MNIST(tmp_path / "data", download=True).labels.tolist() == [3, 1, 4, 1]
    assert everything(tmp_path / "data") == [f"{RAW}/{IMAGES}.gz", f"{RAW}/{LABELS}.gz"]


def test_when_all_mirrors_fail_the_message_has_each_reason_and_the_way_by_hand(
    tmp_path: Path, server: Server, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "www/false", {name: content[:-1] + b"\1" for name, content in files.items()})
    mirrors(monkeypatch, "MNIST", *(server.url + part for part in ("none/", "short/", "false/")))
    root = tmp_path / "data"

    with pytest.raises(DataError) as caught:
        MNIST(root, download=True)

    text = re.escape(
        f"MNIST could not download {IMAGES}.gz ({server.url}none/: HTTP Error 404: File not found; "
        f"{server.url}short/: the connection ended after 500 of 1000 bytes; {server.url}false/: "
    )
    text += r"\S+: needed MNIST's \S+ with md5 \w{32} when uncompressed, got \w{32}: get the file again\)\. "
    text += re.escape(
        f"MNIST needs the files {IMAGES}, {LABELS} (plain or .gz), not found in {root} or {root}/MNIST/raw: "
        f"put them into {root}"
    )
    assert re.fullmatch(text, str(caught.value))
    assert everything(root) == []


def test_without_a_network_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("no_proxy", "*")
    mirrors(monkeypatch, "MNIST", f"http://127.0.0.1:{port}/")
    mirrors(monkeypatch, "CIFAR10", f"http://127.0.0.1:{port}/")

    with pytest.raises(DataError, match=rf"Connection refused\)\. MNIST needs the files .* put them into {tmp_path}/d"):
        MNIST(tmp_path / "d", download=True)
    with pytest.raises(DataError, match=r"Connection refused\)\. CIFAR10 needs the files data_batch_1.bin, .*"):
        CIFAR10(tmp_path / "d", download=True)
    assert not (tmp_path / "d").exists()


def test_a_silent_mirror_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(download, "TIMEOUT", 0.1)
        mirrors(monkeypatch, "MNIST", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(DataError, match=r"timed out\)\. MNIST needs the files"):
            MNIST(tmp_path / "data", download=True)


def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small CIFAR-10 archive that counts as the official one, with two members that do not belong there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for number, name in enumerate([*cifar.TRAIN, *cifar.TEST]):
            content = bytes([number]) + bytes(3072)
            member = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name in ("../escaped.txt", f"{cifar.FOLDER}/readme.html"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    (tmp_path / "www" / cifar.ARCHIVE).write_bytes(buffer.getvalue())
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", hashlib.md5(buffer.getvalue()).hexdigest())


def test_cifar10_is_fetched_and_unpacked(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path, monkeypatch)
    mirrors(monkeypatch, "CIFAR10", server.url)

    train = CIFAR10(tmp_path / "data", download=True)
    test = CIFAR10(tmp_path / "data", train=False, download=True)

    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 4], [5])
    names = sorted(f"{cifar.FOLDER}/{name}" for name in (*cifar.TRAIN, *cifar.TEST))
    assert everything(tmp_path / "data") == names
    assert not (tmp_path / "escaped.txt").exists()
    assert len(server.asked) == 1


def test_cifar10_keeps_the_files_that_are_there(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path, monkeypatch)
    mirrors(monkeypatch, "CIFAR10", server.url)
    (tmp_path / "data").mkdir()
    mine = np.concatenate([[9], np.zeros(3072)]).astype(np.uint8).tobytes()
    (tmp_path / "data/data_batch_1.bin").write_bytes(mine)

    assert CIFAR10(tmp_path / "data", download=True).labels.tolist() == [9, 1, 2, 3, 4]


def test_an_archive_with_another_checksum_is_not_unpacked(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path, monkeypatch)
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", "0" * 32)
    mirrors(monkeypatch, "CIFAR10", server.url)

    with pytest.raises(DataError, match=r"needed cifar-10-binary.tar.gz with md5 0{32}, got \w{32}\)\. CIFAR10 needs"):
        CIFAR10(tmp_path / "data", download=True)
    assert everything(tmp_path / "data") == []
