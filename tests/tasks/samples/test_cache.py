import json
from pathlib import Path

import pytest

from tasks.samples import html_page
from tasks.samples.cache import (
    fresh_folder,
    gallery_work,
    keep_gallery,
    shown_works,
    stored_gallery,
    works_record,
)
from tasks.samples.html_page import ChampionSamples, page
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


def test_a_changed_template_makes_a_new_page(
    tracking_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(1)
    parts = tmp_path / "gallery_parts.html"
    parts.write_text("{% macro figure(piece) %}{% endmacro %}")
    monkeypatch.setattr(html_page, "_TEMPLATES", (html_page._TEMPLATES[0], parts))
    drawn(1)

    assert [record.state for record in history("gallery")] == ["made", "made"]


def test_the_works_of_a_home_of_before_are_shown_with_what_stood_beside_them(
    atelier_home: Path,
) -> None:
    root = atelier_home / "gallery"
    folder = root / "0123" / "digits-gan"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("drawn")
    told = ChampionSamples(
        name="digits-gan",
        family="gan",
        version=1,
        run_id="",
        scorecard_run_id="",
        main_metric="test_frechet_distance",
        main_value=0.5,
        folder=str(folder),
        pictures=(),
        texts=(("a.txt", "words"),),
        differences=(),
    )
    (record,) = works_record([told])
    del record["references"]
    record["beside"] = "real data: 0.1700"
    (root / "works.json").write_text(json.dumps([record]))

    (work,) = shown_works().values()

    assert work.references == {"real_data_frechet_distance": 0.17}
    assert "Fréchet distance (real data: 0.1700)</p>" in page([work])
    assert works_record([work])[0]["references"] == {"real_data_frechet_distance": 0.17}
