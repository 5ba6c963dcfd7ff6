"""The page of images: samples beside their nearest training pictures, a walk, a way, an own one."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nicegui import ui

from atelier.playground import layout
from atelier.playground.address import MAX_SAMPLES, REACH, ImageState
from atelier.playground.layout import box, text
from atelier.playground.own import OwnPanel
from atelier.playground.page import SIDES, VersionPage, VersionPanel
from atelier.playground.pictures import COPY_SHARE, beside_training
from atelier.playground.walk import WalkPanel
from atelier.playground.way import WayPanel
from tasks.playground.version_process import VersionProcess


class ImagePage(VersionPage[ImageState]):
    """The state of one tab."""

    path = layout.PAGES["images"]
    panels: Mapping[str, "SamplePanel"]

    def _build_choices(self) -> None:
        ui.button(icon="swap_horiz", on_click=self._swap).props(
            'flat round dense aria-label="exchange the two"'
        )

    def _build_content(self) -> None:
        self.classes: list[str] = []
        self._class_choice: Any = None
        with box("section", "ask"), box("div", "controls"):
            self._build_temperature()
            layout.number(
                "pictures", 1, MAX_SAMPLES, self.state.samples, lambda n: self.change(samples=n)
            )
            self._build_seed()
            self._dial = box("div", "dial")
        with box("section", "columns"), box("div", "texts") as self._texts:
            self.panels = {side: SamplePanel(self, side) for side in SIDES}
        self._walk = WalkPanel(self)
        self._way = WayPanel(self)
        self._own = OwnPanel(self)

    def _swap(self) -> None:
        a, b = self.state.a, self.state.b
        if not b:
            return
        self.state = replace(self.state, b=a)
        self._choice_a.value = b
        self._choice_b.value = a

    def change(self, **changes: Any) -> None:
        """Take over what a control says; another version has other classes and pictures."""
        if changes.get("a", self.state.a) != self.state.a:
            changes |= {"label": -1, "first": 0, "last": 1}
        super().change(**changes)

    def _forgotten(self) -> dict[str, Any]:
        return {"start": -1, "at": ()}

    async def _restart_panels(self) -> None:
        self._texts.classes(add="two" if self.state.b else "", remove="" if self.state.b else "two")
        await super()._restart_panels()

    def failed(self) -> None:
        """Show nothing of a version on the first side that does not load."""
        self._walk.hide()
        self._way.hide()
        self._own.hide()
        self._dial.clear()

    async def loaded(self, facts: dict[str, Any]) -> None:
        """Show what the version on the first side can do besides, once it is loaded."""
        self._show_dial(facts["classes"])
        panels = (self._walk, self._way, self._own)
        await asyncio.gather(*(panel.restart(facts) for panel in panels))

    def _show_dial(self, classes: list[str]) -> None:
        """The classes that the first version can be asked for."""
        value = self.state.label if 0 <= self.state.label < len(classes) else -1
        if classes == self.classes and self._dial.default_slot.children:
            if self._class_choice is not None:
                self._class_choice.value = value
            return
        self.classes = classes
        self._dial.clear()
        self._class_choice = None
        if not classes:
            return
        options = {-1: "each in turn", **dict(enumerate(classes))}
        with self._dial:
            text("class")
            dial: Any
            if len(classes) <= 12:
                dial = ui.toggle(options, value=value).props("dense unelevated no-caps")
            else:
                dial = ui.select(options, value=value, with_input=True).props("dense outlined")
            dial.on_value_change(lambda event: self.change(label=int(event.value)))
            self._class_choice = dial

    def samples_request(self, classes: list[str]) -> dict[str, Any]:
        """Which samples the process of a version of some classes is asked for."""
        state = self.state
        return {
            "number": state.samples,
            "seed": state.seed,
            "temperature": state.temperature,
            "label": state.label if state.label < len(classes) else -1,
        }

    def point_request(self) -> dict[str, Any]:
        """Where the walk stands."""
        state = self.state
        return {
            "start": self.samples_request(self.classes),
            "sample": state.start if state.start < state.samples else -1,
            "coordinates": list(state.at),
            "label": state.label if state.label < len(self.classes) else -1,
        }

    def begin_walk(self, sample: int) -> None:
        """Walk from a sample of the first version, or from the middle (-1)."""
        self.state = replace(self.state, start=sample, at=())
        self.spawn(self._walk.move(is_new=True))

    def walk_to(self, coordinates: tuple[float, ...], *, is_plane_new: bool) -> None:
        """Move along the axes."""
        reachable = tuple(max(-REACH, min(REACH, each)) for each in coordinates)
        self.state = replace(self.state, at=reachable)
        self.spawn(self._walk.move(is_new=is_plane_new))

    def lead(self, **ends: Any) -> None:
        """Show the way between other ends: fields of the state."""
        self.state = replace(self.state, **ends)
        self.show_address()
        self.spawn(self._way.show())


class SamplePanel(VersionPanel):
    """What one version draws."""

    def __init__(self, page: ImagePage, side: str) -> None:
        super().__init__(page, side)
        self._page = page
        with self._root:
            self._grid = box("div", "samples")

    def complain(self, message: str) -> None:
        """Say why there is nothing."""
        if self.side == "a":
            self._page.failed()
        self._grid.clear()
        self._say_failure(self._grid, message)

    def _clear(self) -> None:
        """What was drawn before stays until other pictures come."""

    async def _show(
        self, process: VersionProcess, facts: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> None:
        self._status.set_text("drawing ...")
        request = self._page.samples_request(facts["classes"])
        found = await layout.waited(process.answer, "draw", request=request)
        if is_wanted():
            self._show_pictures(found["pictures"], facts)
            if self.side == "a":
                await self._page.loaded(facts)

    def _show_pictures(self, pictures: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        usual = facts["usual_distance"]
        self._status.set_text(
            f"below each its nearest training picture; held-out ones are {usual:.2f} from theirs;"
            f" a red distance is less than {COPY_SHARE:.0%} of that: perhaps a copy"
            if usual is not None
            else "its training pictures are not stored here any more"
        )
        self._grid.clear()
        leads = self.side == "a" and facts["has_latents"]
        with self._grid:
            for index, answer in enumerate(pictures):
                with box("figure", "sample"):
                    made = beside_training(answer, usual, f"sample {index}")
                if leads and made is not None:
                    made.classes("leads").props(
                        f'tabindex=0 role=button title="walk from sample {index}"'
                    )

                    def begin(_: Any, index: int = index) -> None:
                        self._page.begin_walk(index)

                    made.on("click", begin).on("keydown.enter", begin)
