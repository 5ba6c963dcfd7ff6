"""Where data comes from: one row of SOURCES for each named source, and readers of a person's files.

A reader returns everything, unsplit unless the source has an official test part: what the program
knows in memory, a person's own where it waits (`tasks.data.image_shards`, `tasks.data.text_spool`).
Writing, splitting and checking are `tasks.data.ingestion`'s. This is the only module that uses the
network.
"""

import contextlib
import gzip
import hashlib
import io
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from models.presets import ImageShape
from tasks.data.image_folder import MAX_SIDE, MIN_SIDE, RawImages, read_image_folder
from tasks.data.own_files import one_line, readable
from tasks.data.source_address import source_address
from tasks.data.text_files import (
    RawText,
    read_own_text_file,
    read_text_file,
    read_text_folder,
)
from tasks.store.files import BadInput, ChecksumMismatch, atomic_file, data_root, home, sha256_of

Kind = Literal["images", "text"]
MAX_GLOB_CHARACTERS = 200
OWN_SCHEMES: dict[Kind, tuple[str, ...]] = {"images": ("folder",), "text": ("file", "folder")}
"""How the address of a person's own data begins."""


class Unreachable(ConnectionError):
    """A download failed in a way that may pass; it is retried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A named data set: what it is, whose it is, and how to read it."""

    kind: Kind
    title: str
    licence: str
    read_images: Callable[[], RawImages] | None = None
    read_text: Callable[[], RawText] | None = None
    path: Path | None = None
    """Where a person's own data lie."""
    shape: ImageShape | None = None
    """Of images that the program knows: what a recipe is told before they are read."""


def find_source(
    name: str, kind: Kind, image_size: int | None = None, glob: str | None = None
) -> Source:
    """The source of a name such as `digits` or `folder:PATH`, or BadInput with the choices.

    image_size: side in pixels to which a person's own images are resized; None keeps their size.
    glob: which files of a person's folder of text are read; None takes all that hold text.
    """
    address = source_address(name, known=SOURCES)
    location = address.location
    if image_size is not None and not MIN_SIDE <= image_size <= MAX_SIDE:
        raise BadInput(f"image size must lie between {MIN_SIDE} and {MAX_SIDE}, got {image_size}")
    if address.scheme:
        try:
            return _own_source(name, address.scheme, address.path, kind, image_size, glob)
        except (OSError, RuntimeError) as error:  # no such user's home, a name too long, no right
            raise BadInput(f"{one_line(location)} cannot be looked at: {error}") from error
    source = SOURCES.get(name)
    if source is None or source.kind != kind:
        wrong = "is not a source of" if source else "is not a known source of"
        raise BadInput(f"{name!r} {wrong} {kind}; choose one of: {choices(kind)}")
    if image_size is not None:
        raise BadInput(f"an image size only applies to folder:PATH, not to {name!r}; leave it out")
    if glob is not None:
        raise BadInput(f"a glob only applies to text of folder:PATH, not to {name!r}; leave it out")
    return source


def choices(kind: Kind) -> str:
    """What a person may choose for data of a kind, in words."""
    own = [f"{scheme}:PATH" for scheme in OWN_SCHEMES[kind]]
    named = f"NAME={own[0]} gives the data set a name of your own"
    return f"{', '.join([*known_sources(kind), *own])}; {named}"


def known_sources(kind: Kind) -> list[str]:
    """The data sets of a kind that the program knows, the embedded ones first."""
    return [name for name, source in SOURCES.items() if source.kind == kind]


def form_pattern(kind: Kind) -> str:
    """What all that may be chosen matches, as a regular expression of JSON Schema."""
    known, schemes = "|".join(known_sources(kind)), "|".join(OWN_SCHEMES[kind])
    return rf"^({known}|([^:=]+=)?({schemes}):[\s\S]+)$"


def _own_source(
    name: str, scheme: str, path: Path, kind: Kind, image_size: int | None, glob: str | None
) -> Source:
    licence = "your own"
    shown = readable(path)
    if glob is not None and not 1 <= len(glob) <= MAX_GLOB_CHARACTERS:
        raise BadInput(
            f"a glob has 1 to {MAX_GLOB_CHARACTERS} characters, got {len(glob)}; such as '*.py'"
        )
    if glob is not None and (kind, scheme) != ("text", "folder"):
        raise BadInput(f"a glob only applies to text of folder:PATH, not to {name!r}; leave it out")
    if kind == "images":
        if scheme == "file":
            raise BadInput(f"images are read from a folder, got {name!r}; use folder:PATH")
        if not path.is_dir():
            raise BadInput(f"{shown} is not a folder; give a folder with one sub-folder per class")
        return Source(
            kind=kind,
            title=f"images in {readable(path.name)}/",
            licence=licence,
            read_images=lambda: read_image_folder(path, image_size),
            path=path,
        )
    if scheme == "file" and not path.is_file():
        raise BadInput(f"{shown} is not a file; give the path of a UTF-8 text file")
    if scheme == "folder" and not path.is_dir():
        raise BadInput(f"{shown} is not a folder; give a folder that holds text files")

    def read() -> RawText:
        if scheme == "folder":
            return read_text_folder(path, glob)
        return read_own_text_file(path)

    return Source(
        kind=kind,
        title=readable(path.name),
        licence=licence,
        read_text=read,
        path=path,
    )


# Images ---------------------------------------------------------------------------------------


def read_digits() -> RawImages:
    """1797 handwritten digits, 8x8, 17 grey levels, from scikit-learn."""
    table = _table_of_digits()
    levels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    return RawImages(
        pixels=np.rint(levels * (255 / 16)).astype(np.uint8)[:, None],
        labels=labels.astype(np.int64),
        ids=[f"digits/{index:04d}" for index in range(len(labels))],
        class_names=tuple("0123456789"),
    )


def _table_of_digits() -> np.ndarray:
    """A row for each digit: its 64 grey levels, row by row, and its class.

    Read from scikit-learn's file, for importing it takes a second; where it has none there, by it.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as rows:
                return np.loadtxt(rows, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])


# The files inside the archives; torchvision pins the archives themselves by MD5.
_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_mnist() -> RawImages:
    """MNIST: 60,000 + 10,000 handwritten digits, 28x28."""
    return _read_torchvision("mnist", "MNIST", _MNIST_SHA256)


def read_fashion_mnist() -> RawImages:
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28."""
    return _read_torchvision("fashion-mnist", "FashionMNIST", {})


def read_cifar10() -> RawImages:
    """CIFAR-10: 50,000 + 10,000 colour photographs, 32x32."""
    return _read_torchvision("cifar10", "CIFAR10", {})


def _read_torchvision(folder: str, class_name: str, sha256: dict[str, str]) -> RawImages:
    """Both parts of a torchvision data set, from $ATELIER_DATA or else downloaded."""
    from torchvision import datasets

    dataset_class = getattr(datasets, class_name)
    found = data_root()
    root, download = home() / "data" / "downloads" / folder, True
    if found is not None and (found / folder).is_dir():
        root, download = found / folder, False
    parts = []
    for train in (True, False):
        try:
            # torchvision draws its own progress bar on stderr
            with contextlib.redirect_stderr(io.StringIO()):
                parts.append(dataset_class(root=root, train=train, download=download))
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise _unreachable(folder, error) from error
        except (RuntimeError, ValueError, EOFError, AssertionError) as error:
            if download and "downloading" in str(error).lower():
                raise _unreachable(folder, error) from error
            raise ChecksumMismatch(
                f"{folder}: the files in {root} cannot be read ({error}); delete that folder's"
                f" files and run again to download them, or put whole ones there"
            ) from error
    for name, wanted in sha256.items():
        _check_file(root / class_name / "raw" / name, wanted)
    return _joined(folder, parts)


def _joined(folder: str, parts: list) -> RawImages:  # type: ignore[type-arg]
    pixels = [np.asarray(part.data) for part in parts]
    joined = np.concatenate(pixels)
    joined = joined[:, None] if joined.ndim == 3 else joined.transpose(0, 3, 1, 2)
    sizes = [len(part) for part in pixels]
    names = tuple(name.split(" - ")[0] for name in parts[0].classes)  # "0 - zero" -> "0"
    return RawImages(
        pixels=np.ascontiguousarray(joined, dtype=np.uint8),
        labels=np.concatenate([np.asarray(part.targets) for part in parts]).astype(np.int64),
        ids=[
            f"{folder}/{split}/{index:05d}"
            for split, size in zip(("train", "test"), sizes, strict=True)
            for index in range(size)
        ],
        class_names=names,
        official_test=np.repeat([False, True], sizes),
    )


# Text -----------------------------------------------------------------------------------------


def read_pydocs() -> str:
    """The Python language reference inside every CPython, each long paragraph kept once.

    The topics quote each other at length; without this, a tenth of the held-out text would also
    stand, word for word, in the training part.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    kept = []
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name].strip("\n")):
            if len(paragraph) < 40 or paragraph not in seen:
                kept.append(paragraph)
            seen.add(paragraph)
    return "\n\n".join(kept)


_TINY_SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


def read_tiny_shakespeare() -> str:
    """40,000 lines of Shakespeare, as used by char-rnn and nanoGPT."""
    url, sha256 = _TINY_SHAKESPEARE
    found = data_root()
    path = home() / "data" / "downloads" / "tinyshakespeare" / "input.txt"
    if found is not None and (found / "tinyshakespeare" / "input.txt").is_file():
        path = found / "tinyshakespeare" / "input.txt"
    elif not path.is_file():
        download(url, sha256, path)
    _check_file(path, sha256)
    return read_text_file(path)


# Network --------------------------------------------------------------------------------------


def download(url: str, sha256: str, path: Path) -> None:
    """Fetch a file whose digest is known; nothing is left behind unless it is the right one.

    Raises Unreachable when the network fails, ChecksumMismatch for other content, and BadInput
    where a proxy is wanted that cannot be used.
    """
    unusable = os.environ.get("ATELIER_UNUSABLE_PROXIES")  # atelier.services.proxies sets it
    if unusable:
        raise BadInput(
            f"{path.parent.name} is not downloaded: {unusable} names a proxy that cannot be used"
            f" here, and going past it is not ours to decide; set a http:// or https:// proxy, or"
            f" ATELIER_DATA to a folder that holds {path.parent.name}/"
        )
    try:
        with urllib.request.build_opener().open(url, timeout=30) as answer:  # proxies as set now
            content = answer.read()
    except (OSError, HTTPException) as error:  # a connection cut short is not an OSError
        raise _unreachable(path.parent.name, error) from error
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ChecksumMismatch(
            f"{url}: received {len(content)} bytes with sha256 {got[:12]}, expected {sha256[:12]};"
            " the download was cut short or the file has changed: run again"
        )
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _unreachable(name: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"{name} could not be downloaded ({error}); check the network, or set ATELIER_DATA to a"
        f" folder that holds {name}/"
    )


def _check_file(path: Path, wanted: str) -> None:
    got = sha256_of(path)
    if got != wanted:
        raise ChecksumMismatch(
            f"{path}: sha256 is {got[:12]}, expected {wanted[:12]}; the file is truncated or"
            " corrupt: delete it and run again"
        )


SOURCES = {
    "digits": Source(
        kind="images",
        title="Handwritten digits, 8x8 (scikit-learn, embedded)",
        licence="BSD-3-Clause; UCI ML repository, E. Alpaydin and C. Kaynak, CC BY 4.0",
        read_images=read_digits,
        shape=ImageShape(1, 8, 8, 10),
    ),
    "mnist": Source(
        kind="images",
        title="MNIST handwritten digits, 28x28",
        licence="CC BY-SA 3.0; Y. LeCun, C. Cortes, C. Burges",
        read_images=read_mnist,
        shape=ImageShape(1, 28, 28, 10),
    ),
    "fashion-mnist": Source(
        kind="images",
        title="Fashion-MNIST, 28x28",
        licence="MIT; Zalando SE",
        read_images=read_fashion_mnist,
        shape=ImageShape(1, 28, 28, 10),
    ),
    "cifar10": Source(
        kind="images",
        title="CIFAR-10, 32x32 colour",
        licence="unstated; A. Krizhevsky",
        read_images=read_cifar10,
        shape=ImageShape(3, 32, 32, 10),
    ),
    "pydocs": Source(
        kind="text",
        title="The Python language reference (inside every CPython, embedded)",
        licence="PSF-2.0; Python Software Foundation",
        read_text=lambda: RawText(whole=[read_pydocs()]),
    ),
    "tinyshakespeare": Source(
        kind="text",
        title="Tiny Shakespeare, 1.1 MB",
        licence="public domain",
        read_text=lambda: RawText(whole=[read_tiny_shakespeare()]),
    ),
}
