"""Nothing that is referred to is ever garbage, whatever the home holds."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.image_shards import SHARDS
from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.maintenance.garbage_collection import delete, find_garbage
from tasks.runtime.processes import this_process
from tasks.samples.cache import fresh_folder, gallery_work, keep_gallery
from tasks.store.artifacts import Kind, opened, step_of
from tasks.store.files import write_text

DAY = 86_400.0
LATER = time.time() + 2 * 3600  # when what these tests do is no longer news


@dataclass
class Home:
    """A home under construction."""

    root: Path

    def folder(self, name: str, days: float = 0.0) -> Path:
        """A folder that no manifest tells of."""
        path = self.root / name
        path.mkdir(parents=True)
        (path / "file").write_text(name)
        return aged(path, days)

    def made(self, kind: Kind, name: str, digest: str | None, **more: Any) -> Path:
        """An artifact; without a digest, an unfinished one."""
        days, parts = more.pop("days", 0.0), more.pop("parts", None)
        inputs = more.setdefault("inputs", [])
        with opened(
            kind, name, {"inputs": inputs} | (parts or {}), can_resume=True, **more
        ) as place:
            write_text(place.folder / "file", name)
            if digest is not None:
                place.commit({}, digest=digest)
        return aged(place.folder, days)

    def fit(self, settings: int, inputs: str, digest: str | None, days: float = 0.0) -> Path:
        parts = {"settings": settings}
        return self.made("models", "digits-vae", digest, inputs=[inputs], parts=parts, days=days)

    def forgotten(self, kind: Kind, name: str, digest: str, **more: Any) -> Path:
        """An artifact of whose making the history tells nothing any more."""
        path = self.made(kind, name, digest, **more)
        (self.root / "steps" / f"{step_of(kind, name)}.jsonl").unlink()
        return path

    @contextmanager
    def tokenizing(self, settings: int) -> Iterator[set[Path]]:
        """A step that makes tokens of a corpus of its own; gives both folders."""
        corpus = f"corpus {settings}"
        text = self.forgotten("corpora", f"tale{settings}", corpus)
        with opened("tokens", "tale-bpe", {"inputs": [corpus]}, inputs=[corpus]) as place:
            write_text(place.folder / "file", corpus)
            place.commit({}, digest=f"tokens {settings}")
            yield {text, place.folder}

    @contextmanager
    def drawing(self, settings: int, days: float) -> Iterator[Path]:
        """A step that draws a gallery; gives its folder."""
        with gallery_work([], settings) as record:
            folder = Path(fresh_folder(record))
            (folder / "index.html").write_text("a page")
            yield aged(folder, days)


def aged(path: Path, days: float) -> Path:
    for file in [*path.rglob("*"), path]:
        os.utime(file, (time.time() - days * DAY,) * 2)
    return path


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
    with opened("models", "digits-vae", {"settings": 0}, can_resume=True) as place:
        write_text(place.folder / "checkpoint.safetensors", "")
        aged(place.folder, 90)
        own.fit(1, "data", "aaa")
        assert place.folder not in found()
    assert place.folder in found()


def test_an_interrupted_fit_is_kept_for_a_month(own: Home) -> None:
    young = own.fit(1, "data", None, days=20)
    old = own.fit(2, "data", None, days=40)
    own.fit(3, "data", "ccc")

    assert found() == {old}
    assert young.exists()


def test_data_is_kept_by_models_made_of_it_through_tokens_too(own: Home) -> None:
    tokens = own.forgotten("tokens", "tale-characters", "tokens", inputs=["corpus"])
    corpus = own.forgotten("corpora", "tale", "corpus")
    unused = own.forgotten("corpora", "tale", "draft", key="f" * 64)
    images = own.forgotten("images", "digits", "images")
    own.fit(1, "tokens", "aaa")
    own.fit(2, "other", "bbb")

    assert found("aaa") == {unused, images}
    assert tokens.exists()
    assert corpus.exists()


def test_an_evaluation_goes_with_its_model(own: Home) -> None:
    own.fit(1, "data", "aaa")
    own.fit(2, "data", "bbb")
    of_kept, of_lost = (
        own.forgotten("evaluations", "digits-vae", f"of {model}", inputs=[model, "data", "judge"])
        for model in ("aaa", "lost")
    )

    assert of_lost in found("aaa")
    assert of_kept not in found("aaa")
    assert {of_kept, of_lost} <= found()


def test_an_artifact_that_lost_its_manifest_is_nobodys(own: Home) -> None:
    images = own.forgotten("images", "digits", "images")
    own.fit(1, "images", "aaa")
    assert found() == set()

    (images / "manifest.json").write_text("scribbled over")

    assert found() == {images}


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
        assert found() == set()
    assert found() == {drawn}


def test_what_an_earlier_version_kept_is_freed_but_for_what_the_page_shows(own: Home) -> None:
    old = {own.folder(f"{name}/digits-vae/0123") for name in ("runs", "evaluations", "comparisons")}
    old |= {own.folder(f"data/{name}/digits-0123") for name in ("images", "text", "tokens")}
    own.folder("data/downloads/mnist")
    shown, older = own.folder("gallery/a/digits-vae"), own.folder("gallery/b")
    work = {"name": "digits-vae", "folder": "a/digits-vae"}
    write_text(own.root / "gallery" / "works.json", json.dumps([work]))

    garbage = find_garbage([], LATER)

    places = {older, *(path.parent if "data" in path.parts else path.parents[1] for path in old)}
    assert {each.path for each in garbage} == places
    assert {each.reason for each in garbage} == {
        "made by an earlier version; this one does not read it"
    }
    assert shown.exists()


def test_pictures_that_were_read_for_a_set_are_kept_for_a_month(own: Home) -> None:
    own.folder(f"data/{SHARDS}/lately", days=20)
    old = own.folder(f"data/{SHARDS}/long-ago", days=40)

    found = {garbage.path for garbage in find_garbage(set(), now=LATER)}

    assert found == {old}


def test_temporaries_of_the_living_stay(own: Home) -> None:
    mine = this_process()
    dead = mine.rsplit(":", 1)[0] + ":1"
    left = own.folder(f"artifacts/models/digits-vae/.partial-{dead}-x1y2")
    own.folder(f"artifacts/models/digits-vae/.partial-{mine}-x1y2")
    own.folder("artifacts/models/digits-vae/.partial-of-somebody-else")

    assert found() == {left}


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
            path = own.forgotten("images", source, source)
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
            (goes if is_drawn and not is_latest else stays).add(path)

        delete(find_garbage({str(setting) for setting in kept}, LATER))

        assert all(path.exists() for path in stays | {untouchable})
        assert not any(path.exists() for path in goes)
