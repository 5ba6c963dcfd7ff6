"""The registry's tables, read without MLflow: the same as its client tells."""

import sqlite3
from pathlib import Path
from typing import NoReturn

import pytest

from tasks.registry import listing, promotion
from tasks.registry.listing import listed_model, listed_models
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import client
from tests.tasks.conftest import Studio


def without_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on only the tables can be read; MLflow's client names its address by itself."""

    def fail() -> NoReturn:
        raise AssertionError("the client was asked")

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(listing, "_found_by_client", fail)


def test_the_tables_tell_what_the_client_tells(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    client().create_registered_model("somebody-elses")
    told_by_client = listed_models()  # of an address that is named
    without_client(monkeypatch)

    found = listed_models()
    one = found[studio.name]

    assert found == told_by_client
    assert list(found) == [studio.name]
    assert list(one.versions) == [1, 2]
    assert one.champion == one.version("champion")
    assert one.version("2").main_value == pytest.approx(float(one.version("2").tags["main_value"]))
    assert one.version("2").metrics["test_bits_per_byte"] == one.version("2").main_value
    assert "bits per byte" in one.version("2").description


def test_a_champion_knows_since_when(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    last_move = promotion.history(studio.name)[-1]
    without_client(monkeypatch)

    assert listed_model(studio.name).champion_since()[:16] == last_move.at[:16]

    client().set_registered_model_alias(studio.name, "champion", "1")  # without this program
    without_client(monkeypatch)
    assert listed_model(studio.name).champion_since() == ""


def test_versions_that_are_being_made_are_left_out(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    client().set_model_version_tag(studio.name, "1", "state", "pending")
    without_client(monkeypatch)

    assert list(listed_model(studio.name).versions) == [2]


def test_what_is_not_there_is_refused_with_what_is(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_client(monkeypatch)

    with pytest.raises(
        BadInput, match=r"'tale-ngrm' \(did you mean tale-ngram\?\); there are: tale-ngram"
    ):
        listed_model("tale-ngrm")
    with pytest.raises(BadInput, match="there are: tale-ngram"):
        listed_model("qqqqqq")
    with pytest.raises(BadInput, match="no version '9'; there are: @champion, /1, /2"):
        listed_model(studio.name).version("9")
    with pytest.raises(BadInput, match="no version 'best'"):
        listed_model(studio.name).version("best")


def test_a_main_value_that_is_no_number_is_none(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("soon", "nan", ""):
        client().set_model_version_tag(studio.name, "2", "main_value", value)
        without_client(monkeypatch)
        assert listed_model(studio.name).version("2").main_value is None


def test_a_database_of_another_shape_is_read_through_the_client(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_client(monkeypatch)
    monkeypatch.setattr(listing, "_found_by_client", lambda: {})
    studio.sql("ALTER TABLE registered_model_tags RENAME TO otherwise")

    assert listed_models() == {}


def test_a_file_that_is_no_database_is_named(atelier_home: Path) -> None:
    atelier_home.mkdir()
    (atelier_home / "mlflow.db").write_bytes(b"no database at all" * 100)

    with pytest.raises(BadInput, match=r"mlflow\.db is no registry"):
        listed_models()


def test_reading_changes_nothing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    without_client(monkeypatch)
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(*arguments: object, **options: object) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options, check_same_thread=False))  # type: ignore[call-overload]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            opened[-1].execute("DELETE FROM registered_models")
        opened[-1].rollback()  # Python has begun a transaction for it
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    assert listed_models()
    assert len(opened) == 1


def test_metrics_that_cannot_be_read_are_none(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    client().set_model_version_tag(studio.name, "2", "metrics", "[1, 2")
    without_client(monkeypatch)

    assert listed_model(studio.name).version("2").metrics == {}
