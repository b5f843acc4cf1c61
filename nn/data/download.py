"""Fetches data sets from public mirrors: whole and checked, or not at all; and says where to put them by hand."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from hal.errors import DataError

MIRRORS: dict[str, tuple[str, ...]] = {
    "MNIST": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "FashionMNIST": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "CIFAR10": (
        "https://www.cs.toronto.edu/~kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    ),
}
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


def fetch(data_set: str, name: str, folder: Path, accept: Callable[[Path], None]) -> None:
    """Get the file `name` of a data set from the first mirror that gives one that `accept` takes.

    `accept` is called with a temporary file in `folder`. It raises a DataError if the file is not the right one; it
    renames the file, or unpacks it. What is left of the file afterwards is removed.

    Raises:
        DataError: with what went wrong on each mirror.
    """
    from http.client import HTTPException

    reasons = []
    for mirror in MIRRORS[data_set]:
        path = temporary(folder / name)
        try:
            _download(mirror + name, path, f"{data_set}: {name}")
            accept(path)
            return
        except (OSError, HTTPException, DataError) as error:
            reasons.append(f"{mirror}: {_reason(error)}")
        finally:
            path.unlink(missing_ok=True)
    raise DataError(f"{data_set} could not download {name} ({'; '.join(reasons)})")


def by_hand(data_set: str, names: Sequence[str], places: Sequence[Path], *, kind: str, hint: str = "") -> str:
    """Which files a data set needs, where they were looked for, and where to put them."""
    looked = " or ".join(str(place) for place in places)
    files = ", ".join(names)
    return f"{data_set} needs the files {files} ({kind}), not found in {looked}{hint}: put them into {places[0]}"


def temporary(path: Path) -> Path:
    """A name beside `path` that nothing has: a file is written under it and then renamed, so that it is whole."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _download(url: str, path: Path, title: str) -> None:
    # Only a download needs these, and they take longer to import than all else here.
    import urllib.request

    from rich.console import Console
    from rich.progress import Progress

    request = urllib.request.Request(url, headers={"User-Agent": "hal-runtime"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        size = response.headers.get("Content-Length")
        total = int(size) if size else None
        got = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        console = Console(file=sys.stderr)
        progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        with path.open("xb") as file, progress:
            task = progress.add_task(title, total=total)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                got += len(chunk)
                progress.update(task, completed=got)
    if total is not None and got != total:
        raise DataError(f"the connection ended after {got} of {total} bytes")


def _reason(error: Exception) -> str:
    """What went wrong, in one phrase."""
    from urllib.error import HTTPError, URLError

    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__
