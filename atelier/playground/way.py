"""The panel of two held-out pictures, and what lies between their points."""

from typing import TYPE_CHECKING, Any

from nicegui import ui
from nicegui.element import Element

from atelier.playground import layout
from atelier.playground.layout import box, text
from atelier.playground.pictures import beside_training, picture
from tasks.playground.version_process import VersionFailed

if TYPE_CHECKING:
    from atelier.playground.image_page import ImagePage


class WayPanel:
    """Two held-out pictures, and what lies between their points."""

    def __init__(self, page: "ImagePage") -> None:
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
            found = await self._page.answer("a", "examples")
        except VersionFailed as error:
            self._status.set_text(str(error))
            return
        if found is None or not is_wanted() or self._client.is_deleted:
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
            found = await self._page.answer("a", "between", first=first, last=last)
        except VersionFailed as error:
            self._status.set_text(str(error))
            return
        if found is None or not is_wanted() or self._client.is_deleted:
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
