"""Draw with an exported image model. Needs PyTorch alone.

On the command line: `python load.py --number 16 --seed 0 --out FOLDER`. In a program:

    from load import load
    pixels = load().draw(16, seed=0)  # (16, C, H, W) uint8
"""

import argparse
import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import torch

from tasks.packaging.exported.export_tensors import imported, read_tensors

MODULES = ("{family}.serving",)
"""Of the model's own, which it needs."""
SHARED = ("export_tensors",)


class ImageModel:
    """An exported model that draws."""

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classes = folder / "classes.json"
        self.class_names = (
            json.loads(classes.read_text(encoding="utf-8")) if classes.exists() else []
        )
        (self._code,) = imported(folder, f"{facts['package']}.{facts['family']}.serving")
        self.model: Any = self._code.build(
            self.config, read_tensors(folder / "weights.safetensors")
        )

    def draw(
        self,
        number: int,
        seed: int = 0,
        temperature: float = 1.0,
        label: int | str | None = None,
    ) -> torch.Tensor:
        """New pictures, (N, C, H, W) uint8; the same for the same seed, on the same machine.

        label: a class, by name or index; None takes each in turn where the model knows classes.
        """
        labels = None
        if label is not None:
            index = self.class_names.index(label) if label in self.class_names else int(label)
            if not 0 <= index < int(self.config.get("num_classes", 0)):
                raise ValueError(f"no such class: {label!r}; the model knows {self.class_names}")
            labels = torch.full((number,), index)
        images = self._code.draw(self.model, number, seed, temperature, labels)
        pixels: torch.Tensor = (images * 255).round().clamp(0, 255).to(torch.uint8)
        return pixels


def load(folder: str | Path | None = None) -> ImageModel:
    """The model of a folder, by default of the one in which this file lies."""
    return ImageModel(Path(folder) if folder is not None else Path(__file__).resolve().parent)


def png(picture: torch.Tensor) -> bytes:
    """A picture (C, H, W) uint8, C of 1 or 3, as a PNG file's content."""
    channels, height, width = picture.shape
    rows = picture.permute(1, 2, 0).reshape(height, -1).tolist()
    kind = 0 if channels == 1 else 2
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + bytes(row) for row in rows)),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for name, part in parts.items():
        content += struct.pack(">I", len(part)) + name + part
        content += struct.pack(">I", zlib.crc32(name + part))
    return content


def main() -> None:
    """Draw into a folder."""
    parser = argparse.ArgumentParser(description="Draw with this model.")
    parser.add_argument("--number", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--label", help="a class, by name or index")
    parser.add_argument("--out", type=Path, default=Path("samples"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    drawn = load().draw(given.number, given.seed, given.temperature, given.label)
    for index, picture in enumerate(drawn):
        (given.out / f"{index:05d}.png").write_bytes(png(picture))
    sys.stdout.write(f"{len(drawn)} pictures in {given.out}\n")


if __name__ == "__main__":
    main()
