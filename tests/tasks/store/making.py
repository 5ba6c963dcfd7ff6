"""What tests of artifacts let be made."""

from pathlib import Path

from tasks.store.files import write_text


class Maker:
    """Makes an artifact of two files, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> dict[str, int]:
        self.times += 1
        write_text(folder / "weights", "weights")
        write_text(folder / "samples" / "one.txt", "a sample")
        return {"size": 3}
