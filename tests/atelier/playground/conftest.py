"""The playground's pages without a browser, on versions that live in this process."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch

from atelier.playground import catalogue
from tasks.families.table import FAMILIES
from tasks.playground.image_session import ImageSession
from tasks.playground.text_session import TextSession
from tasks.playground.version_process import VersionFailed
from tasks.playground.version_worker import handlers_of
from tasks.registry.listing import ListedModel, ListedVersion
from tasks.store.files import BadInput
from tests.tasks.samples.untrained import GREEK, untrained


@pytest.fixture(autouse=True)
def modules_stay() -> Iterator[None]:
    """NiceGUI, when it resets, takes the modules of pages out, and all packages above them."""
    before = dict(sys.modules)
    yield
    sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


Visit = Callable[[Callable[[Any], Awaitable[None]]], None]


class Held:
    """A version in this process, asked as one in another is."""

    def __init__(self, session: TextSession | ImageSession) -> None:
        self._session, self._handlers = session, handlers_of(session)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def facts(self) -> dict[str, Any]:
        return self._session.facts()

    def ask(self, what: str, **arguments: Any) -> Iterator[Any]:
        self.asked.append((what, arguments))
        try:
            yield from self._handlers[what](arguments)
        except ValueError as error:
            raise VersionFailed(str(error)) from error

    def answer(self, what: str, **arguments: Any) -> Any:
        (found,) = self.ask(what, **arguments)
        return found


class Shelf:
    """Untrained versions 1 and 2 of every family; the second is champion, the first challenger."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.held: dict[tuple[str, int], Held] = {}
        self.broken: dict[tuple[str, int], str] = {}

    def get(self, name: str, number: int) -> Held:
        if reason := self.broken.get((name, number)):
            raise VersionFailed(reason)
        if (name, number) not in self.held:
            family = FAMILIES[name.rpartition("-")[2]]
            model = untrained(family.name, self._folder / f"{name}-{number}")
            session: TextSession | ImageSession
            if family.data == "text":
                session = TextSession(
                    model, explains=family.explains_tokens, training=lambda: [GREEK]
                )
            else:
                latents = resolve_name(family.latents)(model.model)
                training = model.draw_images(9, 77)
                model.examples = torch.from_numpy(training[:3])
                session = ImageSession(model, latents=latents, training=training)
            self.held[name, number] = Held(session)
        return self.held[name, number]

    def close(self) -> None:
        pass


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """The versions, which the registry lists."""
    listed = {
        f"tale-{family}": ListedModel(
            name=f"tale-{family}",
            tags={"family": family},
            aliases={"champion": 2, "challenger": 1},
            versions={n: ListedVersion(number=n) for n in (1, 2)},
        )
        for family in FAMILIES
    }
    monkeypatch.setattr(catalogue, "listed_models", lambda: listed)
    monkeypatch.setattr(catalogue, "listed_model", lambda name: _found(listed, name))
    return Shelf(tmp_path)


def _found(listed: dict[str, ListedModel], name: str) -> ListedModel:
    if name not in listed:
        raise BadInput(f"no model is named {name!r}")
    return listed[name]


@pytest.fixture
def visit(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Visit:
    """Run what a user does with the pages."""
    from nicegui import background_tasks
    from nicegui.testing import user_simulation

    from atelier.playground import layout
    from atelier.playground.server import add_pages

    monkeypatch.setenv("NICEGUI_STORAGE_PATH", str(tmp_path / "nicegui"))
    monkeypatch.setattr(layout, "SECONDS_OF_REST", 0.0)

    def run(scenario: Callable[[Any], Awaitable[None]]) -> None:
        async def simulated() -> None:
            async with user_simulation() as user:
                add_pages(shelf)  # type: ignore[arg-type]
                await scenario(user)

        # What a loop left that has ended, NiceGUI would wait for at the end of the next one.
        background_tasks.running_tasks.clear()
        asyncio.run(simulated())

    return run
