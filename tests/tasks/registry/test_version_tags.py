"""Tags of a registered version: what versions of this project before wrote is read, too."""

import json
import math
from types import SimpleNamespace

import pytest

from tasks.registry.version_tags import (
    DIGESTS,
    digest_tag,
    interval_tag,
    recorded_facts,
    references_tag,
    wanted_digest_tag,
)
from tasks.store.records import DamagedRecord


@pytest.mark.parametrize("prefix", ["real_data", "floor"])
def test_what_real_data_score_is_read_by_its_name_of_today_or_of_before(prefix: str) -> None:
    metrics = {"test_frechet_distance": 0.5, f"{prefix}_frechet_distance": 0.1, f"{prefix}_x": 1.0}
    tags = {"main_metric": "test_frechet_distance", "metrics": json.dumps(metrics)}
    version = SimpleNamespace(name="digits-gan", version=1, tags=tags)

    assert references_tag(version) == {"real_data_frechet_distance": 0.1}


FACTS = {f"{of}_digest": of * 3 for of in DIGESTS} | {"main_low": "0.25", "main_high": "0.75"}


def version_with(**tags: str) -> SimpleNamespace:
    return SimpleNamespace(name="digits-gan", version=1, tags=tags)


@pytest.mark.parametrize("tags", [FACTS, {"record": json.dumps(FACTS)}], ids=["before", "today"])
def test_digests_and_interval_are_read_from_one_tag_or_from_those_of_before(
    tags: dict[str, str],
) -> None:
    version = version_with(**tags)

    assert {of: digest_tag(version, of) for of in DIGESTS} == {of: of * 3 for of in DIGESTS}
    assert interval_tag(version) == (0.25, 0.75)
    assert recorded_facts(version) == FACTS


def test_what_was_recorded_last_counts() -> None:
    version = version_with(**FACTS, record=json.dumps({"data_digest": "now", "main_low": "0.5"}))

    assert digest_tag(version, "data") == "now"
    assert digest_tag(version, "code") == "codecodecode"
    assert interval_tag(version) == (0.5, 0.75)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"data_digest": 3}', "null"])
def test_a_record_that_somebody_changed_tells_nothing(record: str) -> None:
    version = version_with(record=record)

    assert digest_tag(version, "data") == ""
    assert all(map(math.isnan, interval_tag(version)))
    with pytest.raises(DamagedRecord, match="digits-gan version 1: its tag record has no samples_"):
        wanted_digest_tag(version, "samples")


def test_an_interval_that_is_no_number_is_unknown() -> None:
    low, high = interval_tag(version_with(main_low="much", main_high="1"))

    assert math.isnan(low)
    assert high == 1.0
