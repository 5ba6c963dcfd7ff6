"""The panel of a way through the latent space: between two held-out pictures, or two seeds."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicegui import ui
from nicegui.element import Element

from atelier.playground import layout
from atelier.playground.address import MAX_SEED
from atelier.playground.layout import box, text
from atelier.playground.pictures import beside_training, picture
from tasks.playground.version_process import VersionFailed

if TYPE_CHECKING:
    from atelier.playground.image_page import ImagePage


class WayPanel:
    """What lies between two points: of held-out pictures, where the family finds theirs.

    Of a family that finds no picture's point they are those of two seeds' first samples.
    """

    def __init__(self, page: "ImagePage") -> None:
        self._page = page
        self._latest = layout.Latest()
        self._facts: dict[str, Any] = {}
        self._next_is_last = False
        self._thumbs: list[Element] = []
        self._root = box("section", "panel way")
        with self._root:
            with box("div", "head"):
                self._title = text("", "h2")
                self._status = text("", "span", "status").props("role=status")
            self._offered = box("div", "offered")
            self._seeds = box("div", "controls seeds")
            with self._seeds:
                self._from = layout.number(
                    "from seed", 0, MAX_SEED, page.state.from_seed, lambda n: self._lead(n, None)
                )
                self._to = layout.number(
                    "to seed", 0, MAX_SEED, page.state.to_seed, lambda n: self._lead(None, n)
                )
                ui.button("go on", icon="east", on_click=self._go_on).props(
                    'unelevated no-caps dense title="from where it ends to the next seed"'
                ).classes("next")
            self._strip = box("div", "strip samples")
        self._root.set_visibility(False)
        self._client = ui.context.client

    async def restart(self, facts: dict[str, Any]) -> None:
        """Offer the ends of ways of the version that has just been loaded."""
        is_wanted = self._latest.begin()
        self._facts = facts
        self._root.set_visibility(facts["has_latents"])
        self._offered.set_visibility(facts["can_encode"])
        self._seeds.set_visibility(not facts["can_encode"])
        between = "held-out pictures" if facts["can_encode"] else "seeds"
        self._title.set_text(f"Between two {between}")
        if facts["can_encode"]:
            await self._offer(is_wanted)
        if facts["has_latents"] and is_wanted():
            await self.show()

    async def _offer(self, is_wanted: Callable[[], bool]) -> None:
        """Show the held-out pictures to choose from."""
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

    def hide(self) -> None:
        """Show nothing."""
        self._root.set_visibility(False)

    def _take(self, index: int) -> None:
        """The first click says where the way begins, the second where it ends, and so on."""
        state = self._page.state
        ends = (state.first, index) if self._next_is_last else (index, state.last)
        self._next_is_last = not self._next_is_last
        self._page.lead(first=ends[0], last=ends[1])

    def _lead(self, from_seed: int | None, to_seed: int | None) -> None:
        """Between other seeds; None is the present one."""
        state = self._page.state
        ends = (
            state.from_seed if from_seed is None else from_seed,
            state.to_seed if to_seed is None else to_seed,
        )
        if ends != (state.from_seed, state.to_seed):
            self._page.lead(from_seed=ends[0], to_seed=ends[1])

    def _go_on(self) -> None:
        """From where the way ends to the seed after it."""
        end = self._page.state.to_seed
        after = (end + 1) % (MAX_SEED + 1)
        self._page.lead(from_seed=end, to_seed=after)
        self._from.value, self._to.value = end, after

    async def show(self) -> None:
        """The pictures on the way."""
        is_wanted = self._latest.begin()
        self._status.set_text("looking for what lies between ...")
        ask = self._between_pictures if self._facts["can_encode"] else self._between_seeds
        try:
            found = await ask()
        except VersionFailed as error:
            if is_wanted():
                self._status.set_text(str(error))
            return
        if found is None or not is_wanted() or self._client.is_deleted:
            return
        self._tell()
        self._strip.clear()
        with self._strip:
            for index, answer in enumerate(found["pictures"]):
                with box("figure", "sample"):
                    beside_training(answer, self._facts["usual_distance"], f"step {index}")

    async def _between_pictures(self) -> Any:
        first, last = self._ends()
        return await self._page.answer("a", "between", first=first, last=last)

    async def _between_seeds(self) -> Any:
        state = self._page.state
        request = {
            "start": self._page.samples_request(self._page.classes),
            "from_seed": state.from_seed,
            "to_seed": state.to_seed,
        }
        return await self._page.answer("a", "between_seeds", request=request)

    def _ends(self) -> tuple[int, int]:
        """Which of the held-out pictures that there are."""
        most = self._facts["num_examples"] - 1
        return min(self._page.state.first, most), min(self._page.state.last, most)

    def _tell(self) -> None:
        """Say what is shown, and mark the pictures at its ends."""
        if not self._facts["can_encode"]:
            self._status.set_text("from the first sample of one seed to that of the other")
            return
        first, last = self._ends()
        for index, thumb in enumerate(self._thumbs):
            thumb.classes(remove="first last")
            thumb.classes(
                " ".join(n for n, at in (("first", first), ("last", last)) if at == index)
            )
        where = "ends" if self._next_is_last else "begins"
        self._status.set_text(f"click the picture where the way {where}")
