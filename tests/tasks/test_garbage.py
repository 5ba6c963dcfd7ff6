"""Nothing that is referred to is ever garbage, whatever the home holds."""

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.garbage import find_garbage, throw_away
from tasks.processes import this_process
from tasks.step_records import recorded
from tasks.storage import digest_of

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

    assert throw_away(garbage) == sum(each.num_bytes for each in garbage) > 0
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
)
def test_nothing_referred_to_is_garbage_and_everything_else_is(
    fits: list[tuple[int, str, bool, float]], kept: set[int], data: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", folder)
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

        throw_away(find_garbage({str(setting) for setting in kept}, LATER))

        assert all(path.exists() for path in stays | {untouchable})
        assert not any(path.exists() for path in goes)
