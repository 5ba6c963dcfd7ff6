"""Two versions side by side: what made them, how they score, and what cannot be told."""

import json
import math
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from models.metrics.bootstrap import paired_bootstrap
from tasks.evaluation.cache import scores_in
from tasks.registry.version_comparison import (
    Change,
    VersionComparison,
    compare_versions,
    settings_by_name,
)
from tasks.registry.versions import recorded
from tasks.store.artifacts import artifacts
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import client
from tasks.training.provenance import TrainingProvenance

pytestmark = pytest.mark.slow

NAME = "tale-ngram"


def sides(found: VersionComparison) -> tuple[int, int]:
    return found.first.version, found.second.version


def evaluations_of(version: int) -> list[Any]:
    digest = client().get_model_version(NAME, str(version)).tags["content_digest"]
    return [each for each in artifacts("evaluations") if each.inputs[0] == digest]


def test_what_differs_is_named_and_the_rest_is_not(studio: Any) -> None:
    found = compare_versions(NAME, "1", "2")

    assert found.changes == (
        Change(section="settings", what="ngram.model.order", first="1", second="3"),
    )
    assert (found.unknown, found.is_same_content) == ("", False)
    assert (found.first.aliases, found.second.aliases) == ((), ("champion",))
    main = found.metrics[0]
    assert main.name == "test_bits_per_byte"
    assert main.first is not None
    assert main.second is not None
    assert main.first > main.second
    assert not [each.name for each in found.metrics if each.name.startswith("floor_")]


def test_the_main_metric_has_a_paired_interval_of_95_per_cent(studio: Any) -> None:
    pair = compare_versions(NAME, "1", "2").paired

    assert pair is not None
    ((first, _), (second, _)) = (scores_in(evaluations_of(n)[0].folder) for n in (1, 2))
    wider = stats.t.ppf(0.975, len(first) - 1) * math.sqrt(len(first) / (len(first) - 1))
    expected = paired_bootstrap(second - first, level=2 * stats.norm.cdf(wider) - 1)
    assert (pair.low, pair.high) == pytest.approx((expected.low, expected.high))
    assert pair.low <= pair.difference <= pair.high < 0
    assert pair.difference == pytest.approx(pair.second - pair.first)
    assert (pair.num_scores, pair.are_resamples) == (len(first), False)
    other_way = compare_versions(NAME, "2", "1").paired
    assert other_way is not None
    assert other_way.low == pytest.approx(-pair.high, rel=0.2)
    assert other_way.difference == -pair.difference


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ((), (1, 2)),
        (("1",), (2, 1)),
        (("latest", "1"), (2, 1)),
        (("1", "champion"), (1, 2)),
    ],
)
def test_versions_are_named_by_number_and_alias_or_chosen(
    studio: Any, chosen: tuple[str, ...], expected: tuple[int, int]
) -> None:
    assert sides(compare_versions(NAME, *chosen)) == expected


def test_without_names_the_champion_stands_against_the_challenger(studio: Any) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    assert sides(compare_versions(NAME)) == (1, 2)  # the latest, where nobody is challenger

    studio.registered(order=2)
    client().set_registered_model_alias(NAME, "challenger", "2")
    assert sides(compare_versions(NAME)) == (1, 2)

    client().delete_registered_model_alias(NAME, "champion")
    assert sides(compare_versions(NAME)) == (3, 2)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("1", "9"), r"tale-ngram has no version '9'; there are: 1, 2"),
        (("nobody",), r"tale-ngram has no version 'nobody'; there are: 1, 2"),
        (("2", "champion"), "version 2 is on both sides; name two versions"),
    ],
)
def test_what_is_not_there_is_refused(studio: Any, chosen: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compare_versions(NAME, *chosen)


def test_one_version_alone_and_an_unknown_model_are_refused(studio: Any) -> None:
    client().delete_model_version(NAME, "1")

    with pytest.raises(BadInput, match="has one version, and two are compared; train another"):
        compare_versions(NAME)
    with pytest.raises(BadInput, match="no model is named 'nothing'; there are: tale-ngram"):
        compare_versions("nothing")


def test_without_stored_scores_the_reason_and_the_way_are_told(studio: Any) -> None:
    for artifact in evaluations_of(1):
        shutil.rmtree(artifact.folder)

    found = compare_versions(NAME, "1", "2")

    assert found.paired is None
    assert found.unpaired == (
        "no evaluation of version 1 is stored in this home any more; to measure again: `atelier"
        " step evaluate tale-ngram/1` and `atelier step evaluate tale-ngram/2`"
    )
    assert found.metrics[0].first is not None  # as the registry tells it


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("data_digest", "they were evaluated on other data; to measure the older one on the data"),
        ("judge_digest", "they were evaluated by different judges; to measure both as today"),
        ("", "they were evaluated by different code or libraries; to measure both as today"),
    ],
)
def test_evaluations_that_do_not_pair_say_why(
    studio: Any, tag: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.registry import version_comparison

    real = version_comparison._evaluations
    monkeypatch.setattr(
        version_comparison,
        "_evaluations",
        lambda version: [replace(each, setting=version.version) for each in real(version)],
    )
    if tag:
        record = json.loads(client().get_model_version(NAME, "1").tags["record"])
        client().set_model_version_tag(NAME, "1", "record", json.dumps({**record, tag: "another"}))

    found = compare_versions(NAME, "1", "2")

    assert found.paired is None
    assert found.unpaired.startswith(reason)
    assert ("--data-of 2" in found.unpaired) == (tag == "data_digest")


def test_a_record_that_cannot_be_read_leaves_the_metrics(studio: Any) -> None:
    client().set_model_version_tag(NAME, "1", "recipe", '{"family": 7}')
    damaged = compare_versions(NAME, "1", "2")
    client().delete_model_version_tag(NAME, "1", "recipe")
    missing = compare_versions(NAME, "1", "2")

    assert damaged.unknown.startswith("tale-ngram version 1: its tag recipe")
    assert missing.unknown == "version 1 has no record of how it was made"
    assert damaged.changes == missing.changes == ()
    assert damaged.paired is not None
    assert missing.paired is not None


def test_groups_of_older_records_bear_todays_names(studio: Any) -> None:
    _, recipe = recorded(NAME, "2")
    assert isinstance(recipe, TrainingProvenance)
    old = {"config": {"latent_size": 16}, "fit": {"betas": [0.9, 0.99], "ema": None}}
    new = {"model": old["config"], "training": old["fit"]}

    named = settings_by_name(replace(recipe, family="vae", settings=old))

    assert named == settings_by_name(replace(recipe, family="vae", settings=new))
    assert named["vae.model.latent_size"] == "16"
    assert named["vae.training.betas"] == "0.9, 0.99"
    assert named["vae.training.ema"] == "none"
    assert named["tokenizer"] == "characters"


def test_data_and_code_that_differ_are_told(studio: Any) -> None:
    version = client().get_model_version(NAME, "1")
    changed = version.tags["recipe"].replace('"source": "file:', '"source": "file:/other')
    changed = changed.replace('"models.ngram.tuning": "', '"models.ngram.old": "')
    client().set_model_version_tag(NAME, "1", "recipe", changed)

    found = {(each.section, each.what): each for each in compare_versions(NAME, "1", "2").changes}

    assert found["data", "source"].first.startswith("file:/other")
    assert found["code", "models.ngram.old"].second == ""
    assert found["code", "models.ngram.tuning"].first == ""
    assert np.all(
        [len(each.first or each.second) == 12 for (s, _), each in found.items() if s == "code"]
    )
