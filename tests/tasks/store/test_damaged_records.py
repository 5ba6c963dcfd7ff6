"""Every record that the project reads, damaged in every way: named, worked around, no traceback."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save

from atelier.__main__ import main
from atelier.services import server_records
from flows.train import planned
from models.ngram.config import NgramConfig
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.evaluation.scorecard import PromotionDecision
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.registry import audit_log
from tasks.registry.registration import register_version
from tasks.registry.verdicts import apply_decision
from tasks.registry.versions import recorded
from tasks.store.files import digest_of, home, write_json
from tasks.store.records import DamagedRecord
from tasks.store.steps import history
from tasks.tracking.metric_queue import MetricQueue, flush_run
from tasks.tracking.mlflow_client import client, metric_history
from tasks.tracking.runs import close_dead_runs, open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import load_cached_fit, open_fit
from tasks.training.plan import TrainingPlan
from tasks.training.provenance import provenance_of

pytestmark = pytest.mark.slow

NAME = "corpus-ngram"


def _json(value: object) -> Callable[[Path], None]:
    return lambda path: _replaced(path, json.dumps(value).encode() + b"\n")


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: _replaced(path, content)


def _replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("something")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _each_value(other: object) -> Callable[[Path], None]:
    """Every value of every object in the file becomes something else."""

    def changed(value: Any) -> Any:
        return dict.fromkeys(value, other) if isinstance(value, dict) else other

    def damage(path: Path) -> None:
        content = path.read_text()
        texts = content.splitlines() if path.suffix == ".jsonl" else [content]
        path.write_text("\n".join(json.dumps(changed(json.loads(text))) for text in texts) + "\n")

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "text": _bytes(b"once upon a time\n"),
    "empty": _bytes(b""),
    "binary": _bytes(bytes(range(256)) * 9),
    "utf-16": lambda path: _replaced(path, path.read_text().encode("utf-16")),
    "latin-1": _bytes('{"n\xe4me": "\xe9"}\n'.encode("latin-1")),
    "deep": _bytes(b"[" * 100_000 + b"\n"),
    "truncated": _truncated,
    "list": _json([1, 2]),
    "list of objects": _json([{"name": 1}]),
    "string": _json("a word"),
    "number": _json(5),
    "null": _json(None),
    "no key": _json({}),
    "other keys": _json({"a": {"b": 1}}),
    "state alone": _json({"state": "made"}),
    "null values": _each_value(None),
    "string values": _each_value("x"),
    "number values": _each_value(-1),
    "huge values": _each_value(10**400),
    "list values": _each_value([None]),
    "object values": _each_value({"a": 1}),
    "folder": _folder,
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@dataclass(frozen=True)
class Template:
    """A home in which one model was made, and its registry."""

    home: Path
    database: Path
    run_id: str


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Template:
    place = tmp_path_factory.mktemp("template")
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    random = np.random.default_rng(1)
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(320)]
    (place / "corpus.txt").write_text("\n".join(lines) + "\n")
    shutil.copy(migrated_database, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(place / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
        patch.chdir(place)
        tokens = _tokens(place)
        with open_run("made", key="made") as run_id:
            plan = _plan(tokens)
            fitted = fit_model.fn(tokens, plan, run_id)
            scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
            recipe = provenance_of(plan, tokens, "quick")
            verdict = PromotionDecision(accepted=True, reason="the first")
            version = register_version.fn(fitted, scorecard, verdict, recipe)
            apply_decision.fn(version, verdict)
        write_json(place / "home" / "servers.json", {})
        kept = place / "home" / "journals" / run_id
        kept.mkdir(parents=True)
        line = {"name": "loss", "value": 0.5, "time": 1_700_000_000_000, "step": 3}
        (kept / "training.jsonl").write_text(json.dumps(line) + "\n")
        write_json(kept / "training.sent", {"bytes": 0})
    return Template(place / "home", place / "mlflow.db", run_id)


def _plan(tokens: TokenSet) -> TrainingPlan:
    settings = {"model": NgramConfig(order=3), "tuning": None}
    return replace(planned(FAMILIES["ngram"], tokens, "quick", 0, {}), settings=settings)


def _tokens(place: Path) -> TokenSet:
    from tasks.data.ingestion import ingest_text

    return tokenize_corpus.fn(ingest_text.fn(f"file:{place / 'corpus.txt'}"))


@pytest.fixture
def made(template: Template, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Template:
    """It for one test, put back afterwards."""
    kept, database = tmp_path / "kept", tmp_path / "kept.db"
    shutil.copytree(template.home, kept)
    shutil.copy(template.database, database)
    monkeypatch.setenv("ATELIER_HOME", str(template.home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{template.database}")
    monkeypatch.chdir(template.home.parent)
    yield template
    shutil.rmtree(template.home)
    shutil.copytree(kept, template.home)
    shutil.copy(database, template.database)


RECORDS = {
    "step": "steps/corpus-ngram.jsonl",
    "step of data": "steps/corpus-text.jsonl",
    "servers": "servers.json",
    "audit log": "ledger/corpus-ngram.jsonl",
    "journal": "journals/*/training.jsonl",
    "journal's mark": "journals/*/training.sent",
    "manifest of a fit": "artifacts/models/corpus-ngram/*/manifest.json",
    "manifest of a text": "artifacts/corpora/*/*/manifest.json",
    "manifest of tokens": "artifacts/tokens/*/*/manifest.json",
    "manifest of an evaluation": "artifacts/evaluations/*/*/manifest.json",
    "configuration": "artifacts/models/corpus-ngram/*/config.json",
}
READERS: dict[str, tuple[list[str], ...]] = {
    "step": (["explain"], ["explain", NAME], ["gc"]),
    "step of data": (["explain"], ["explain", "corpus-text"], ["gc"]),
    "servers": (["status"], ["gc"], ["history"]),
    "audit log": (["history"], ["history", NAME], ["gc"]),
    **{name: (["gc"],) for name in RECORDS if name.startswith("manifest")},
}
"""Which commands read a record."""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("record", READERS)
def test_the_commands_that_read_it_survive_every_damage(
    made: Template, record: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = made.home.glob(RECORDS[record])
    DAMAGES[damage](path)

    for command in READERS[record]:
        code = main(command)
        said = capsys.readouterr()
        assert code in (0, 2), (command, said)
        assert code == 0 or "corpus-" in said.out + said.err, (command, said)
        if record.startswith("step") and damage != "empty":  # an empty one says that nothing ran
            assert str(path) in said.out + said.err, (command, said)


DIFFERENT = ("text", "empty", "truncated", "list", "no key", "string values", "folder")


@pytest.mark.parametrize("damage", DIFFERENT)
@pytest.mark.parametrize("record", [name for name in RECORDS if name != "audit log"])
def test_what_is_damaged_is_made_again(made: Template, record: str, damage: str) -> None:
    """The whole way of a run, without its servers: the same weights, the same numbers."""
    (path,) = made.home.glob(RECORDS[record])
    before = recorded(NAME, "champion")[0]
    DAMAGES[damage](path)

    close_dead_runs()
    tokens = _tokens(made.home.parent)
    with open_run("again", key="again") as run_id:
        fitted = fit_model.fn(tokens, _plan(tokens), run_id)
        scorecard = evaluate_tokens.fn(fitted, tokens, run_id)

    assert fitted.digest == before.digest
    assert scorecard.main_value == before.main_value
    again = fit_model.fn(tokens, _plan(tokens), made.run_id)
    assert again.was_stored
    assert (made.home / "steps" / f"{NAME}.jsonl").is_file()


@pytest.mark.parametrize("metrics", [{}, None, [], {"other": 1.0}, {"test_bits_per_byte": "x"}])
def test_an_evaluation_of_another_shape_is_measured_again(made: Template, metrics: object) -> None:
    """Its seal is right: another version of this project may have written it."""
    (path,) = made.home.glob(RECORDS["manifest of an evaluation"])
    reseal(path, metrics=metrics)

    tokens = _tokens(made.home.parent)
    with open_run("again", key="again") as run_id:
        fitted = fit_model.fn(tokens, _plan(tokens), run_id)
        scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
    assert not scorecard.was_stored
    assert scorecard.main_value == recorded(NAME, "champion")[0].main_value


def reseal(path: Path, **changed: object) -> None:
    """Change what a manifest records, and seal it again."""
    plain = json.loads(path.read_text())
    del plain["seal"]
    plain["record"] |= changed
    path.unlink()
    write_json(path, {**plain, "seal": digest_of(plain)})


@pytest.mark.parametrize("changed", [{"seed": "x"}, {"seconds": None}, {"num_parameters": 1.5}])
def test_a_sealed_fit_of_another_shape_is_made_again(
    made: Template, changed: dict[str, object]
) -> None:
    (path,) = made.home.glob(RECORDS["manifest of a fit"])
    reseal(path, **changed)

    with open_run("again", key="again") as run_id:
        tokens = _tokens(made.home.parent)
        fitted = fit_model.fn(tokens, _plan(tokens), run_id)

    assert not fitted.was_stored
    (said,) = history(NAME)[-1].reasons
    assert str(path) in said
    assert next(iter(changed)) in said


def test_a_checkpoint_of_another_shape_is_not_resumed(tokens: TokenSet, run_id: str) -> None:
    """Its digest is right: only what it says is not what is asked."""
    import torch

    from models.training.checkpoint import TrainingState
    from tasks.training.checkpointing import _digest_of_state, _resume

    for record in ({}, [], None, {"step": "x", "optimizers": 5, "controls": {}, "seconds": 1}):
        with open_fit(_plan(tokens), tokens, run_id) as place:
            module = torch.nn.Linear(2, 2)
            state = TrainingState({"model": module}, {"all": torch.optim.Adam(module.parameters())})
            before = module.weight.clone()
            tensors = {f"module/model/{k}": v * 0 + 9 for k, v in module.state_dict().items()}
            text = json.dumps(record)
            metadata = {"record": text, "sha256": _digest_of_state(tensors, text)}
            place.folder.mkdir(parents=True, exist_ok=True)
            place.checkpoint_path.write_bytes(save(tensors, metadata=metadata))

            _resume(state, place)

            assert not place.checkpoint_path.exists()
            assert torch.equal(module.weight, before)
            assert (state.step, state.seconds) == (0, 0.0)
            assert load_cached_fit(place) is None


@damaged
def test_numbers_before_and_after_damage_arrive(
    run_id: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    kept = MetricQueue(run_id)
    kept.add(1, {"loss": 1.0})
    kept.close()
    folder = home() / "journals" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "training.jsonl"
    line = {"name": "loss", "value": 2.0, "time": 1_700_000_000_000, "step": 2}
    path.write_text(json.dumps(line) + "\n")
    damage(path)
    if path.is_file() and path.read_bytes():
        good = json.dumps({**line, "step": 3}).encode()
        path.write_bytes(path.read_bytes().rstrip(b"\n") + b"\n" + good + b"\n")
        expected = [1, 3]
    else:
        expected = [1]

    flush_run(run_id)

    steps = [step for step, _ in metric_history(run_id, "loss")]
    assert [step for step in steps if step not in (-1, 2)] == expected
    assert not path.exists()


@pytest.mark.parametrize("sent", [-5, 10**9, 10**400, "x", None, 1.5])
def test_a_mark_that_cannot_be_right_counts_as_nothing_sent(run_id: str, sent: object) -> None:
    folder = home() / "journals" / run_id
    line = {"name": "loss", "value": 2.0, "time": 1_700_000_000_000, "step": 2}
    folder.mkdir(parents=True)
    (folder / "training.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "training.sent").write_text(json.dumps({"bytes": sent}))

    flush_run(run_id)
    assert metric_history(run_id, "loss") == [(2, 2.0)]


TAGS: dict[str, tuple[str, ...]] = {
    "recipe": ("", "x", "[]", "null", "{}", '{"family": 5}', "[" * 4000),
    "main_value": ("", "x", "[]", "null"),
    "content_digest": ("",),
    "main_metric": ("",),
    "comparison": ("", "x", "x y", "a b c"),
    "metrics": ("", "x", "[]"),
}


@pytest.mark.parametrize(("tag", "value"), [(t, v) for t, values in TAGS.items() for v in values])
def test_a_damaged_tag_of_a_version_is_named(
    made: Template, tag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = client()
    if value:
        registry.set_model_version_tag(NAME, "1", tag, value)
    elif tag in registry.get_model_version(NAME, "1").tags:
        registry.delete_model_version_tag(NAME, "1", tag)

    assert main(["history"]) == 0
    assert main(["gc"]) in (0, 2)
    try:
        version, recipe = recorded(NAME, "champion")
    except DamagedRecord as error:
        assert f"{NAME} version 1: its tag {tag}" in str(error)
        assert "\n" not in str(error)
    else:
        assert version.version == 1
        assert recipe is not None or (tag, value) == ("recipe", "")
        assert (tag == "main_value") == np.isnan(version.main_value)


@pytest.mark.parametrize("told", ["", "x", "-1", "None", "[1]", "1.5"])
def test_a_damaged_page_of_a_model_is_written_again(
    made: Template, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client().set_registered_model_tag(NAME, "champion_version", told)
    assert main(["history", NAME]) == 0


@pytest.mark.parametrize("owner", ["", "x", "a:b:c", "host:1", f"x:{10**40}:1", ":::", "a:-5:nan"])
def test_an_unreadable_owner_of_a_run_is_nobody_of_ours(made: Template, owner: str) -> None:
    with open_run("theirs", key="theirs") as run_id:
        client().set_tag(run_id, "atelier.process", owner)
        client().set_tag(run_id, "atelier.attempts", owner)
        assert close_dead_runs() == []


@damaged
def test_servers_that_run_are_found_again_where_their_record_is_damaged(
    atelier_home: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    import psutil

    one = server_records.Server(
        "mlflow", "http://127.0.0.1:9", 9, os.getpid(), psutil.Process().create_time()
    )
    atelier_home.mkdir()
    server_records.record({"mlflow": one})
    monkeypatch.setattr(server_records, "found_servers", lambda: {"mlflow": one})
    path = atelier_home / "servers.json"
    assert server_records.recorded() == {"mlflow": one}
    damage(path)

    found = server_records.recorded()

    assert found in ({"mlflow": one}, {})
    assert found or json.loads(path.read_text()) in ({}, {"mlflow": 1})
    aside = list(atelier_home.glob("servers.json.damaged-*"))
    assert len(aside) <= 1
    assert path.is_file()


@pytest.mark.parametrize("line", [[], {}, None, 5, "x", {"number": 1, "digests": None}])
def test_a_damaged_line_of_an_audit_log_is_told_with_its_number(
    made: Template, line: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = audit_log.log_path(NAME)
    path.write_text(json.dumps(line) + "\n" + path.read_text())

    for command in (["history", NAME], ["gc"], ["gc", "--yes"]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert f"{path}: line 1" in said.out + said.err
    assert digest_of(line)  # and nothing was written to it
    assert path.read_text().startswith(json.dumps(line))
