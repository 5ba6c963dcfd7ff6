"""The panel of the latent space: a plane of pictures to point at, and a slider for each axis."""

from functools import partial
from typing import TYPE_CHECKING, Any

from nicegui import ui
from nicegui.events import MouseEventArguments

from atelier.playground import layout
from atelier.playground.layout import box, text
from atelier.playground.pictures import beside_training
from tasks.playground.version_process import VersionFailed

if TYPE_CHECKING:
    from atelier.playground.image_page import ImagePage

SLIDER_REACH = 4.0
"""How far a slider goes from the middle, in sigma."""


class WalkPanel:
    """The latent space: a plane of pictures to point at, and a slider for each axis."""

    def __init__(self, page: "ImagePage") -> None:
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
                    self._scale = text("", "span", "small")
                self._here = box("figure", "here")
                self._axes = box("div", "axes")
        self._root.set_visibility(False)
        self._client = ui.context.client

    async def restart(self, facts: dict[str, Any]) -> None:
        """Show the space of the version that has just been loaded, where it has one."""
        self._facts = facts
        self._root.set_visibility(facts["has_latents"])
        if facts["has_latents"]:
            reach = f"{facts['plane_reach']:g}"
            self._scale.set_text(f"axis 1 →, axis 2 ↑, each from -{reach} to {reach} sigma")
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
            point = await self._page.answer("a", "point", request=request)
            plane = await self._page.answer("a", "plane", request=request) if is_new else None
        except VersionFailed as error:
            self._status.set_text(str(error))
            return
        if point is None or version != self._page.state.a or self._client.is_deleted:
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
        side, reach = self._facts["plane_side"], self._facts["plane_reach"]
        x, y = (*self._coordinates, 0.0, 0.0)[:2]
        across = (x / (2 * reach) * (1 - 1 / side) + 0.5) * width
        down = (-y / (2 * reach) * (1 - 1 / side) + 0.5) * height
        size = width / side
        lines = "".join(
            f'<path d="M{at * width / side:.2f} 0V{height}M0 {at * height / side:.2f}'
            f'H{width}" stroke="#8888" stroke-width="{size / 30:.2f}"/>'
            for at in range(1, side)
        )
        self._plane.set_content(
            f'{lines}<rect x="{across - size / 2:.2f}" y="{down - size / 2:.2f}" width="{size:.2f}"'
            f' height="{size:.2f}" fill="none" stroke="#e8590c" stroke-width="{size / 12:.2f}"/>'
        )

    def _size(self) -> tuple[float, float]:
        """Of the plane, in pixels: its pictures lie side by side."""
        side = self._facts["plane_side"]
        return side * self._facts["width"], side * self._facts["height"]

    def _pointed(self, event: MouseEventArguments) -> None:
        if event.type == "mousemove" and not event.buttons & 1:
            return
        width, height = self._size()
        reach = self._facts["plane_reach"]
        stretch = 2 * reach / (1 - 1 / self._facts["plane_side"])
        x = _within((event.image_x / width - 0.5) * stretch, reach)
        y = _within((0.5 - event.image_y / height) * stretch, reach)
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


def _within(value: float, reach: float) -> float:
    return round(max(-reach, min(reach, value)), 2)
