"""The whole run in this process: both sides, what it registers, tells and refuses."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.states import State

from flows import approval
from flows.full_run import RunSummary, full_run
from flows.reproduce import reproduce
from tasks.maintenance.crash_recovery import STATE_LABEL
from tasks.registry.data_owner import OtherData
from tasks.registry.promotion import history
from tasks.registry.versions import champion_of, every_version
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import client, runs_url, tracking_experiment

NAMES = ["pictures-vae", "corpus-ngram"]
SECONDS_TO_BE_ASKED = 240  # on a machine that is busy with others

# Prefect's client leaves the sockets of what it asked to the garbage collector
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed .*socket:ResourceWarning"),
]


@dataclass(frozen=True)
class Workshop:
    """A home in which one full run has ended, and the Prefect server that it reported to."""

    home: Path
    images: str
    text: str
    state: State[RunSummary]
    prefect: Any

    def run(self, **settings: Any) -> "State[RunSummary]":
        """Run the flow on the same data with other settings; returns how it ended."""
        mine: dict[str, Any] = {"images": self.images, "text": self.text, "preset": "quick"}
        ended: State[RunSummary] = full_run(
            **(mine | {"models": ("vae", "ngram")} | settings), return_state=True
        )
        return ended

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        return self.prefect.request("POST", f"/{path}/filter", json=body).json()

    def answer(self, decision: dict[str, str]) -> None:
        """Be the person: wait for the question, answer nonsense, which is refused, then answer."""
        paused = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
        deadline = time.monotonic() + SECONDS_TO_BE_ASKED
        while not (runs := [run for run in self.ask("flow_runs", paused) if self.has_form(run)]):
            assert time.monotonic() < deadline, "nobody was asked"
            Event().wait(0.1)
        resume = f"/flow_runs/{runs[0]['id']}/resume"
        nonsense = {"run_input": {"decision": "perhaps"}}
        assert self.prefect.request("POST", resume, json=nonsense).json()["status"] == "REJECT"
        answer = {"run_input": decision}
        assert self.prefect.request("POST", resume, json=answer).json()["status"] == "ACCEPT"

    def has_form(self, run: dict[str, Any]) -> bool:
        """Whether a paused run's form is stored already."""
        form = run["state"]["state_details"]["run_input_keyset"]["schema"]
        try:
            self.prefect.request("GET", f"/flow_runs/{run['id']}/input/{form}")
        except httpx.HTTPStatusError:
            return False
        return True

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """What was published on Prefect's pages under a key, the latest first."""
        wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        found: list[dict[str, Any]] = self.ask("artifacts", wanted)
        return found


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,
    written_pictures: Path,
    written_corpus: Path,
    prefect: Any,
) -> Iterator[Workshop]:
    home = tmp_path_factory.mktemp("workshop")
    shutil.copy(migrated_database, home / "mlflow.db")
    images, text = f"folder:{written_pictures}", f"file:{written_corpus}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        patch.chdir(home)
        empty: Any = None
        made = Workshop(home, images, text, empty, prefect)
        yield Workshop(home, images, text, made.run(), prefect)


def test_it_returns_the_versions_of_both_sides_and_the_page(workshop: Workshop) -> None:
    assert workshop.state.is_completed(), workshop.state
    summary = workshop.state.result()

    assert [each.name for each in summary.versions] == NAMES
    assert [(each.version, each.alias, each.is_new) for each in summary.versions] == [
        (1, "champion", True)
    ] * 2
    metrics = [each.main_metric for each in summary.versions]
    assert metrics == ["test_nll_nats", "test_bits_per_byte"]
    page = Path(summary.gallery).read_text()
    assert all(f'<section id="{name}"' in page for name in NAMES)


def test_each_model_is_a_run_below_the_one_of_the_whole(workshop: Workshop) -> None:
    runs = client().search_runs([tracking_experiment()])
    (whole,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    below = {run.data.tags["atelier.task"] for run in runs if run is not whole}

    assert whole.data.params["preset"] == "quick"
    assert whole.data.params["images"] == workshop.images
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert below == {*NAMES, "gallery"}
    for name in NAMES:
        champion = champion_of(name)
        assert champion is not None
        run = client().get_run(champion.run_id)
        assert run.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert run.data.tags["prefect.flow_run_name"].startswith(name)
        told = {key: run.data.tags[key] for key in ("data", "preset", "seed")}
        assert told == {"data": name.rpartition("-")[0], "preset": "quick", "seed": "0"}
        assert run.data.tags["main_metric"].startswith(f"{float(champion.tags['main_value']):.4g} ")
        tags = client().get_model_version(name, str(champion.version)).tags
        assert {"content_digest", "record", "main_metric", "data", "preset", "seed"} <= set(tags)


def test_mlflows_table_and_charts_open_with_what_the_whole_run_is_told_by(
    workshop: Workshop,
) -> None:
    experiment = client().get_experiment(tracking_experiment())
    runs = client().search_runs([tracking_experiment()])
    (whole,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    charted = {name.partition("_")[0] for name in whole.data.metrics}
    view = runs_url().partition("viewStateShareKey=")[2].partition("&")[0]
    columns = json.loads(experiment.tags[f"mlflow.sharedViewState.{view}"])["selectedColumns"]

    assert {name.rpartition("-")[2] for name in NAMES} <= charted
    tagged = {f"tags.`{name}`" for run in runs for name in run.data.tags}
    assert columns[:4] == [f"tags.`{each}`" for each in ("main_metric", "data", "preset", "seed")]
    assert set(columns[:4]) <= tagged


def test_none_of_its_files_holds_a_pickle(
    workshop: Workshop, scan_for_pickles: Callable[[Path], tuple[int, list[Path]]]
) -> None:
    """Data, fits, evaluations, versions, the gallery and MLflow's store."""
    number, pickles = scan_for_pickles(workshop.home)

    assert pickles == []
    assert number > 80


def test_its_page_has_a_line_for_each_model_and_the_way_from_data_to_samples(
    workshop: Workshop,
) -> None:
    logs = workshop.ask("logs", {"limit": 200})
    (lineage,) = workshop.artifacts("lineage")

    for version in workshop.state.result().versions:
        line = f"{version.name} version 1: champion, "
        assert [each for each in logs if each["message"].startswith(line)]
        assert version.name in lineage["data"]
    for name in NAMES:
        assert len(workshop.artifacts(f"{name}-scorecard")) == 1
    assert len(workshop.artifacts("gallery")) >= 1
    bars = [each for each in workshop.ask("artifacts", {}) if each["type"] == "progress"]
    assert {bar["data"] for bar in bars} == {100.0}


def test_the_same_again_ends_as_unchanged_and_registers_nothing(workshop: Workshop) -> None:
    again = workshop.run()

    assert (again.type.value, again.name) == ("COMPLETED", "Unchanged")
    assert "pictures-vae version 1, corpus-ngram version 1" in str(again.message)
    summary = again.result()
    assert [(each.version, each.alias, each.is_new) for each in summary.versions] == [
        (1, "champion", False)
    ] * 2
    assert [each.digest for each in summary.versions] == [
        each.digest for each in workshop.state.result().versions
    ]
    assert summary.gallery == workshop.state.result().gallery
    assert len(list(every_version())) == len(NAMES)


def test_data_of_a_side_without_models_are_not_looked_at(workshop: Workshop) -> None:
    ended = workshop.run(images="folder:/no/where", models=("ngram",))

    assert [each.name for each in ended.result().versions] == ["corpus-ngram"]


def test_bad_text_stops_it_before_the_good_images_are_trained_on(
    workshop: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("ab" * 12_000)
    fits = sorted((workshop.home / "runs").rglob("weights.safetensors"))

    ended = workshop.run(text=f"file:{tmp_path / 'short.txt'}", tokenizer="bpe", seed=77)

    assert ended.is_failed()
    with pytest.raises(BadInput, match="wanted at least 1000 / 100 / 100"):
        ended.result()
    assert sorted((workshop.home / "runs").rglob("weights.safetensors")) == fits
    assert len(list(every_version())) == len(NAMES)
    runs = client().search_runs([tracking_experiment()], "params.seed = '77'")
    assert [run.info.status for run in runs] == ["FAILED"]


def test_other_data_of_a_known_name_are_refused_before_training(
    workshop: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "corpus.txt").write_text("".join(f"{n} is no {n * n} at all\n" for n in range(900)))

    ended = workshop.run(text=f"file:{tmp_path / 'corpus.txt'}", models=("ngram",))

    with pytest.raises(OtherData, match="corpus-ngram belongs to other data"):
        ended.result()
    assert len(list(every_version())) == len(NAMES)


def signed_states(ended: Any) -> list[bool]:
    """Whether the label of a run names each of its Running states, in their order."""
    with get_client(sync_client=True) as prefect:
        run = prefect.read_flow_run(ended.state_details.flow_run_id)
        states = prefect.read_flow_run_states(run.id)
    running = [state for state in states if state.type == StateType.RUNNING]
    return [str(state.id) == run.labels[STATE_LABEL] for state in running]


def test_nobody_answers_in_time_and_the_next_run_promotes(
    workshop: Workshop, written_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.1)
    text = tmp_path / "fable.txt"
    text.write_text(written_corpus.read_text().replace("cat", "fox"))
    wanted: dict[str, Any] = {"text": f"file:{text}", "models": ("ngram",)}

    ended = workshop.run(**wanted, approve=True, approval_seconds=1)

    assert [each.alias for each in ended.result().versions] == ["challenger"]
    assert history("fable-ngram")[-1].why == "nobody approved it within 1 s; the champion stays"
    again = workshop.run(**wanted)
    assert [each.alias for each in again.result().versions] == ["champion"]
    client().delete_registered_model("fable-ngram")


@pytest.mark.parametrize(("decision", "alias"), [("accept", "champion"), ("refuse", "challenger")])
def test_a_person_is_asked_and_the_answer_is_kept(
    workshop: Workshop,
    written_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decision: str,
    alias: str,
) -> None:
    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.1)
    text = tmp_path / f"{decision}.txt"
    text.write_text(written_corpus.read_text().replace("cat", decision))
    answer = {"decision": decision, "reason": "it reads well"}

    with ThreadPoolExecutor(1) as person:
        answered = person.submit(workshop.answer, answer)
        ended = workshop.run(text=f"file:{text}", models=("ngram",), approve=True)
        answered.result()

    (version,) = ended.result().versions
    assert version.alias == alias
    said = {"accept": "accepted", "refuse": "refused"}[decision]
    assert history(version.name)[-1].why.endswith(f"{said} manually: it reads well")
    assert signed_states(ended) == [True]  # the pause is that of a run inside
    client().delete_registered_model(version.name)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_registered_is_made_again_from_its_record(workshop: Workshop, name: str) -> None:
    before = len(list(every_version()))

    made = reproduce(name)

    assert (made.name, made.version, made.is_identical) == (name, 1, True)
    assert [each.what for each in made.comparisons if not each.is_same] == []
    assert len(list(every_version())) == before


def test_a_champion_is_continued_on_other_data_and_told_as_the_parent(
    workshop: Workshop,
) -> None:
    wanted: dict[str, Any] = {
        "images": f"near={workshop.images}",
        "models": ("vae",),
        "continue_from": "pictures-vae@champion",
        "settings": {"vae.training.steps": 20},
    }

    ended = workshop.run(**wanted)
    again = workshop.run(**wanted)
    refused = workshop.run(**(wanted | {"models": ("vae", "ngram")}))

    (child,) = ended.result().versions
    (parent, _) = workshop.state.result().versions
    assert (child.name, child.version, child.continues.address) == ("near-vae", 1, "pictures-vae/1")
    assert child.continues.digest == parent.digest
    (lineage, *_) = workshop.artifacts("lineage")
    assert "| model | pictures-vae 1 | continued |" in lineage["data"]
    assert again.name == "Unchanged"
    assert again.result().versions[0].digest == child.digest
    whole = client().search_runs([tracking_experiment()], "params.continue_from = 'pictures-vae/1'")
    assert [run.info.status for run in whole] == ["FINISHED"] * 2
    trained = client().get_run(child.run_id).data.params
    assert trained["continues"] == "pictures-vae/1"
    with pytest.raises(BadInput, match="is for the family vae, and to be trained are vae, ngram"):
        refused.result()
    made = reproduce("near-vae")
    assert made.is_identical
    told = [each for each in made.comparisons if each.what == "continues"]
    assert [each.is_same for each in told] == [True]
    client().delete_registered_model("near-vae")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "digit"}, "images"),
        ({"text": "nowhere"}, "text"),
        ({"models": ("diffusers",)}, "models"),
        ({"preset": "fastest"}, "preset"),
        ({"seed": -1}, "seed"),
        ({"continue_from": "Pictures@champion"}, "continue_from"),
        ({"image_size": 4}, "image_size"),
        ({"approval_seconds": 0}, "approval_seconds"),
        ({"models": ("ngram",), "seconds": 5}, "ngram is not trained by steps"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused_by_name(
    workshop: Workshop, settings: dict[str, Any], message: str
) -> None:
    before = len(client().search_runs([tracking_experiment()]))

    ended = workshop.run(**settings)

    assert ended.is_failed()
    assert message in str(ended.message)
    assert len(client().search_runs([tracking_experiment()])) == before
