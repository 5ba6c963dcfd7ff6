"""The page itself: grouped by data set, marked where it must be, and nobody's text is markup."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from tasks import plots
from tasks.samples import html_page
from tasks.samples.html_page import CHOICES, ChampionSamples, page, with_references
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


def test_a_run_of_a_version_before_shows_what_real_data_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_page, "_is_there", bool)
    monkeypatch.setattr(html_page, "metric_history", lambda run, name: [])
    pages = {}
    for prefix in ("real_data", "floor"):
        metrics = {"test_recall": 0.5, f"{prefix}_recall": 0.875}
        monkeypatch.setattr(html_page, "run_metrics", lambda run, found=metrics: found)
        pages[prefix] = page([replace(work(tmp_path, "pets-gan"), scorecard_run_id="some-run")])

    assert "0.875" in pages["floor"]
    assert pages["floor"] == pages["real_data"]


# Content, byte for byte --------------------------------------------------------------------------


def body(shown: str) -> str:
    """All behind the page's introduction."""
    return shown.partition("<em>champion</em>.</p>\n")[2]


def test_the_page_of_a_champion_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [(0, 2.5), (10, 1.25)]
    monkeypatch.setattr(html_page, "_is_there", bool)
    monkeypatch.setattr(html_page, "metric_history", lambda run, name: points)
    metrics = {
        "test_frechet_distance": 0.5,
        "real_data_frechet_distance": 0.1,
        "test_x": -1,
        "y": 2.0,
    }
    monkeypatch.setattr(html_page, "run_metrics", lambda run: metrics)
    picture = plots.grid(np.zeros((1, 1, 2, 2), np.uint8), 1)
    (tmp_path / "a.png").write_bytes(picture)
    source = "data:image/png;base64," + b64encode(picture).decode()
    drawn = ChampionSamples(
        name="it's <b>-gan",
        family="gan",
        version=3,
        run_id="r",
        scorecard_run_id="s",
        main_metric="test_frechet_distance",
        main_value=0.51234,
        references={"real_data_frechet_distance": 0.1},
        folder=str(tmp_path),
        pictures=(("a.png", '60 "samples"'),),
        texts=(),
        differences=(("a.png", "before & after"),),
        remark="old",
    )

    curve = plots.curve(points)
    assert body(page([drawn])) == (
        '\n<div class="group"><h2 class="data">it&#x27;s &lt;b&gt;</h2>\n'
        '<section id="it&#x27;s &lt;b&gt;-gan"><header><h2>it&#x27;s &lt;b&gt;-gan</h2>'
        "<p>A generative adversarial network: two networks in competition. Version 3.</p>"
        '<p class="metric"><b>0.5123</b> Fréchet distance (real data: 0.1000)</p></header>'
        '<p class="remark">old</p><div class="curves">'
        f"<figure>{curve}<figcaption>generator loss: 2.5 → 1.25</figcaption></figure>"
        f"<figure>{curve}<figcaption>discriminator loss: 2.5 → 1.25</figcaption></figure></div>"
        f'<div class="works"><figure><img alt="60 &quot;samples&quot;" src="{source}">'
        "<figcaption>60 &quot;samples&quot;</figcaption></figure></div>"
        '<div class="difference"><h3>What changed with this version</h3><div class="pair">'
        f'<figure><img alt="before &amp; after" src="{source}">'
        "<figcaption>before &amp; after</figcaption></figure></div></div>"
        "<details><summary>measured on held-out data</summary>"
        "<table><tr><th></th><th>this version</th><th>real data</th></tr>"
        "<tr><td>Fréchet distance</td><td>0.5</td><td>0.1</td></tr>"
        "<tr><td>x</td><td>-1</td><td></td></tr></table>"
        "<p>The images have no labels: what needs classes, such as fidelity, is left out, and"
        " distances are measured in the features of a network that learned from the same images"
        " without any.</p></details></section></div>\n</html>\n"
    )


def test_the_page_of_two_models_that_write(tmp_path: Path) -> None:
    counted = work(tmp_path, "пёс-ngram", " words <b>\n\n")
    trained = replace(work(tmp_path, "пёс-gpt", "y"), main_value=2.0, remark="old")
    chosen = [
        {"text": "a<", "context": "", "context_length": 0, "probability": 0.25, "part": 0.25},
        {"text": "\n", "context": 'a"', "context_length": 1, "probability": 0.5, "part": 0.125},
    ]
    (Path(counted.folder) / CHOICES).write_text(json.dumps(chosen))

    shown = body(page([counted, trained]))

    address = "%D0%BF%D1%91%D1%81"
    assert shown.startswith(
        '<nav aria-label="Works by data set"><ul><li><b>пёс</b>'
        f'<a href="#{address}-ngram">n-gram</a>'
        f'<a class="stale" title="not of the present champion" href="#{address}-gpt">GPT</a>'
        '</li></ul></nav>\n<div class="group"><h2 class="data">пёс</h2>'
        '<section class="yardstick"><h3>One question, two answers</h3>'
        "<p>Both token models say how likely each next token of the same held-out text is."
        " Bits per byte, lower is better:</p><table>"
        '<tr><th>пёс-ngram</th><td><span class="bar" style="width:100.0%"></span></td>'
        "<td>2.500</td></tr>"
        '<tr><th>пёс-gpt</th><td><span class="bar" style="width:80.0%"></span></td>'
        "<td>2.000</td></tr></table></section>\n"
        '<section id="пёс-ngram">'
    )
    assert (
        '<div class="works texts"><figure><pre> words &lt;b&gt;\n\n</pre>'
        "<figcaption>temperature 1</figcaption></figure></div>"
        '<div class="choices"><h3>How counting chose each token</h3>'
        "<p>The beginning of the text of temperature 0.8. Point at a token for its probability.</p>"
        "<p>The darker a token, the more tokens before it decided which one came. How many did, and"
        ' how often:</p><ul><li><span style="--shade:0.00">0</span> 50%</li>'
        '<li><span style="--shade:1.00">1</span> 50%</li></ul><pre>'
        '<span style="--shade:0.00" title="25.0%, whatever stood before it">a&lt;</span>'
        '<span style="--shade:1.00" title="50.0%, of which 12.5% for what followed “a&quot;”">'
        "\n</span></pre></div></section>\n"
        '<section id="пёс-gpt">'
    ) in shown
    assert shown.endswith("</section></div>\n</html>\n")


def test_data_sets_and_an_empty_gallery_have_lines_of_their_own(tmp_path: Path) -> None:
    shown = body(page([work(tmp_path, "a-gpt"), work(tmp_path, "b-gpt")]))

    assert '</section></div>\n<div class="group"><h2 class="data">b</h2>\n<section' in shown
    assert body(page([])) == (
        "\n<section><p>No model has a champion yet. <code>atelier run</code> trains some; of those"
        " that were refused, <code>atelier history</code> tells why.</p></section>\n</html>\n"
    )


# Records -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"beside": "real data: 0.1700"}, {"real_data_frechet_distance": 0.17}),
        ({"beside": ""}, {}),
        ({}, {}),
        ({"references": {"test_bits_per_dimension": 4}}, {"test_bits_per_dimension": 4.0}),
        ({"references": {"floor_frechet_distance": 0.1}}, {"real_data_frechet_distance": 0.1}),
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
