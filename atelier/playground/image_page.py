"""The page of images: samples beside their nearest training pictures, a walk, a way between two."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from nicegui import background_tasks, ui
from nicegui.element import Element
from nicegui.events import MouseEventArguments

from atelier.playground import layout
from atelier.playground.address import MAX_SAMPLES, MAX_SEED, REACH, ImageState, query_of
from atelier.playground.catalogue import Chosen
from atelier.playground.layout import box, text
from tasks.playground.version_process import VersionFailed, VersionProcess, Versions

PATH = "/images"
PLANE_REACH = 3.0
"""How far the plane goes from the middle, in sigma: as `tasks.playground.image_session` says."""
SLIDER_REACH = 4.0
PLANE_SIDE = 7
COPY_SHARE = 0.3
"""A sample nearer to a training picture than this share of what held-out ones keep may be one."""


class ImagePage:
    """The state of one tab."""

    def __init__(self, versions: Versions, state: ImageState, listed: list[Chosen]) -> None:
        """listed: the versions of image models, of which there is one at least."""
        self.state = state
        self._versions, self._listed = versions, listed
        self._client = ui.context.client
        self._latest = layout.Latest()
        self._panels: dict[str, SamplePanel] = {}
        self.classes: list[str] = []
        self._class_choice: Any = None

    def build(self, main: Element) -> None:
        """Put the page together, and begin to draw."""
        state = self.state
        with main:
            with box("section", "choices"):
                self._choice_a = layout.version_choice(
                    "version", self._listed, state.a, lambda value: self._set_version("a", value)
                )
                self._choice_b = layout.version_choice(
                    "beside it, with the same seed",
                    self._listed,
                    state.b,
                    lambda value: self._set_version("b", value),
                    none="nothing",
                )
                ui.button(icon="swap_horiz", on_click=self._swap).props(
                    'flat round dense aria-label="exchange the two"'
                )
            with box("section", "ask"), box("div", "controls"):
                layout.slider(
                    "temperature",
                    0.05,
                    2.0,
                    0.05,
                    state.temperature,
                    lambda value: self._set(temperature=round(value, 2)),
                )
                layout.number(
                    "pictures", 1, MAX_SAMPLES, state.samples, lambda n: self._set(samples=n)
                )
                self._seed = layout.number(
                    "seed", 0, MAX_SEED, state.seed, lambda value: self._set(seed=value)
                )
                ui.button("next seed", icon="casino", on_click=self._next_seed).props(
                    "unelevated no-caps dense"
                ).classes("next")
                self._dial = box("div", "dial")
            with box("section", "columns"), box("div", "texts") as self._texts:
                for side in ("a", "b"):
                    self._panels[side] = SamplePanel(self, side)
            self._walk = WalkPanel(self)
            self._way = WayPanel(self)
        layout.begin_once_connected(self._client, lambda: self._spawn(self.restart(first=True)))

    def _next_seed(self) -> None:
        self._seed.value = (self.state.seed + 1) % MAX_SEED

    def _swap(self) -> None:
        a, b = self.state.a, self.state.b
        if not b:
            return
        self.state = replace(self.state, b=a)
        self._choice_a.value = b
        self._choice_b.value = a

    def _set_version(self, side: str, address: str) -> None:
        if getattr(self.state, side) != address:
            changes: dict[str, Any] = {"label": -1, "first": 0, "last": 1} if side == "a" else {}
            self._set(**{side: address}, **changes)

    def _set(self, **changes: Any) -> None:
        """Take over what a control says; the walk begins anew, for its samples are others."""
        if all(getattr(self.state, name) == value for name, value in changes.items()):
            return
        self.state = replace(self.state, **changes, start=-1, at=())
        self.show_address()
        self._spawn(self.restart())

    def _spawn(self, work: Any) -> None:
        background_tasks.create(work, name="playground images")

    def show_address(self) -> None:
        """Let the address tell the state."""
        layout.show_address(self._client, PATH, query_of(self.state))

    async def restart(self, first: bool = False) -> None:
        """Draw all anew, once the controls rest."""
        if not first and not await self._latest.rest():
            return
        self._texts.classes(add="two" if self.state.b else "", remove="" if self.state.b else "two")
        await asyncio.gather(*(panel.restart() for panel in self._panels.values()))

    def failed(self) -> None:
        """Show nothing of a version on the first side that does not load."""
        self._walk.hide()
        self._way.hide()
        self._dial.clear()

    async def loaded(self, facts: dict[str, Any]) -> None:
        """Show what the version on the first side can do besides, once it is loaded."""
        self._show_dial(facts["classes"])
        await asyncio.gather(self._walk.restart(facts), self._way.restart(facts))

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
            dial.on_value_change(lambda event: self._set(label=int(event.value)))
            self._class_choice = dial

    def process_of(self, side: str) -> VersionProcess | None:
        """The process of a side's version; None where there is none on that side."""
        address = getattr(self.state, side)
        if not address:
            return None
        name, _, number = address.partition("/")
        return self._versions.get(name, int(number))

    def words_of(self, side: str) -> str:
        """What a side's version is called."""
        address = getattr(self.state, side)
        return next((each.words for each in self._listed if each.address == address), address)

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
        self._spawn(self._walk.move(is_new=True))

    def walk_to(self, coordinates: tuple[float, ...], *, is_plane_new: bool) -> None:
        """Move along the axes."""
        reachable = tuple(max(-REACH, min(REACH, each)) for each in coordinates)
        self.state = replace(self.state, at=reachable)
        self._spawn(self._walk.move(is_new=is_plane_new))

    def lead(self, first: int, last: int) -> None:
        """Show the way between two held-out pictures."""
        self.state = replace(self.state, first=first, last=last)
        self.show_address()
        self._spawn(self._way.show())


def picture(content: str, words: str, classes: str = "") -> Element:
    """A small picture, enlarged without blurring; content: a PNG file in base64."""
    made = box("img", f"pixels {classes}")
    made.props["src"] = f"data:image/png;base64,{content}"
    made.props["alt"] = words
    return made


def beside_training(answer: dict[str, Any], usual: float | None, words: str) -> Element | None:
    """A picture above the training picture nearest to it, with their distance; the picture."""
    made = picture(answer["picture"], words)
    if "nearest" in answer:
        picture(answer["nearest"], "the nearest training picture", "nearest")
        is_near = usual is not None and answer["distance"] < COPY_SHARE * usual
        text(f"{answer['distance']:.2f}", "span", "distance near" if is_near else "distance")
    return made


class SamplePanel:
    """What one version draws."""

    def __init__(self, page: ImagePage, side: str) -> None:
        self._page, self._side = page, side
        self._latest = layout.Latest()
        self._root = box("article", "panel")
        with self._root:
            with box("div", "head"):
                self._title = text("", "h2")
                self._status = text("", "span", "status").props("role=status")
            self._grid = box("div", "samples")
        self._client = ui.context.client

    async def restart(self) -> None:
        """Draw the samples of the state."""
        is_wanted = self._latest.begin()
        page = self._page
        self._root.set_visibility(bool(getattr(page.state, self._side)))
        self._title.set_text(page.words_of(self._side))
        try:
            process = await layout.waited(page.process_of, self._side)
            if process is None:
                return
            self._status.set_text("loading: its files are verified first ...")
            self._status.classes("busy")
            facts = await layout.waited(process.facts)
            if not is_wanted() or self._client.is_deleted:
                return
            self._status.classes(remove="busy").set_text("drawing ...")
            request = page.samples_request(facts["classes"])
            found = await layout.waited(process.answer, "draw", request=request)
            if not is_wanted() or self._client.is_deleted:
                return
            self._show(found["pictures"], facts)
            if self._side == "a":
                await page.loaded(facts)
        except VersionFailed as error:
            if is_wanted():
                self.complain(str(error))

    def complain(self, message: str) -> None:
        """Say why there is nothing."""
        if self._side == "a":
            self._page.failed()
        self._status.classes(remove="busy").set_text("")
        self._grid.clear()
        with self._grid:
            text(message, "p", "failure").props("role=alert")
            ui.button("try again", on_click=self.restart).props("outline dense no-caps")

    def _show(self, pictures: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        usual = facts["usual_distance"]
        self._status.set_text(
            f"below each its nearest training picture; held-out ones are {usual:.2f} from theirs;"
            f" a red distance is less than {COPY_SHARE:.0%} of that: perhaps a copy"
            if usual is not None
            else "its training pictures are not stored here any more"
        )
        self._grid.clear()
        leads = self._side == "a" and facts["has_latents"]
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


class WalkPanel:
    """The latent space: a plane of pictures to point at, and a slider for each axis."""

    def __init__(self, page: ImagePage) -> None:
        self._page = page
        self._facts: dict[str, Any] = {}
        self._coordinates: tuple[float, ...] = ()
        self._sliders: list[ui.slider] = []
        self._are_moved_by_us = False
        self._is_moving = self._is_point_old = self._is_plane_old = False
        self._root = box("section", "panel walk")
        with self._root:
            with box("div", "head"):
                text("Latent space", "h2")
                self._status = text("", "span", "status").props("role=status")
                ui.button("to the middle", on_click=lambda: page.begin_walk(-1)).props(
                    "flat dense no-caps"
                )
            with box("div", "map"):
                with box("div", "plane"):
                    self._plane = ui.interactive_image(
                        on_mouse=self._pointed, events=["mousedown", "mousemove"]
                    ).classes("pixels")
                    text("axis 1 →, axis 2 ↑, each from -3 to 3 sigma", "span", "small")
                self._here = box("figure", "here")
                self._axes = box("div", "axes")
        self._root.set_visibility(False)
        self._client = ui.context.client

    async def restart(self, facts: dict[str, Any]) -> None:
        """Show the space of the version that has just been loaded, where it has one."""
        self._facts = facts
        self._root.set_visibility(facts["has_latents"])
        if facts["has_latents"]:
            self._status.set_text("looking for what changes its pictures most ...")
            await self.move(is_new=True)

    def hide(self) -> None:
        """Show nothing."""
        self._root.set_visibility(False)

    async def move(self, *, is_new: bool) -> None:
        """Show the point of the state; is_new: the plane through it is another one too.

        While a point is on its way, of those that a hand passes only the last is asked for.
        """
        self._is_plane_old |= is_new
        self._is_point_old = True
        if self._is_moving:
            return
        self._is_moving = True
        try:
            while self._is_point_old and not self._client.is_deleted:
                await self._move_once()
        finally:
            self._is_moving = False

    async def _move_once(self) -> None:
        is_new, self._is_point_old, self._is_plane_old = self._is_plane_old, False, False
        self._page.show_address()
        request, version = self._page.point_request(), self._page.state.a
        try:
            process = await layout.waited(self._page.process_of, "a")
            if process is None:
                return
            point = await layout.waited(process.answer, "point", request=request)
            plane = (
                await layout.waited(process.answer, "plane", request=request) if is_new else None
            )
        except VersionFailed as error:
            self._status.set_text(str(error))
            return
        if version != self._page.state.a or self._client.is_deleted:
            return
        self._coordinates = tuple(point["coordinates"])
        if plane is not None:
            self._plane.set_source(f"data:image/png;base64,{plane['picture']}")
        self._show(point)

    def _show(self, point: dict[str, Any]) -> None:
        start = self._page.state.start
        told = f"from sample {start}" if start >= 0 else "from the middle of what it draws"
        if self._page.classes:
            told += f", class {self._page.classes[point['label']]}"
        self._status.set_text(f"{told}; a click on a sample begins there")
        self._here.clear()
        with self._here:
            beside_training(point, self._facts["usual_distance"], "the picture at this point")
            if "nearest" in point:
                text("from the training picture nearest to it", "figcaption", "small")
        self._mark()
        self._set_sliders()

    def _mark(self) -> None:
        """Where the point lies in the plane, in the picture's own pixels."""
        width, height = self._size()
        x, y = (*self._coordinates, 0.0, 0.0)[:2]
        across = (x / (2 * PLANE_REACH) * (1 - 1 / PLANE_SIDE) + 0.5) * width
        down = (-y / (2 * PLANE_REACH) * (1 - 1 / PLANE_SIDE) + 0.5) * height
        size = width / PLANE_SIDE
        lines = "".join(
            f'<path d="M{at * width / PLANE_SIDE:.2f} 0V{height}M0 {at * height / PLANE_SIDE:.2f}'
            f'H{width}" stroke="#8888" stroke-width="{size / 30:.2f}"/>'
            for at in range(1, PLANE_SIDE)
        )
        self._plane.set_content(
            f'{lines}<rect x="{across - size / 2:.2f}" y="{down - size / 2:.2f}" width="{size:.2f}"'
            f' height="{size:.2f}" fill="none" stroke="#e8590c" stroke-width="{size / 12:.2f}"/>'
        )

    def _size(self) -> tuple[float, float]:
        """Of the plane, in pixels: its pictures lie side by side."""
        return PLANE_SIDE * self._facts["width"], PLANE_SIDE * self._facts["height"]

    def _pointed(self, event: MouseEventArguments) -> None:
        if event.type == "mousemove" and not event.buttons & 1:
            return
        width, height = self._size()
        stretch = 2 * PLANE_REACH / (1 - 1 / PLANE_SIDE)
        x = _within((event.image_x / width - 0.5) * stretch)
        y = _within((0.5 - event.image_y / height) * stretch)
        moved = (x, y, *self._coordinates[2:])
        if moved != self._coordinates:
            self._page.walk_to(tuple(moved[: len(self._coordinates)]), is_plane_new=False)

    def _set_sliders(self) -> None:
        """A slider for each axis, at the point's coordinates."""
        self._are_moved_by_us = True
        try:
            if len(self._sliders) != len(self._coordinates):
                self._axes.clear()
                with self._axes:
                    self._sliders = [
                        layout.slider(
                            f"axis {index + 1}, sigma",
                            -SLIDER_REACH,
                            SLIDER_REACH,
                            0.1,
                            round(value, 2),
                            partial(self._slid, index),
                        )
                        for index, value in enumerate(self._coordinates)
                    ]
            for made, value in zip(self._sliders, self._coordinates, strict=True):
                made.value = round(_within(value, SLIDER_REACH), 2)
        finally:
            self._are_moved_by_us = False

    def _slid(self, index: int, value: float) -> None:
        if self._are_moved_by_us or abs(value - self._coordinates[index]) < 0.005:
            return
        moved = list(self._coordinates)
        moved[index] = round(value, 2)
        self._page.walk_to(tuple(moved), is_plane_new=index > 1)


def _within(value: float, reach: float = PLANE_REACH) -> float:
    return round(max(-reach, min(reach, value)), 2)


class WayPanel:
    """Two held-out pictures, and what lies between their points."""

    def __init__(self, page: ImagePage) -> None:
        self._page = page
        self._latest = layout.Latest()
        self._facts: dict[str, Any] = {}
        self._next_is_last = False
        self._thumbs: list[Element] = []
        self._root = box("section", "panel way")
        with self._root:
            with box("div", "head"):
                text("Between two held-out pictures", "h2")
                self._status = text("", "span", "status").props("role=status")
            self._offered = box("div", "offered")
            self._strip = box("div", "strip samples")
        self._root.set_visibility(False)
        self._client = ui.context.client

    async def restart(self, facts: dict[str, Any]) -> None:
        """Offer the held-out pictures of the version that has just been loaded."""
        is_wanted = self._latest.begin()
        self._facts = facts
        self._root.set_visibility(facts["can_encode"])
        if not facts["can_encode"]:
            return
        try:
            process = await layout.waited(self._page.process_of, "a")
            if process is None:
                return
            found = await layout.waited(process.answer, "examples")
        except VersionFailed as error:
            self._status.set_text(str(error))
            return
        if not is_wanted() or self._client.is_deleted:
            return
        self._offered.clear()
        self._thumbs = []
        with self._offered:
            for index, content in enumerate(found["pictures"]):
                thumb = picture(content, f"held-out picture {index}", "leads")
                thumb.props("tabindex=0 role=button")

                def take(_: Any, index: int = index) -> None:
                    self._take(index)

                thumb.on("click", take).on("keydown.enter", take)
                self._thumbs.append(thumb)
        await self.show()

    def hide(self) -> None:
        """Show nothing."""
        self._root.set_visibility(False)

    def _take(self, index: int) -> None:
        """The first click says where the way begins, the second where it ends, and so on."""
        state = self._page.state
        ends = (state.first, index) if self._next_is_last else (index, state.last)
        self._next_is_last = not self._next_is_last
        self._page.lead(*ends)

    async def show(self) -> None:
        """The pictures on the way."""
        is_wanted = self._latest.begin()
        most = self._facts["num_examples"] - 1
        first, last = min(self._page.state.first, most), min(self._page.state.last, most)
        try:
            process = await layout.waited(self._page.process_of, "a")
            if process is None:
                return
            found = await layout.waited(process.answer, "between", first=first, last=last)
        except VersionFailed as error:
            self._status.set_text(str(error))
            return
        if not is_wanted() or self._client.is_deleted:
            return
        for index, thumb in enumerate(self._thumbs):
            thumb.classes(remove="first last")
            thumb.classes(
                " ".join(n for n, at in (("first", first), ("last", last)) if at == index)
            )
        where = "ends" if self._next_is_last else "begins"
        self._status.set_text(f"click the picture where the way {where}")
        self._strip.clear()
        with self._strip:
            for index, answer in enumerate(found["pictures"]):
                with box("figure", "sample"):
                    beside_training(answer, self._facts["usual_distance"], f"step {index}")
