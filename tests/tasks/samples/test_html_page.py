"""The page itself: grouped by data set, marked where it must be, and nobody's text is markup."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest

from tasks import plots
from tasks.samples import comparison, html_page
from tasks.samples.html_page import (
    CHOICES,
    HELD_OUT_PICTURES,
    HELD_OUT_TEXT,
    MOMENTS,
    Challenger,
    ChampionSamples,
    page,
    with_references,
)
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
    assert set(links) == set(names)
    assert sorted(re.findall(r'<a href="#([^"]*)"', shown.partition("</nav>")[0])) == sorted(
        map(quote, names)
    )
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


# The order, and what stands beside each other -----------------------------------------------------

NOISE = np.random.default_rng(0)


def drawing(folder: Path, family: str, metric: str, value: float, **changed: Any) -> Any:
    """What an image model drew: 60 pictures of 8 x 8 on a sheet, as its version kept them."""
    into = folder / family
    into.mkdir()
    pixels = NOISE.integers(0, 200, (60, 1, 8, 8), dtype=np.uint8)
    (into / "samples.png").write_bytes(plots.grid(pixels, 10))
    return ChampionSamples(
        **{
            **{"name": f"digits-{family}", "family": family, "version": 3, "run_id": ""},
            **{"scorecard_run_id": family, "main_metric": metric, "main_value": value},
            **{"folder": str(into), "pictures": (("samples.png", "60 samples"),)},
            **{"texts": (), "differences": (), **changed},
        }
    )


def tiles(shown: str) -> list[str]:
    """The pictures of each sheet of a page, as they are there."""
    return re.findall(r'<div class="tiles".*?</div>', shown, re.DOTALL)


def measured_as(patch: pytest.MonkeyPatch, metrics: dict[str, dict[str, float]]) -> None:
    patch.setattr(html_page, "_is_there", bool)
    patch.setattr(html_page, "run_metrics", lambda run: metrics.get(run, {}))
    patch.setattr(html_page, "metric_history", lambda run, name: [])


def test_the_best_comes_first_by_what_all_families_of_the_data_are_measured_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distance, real = "test_frechet_distance", "real_data_frechet_distance"
    measured_as(monkeypatch, {"vae": {distance: 1.5, real: 0.125}, "gan": {}})
    works = [
        drawing(tmp_path, "diffusion", distance, float("nan")),
        drawing(tmp_path, "vae", "test_nll_nats", 0.01),  # of another unit: not the smallest
        drawing(tmp_path, "gan", distance, 0.5),
    ]

    shown = page(works)

    assert re.findall(r'<section id="([^"]*)"', shown) == [
        *("digits-gan", "digits-vae", "digits-diffusion"),
    ]
    rows = re.findall(r'<th scope="row">([^<]*)</th>.*?width:([^%]*)%.*?<td>([^<]*)</td>', shown)
    assert rows == [
        ("real data", "8.3", "0.125"),
        ("GAN", "33.3", "0.500"),
        ("VAE", "100.0", "1.500"),
    ]
    assert "One question, two answers" in shown


def test_real_pictures_stand_above_ten_of_each_model(tmp_path: Path) -> None:
    gan = drawing(tmp_path, "gan", "test_frechet_distance", 0.5, scorecard_run_id="")
    vae = drawing(tmp_path, "vae", "test_nll_nats", 20.0, scorecard_run_id="")
    real = np.full((20, 1, 8, 8), 77, np.uint8)
    (Path(vae.folder) / HELD_OUT_PICTURES).write_bytes(plots.grid(real, 10))

    shown = page([gan, vae])

    names = re.findall(r'<div class="row[^"]*"><h4>(?:<a href="[^"]*">)?([^<]*)<', shown)
    assert names == ["held-out data", "GAN", "VAE"]
    first, *_ = tiles(shown)
    source = "data:image/png;base64," + b64encode(plots.png(real[0].transpose(1, 2, 0))).decode()
    assert first.count(f'<img alt="" src="{source}">') == first.count("<img") == 10
    # one of a kind alone is compared with nothing
    assert "Side by side" not in page([gan])


def test_pictures_are_enlarged_by_whole_numbers_in_every_window(tmp_path: Path) -> None:
    (wall,) = tiles(page([drawing(tmp_path, "gan", "x", 0.5, scorecard_run_id="")]))

    assert wall.count("<img") == 60
    style = dict(re.findall(r"--(\w+):([^;\"]*)", wall))
    assert style == {
        **{"w": "8", "h": "8", "wide": "10", "narrow": "7", "phone": "8"},
        **{"columns": "10", "folded": "5"},
    }


def test_a_picture_that_is_no_sheet_is_shown_whole(tmp_path: Path) -> None:
    odd = drawing(tmp_path, "gan", "x", 0.5, scorecard_run_id="")
    (Path(odd.folder) / "samples.png").write_bytes(plots.png(np.zeros((5, 7, 1), np.uint8)))

    shown = page([odd])

    assert '<img class="whole" alt="60 samples" src="data:image/png;base64,' in shown
    assert tiles(shown) == []


def test_a_film_of_training_plays_and_can_be_stopped_without_a_script(tmp_path: Path) -> None:
    growth = ("training.png", "all moments")
    drawn = drawing(tmp_path, "gan", "x", 0.5, scorecard_run_id="")
    drawn = replace(drawn, pictures=(*drawn.pictures, growth))
    (Path(drawn.folder) / "training.png").write_bytes(plots.png(np.zeros((9, 9, 1), np.uint8)))
    without = page([drawn])
    folder = Path(drawn.folder) / MOMENTS
    folder.mkdir()
    for step in (12, 300, 1200):
        pixels = NOISE.integers(0, 200, (10, 1, 8, 8), dtype=np.uint8)
        (folder / f"step-{step:07d}.png").write_bytes(plots.grid(pixels, 10))

    shown = page([drawn])

    assert re.findall(r"<label [^>]*>([^<]*)</label>", shown) == ["play", "12", "300", "1200"]
    assert len(set(re.findall(r'<input type="radio" name="([^"]*)"', shown))) == 1
    ids = re.findall(r' id="(film[^"]*)"', shown)
    assert ids == re.findall(r' for="([^"]*)"', shown)
    assert "the same latent points as training went on; choose a step" in shown
    assert "--frames:6;--last:5" in shown  # the last of three stays for three more
    assert "<script" not in shown
    assert "all moments" in without
    assert "all moments" not in shown  # the film tells it


def test_what_two_versions_made_stands_apart(tmp_path: Path) -> None:
    drawn = drawing(tmp_path, "gan", "x", 0.5, scorecard_run_id="")
    pixels = NOISE.integers(0, 200, (2, 30, 1, 8, 8), dtype=np.uint8)
    sheet = plots.side_by_side(*pixels, comparison.COLUMNS)
    (Path(drawn.folder) / "comparison.png").write_bytes(sheet)

    shown = page([replace(drawn, differences=(("comparison.png", "1, and 2 & 3"),))])

    _, before, after = tiles(shown)
    assert before.count("<img") == after.count("<img") == 30
    assert before != after
    assert "<figcaption>1, and 2 &amp; 3</figcaption>" in shown


def test_what_really_follows_stands_beside_what_models_wrote(tmp_path: Path) -> None:
    counted, trained = work(tmp_path, "b-ngram", "it <was> so"), work(tmp_path, "b-gpt", "it is")
    told = {"prompt": "it ", "text": "it <rains>"}
    for each in (counted, trained):
        (Path(each.folder) / HELD_OUT_TEXT).write_text(json.dumps(told))

    shown = page([counted, trained])

    beside = shown.partition("Side by side")[2].partition("</section>")[0]
    texts = re.findall(r"<pre>(.*?)</pre>", beside)
    assert texts == ["<b>it </b>&lt;rains&gt;", "<b>it </b>&lt;was&gt; so", "<b>it </b>is"]
    assert "<figcaption>what really follows</figcaption>" in beside


@pytest.mark.parametrize("damaged", ["{", "[]", '{"text": 3}', '"x"'])
def test_damaged_held_out_text_is_left_out(tmp_path: Path, damaged: str) -> None:
    wrote = work(tmp_path, "b-gpt", "it is")
    (Path(wrote.folder) / HELD_OUT_TEXT).write_text(damaged)

    assert "<pre>it is</pre>" in page([wrote])


def test_a_text_beside_others_is_not_told_twice(tmp_path: Path) -> None:
    texts = tuple((f"{t}.txt", f"temperature {t}") for t in (0.5, 0.8))
    works = []
    for name in ("b-ngram", "b-gpt"):
        one = replace(work(tmp_path, name), texts=texts)
        for file_name, caption in texts:
            (Path(one.folder) / file_name).write_text(f"{name} {caption}")
        works.append(one)

    shown = page(works)

    for name in ("b-ngram", "b-gpt"):
        assert shown.count(f"<pre>{name} temperature 0.8</pre>") == 1
        assert shown.count(f"<pre>{name} temperature 0.5</pre>") == 1


# How it was made, and who was refused -------------------------------------------------------------


def test_how_a_version_was_made_and_how_to_make_it_again(tmp_path: Path) -> None:
    made = {"preset": "quick", "set by hand": "a = <b>", "command": "atelier run --seed '<7>'"}

    shown = page([work(tmp_path, "b-gpt", made=made)])  # type: ignore[arg-type]

    assert "<dt>preset</dt><dd>quick</dd><dt>set by hand</dt><dd>a = &lt;b&gt;</dd></dl>" in shown
    commands = shown.partition('<pre class="commands">')[2].partition("</pre>")[0]
    assert commands.splitlines() == [
        "atelier run --seed &#x27;&lt;7&gt;&#x27;",
        "atelier reproduce b-gpt/3  # from its record, and compare",
        "atelier generate b-gpt/3 --tokens 300  # more of the kind",
    ]
    assert "<dl>" not in page([work(tmp_path, "b-gpt")])


def refused(**changed: Any) -> Challenger:
    return Challenger(
        **{
            **{"name": "b-gpt", "family": "gpt", "version": 4, "champion": 3},
            **{"main_metric": "test_bits_per_byte", "main_value": 2.75},
            **{"reason": "no <better>", "scorecard_run_id": "", **changed},
        }
    )


def test_a_challenger_tells_why_it_was_refused(tmp_path: Path) -> None:
    sample = tmp_path / "samples.txt"
    sample.write_text("it <said>" + "x" * 1000)

    shown = page([work(tmp_path, "b-gpt")], [refused(sample=str(sample))])

    told = shown.partition('<article class="refused">')[2].partition("</article>")[0]
    assert "<h3>b-gpt 4</h3>" in told
    assert "<b>2.750</b> bits per byte" in told
    assert "Version 3 stays champion: no &lt;better&gt;" in told
    assert "<pre>it &lt;said&gt;xxx" in told
    assert "x" * 400 not in told
    assert "atelier compare b-gpt 3 4" in told
    assert "Nobody is champion" not in shown


def test_a_page_without_champions_shows_those_that_were_refused(tmp_path: Path) -> None:
    sheet = tmp_path / "samples.png"
    sheet.write_bytes(plots.grid(np.zeros((20, 1, 8, 8), np.uint8), 10))

    shown = page([], [refused(name="b-gan", family="gan", champion=None, sample=str(sheet))])

    assert "No model has a champion yet. These are the latest that were refused" in shown
    assert '<h2 class="data">b</h2>' in shown
    assert "Nobody is champion: no &lt;better&gt;" in shown
    assert "atelier show b-gan/4" in shown
    (drawn,) = tiles(shown)
    assert drawn.count("<img") == 10


# Content, byte for byte --------------------------------------------------------------------------


def body(shown: str) -> str:
    """All behind the page's introduction, without its foot."""
    return shown.partition("the best of a data set comes first.</p>\n")[2].partition("<footer>")[0]


MAKING = (
    "<details><summary>How it was made, and how to make it again</summary>"
    '<pre class="commands">atelier reproduce {0}/3  # from its record, and compare\n'
    "atelier generate {0}/3 {1}  # more of the kind\n</pre></details></section>"
)


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
        '\n<div class="group"><h2 class="data">it&#x27;s &lt;b&gt;</h2>'
        '<section id="it&#x27;s &lt;b&gt;-gan" class="work">'
        "<header><h2>it&#x27;s &lt;b&gt;-gan</h2>"
        "<p>A generative adversarial network: two networks in competition. Version 3.</p>"
        '<p class="metric"><b>0.5123</b> Fréchet distance (real data: 0.1000)</p>'
        '<p class="play"><a href="http://127.0.0.1:5050/?version=it%27s%20%3Cb%3E-gan/3">'
        "Play with it</a> while <code>atelier play</code> runs</p></header>"
        '<p class="remark">old</p><div class="hero">'
        f'<figure><img class="whole" alt="60 &quot;samples&quot;" src="{source}">'
        "<figcaption>60 &quot;samples&quot;</figcaption></figure>"
        '<div class="beginnings"><div class="curves">'
        f"<figure>{curve}<figcaption>generator loss: 2.5 → 1.25</figcaption></figure>"
        f"<figure>{curve}<figcaption>discriminator loss: 2.5 → 1.25</figcaption></figure></div>"
        "</div></div>"
        '<div class="difference"><h3>What changed with this version</h3><div class="pair">'
        f'<figure><img class="whole" alt="before &amp; after" src="{source}">'
        "<figcaption>before &amp; after</figcaption></figure></div></div>"
        "<details><summary>Measured on held-out data</summary>"
        "<table><tr><th></th><th>this version</th><th>real data</th></tr>"
        "<tr><td>Fréchet distance</td><td>0.5</td><td>0.1</td></tr>"
        "<tr><td>x</td><td>-1</td><td></td></tr></table>"
        "<p>The images have no labels: what needs classes, such as fidelity, is left out, and"
        " distances are measured in the features of a network that learned from the same images"
        " without any.</p></details>"
        + MAKING.format("it&#x27;s &lt;b&gt;-gan", "--grid sheet.png")
        + "</div>\n"
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
        f'<a class="stale" title="not of the present champion" href="#{address}-gpt">GPT</a>'
        f'<a href="#{address}-ngram">n-gram</a>'
        '</li></ul></nav>\n<div class="group"><h2 class="data">пёс</h2><div class="overview text">'
        '<section class="yardstick"><h3>One question, two answers</h3>'
        "<p>How likely is each next token of the same held-out text?"
        " Bits per byte, lower is better.</p><table>"
        '<tr><th scope="row">GPT</th><td><span class="bar" style="width:80.0%"></span></td>'
        "<td>2.000</td></tr>"
        '<tr><th scope="row">n-gram</th><td><span class="bar" style="width:100.0%"></span></td>'
        "<td>2.500</td></tr></table></section>"
        '<section class="beside"><h3>Side by side</h3>'
        '<p>One prompt, <b>in bold</b>, and how each goes on.</p><div class="columns">'
        f'<figure><h4><a href="#{address}-gpt">GPT</a></h4><pre>y</pre>'
        "<figcaption>temperature 1</figcaption></figure>"
        f'<figure><h4><a href="#{address}-ngram">n-gram</a></h4><pre> words &lt;b&gt;\n\n</pre>'
        "<figcaption>temperature 1</figcaption></figure></div></section></div>"
        '<section id="пёс-gpt" class="work">'
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
        "\n</span></pre></div>" + MAKING.format("пёс-ngram", "--tokens 300")
    ) in shown
    assert shown.endswith("</section></div>\n")


def test_data_sets_and_an_empty_gallery_have_lines_of_their_own(tmp_path: Path) -> None:
    shown = body(page([work(tmp_path, "a-gpt"), work(tmp_path, "b-gpt")]))

    assert '</section></div>\n<div class="group"><h2 class="data">b</h2><section' in shown
    assert body(page([])) == (
        '\n<p class="nobody">No model has a champion yet. <code>atelier run</code> trains some; of'
        " those that were refused, <code>atelier history</code> tells why.</p>\n"
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

    assert fields == {"main_metric": "test_frechet_distance", "references": wanted, "made": {}}


@pytest.mark.parametrize(
    "record", [{"beside": 3}, {"references": "real data"}, {"made": {"preset": 3}}]
)
def test_a_record_of_another_shape_is_damaged(record: dict[str, Any]) -> None:
    with pytest.raises(DamagedRecord, match=r"works\.json: (beside|references|made): .*wanted "):
        with_references(record, "works.json")
