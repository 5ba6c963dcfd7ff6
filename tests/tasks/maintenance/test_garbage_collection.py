"""Nothing that is referred to is ever garbage, whatever the home holds."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.maintenance.garbage_collection import delete, find_garbage
from tasks.runtime.processes import this_process
from tasks.samples.cache import fresh_folder, gallery_work, keep_gallery
from tasks.store.files import digest_of
from tasks.store.steps import recorded

DAY = 86_400.0
LATER = time.time() + 2 * 3600  # when what these tests do is no longer news


@dataclass
class Home:
    """A home under construction."""

    root: Path

    def folder(self, name: str, digest: str | None, days: float = 0.0) -> Path:
        path = self.root / name
        path.mkdir(parents=True)
        (path / "file").write_text(name)
        if digest is not None:
            (path / "receipt.json").write_text(json.dumps({"receipt": {"digest": digest}}))
        for file in [*path.iterdir(), path]:
            os.utime(file, (time.time() - days * DAY,) * 2)
        return path

    def fit(self, settings: int, inputs: str, digest: str | None, days: float = 0.0) -> Path:
        parts = {"settings": settings, "inputs": [inputs]}
        with recorded("digits-vae", parts):
            pass
        return self.folder(f"runs/digits-vae/{digest_of(parts)[:16]}", digest, days)

    @contextmanager
    def tokenizing(self, settings: int) -> Iterator[set[Path]]:
        """A step that makes tokens of a corpus of its own; gives both folders."""
        parts = {"settings": settings, "inputs": [f"corpus {settings}"]}
        with recorded("tale-bpe", parts):
            yield {
                self.folder(f"data/text/tale-{settings}", f"corpus {settings}"),
                self.folder(f"data/tokens/tale-bpe-{digest_of(parts)[:12]}", f"tokens {settings}"),
            }

    @contextmanager
    def drawing(self, settings: int, days: float) -> Iterator[Path]:
        """A step that draws a gallery; gives its folder."""
        parts = {"settings": settings, "inputs": []}
        with recorded("gallery", parts):
            yield self.folder(f"gallery/{digest_of(parts)[:16]}", None, days)


@contextmanager
def owned_by_the_dead() -> Iterator[None]:
    """Steps in this block were begun by a process that has ended."""
    with pytest.MonkeyPatch.context() as patch:
        dead = this_process().rsplit(":", 1)[0] + ":1"
        patch.setattr("tasks.store.steps.this_process", lambda: dead)
        yield


@pytest.fixture
def own(atelier_home: Path) -> Home:
    atelier_home.mkdir()
    return Home(atelier_home)


def found(*digests: str) -> set[Path]:
    return {each.path for each in find_garbage(digests, LATER)}


def test_a_fit_is_kept_by_its_alias_or_by_being_the_latest(own: Home) -> None:
    champion = own.fit(1, "data", "aaa")
    forgotten = own.fit(2, "data", "bbb")
    latest = own.fit(3, "data", "ccc")

    assert found("aaa") == {forgotten}
    assert champion.exists()
    assert latest.exists()


def test_a_fit_at_work_is_kept(own: Home) -> None:
    parts = {"settings": 0, "inputs": []}
    with recorded("digits-vae", parts):
        at_work = own.folder(f"runs/digits-vae/{digest_of(parts)[:16]}", None, days=90)
        own.fit(1, "data", "aaa")
        assert at_work not in found()
    assert at_work in found()


def test_an_interrupted_fit_is_kept_for_a_month(own: Home) -> None:
    young = own.fit(1, "data", None, days=20)
    old = own.fit(2, "data", None, days=40)
    own.fit(3, "data", "ccc")

    assert found() == {old}
    assert young.exists()


def test_data_is_kept_by_models_made_of_it_through_tokens_too(own: Home) -> None:
    token_parts = {"settings": "characters", "inputs": ["corpus"]}
    with recorded("tale-characters", token_parts):
        pass
    with recorded("tale-characters", {"settings": "bpe", "inputs": ["later corpus"]}):
        pass
    tokens = own.folder(f"data/tokens/tale-characters-{digest_of(token_parts)[:12]}", "tokens")
    corpus = own.folder("data/text/tale-1", "corpus")
    unused = own.folder("data/text/tale-2", "draft")
    images = own.folder("data/images/digits-1", "images")
    own.fit(1, "tokens", "aaa")
    own.fit(2, "other", "bbb")

    assert found("aaa") == {unused, images}
    assert tokens.exists()
    assert corpus.exists()


def test_tokens_that_no_model_was_made_of_yet_are_kept_with_their_corpus(
    tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "edited" / "corpus.txt"
    edited.parent.mkdir()
    edited.write_text("Another story altogether.\n" * 500)
    assert found() == set()  # their run still trains on images

    with owned_by_the_dead():
        later = tokenize_corpus.fn(ingest_text.fn(f"file:{edited}"))
    assert later.name == tokens.name
    assert found() == set()  # their run goes on, though a later one of the same name came and went

    monkeypatch.setattr("tasks.maintenance.garbage_collection.is_alive", lambda _: False)
    assert found() == {Path(tokens.folder), Path(tokens.corpus.folder)}


def test_data_of_a_run_on_another_machine_is_kept_for_a_month(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tasks.store.steps.this_process", lambda: "elsewhere:1:1")
        with own.tokenizing(1) as made, own.tokenizing(2):
            pass

    assert find_garbage([], LATER + 29 * DAY) == []
    assert {each.path for each in find_garbage([], LATER + 30 * DAY)} == made


def test_a_gallery_being_drawn_is_kept_beside_a_newer_one(tracking_database: str) -> None:
    with gallery_work([], 1) as record:
        drawn = Path(fresh_folder(record))
        with gallery_work([], 2) as other:
            newer = Path(fresh_folder(other))
            (newer / "index.html").write_text("a page")
            keep_gallery(str(newer))
        os.utime(drawn, (time.time() - DAY,) * 2)
        assert found() == set()
    assert found() == {drawn}


def test_a_lineage_is_no_fit(own: Home) -> None:
    own.folder("runs/lineage/run-1", None, days=20)
    old = own.folder("runs/lineage/run-2", None, days=40)

    (garbage,) = find_garbage([], LATER)
    assert garbage.path == old
    assert garbage.reason == "the lineage of an earlier run; MLflow has its own copy"


def test_what_two_versions_made_is_kept_for_a_month(own: Home) -> None:
    own.folder("comparisons/digits-vae/2-3", None, days=20)
    old = own.folder("comparisons/digits-vae/1-2", None, days=40)

    assert found() == {old}


def test_only_the_latest_gallery_and_temporaries_of_the_living_stay(own: Home) -> None:
    older, _ = own.folder("gallery/a", None, days=2), own.folder("gallery/b", None, days=1)
    (own.root / "gallery" / "index.html").write_text("the latest page")
    mine = this_process()
    dead = mine.rsplit(":", 1)[0] + ":1"
    left = own.folder(f"runs/digits-vae/.partial-{dead}-x1y2", None)
    own.folder(f"runs/digits-vae/.partial-{mine}-x1y2", None)
    own.folder("runs/digits-vae/.partial-of-somebody-else", None)

    assert found() == {older, left}


def test_throwing_away_says_how_much(own: Home) -> None:
    own.fit(1, "data", "aaa")
    own.fit(2, "data", "bbb")
    assert find_garbage([]) == []  # another run may be reading what was made just now
    garbage = find_garbage([], LATER)

    assert delete(garbage) == sum(each.num_bytes for each in garbage) > 0
    assert find_garbage([], LATER) == []


@settings(max_examples=60, deadline=None)
@given(
    fits=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("pqr"), st.booleans(), st.floats(0, 90)),
        max_size=8,
        unique_by=lambda fit: (fit[0], fit[1]),
    ),
    kept=st.sets(st.integers(0, 9)),
    data=st.sets(st.sampled_from("pqrs")),
    tokenized=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["at work", "still alive", "over"])),
        max_size=5,
        unique_by=lambda tokens: tokens[0],
    ),
    galleries=st.lists(
        st.tuples(st.integers(0, 90), st.booleans()), max_size=5, unique_by=lambda each: each[0]
    ),
)
def test_nothing_referred_to_is_garbage_and_everything_else_is(
    fits: list[tuple[int, str, bool, float]],
    kept: set[int],
    data: set[str],
    tokenized: list[tuple[int, str]],
    galleries: list[tuple[int, bool]],
) -> None:
    with ExitStack() as work:
        folder = work.enter_context(tempfile.TemporaryDirectory())
        work.enter_context(pytest.MonkeyPatch.context()).setenv("ATELIER_HOME", folder)
        own = Home(Path(folder).resolve())
        untouchable = own.root / "mlflow.db"
        untouchable.write_text("database")
        stays, goes = set(), set()
        inputs = set()
        for number, (setting, source, is_finished, days) in enumerate(fits):
            path = own.fit(setting, source, f"{setting}" if is_finished else None, days)
            is_latest = number == len(fits) - 1
            young = not is_finished and days < 29.9
            old = not is_finished and days > 30.1
            if is_latest or young or (is_finished and setting in kept):
                stays.add(path)
                inputs.add(source)
            elif is_finished or old:
                goes.add(path)
        for source in data:
            path = own.folder(f"data/images/{source}", source)
            (stays if source in inputs else goes).add(path)
        for number, (setting, run) in enumerate(tokenized):
            with ExitStack() as step:
                if run == "over":
                    step.enter_context(owned_by_the_dead())
                made = (work if run == "at work" else step).enter_context(own.tokenizing(setting))
            is_latest = number == len(tokenized) - 1
            (goes if run == "over" and not is_latest else stays).update(made)
        for number, (days, is_drawn) in enumerate(galleries):
            with ExitStack() as step:
                path = (step if is_drawn else work).enter_context(own.drawing(days, days))
            is_latest = number == len(galleries) - 1
            is_newest = days == min(days for days, _ in galleries)
            (goes if is_drawn and not is_latest and not is_newest else stays).add(path)

        delete(find_garbage({str(setting) for setting in kept}, LATER))

        assert all(path.exists() for path in stays | {untouchable})
        assert not any(path.exists() for path in goes)
