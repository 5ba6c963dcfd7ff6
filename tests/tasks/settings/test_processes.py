"""What `--processes` implies, and what contradicts it."""

import os

import pytest

from tasks.families.table import names
from tasks.settings.processes import with_shards
from tasks.store.files import BadInput


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_number_of_processes_means_four_shards_whatever_it_is(processes: int) -> None:
    found = with_shards({"vae.model.latent_size": 3}, ("vae", "gan"), processes)

    assert found == {
        "vae.model.latent_size": 3,
        "vae.training.shards": 4,
        "gan.training.shards": 4,
    }


def test_without_one_settings_stay() -> None:
    assert with_shards({"vae.training.steps": 3}, names(), None) == {"vae.training.steps": 3}


def test_shards_that_a_person_set_stay() -> None:
    found = with_shards({"gpt.training.shards": 8}, ("gpt", "ngram"), 8)

    assert found == {"gpt.training.shards": 8}


@pytest.mark.parametrize(
    ("given", "families", "processes", "told"),
    [
        ({}, ("vae",), 8, "vae.training.shards is 4, which 8 processes cannot share"),
        ({}, ("vae",), 3, "vae.training.shards is 4, which 3 processes cannot share"),
        ({"gan.training.shards": 1}, ("vae", "gan"), 2, "gan.training.shards is 1, which 2"),
        ({"vae.training.batch_size": 18}, ("vae",), 2, "batch_size is 18, which .*shards = 4"),
        ({}, ("ngram",), 2, "2 processes are asked for, and ngram is not trained by gradients"),
        ({}, ("vae",), 16, "16 processes are asked for, and this machine lets us use 8 cores"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    given: dict[str, int], families: tuple[str, ...], processes: int, told: str
) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        with_shards(given, families, processes)

    assert "\n" not in str(refused.value)
