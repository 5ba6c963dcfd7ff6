"""The page itself: grouped by data set, marked where it must be, and nobody's text is markup."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tasks.samples import html_page
from tasks.samples.html_page import ChampionSamples, page, with_references
from tasks.store.records import DamagedRecord

pytestmark = pytest.mark.usefixtures("atelier_home")


def work(folder: Path, name: str, text: str = "words", **changed: str) -> ChampionSamples:
    """What a token model made."""
    into = folder / str(abs(hash(name)))
    into.mkdir(exist_ok=True)
    (into / "text.txt").write_text(text)
    return ChampionSamples(
        name=name,
        family=name.rpartition("-")[2],
        version=3,
        run_id="",
        scorecard_run_id="",
        main_metric="test_bits_per_byte",
        main_value=2.5,
        folder=str(into),
        pictures=(),
        texts=(("text.txt", "temperature 1"),),
        differences=(),
        **changed,  # type: ignore[arg-type]
    )


def test_the_works_of_a_data_set_stand_together_and_every_link_arrives(tmp_path: Path) -> None:
    names = ["pets-gpt", "书1-gpt", "pets-two-gpt", "书1-ngram", "pets-ngram"]

    shown = page([work(tmp_path, name) for name in names])

    groups = re.findall(r'<h2 class="data">([^<]*)</h2>', shown)
    assert groups == ["pets", "书1", "pets-two"]
    anchors = re.findall(r'<section id="([^"]*)"', shown)
    assert anchors == ["pets-gpt", "pets-ngram", "书1-gpt", "书1-ngram", "pets-two-gpt"]
    links = [unquote(link) for link in re.findall(r'href="#([^"]*)"', shown)]
    assert sorted(links) == sorted(names)
    assert shown.count("One question, two answers") == 2  # only beside those of the same text


def test_one_work_needs_no_contents_and_none_is_said_to_be(tmp_path: Path) -> None:
    assert "<nav" not in page([work(tmp_path, "pets-gpt")])
    assert "No model has a champion yet" in page([])
    assert "{{" not in page([])


def test_a_remark_is_shown_beside_the_works_and_in_the_contents(tmp_path: Path) -> None:
    good, bad = work(tmp_path, "a-gpt"), work(tmp_path, "b-gpt", remark="<b>cannot</b> draw")

    shown = page([good, bad])

    assert shown.count('class="stale"') == 1
    assert '<p class="remark">&lt;b&gt;cannot&lt;/b&gt; draw</p>' in shown
    assert shown.count("<pre>words</pre>") == 2


def test_what_a_model_wrote_is_no_place_of_the_template_and_no_markup(tmp_path: Path) -> None:
    shown = page([work(tmp_path, "a-gpt", "{{sections}} {{contents}} {{x}} <script>1</script>")])

    assert "{{sections}} {{contents}} {{x}} &lt;script&gt;1&lt;/script&gt;" in shown
    assert "<script" not in shown
    assert shown.count("<section id=") == 1


@pytest.mark.parametrize(("metric", "is_told"), [("classifier_test_accuracy", False), ("x", True)])
def test_what_is_not_measured_of_images_without_labels_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, is_told: bool
) -> None:
    monkeypatch.setattr(html_page, "_is_there", bool)
    monkeypatch.setattr(html_page, "run_metrics", lambda run: {metric: 0.9, "test_recall": 0.5})
    monkeypatch.setattr(html_page, "metric_history", lambda run, name: [])
    pictures = replace(work(tmp_path, "pets-gan"), scorecard_run_id="some-run")
    tokens = replace(work(tmp_path, "book-gpt"), scorecard_run_id="some-run")

    assert ("have no labels" in page([pictures])) == is_told
    assert "have no labels" not in page([tokens])


# Records -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"beside": "real data: 0.1700"}, {"floor_frechet_distance": 0.17}),
        ({"beside": ""}, {}),
        ({}, {}),
        ({"references": {"test_bits_per_dimension": 4}}, {"test_bits_per_dimension": 4.0}),
    ],
)
def test_a_record_tells_numbers_whichever_version_wrote_it(
    record: dict[str, Any], wanted: dict[str, float]
) -> None:
    fields = with_references({"main_metric": "test_frechet_distance", **record}, "works.json")

    assert fields == {"main_metric": "test_frechet_distance", "references": wanted}


@pytest.mark.parametrize("record", [{"beside": 3}, {"references": "real data"}])
def test_a_record_of_another_shape_is_damaged(record: dict[str, Any]) -> None:
    with pytest.raises(DamagedRecord, match=r"works\.json: (beside|references): wanted "):
        with_references(record, "works.json")
