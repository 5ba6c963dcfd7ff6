"""The panel of a picture of one's own: as the version takes it, reconstructed, and its nearest."""

import base64
from typing import TYPE_CHECKING, Any

from nicegui import events, ui

from atelier.playground import layout
from atelier.playground.layout import box, text
from atelier.playground.pictures import picture
from tasks.data.own_files import readable
from tasks.playground.version_process import VersionFailed

if TYPE_CHECKING:
    from atelier.playground.image_page import ImagePage

MAX_MEGABYTES = 20
"""Of a file; a photograph takes half of that."""
MAX_BYTES = MAX_MEGABYTES * 1_000_000
NOT_TAKEN = f"not taken: wanted is one picture, such as PNG or JPEG, of at most {MAX_MEGABYTES} MB"
NOT_ARRIVED = f"the file did not arrive; wanted are at most {MAX_MEGABYTES} MB"
NO_ENCODER = "this family has no encoder, so there is no reconstruction"
_STAYS = "it stays in this tab: the page's address cannot hold it"
_MAX_NAME = 60


class OwnPanel:
    """A file of the person's, which the first version is shown."""

    def __init__(self, page: "ImagePage") -> None:
        self._page = page
        self._latest = layout.Latest()
        self._facts: dict[str, Any] = {}
        self._content, self._name, self._is_exchanged = b"", "", False
        self._root = box("section", "panel own")
        with self._root:
            with box("div", "head"):
                text("A picture of your own", "h2")
                self._status = text("", "span", "status").props("role=status")
            with box("div", "given"):
                self._upload = ui.upload(
                    label="choose a picture, or drop it here",
                    max_file_size=MAX_BYTES,
                    auto_upload=True,
                    on_upload=self._take,
                    on_rejected=lambda: self._refuse(NOT_TAKEN),
                ).props('accept="image/*" flat bordered hide-upload-btn')
                self._upload.on("failed", lambda: self._refuse(NOT_ARRIVED), args=[])
                switch = ui.switch("exchange light and dark", on_change=self._exchange)
                switch.props("dense").tooltip(
                    "for ink on paper, where the model knows light on dark"
                )
            self._shown = box("div", "shown")
        self._root.set_visibility(False)
        self._client = ui.context.client

    async def restart(self, facts: dict[str, Any]) -> None:
        """Offer it to the version that has just been loaded, and show it the picture again."""
        self._facts = facts
        self._root.set_visibility(facts["can_encode"] or facts["has_training"])
        self._status.set_text("" if facts["can_encode"] else NO_ENCODER)
        if self._content:
            await self.show()

    def hide(self) -> None:
        """Show nothing."""
        self._root.set_visibility(False)

    async def _take(self, event: events.UploadEventArguments) -> None:
        """Show what has come, and let the same name be chosen again."""
        self._upload.reset()
        if event.file.size() > MAX_BYTES:
            self._refuse(NOT_TAKEN)
            return
        self._content, self._name = await event.file.read(), event.file.name
        await self.show()

    async def _exchange(self, event: events.ValueChangeEventArguments[Any]) -> None:
        """Show the negative, or the picture as it came."""
        self._is_exchanged = bool(event.value)
        if self._content:
            await self.show()

    def _refuse(self, reason: str) -> None:
        """Say why there is nothing to see."""
        self._latest.begin()
        self._content = b""
        self._upload.reset()
        self._shown.clear()
        self._status.set_text(reason)

    async def show(self) -> None:
        """The picture as the version takes it, and what it makes of it."""
        is_wanted = self._latest.begin()
        name = readable(self._name)
        name = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."
        self._status.set_text(f"reading {name} ...")
        request = {
            "content": base64.b64encode(self._content).decode("ascii"),
            "name": self._name,
            "is_negative": self._is_exchanged,
        }
        try:
            found = await self._page.answer("a", "own", **request)
        except VersionFailed as error:
            if is_wanted():
                self._refuse(f"{name}: {error}")
            return
        if found is None or not is_wanted() or self._client.is_deleted:
            return
        self._status.set_text("; ".join([name, *found["remarks"], _STAYS]))
        self._shown.clear()
        with self._shown:
            self._build(found)

    def _build(self, found: dict[str, Any]) -> None:
        size = f"{self._facts['width']}x{self._facts['height']}"
        _figure(found["picture"], "your picture", f"as the version takes it, {size}")
        if "reconstruction" in found:
            _figure(found["reconstruction"], "reconstruction", f"{found['error']:.2f} from yours")
        else:
            text(NO_ENCODER, "p", "small")
        if "nearest" in found:
            usual = self._facts["usual_distance"]
            told = f"{found['distance']:.2f} from yours; usual is {usual:.2f}"
            _figure(found["nearest"], "the nearest training picture", told)


def _figure(content: str, words: str, told: str) -> None:
    with box("figure", "here"):
        picture(content, words)
        text(words, "figcaption")
        text(told, "figcaption", "small")
