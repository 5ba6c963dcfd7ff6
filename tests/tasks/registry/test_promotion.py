"""Aliases: promoted, refused, rolled back, killed half way, sabotaged; a real registry on disk."""

import html
import json
import multiprocessing
import os
import runpy
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from flows.train import planned
from models.ngram.config import NgramConfig
from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.packaging import load_check
from tasks.packaging import package as packaging
from tasks.packaging.bundled_code import package_name
from tasks.packaging.files import PackageChanged
from tasks.packaging.load_check import LoadCheckFailed
from tasks.registry import (
    audit_anchor,
    audit_history,
    audit_log,
    promotion,
    registration,
    verification,
)
from tasks.registry.champion import evaluate_champion
from tasks.registry.promotion_policy import gate
from tasks.registry.verdicts import apply_decision
from tasks.registry.versions import Version, champion_of, find_version, versions_of
from tasks.samples.comparison import show_difference
from tasks.samples.html_page import page
from tasks.samples.sampling import draw_samples
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.provenance import TrainingProvenance, provenance_of

pytestmark = pytest.mark.slow

CODE = package_name()
NAME = "corpus-ngram"


@dataclass(frozen=True)
class Candidate:
    """A judged n-gram model."""

    fitted: TrainedModel
    scorecard: Scorecard
    recipe: TrainingProvenance
    tokens: TokenSet


Admit = Callable[[Candidate], Version]


def candidate_of(tokens: TokenSet, order: int) -> Candidate:
    settings = {"model": NgramConfig(order=order), "tuning": None}
    plan = replace(planned(FAMILIES["ngram"], tokens, "quick", 0, {}), settings=settings)
    with open_run(f"order {order}") as run_id:
        fitted = fit_model.fn(tokens, plan, run_id)
        scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
    recipe = provenance_of(plan, tokens, "quick")
    return Candidate(fitted, scorecard, recipe, tokens)


def judged(candidate: Candidate) -> tuple[ChampionEvaluation | None, PromotionDecision]:
    incumbent = evaluate_champion.fn(NAME, candidate.tokens, FAMILIES["ngram"])
    return incumbent, gate.fn(candidate.fitted, candidate.scorecard, incumbent)


@pytest.fixture(scope="session", name="admit")
def checked_admit(admit: Callable[..., Version]) -> Admit:
    """Judge, register, load in a clean process, promote: the way of the flows."""

    def by_flow(candidate: Candidate) -> Version:
        parts = (candidate.fitted, candidate.scorecard, candidate.recipe, candidate.tokens)
        return admit(*parts, checks_load=True)

    return by_flow


def write_corpus(path: Path) -> Path:
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(words[(i * k + k) % 10] for k in range(1, 10)) + "." for i in range(320)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def first_home(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, admit: Admit
) -> Iterator[Path]:
    """A registry with two champions, one after the other; tests work on copies of its records."""
    home = tmp_path_factory.mktemp("promotion")
    shutil.copy(migrated_database, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        use(home, patch)
        tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{write_corpus(home / 'corpus.txt')}"))
        for order in (1, 3):
            admit(candidate_of(tokens, order))
        candidate_of(tokens, 2)  # trained and judged, not registered
    yield home


def use(home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ATELIER_HOME", str(home))
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    patch.delenv("PREFECT_API_URL", raising=False)
    patch.chdir(home)


@pytest.fixture
def home(first_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same registry and audit log, to change at will; files of versions are shared."""
    copy = tmp_path / "home"
    shutil.copytree(first_home, copy, ignore=shutil.ignore_patterns("mlruns", "mlartifacts"))
    use(copy, monkeypatch)
    return copy


@pytest.fixture
def tokens(home: Path, first_home: Path) -> TokenSet:
    return tokenize_corpus.fn(ingest_text.fn(f"file:{first_home / 'corpus.txt'}"))


def champion() -> int:
    found = champion_of(NAME)
    assert found is not None
    return int(found.version)


def state() -> tuple[list[int], dict[str, int], int]:
    """What a reader of the registry sees, and how long the audit log is."""
    aliases = client().get_registered_model(NAME).aliases
    numbers = [int(version.version) for version in versions_of(NAME)]
    return numbers, {k: int(v) for k, v in aliases.items()}, len(promotion.history(NAME))


def content_of(number: int) -> str:
    return str(client().get_model_version(NAME, str(number)).tags["content_digest"])


def test_a_better_model_was_promoted_and_the_audit_log_tells_why(home: Path) -> None:
    first, second = promotion.history(NAME)

    assert champion() == 2
    assert (first.from_version, first.to_version) == (None, 1)
    assert first.why == "the first version that passed the checks"
    assert (second.from_version, second.to_version) == (1, 2)
    assert second.why.startswith("better: ")
    low, high = second.evidence["difference_interval"]
    assert low < second.evidence["difference"] < high < 0
    assert set(second.digests) == {"content", "data", "code", "judge", "recipe", "package"}
    version = versions_of(NAME)[1]
    assert version.tags["package_digest"] == second.digests["package"]
    assert version.tags["content_digest"] == second.digests["content"]
    assert version.tags["state"] == "complete"
    assert version.tags["load_check"] == "passed"


def test_the_page_of_the_model_says_who_is_champion_since_when(home: Path) -> None:
    model = client().get_registered_model(NAME)

    assert "Champion: version 2**, since 20" in model.description
    assert model.tags["champion_version"] == "2"


def test_a_worse_model_is_refused_registered_and_challenger(
    home: Path, tokens: TokenSet, admit: Admit
) -> None:
    version = admit(candidate_of(tokens, 2))

    assert version.alias == "challenger"
    numbers, aliases, length = state()
    assert (numbers, aliases, length) == ([1, 2, 3], {"champion": 2, "challenger": 3}, 3)
    refusal = promotion.history(NAME)[-1]
    assert (refusal.kind, refusal.to_version) == ("refused", 3)
    assert refusal.why.startswith("not better: ")
    assert admit(candidate_of(tokens, 2)).version == 3  # again: nothing new to tell
    assert len(promotion.history(NAME)) == 3


def test_a_verdict_on_a_champion_that_has_moved_moves_nothing(
    home: Path, tokens: TokenSet, admit: Admit
) -> None:
    """As when two runs are judged at once, or a person rolls back while another is asked."""
    promotion.rollback(NAME)
    candidate = candidate_of(tokens, 2)
    incumbent, verdict = judged(candidate)
    assert verdict.accepted
    assert verdict.champion_version == 1
    version = registration.register_version.fn(
        candidate.fitted, candidate.scorecard, verdict, candidate.recipe, incumbent
    )
    promotion.promote(NAME, 2, "it is the better one")
    before = state()

    assert apply_decision.fn(version, verdict) is None

    assert state() == before
    again = admit(candidate)  # judged against version 2 now
    assert (again.version, again.alias) == (3, "challenger")
    assert champion() == 2


def test_two_first_versions_at_once_do_not_replace_each_other(home: Path, tokens: TokenSet) -> None:
    client().delete_registered_model_alias(NAME, "champion")
    verdicts = {}
    for order in (4, 5):  # what has lost the name would not come back by itself
        verdicts[order] = judged(candidate_of(tokens, order))[1]
        assert verdicts[order].reason == "the first version that passed the checks"
    first, second = candidate_of(tokens, 4), candidate_of(tokens, 5)

    versions = [
        registration.register_version.fn(c.fitted, c.scorecard, verdict, c.recipe, None)
        for c, verdict in ((first, verdicts[4]), (second, verdicts[5]))
    ]
    assert apply_decision.fn(versions[0], verdicts[4]) is not None
    assert apply_decision.fn(versions[1], verdicts[5]) is None

    assert champion() == versions[0].version


def test_rollback_goes_to_the_champion_before_and_the_gate_does_not_undo_it(
    home: Path, tokens: TokenSet
) -> None:
    assert promotion.rollback(NAME, reason="it swears") == (2, 1)

    assert champion() == 1
    _, verdict = judged(candidate_of(tokens, 3))
    assert verdict == PromotionDecision(accepted=False, reason="withdrawn by hand: it swears")
    last = promotion.history(NAME)[-1]
    assert (last.action, last.from_version, last.to_version) == ("rollback", 2, 1)
    assert "Champion: version 1**" in client().get_registered_model(NAME).description

    assert promotion.promote(NAME, 2, "it does not, after all") == (1, 2)

    assert champion() == 2
    assert promotion.history(NAME)[-1].action == "override"


def test_what_cannot_be_moved_is_named_in_one_line(home: Path) -> None:
    for call, message in (
        (
            lambda: promotion.rollback("corpus-gpt"),
            "no model is named 'corpus-gpt' .*; there are: corpus-ngram",
        ),
        (lambda: promotion.rollback(NAME, 9), "has no version 9; there are: 1, 2"),
        (lambda: promotion.promote(NAME, 2, "again"), "version 2 is the champion of .* already"),
    ):
        with pytest.raises(BadInput, match=message):
            call()
    promotion.rollback(NAME)
    with pytest.raises(BadInput, match="first champion of corpus-ngram: there is none before it"):
        promotion.rollback(NAME)


def test_both_champions_write_from_the_same_seed_and_the_gallery_shows_it(home: Path) -> None:
    folder = Path(show_difference.fn(NAME, 1, 2))

    made = json.loads((folder / "comparison.json").read_text())
    first, second = (text["text"] for text in made["texts"])
    assert [text["version"] for text in made["texts"]] == [1, 2]
    assert first != second
    again = json.loads((Path(show_difference.fn(NAME, 1, 2)) / "comparison.json").read_text())
    assert again == made
    gallery = str(home / "gallery" / "test")
    work = draw_samples.fn(NAME, gallery)
    assert [caption.partition(",")[0] for _, caption in work.differences] == [
        "version 1",
        "version 2",
    ]
    shown = page([work])
    assert "What changed with this version" in shown
    assert html.escape(first[:40]) in shown


def test_an_alias_that_somebody_else_moved_is_noted(home: Path) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")

    last = promotion.history(NAME)[-1]

    assert (last.action, last.from_version, last.to_version) == ("outside", 2, 1)
    assert last.who == "unknown"


def test_a_move_that_another_home_has_told_keeps_its_reason(home: Path) -> None:
    promotion.rollback(NAME, reason="it swears")
    path = audit_log.log_path(NAME)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))  # as elsewhere
    for tag in audit_anchor.model_tags(NAME) or {}:
        if tag.startswith(audit_anchor.ANCHOR_TAG):
            client().delete_registered_model_tag(NAME, tag)
    audit_anchor.anchor(NAME)

    last = promotion.history(NAME)[-1]

    assert (last.action, last.from_version, last.to_version) == ("outside", 2, 1)
    assert "(it swears)" in client().get_registered_model(NAME).description


def test_an_alias_that_somebody_took_away_is_noted_once(home: Path, tokens: TokenSet) -> None:
    client().delete_registered_model_alias(NAME, "champion")

    for _ in range(2):
        moves = promotion.history(NAME)
        assert [(move.action, move.to_version) for move in moves[2:]] == [("outside", None)]
    assert "No champion**, since 20" in client().get_registered_model(NAME).description
    assert "taken away" in promotion.withdrawal_reason(
        NAME, content_of(2)
    )  # so no run brings it back by itself
    with pytest.raises(BadInput, match="has no champion to roll back from"):
        promotion.rollback(NAME)
    assert promotion.promote(NAME, 2, "back to it") == (None, 2)
    assert promotion.withdrawal_reason(NAME, content_of(2)) == ""
    assert "Champion: version 2**" in client().get_registered_model(NAME).description
    assert promotion.rollback(NAME, reason="to the one before") == (2, 1)


def test_a_model_that_somebody_deleted_is_noted_and_stops_nothing(home: Path) -> None:
    content = content_of(2)
    client().delete_registered_model(NAME)

    for _ in range(2):
        last = promotion.history(NAME)[-1]

        assert (last.action, last.from_version, last.to_version) == ("lost", 2, None)
        assert last.evidence == {"gone": [1, 2]}
        assert len(promotion.history(NAME)) == 3
    assert promotion.withdrawal_reason(NAME, content) == ""  # nobody has left it by hand


def test_a_long_reason_is_cut_on_the_page_and_whole_in_the_audit_log(home: Path) -> None:
    reason = "because " * 700

    promotion.rollback(NAME, reason=reason)

    assert len(client().get_registered_model(NAME).description) < 2000
    assert promotion.history(NAME)[-1].why == reason


def test_a_person_may_go_back_to_what_draws_otherwise_with_new_libraries(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of another digest than was recorded, from files that are the recorded ones."""
    record = json.loads(client().get_model_version(NAME, "1").tags["record"])
    told = json.dumps({**record, "samples_digest": "0" * 64})
    client().set_model_version_tag(NAME, "1", "record", told)

    assert promotion.rollback(NAME, reason="it swears") == (2, 1)

    last = audit_log.entries_of(NAME)[-2]
    assert (last.kind, last.to_version) == ("intent", 1)
    assert "its samples have the digest" in last.evidence["load_check"]


def swap_weights(package: Path) -> None:
    """Give a package the weights of nobody: the same tensors, counts doubled."""
    from safetensors.torch import load_file, save_file

    path = package / "artifacts" / "weights.safetensors"
    tensors = {k: v.flip(0).contiguous() for k, v in load_file(path).items()}
    path.unlink()
    save_file(tensors, path)


def alter_code(package: Path) -> None:
    """Let the packaged code do something more, which no sample shows."""
    path = package / "code" / CODE / "text" / "decoding.py"
    path.write_text(path.read_text() + "\nSENT_HOME = True\n")


def break_code(package: Path) -> None:
    (package / "code" / CODE / "ngram" / "model.py").write_text("raise RuntimeError('gone')\n")


SABOTAGE = [
    (swap_weights, "loaded: artifacts/weights.safetensors was changed .sha256"),
    (alter_code, f"loaded: code/{CODE}/text/decoding.py was changed"),
    (break_code, f"loaded: code/{CODE}/ngram/model.py was changed"),
]


@pytest.mark.parametrize(
    ("sabotage", "message"), SABOTAGE, ids=lambda value: getattr(value, "__name__", str(value))[:24]
)
def test_a_sabotaged_package_is_refused_and_leaves_no_trace(
    home: Path,
    tokens: TokenSet,
    monkeypatch: pytest.MonkeyPatch,
    sabotage,
    message: str,
    admit: Admit,
) -> None:
    candidate, before = candidate_of(tokens, 2), state()

    log_package = packaging.log_package

    def log_and_sabotage(fitted: TrainedModel, kind: str):
        info = log_package(fitted, kind)
        sabotage(Path(local_file_uri_to_path(info.artifact_path)))
        return info

    monkeypatch.setattr(packaging, "log_package", log_and_sabotage)

    with pytest.raises(PackageChanged, match=message):
        admit(candidate)

    assert state() == before
    assert find_version(NAME, candidate.fitted.digest) is None
    monkeypatch.undo()
    use(home, monkeypatch)
    assert admit(candidate).is_new


def test_a_package_that_never_loads_is_refused_after_a_time_and_blocks_nobody(
    home: Path, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch, admit: Admit
) -> None:
    candidate, before = candidate_of(tokens, 2), state()

    def hang(pending: Any, files: Any) -> Any:
        @contextmanager
        def changed() -> Iterator[Path]:
            with verification.fetched(pending, files) as folder:
                code = folder / "code" / CODE / "ngram" / "model.py"
                code.write_text("import time\ntime.sleep(3600)\n")
                yield folder

        return changed()

    monkeypatch.setattr(registration, "fetched", hang)
    monkeypatch.setattr(load_check, "SECONDS_TO_LOAD", 3.0)
    with pytest.raises(LoadCheckFailed, match="has not loaded and drawn within 3 s"):
        admit(candidate)

    assert state() == before
    monkeypatch.undo()
    use(home, monkeypatch)
    assert admit(candidate).is_new  # by a clean process that took the place of the one that hung


def test_a_version_that_no_longer_loads_cannot_be_made_champion(
    home: Path, first_home: Path, tmp_path: Path
) -> None:
    source = client().get_model_version(NAME, "1").source
    address = client().get_logged_model(source.rpartition("/")[2]).artifact_location
    package = Path(local_file_uri_to_path(address))
    kept = tmp_path / "kept"
    shutil.copytree(package, kept)
    try:
        swap_weights(package)
        changed = "version 1 is not what was registered, .*: artifacts/weights.safetensors was"
        with pytest.raises(PackageChanged, match=changed):
            promotion.rollback(NAME)
    finally:
        shutil.rmtree(package)
        shutil.copytree(kept, package)
    assert champion() == 2


KILLED = """
import json, os, signal

os.environ.update(environment)
os.chdir(folder)
from tasks.registry import promotion, registration, verdicts
from tasks.training.fit import fit_model
from tasks.training.provenance import TrainingProvenance
from tasks.evaluation.scorecard import Scorecard, PromotionDecision
from tasks.training.fit_store import TrainedModel

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

receipts = json.loads(receipts)
fitted, scorecard, verdict, recipe = (
    kind(**receipts[kind.__name__])
    for kind in (TrainedModel, Scorecard, PromotionDecision, TrainingProvenance)
)
# Elsewhere it is left out: it would import in a process that nobody ends.
registration.check_loads = die if where == "before the check" else lambda *a, **k: None
version = registration.register_version.fn(fitted, scorecard, verdict, recipe)
real = promotion.audit_log.append
if where == "before the alias":
    promotion.audit_log.append = lambda *a, **k: (real(*a, **k), die())
if where == "after the alias":
    promotion._publish_move = die
verdicts.apply_decision.fn(version, verdict)
"""


def kill(candidate: Candidate, where: str, tmp_path: Path) -> None:
    """Register and promote in a process that is killed at one point.

    It is forked from one that has imported everything, as those of test_resuming.py are.
    """
    accepted = PromotionDecision(accepted=True, reason="for the test", champion_version=champion())
    parts = (candidate.fitted, candidate.scorecard, accepted, candidate.recipe)
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    given = {
        "receipts": json.dumps({type(part).__name__: asdict(part) for part in parts}),
        "where": where,
        "environment": dict(os.environ),
        "folder": str(tmp_path),
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.fits_imports"])
    process = context.Process(target=runpy.run_path, args=(str(program), given), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["before the check", "before the alias"])
def test_a_kill_between_register_and_alias_changes_nothing_that_a_reader_sees(
    home: Path, tokens: TokenSet, tmp_path: Path, where: str, admit: Admit
) -> None:
    candidate = candidate_of(tokens, 2)
    _, aliases, length = state()

    kill(candidate, where, tmp_path)

    numbers, aliases_now, length_now = state()
    assert (aliases_now, length_now) == (aliases, length)
    assert champion() == 2
    if where == "before the check":
        assert numbers == [1, 2]  # the third is pending, and no reader sees it
        with pytest.raises(BadInput, match="has no version 3"):
            promotion.promote(NAME, 3, "it is not complete")
    version = admit(candidate)
    assert version.version == 3  # the same version, completed
    assert len(client().search_model_versions(f"name = '{NAME}'")) == 3
    assert state() == ([1, 2, 3], {"champion": 2, "challenger": 3}, length + 1)


def test_a_move_that_was_killed_after_the_alias_is_settled_by_the_next_reader(
    home: Path, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[tuple[str, dict[str, Any]]] = []
    kill(candidate_of(tokens, 2), "after the alias", tmp_path)
    assert audit_history.unsettled(audit_log.entries_of(NAME)) is not None
    monkeypatch.setattr(
        promotion, "_emit", lambda what, _, payload: announced.append((what, payload))
    )

    last = promotion.history(NAME)[-1]

    (told,) = announced
    assert told == (
        "atelier.model.promoted",
        {"previous": 2, "reason": "for the test", "action": "promote"},
    )

    assert champion() == 3
    assert (last.action, last.from_version, last.to_version) == ("promote", 2, 3)
    assert audit_history.unsettled(audit_log.entries_of(NAME)) is None
    assert "Champion: version 3**" in client().get_registered_model(NAME).description
