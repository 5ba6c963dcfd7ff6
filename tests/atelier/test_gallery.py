"""One page of all champions: what a run adds to it, and what never takes anything off it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

import flows.sample_gallery as flow_module
from flows.sample_gallery import sample_gallery, whole_gallery
from flows.train import planned
from models.ngram.config import NgramConfig
from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.maintenance.garbage_collection import find_garbage
from tasks.registry import audit_log, promotion
from tasks.registry.promotion_policy import gate
from tasks.registry.registration import register_version
from tasks.registry.verdicts import apply_decision
from tasks.samples.cache import GalleryIncomplete, shown_works
from tasks.samples.html_page import ChampionSamples
from tasks.samples.html_page import page as gallery_page
from tasks.store.files import BadInput
from tasks.store.steps import history
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.provenance import provenance_of

pytestmark = pytest.mark.slow

NAMES = ["tale-ngram", "сказка-ngram"]
Draw = Callable[..., Path]


def write_text(path: Path, words: str) -> Path:
    chosen = words.split()
    count = len(chosen)
    lines = [" ".join(chosen[(i * k + k) % count] for k in range(1, 10)) for i in range(320)]
    path.write_text(".\n".join(lines) + ".\n", encoding="utf-8")
    return path


def use(home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ATELIER_HOME", str(home))
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    patch.delenv("PREFECT_API_URL", raising=False)
    patch.chdir(home)
    for task in ("plan_gallery", "find_challengers", "draw_samples", "publish_gallery"):
        patch.setattr(flow_module, task, getattr(flow_module, task).fn)
    patch.setattr(flow_module, "sample_gallery", sample_gallery.fn)


def made_champion(source: str) -> None:
    tokens = tokenize_corpus.fn(ingest_text.fn(source))
    settings = {"model": NgramConfig(order=2), "tuning": None}
    plan = replace(planned(FAMILIES["ngram"], tokens, "quick", 0, {}), settings=settings)
    with open_run(source) as run_id:
        fitted = fit_model.fn(tokens, plan, run_id)
        scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
    recipe = provenance_of(plan, tokens, "quick")
    verdict = gate.fn(fitted, scorecard, None)
    version = register_version.fn(fitted, scorecard, verdict, recipe, None, tokens)
    assert apply_decision.fn(version, verdict) is not None


@pytest.fixture(scope="module")
def first_home(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Path]:
    """A registry with the champions of two data sets; tests work on copies of its records."""
    home = tmp_path_factory.mktemp("galleries")
    shutil.copy(migrated_database, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        use(home, patch)
        write_text(home / "tale.txt", "the cat dog sees hears a small bird and sleeps")
        write_text(home / "other.txt", "кот пёс видит слышит маленькую птицу и спит там")
        made_champion(f"file:{home / 'tale.txt'}")
        made_champion(f"сказка=file:{home / 'other.txt'}")
    yield home


@pytest.fixture
def home(first_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same registry and audit log, to change at will; files of versions are shared."""
    copy = tmp_path / "home"
    shutil.copytree(first_home, copy, ignore=shutil.ignore_patterns("mlruns", "mlartifacts"))
    use(copy, monkeypatch)
    return copy


@pytest.fixture
def drawn(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were asked to draw, in order."""
    asked: list[str] = []
    draw = flow_module.draw_samples

    def told(name: str, *arguments: object) -> object:
        asked.append(name)
        return draw(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(flow_module, "draw_samples", told)
    return asked


def gallery(names: list[str] | None = None, seed: int = 0) -> str:
    return Path(sample_gallery.fn(names, seed)).read_text(encoding="utf-8")


def sections(page: str) -> list[str]:
    return [part.partition('"')[0] for part in page.split('<section id="')[1:]]


def test_all_champions_are_shown_whoever_is_asked_for_and_draw_once(drawn: list[str]) -> None:
    first = gallery()
    again = gallery()
    other_seed = gallery(["tale-ngram"], 3)
    after_a_run = Path(whole_gallery("")).read_text(encoding="utf-8")

    assert sections(first) == sections(other_seed) == NAMES
    assert first == again == after_a_run != other_seed
    assert drawn == [*NAMES, "tale-ngram"]
    states = [record.state for record in history("gallery")]
    assert states == ["made", "unchanged", "made", "unchanged"]
    assert 'href="#%D1%81%D0%BA%D0%B0%D0%B7%D0%BA%D0%B0-ngram"' in first


def test_what_somebody_drew_with_a_seed_stays_while_another_draws(drawn: list[str]) -> None:
    gallery(["tale-ngram"], 3)
    gallery(["сказка-ngram"], 4)

    assert {name: work.seed for name, work in shown_works().items()} == {
        "tale-ngram": 3,
        "сказка-ngram": 4,
    }
    assert drawn == [*NAMES, "сказка-ngram"]


def test_a_run_adds_to_the_page(drawn: list[str]) -> None:
    client().delete_registered_model_alias("сказка-ngram", "champion")
    before = gallery()
    client().set_registered_model_alias("сказка-ngram", "champion", "1")

    after = gallery()

    assert sections(before) == ["tale-ngram"]
    assert sections(after) == NAMES
    assert drawn == ["tale-ngram", "сказка-ngram"]


def test_names_that_do_not_exist_are_refused_and_the_page_stays(home: Path) -> None:
    before = gallery()

    with pytest.raises(BadInput) as refusal:
        gallery(["tale-ngrm", "digits-vae"])

    message = str(refusal.value)
    assert "no champion named digits-vae, tale-ngrm" in message
    assert message.endswith(f"there are: {', '.join(NAMES)}")
    with pytest.raises(BadInput, match=r"did you mean tale-ngram\?"):
        gallery(["tale-ngrm"])
    client().delete_registered_model_alias("tale-ngram", "champion")
    with pytest.raises(BadInput, match="`atelier history tale-ngram` tells why"):
        gallery(["tale-ngram"])
    assert (home / "gallery" / "index.html").read_text(encoding="utf-8") == before


def test_nobody_leaves_no_blank_page(home: Path, drawn: list[str]) -> None:
    for name in NAMES:
        client().delete_registered_model_alias(name, "champion")

    empty = gallery()
    client().set_registered_model_alias("tale-ngram", "champion", "1")
    full = gallery()
    client().delete_registered_model_alias("tale-ngram", "champion")

    assert "No model has a champion yet" in empty
    assert sections(full) == ["tale-ngram"]
    assert gallery() == full


def refuse(name: str, why: str) -> None:
    """Let version 1 be no champion any more, but one that was refused."""
    registry = client()
    registry.delete_registered_model_alias(name, "champion")
    registry.set_registered_model_alias(name, "challenger", "1")
    promotion.reconcile(name)
    audit_log.append(name, "refused", action="refuse", to_version=1, why=why)


def test_who_was_refused_is_told_beside_the_champions_and_alone_where_nobody_is(
    home: Path, drawn: list[str]
) -> None:
    refuse("tale-ngram", "no <better>")
    beside = gallery()
    refuse("сказка-ngram", "no better")
    shutil.rmtree(home / "gallery")
    alone = gallery()

    assert sections(beside) == drawn == ["сказка-ngram"]
    assert beside.count('<article class="refused">') == 1
    assert "Nobody is champion: no &lt;better&gt;" in beside
    assert sections(alone) == []
    assert alone.count('<article class="refused">') == 2
    assert alone.count("<pre>") == 2  # what they wrote when they were judged
    assert "These are the latest that were refused" in alone
    assert gallery() == alone
    assert [record.state for record in history("gallery")] == ["made", "made", "unchanged"]


@pytest.fixture
def damaged(first_home: Path) -> Iterator[Callable[[], None]]:
    """Takes the weights of the tale's champion away; called again, brings them back."""
    source = local_file_uri_to_path(client().get_model_version_download_uri("tale-ngram", "1"))
    weights = Path(source) / "artifacts" / "weights.safetensors"
    hidden = weights.with_suffix(".hidden")

    def turn() -> None:
        (weights if weights.exists() else hidden).replace(hidden if weights.exists() else weights)

    yield turn
    if hidden.exists():
        turn()


def test_a_champion_that_cannot_draw_keeps_its_last_works_and_is_named(
    home: Path, damaged: Callable[[], None], drawn: list[str]
) -> None:
    gallery(seed=1)
    last = shown_works()["tale-ngram"]
    text = (Path(last.folder) / "temperature-0.8.txt").read_text()
    damaged()

    for _ in range(2):  # a second time is no success either
        with pytest.raises(GalleryIncomplete, match="tale-ngram version 1: ") as incomplete:
            gallery(seed=2)

    page = Path(incomplete.value.page).read_text(encoding="utf-8")
    assert sections(page) == NAMES
    assert "These are its last works, of version 1." in page
    assert (Path(shown_works()["tale-ngram"].folder) / "temperature-0.8.txt").read_text() == text
    shown = Path(shown_works()["tale-ngram"].folder)
    assert not [each for each in find_garbage([]) if each.path == shown.parent]
    assert Path(whole_gallery("")).exists()  # a training run is not failed by it
    damaged()
    assert "last works" not in gallery(seed=2)


def test_one_that_never_could_draw_is_told_of_beside_the_others(
    home: Path, damaged: Callable[[], None]
) -> None:
    damaged()

    with pytest.raises(GalleryIncomplete) as incomplete:
        gallery()

    page = Path(incomplete.value.page).read_text(encoding="utf-8")
    assert sections(page) == NAMES
    assert "version 1 cannot draw: " in page
    assert page.count("<pre>") >= 3  # the other's texts


def test_a_lost_database_takes_nothing_off_the_page(
    home: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gallery()
    texts = [
        path.read_text(encoding="utf-8")
        for path in sorted((home / "artifacts").rglob("temperature-*.txt"))
    ]
    shutil.copy(migrated_database, home / "emptied.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'emptied.db'}")

    after = gallery()
    assert sections(after) == sections(before)
    assert after.count("the registry does not know its champion any more") == 2
    left = sorted(Path(shown_works()["tale-ngram"].folder).parent.rglob("temperature-*.txt"))
    assert [path.read_text(encoding="utf-8") for path in left] == texts

    shutil.rmtree(home / "ledger")
    assert gallery() == after  # nothing tells what they were: the page stays


def test_a_home_that_was_moved_shows_the_same_and_draws_nothing(
    home: Path, tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gallery()
    moved = home.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    monkeypatch.setenv("ATELIER_HOME", str(moved))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'mlflow.db'}")

    assert gallery() == before
    gallery(["tale-ngram"], 3)

    assert drawn == [*NAMES, "tale-ngram"]
    works = shown_works()
    assert list(works) == NAMES
    assert all(Path(work.folder).is_relative_to(moved) for work in works.values())


def test_the_works_that_an_earlier_version_drew_stay_on_the_page(
    home: Path, damaged: Callable[[], None]
) -> None:
    gallery()
    record = home / "gallery" / "works.json"
    works = json.loads(record.read_text(encoding="utf-8"))
    for work in works:  # where it kept them, and how it named that place
        place = home / "gallery" / "0123456789abcdef" / work["name"]
        shutil.copytree(home / work["folder"], place)
        work["folder"] = place.relative_to(home / "gallery").as_posix()
    record.write_text(json.dumps(works), encoding="utf-8")
    shutil.rmtree(home / "artifacts" / "samples")
    damaged()

    page = Path(whole_gallery("")).read_text(encoding="utf-8")

    assert sections(page) == NAMES
    assert "last works" not in page


@pytest.mark.parametrize("width", [1280, 360])
def test_many_works_with_long_names_fit_every_window_and_links_arrive(
    home: Path, page: Any, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    (work,) = [each for name, each in _drawn_works().items() if name == "tale-ngram"]
    many = [
        replace(work, name=f"{data}-{family}", family=family, remark="x" * 300 * (family == "gpt"))
        for data in ("a-name-of-forty-characters-of-a-data-set", "книга", "书", "tale")
        for family in ("ngram", "gpt", "vae")
    ]
    path = home / "page.html"
    path.write_text(gallery_page(many), encoding="utf-8")

    page.goto(path.as_uri())

    assert page.evaluate("document.documentElement.scrollWidth") == width
    for index in range(page.locator("nav a").count()):
        page.locator("nav a").nth(index).click()
        target = page.locator(":target")
        assert target.count() == 1
        assert -5 < target.bounding_box()["y"] < 800


def _drawn_works() -> dict[str, ChampionSamples]:
    gallery()
    return shown_works()
