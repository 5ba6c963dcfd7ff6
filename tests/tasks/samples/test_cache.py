from pathlib import Path

from tasks.samples.cache import fresh_folder, gallery_work, keep_gallery, stored_gallery
from tasks.store.files import home
from tasks.store.steps import history


def drawn(seed: int) -> str:
    """A gallery of no champions, as the flow makes it."""
    with gallery_work([], seed) as record:
        if (page := stored_gallery(record)) is not None:
            return page
        folder = fresh_folder(record)
        (Path(folder) / "index.html").write_text(f"seed {seed}")
        return keep_gallery(folder)


def test_the_same_gallery_is_made_once_and_is_the_latest_again(tracking_database: str) -> None:
    pages = [Path(drawn(seed)).read_text() for seed in (1, 2, 1)]

    assert pages == ["seed 1", "seed 2", "seed 1"]
    assert [record.state for record in history("gallery")] == ["made", "made", "unchanged"]


def test_a_damaged_gallery_is_made_again(tracking_database: str) -> None:
    drawn(1)
    (page,) = (home() / "artifacts" / "samples").rglob("index.html")
    page.write_text("scribbled over")

    assert Path(drawn(1)).read_text() == "seed 1"
    assert history("gallery")[-1].state == "made"
