"""Requests of small trials."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.search.trial import TrialRequest, key_of_run, request_of

Ask = Callable[..., TrialRequest]


def asked(
    data: ImageSet | TokenSet,
    family: str,
    parent: str,
    search: str = "first",
    number: int = 0,
    **changes: Any,
) -> TrialRequest:
    record = FAMILIES[family]
    plan = planned(record, data, "quick", 0, {})
    settings = {
        name: replace(each, **{k: v for k, v in changes.items() if hasattr(each, k)})
        for name, each in plan.settings.items()
    }
    return request_of(
        replace(plan, settings=settings, threads=1),
        data,
        judge=None,
        search=search,
        label=f"trial {number}",
        given=changes,
        likelihood=record.likelihood,
        threads=1,
        parent_run_id=parent,
        run_key=key_of_run(search, f"trial {number}", changes),
    )


@pytest.fixture
def request_for() -> Ask:
    """Asks for a trial of any family: (data, family, parent run, search, number, **settings)."""
    return asked


@pytest.fixture
def ask(run_id: str, tokens: TokenSet) -> Ask:
    """Requests of a small n-gram model."""

    def asking(search: str = "first", number: int = 0, order: int = 3, **more: Any) -> TrialRequest:
        return asked(tokens, "ngram", run_id, search, number, order=order, **more)

    return asking
