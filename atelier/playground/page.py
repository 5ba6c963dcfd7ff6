"""What both pages are: two versions side by side, controls, and a panel for each version."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from nicegui import background_tasks, ui
from nicegui.element import Element

from atelier.playground import layout
from atelier.playground.address import MAX_SEED, ImageState, TextState, query_of
from atelier.playground.catalogue import Chosen
from atelier.playground.layout import box, text
from tasks.playground.version_process import VersionFailed, VersionProcess, Versions

SIDES = ("a", "b")
State = TypeVar("State", TextState, ImageState)


class VersionPage(ABC, Generic[State]):
    """The state of one tab, and what all tabs do with it."""

    path: str
    """Where the page is."""
    panels: Mapping[str, "VersionPanel"]
    """By side; the subclass puts them together."""

    def __init__(self, versions: Versions, state: State, listed: list[Chosen]) -> None:
        """listed: the versions of the page's kind, of which there is one at least."""
        self.state: State = state
        self._versions, self._listed = versions, listed
        self._client = ui.context.client
        self._latest = layout.Latest()

    def build(self, main: Element) -> None:
        """Put the page together, and begin its work."""
        with main:
            with box("section", "choices"):
                self._choice_a = layout.version_choice(
                    "version", self._listed, self.state.a, lambda to: self._set_version("a", to)
                )
                self._choice_b = layout.version_choice(
                    "beside it, with the same seed",
                    self._listed,
                    self.state.b,
                    lambda to: self._set_version("b", to),
                    none="nothing",
                )
                self._build_choices()
            self._build_content()
        layout.begin_once_connected(self._client, lambda: self.spawn(self._restart_panels()))

    def _build_choices(self) -> None:
        """What stands beside the choice of versions."""

    @abstractmethod
    def _build_content(self) -> None:
        """What stands below the choice of versions."""

    def _build_temperature(self) -> None:
        layout.slider(
            "temperature",
            0.05,
            2.0,
            0.05,
            self.state.temperature,
            lambda value: self.change(temperature=round(value, 2)),
        )

    def _build_seed(self) -> None:
        field = layout.number(
            "seed", 0, MAX_SEED, self.state.seed, lambda value: self.change(seed=value)
        )

        def advance() -> None:
            field.value = (self.state.seed + 1) % MAX_SEED

        ui.button("next seed", icon="casino", on_click=advance).props(
            "unelevated no-caps dense"
        ).classes("next")

    def _set_version(self, side: str, address: str) -> None:
        if self.address_of(side) != address:
            self.change(**{side: address})

    def change(self, **changes: Any) -> None:
        """Take over what a control says, and begin anew once the controls rest."""
        if all(getattr(self.state, name) == value for name, value in changes.items()):
            return
        self.state = replace(self.state, **changes, **self._forgotten())
        self.show_address()
        self.spawn(self._restart_at_rest())

    @abstractmethod
    def _forgotten(self) -> dict[str, Any]:
        """What of the state belongs to what was shown before."""

    async def _restart_at_rest(self) -> None:
        if await self._latest.rest():
            await self._restart_panels()

    async def _restart_panels(self) -> None:
        await asyncio.gather(*(panel.restart() for panel in self.panels.values()))

    def spawn(self, work: Any) -> None:
        """Let a coroutine run beside the page."""
        background_tasks.create(work, name=f"playground {self.path}")

    def show_address(self) -> None:
        """Let the address tell the state."""
        layout.show_address(self._client, self.path, query_of(self.state))

    def address_of(self, side: str) -> str:
        """Of a side's version; empty where there is none on that side."""
        found: str = getattr(self.state, side)
        return found

    def process_of(self, side: str) -> VersionProcess | None:
        """The process of a side's version; None where there is none on that side."""
        if not (address := self.address_of(side)):
            return None
        name, _, number = address.partition("/")
        return self._versions.get(name, int(number))

    async def answer(self, side: str, what: str, **arguments: Any) -> Any:
        """What a side's version answers to a question; None where there is none on that side."""
        process = await layout.waited(self.process_of, side)
        return None if process is None else await layout.waited(process.answer, what, **arguments)

    def words_of(self, side: str) -> str:
        """What a side's version is called."""
        address = self.address_of(side)
        return next((each.words for each in self._listed if each.address == address), address)


class VersionPanel(ABC):
    """What one version shows."""

    def __init__(self, page: VersionPage[Any], side: str) -> None:
        self.side = side
        self._versions_page = page
        self._latest = layout.Latest()
        self._root = box("article", "panel")
        with self._root:
            self._head = box("div", "head")
            with self._head:
                self._title = text("", "h2")
                self._status = text("", "span", "status").props("role=status")
        self._client = ui.context.client

    async def restart(self) -> None:
        """Show it from the beginning: load the version, and say so, or why it does not load."""
        begun, page = self._latest.begin(), self._versions_page

        def is_wanted() -> bool:
            return begun() and not self._client.is_deleted

        self._clear()
        self._root.set_visibility(bool(page.address_of(self.side)))
        self._title.set_text(page.words_of(self.side))
        try:
            process = await layout.waited(page.process_of, self.side)
            if process is None:
                return
            self._status.set_text("loading: its files are verified first ...")
            self._status.classes("busy")
            facts = await layout.waited(process.facts)
            if is_wanted():
                self._status.classes(remove="busy")
                await self._show(process, facts, is_wanted)
        except VersionFailed as error:
            if is_wanted():
                self.complain(str(error))

    @abstractmethod
    def _clear(self) -> None:
        """Take away what is of the version before."""

    @abstractmethod
    async def _show(
        self, process: VersionProcess, facts: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> None:
        """Ask a loaded version, and show its answers as long as that is wanted."""

    @abstractmethod
    def complain(self, message: str) -> None:
        """Say why there is nothing, or no more."""

    def _say_failure(self, within: Element, message: str) -> None:
        self._status.classes(remove="busy").set_text("")
        with within:
            text(message, "p", "failure").props("role=alert")
            ui.button("try again", on_click=self.restart).props("outline dense no-caps")
