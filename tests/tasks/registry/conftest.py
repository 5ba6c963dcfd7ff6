"""Moves of an alias, as the log tells them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.registry import audit_log


@pytest.fixture
def move(atelier_home: Path) -> Callable[..., None]:
    """Writes that an alias moved."""

    def moved(
        model: str, before: int | None, after: int, action: str = "promote", content: str = ""
    ) -> None:
        intent = audit_log.append(
            model,
            "intent",
            action=action,
            from_version=before,
            to_version=after,
            why=f"for {after}",
            digests={"content": content or f"content {after}"},
        )
        audit_log.append(model, "done", settles=intent.number)

    return moved
