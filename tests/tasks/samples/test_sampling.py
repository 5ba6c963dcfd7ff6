"""The gallery's page for Prefect."""

from pathlib import Path

import pytest

from tasks.samples import sampling
from tasks.samples.html_page import Challenger, ChampionSamples
from tasks.samples.sampling import _markdown

PLAY = "[Play with it](http://127.0.0.1:5050/?version="


def work(folder: Path, family: str, **changed: object) -> ChampionSamples:
    (folder / "a.txt").write_text("it\n```\n")
    (folder / "a.png").write_bytes(b"png")
    return ChampionSamples(
        name=f"book-{family}",
        family=family,
        version=2,
        run_id="r",
        scorecard_run_id="s",
        main_metric="test_frechet_distance",
        main_value=0.5,
        folder=str(folder),
        **{"pictures": (), "differences": (), "texts": (), **changed},  # type: ignore[arg-type]
    )


def test_pictures_travel_inside_where_no_server_has_them(tmp_path: Path) -> None:
    drawn = work(
        tmp_path,
        "gan",
        pictures=(("a.png", "60 [samples]"),),
        references={"real_data_frechet_distance": 0.1},
        remark="it *cannot*",
    )
    written = work(tmp_path, "gpt", texts=(("a.txt", "temperature 0.8"),))

    assert _markdown([drawn, written], [], "r") == (
        "## book-gan version 2\n\nA generative adversarial network: two networks in competition."
        " Fréchet distance: **0.5000** (real data\\: 0.1000)\n\n"
        f"{PLAY}book-gan/2) while `atelier play` runs on this machine.\n\n"
        "**Not of the present champion:** it \\*cannot\\*\n\n"
        "**60 \\[samples\\]**\n\n![60 \\[samples\\]](data:image/png;base64,cG5n)\n\n"
        "## book-gpt version 2\n\nA GPT from scratch: a decoder-only transformer."
        " Fréchet distance: **0.5000**\n\n"
        f"{PLAY}book-gpt/2) while `atelier play` runs on this machine.\n\n"
        "**temperature 0.8**\n\n````text\nit\n```\n\n````"
    )


def test_with_a_server_its_pages_and_pictures_are_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "is_served", lambda: True)
    for name in ("version_url", "artifact_url", "run_url"):
        monkeypatch.setattr(
            sampling, name, lambda *a, n=name: "/".join(["http:/", n, *map(str, a)])
        )
    drawn = work(tmp_path, "gan", differences=(("a.png", "both"), ("a.txt", "left out")))

    assert _markdown([drawn], [], "run") == (
        "## [book-gan version 2](http://version_url/book-gan/2)\n\n"
        "A generative adversarial network: two networks in competition."
        " Fréchet distance: **0.5000**\n\n"
        f"{PLAY}book-gan/2) while `atelier play` runs on this machine.\n\n"
        "**both**\n\n![both](http://artifact_url/run/gallery/book-gan/a.png)\n\n"
        "[All files of this gallery](http://run_url/run)"
    )
    assert _markdown([], [], "run") == "[All files of this gallery](http://run_url/run)"


@pytest.mark.parametrize(
    ("champion", "stays"), [(2, "Version 2 stays champion"), (None, "Nobody is champion")]
)
def test_the_reason_of_a_refusal_is_told(champion: int | None, stays: str) -> None:
    refused = Challenger(
        name="book-gan",
        family="gan",
        version=3,
        champion=champion,
        main_metric="test_frechet_distance",
        main_value=0.6,
        reason="0.6 is *worse* than 0.5",
        scorecard_run_id="s",
    )

    assert _markdown([], [refused], "run") == (
        f"## book-gan version 3, refused\n\n{stays}: 0.6 is \\*worse\\* than 0.5"
    )
