"""Large texts from what every environment of the project holds: the sources of its packages.

Real text, in which new n-grams keep appearing: Python, and the C++ headers that PyTorch brings.
Files follow each other in the order of a digest of their names, so that a beginning of the corpus
is like the whole.
"""

import hashlib
import sysconfig
from pathlib import Path

import numpy as np

SUFFIXES = {".py", ".pyi", ".h", ".hpp", ".cuh"}
DELIMITERS = b"\x00\t\n\r "


def write_sources(path: Path, num_bytes: int) -> str:
    """Write so many bytes of ASCII sources. Returns their SHA-256.

    Raises RuntimeError when the environment holds fewer.
    """
    root = Path(sysconfig.get_paths()["purelib"])
    files = (file for file in root.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    names = [file.relative_to(root).as_posix() for file in files]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    digest, missing = hashlib.sha256(), num_bytes
    with path.open("wb") as corpus:
        for name in names:
            source = (root / name).read_bytes()
            if not source.isascii():
                continue
            corpus.write(source[:missing])
            digest.update(source[:missing])
            missing -= len(source[:missing])
            if missing == 0:
                return digest.hexdigest()
    raise RuntimeError(f"the packages' sources are {missing} bytes too few")


def write_spaced(text: Path, spaced: Path) -> None:
    """Write the bytes of a text as words of one byte each, which is what lmplz reads.

    Bytes between which it would part words become ones that ASCII leaves free.
    """
    words = bytes.maketrans(DELIMITERS, bytes(128 + byte for byte in DELIMITERS))
    with text.open("rb") as read, spaced.open("wb") as write:
        while part := read.read(1 << 24):
            line = np.full(2 * len(part), ord(" "), np.uint8)
            line[::2] = np.frombuffer(part.translate(words), np.uint8)
            write.write(line.data)
        write.write(b"\n")
