"""How pictures are shown: enlarged, not blurred, above the training picture nearest to each."""

from typing import Any

from nicegui.element import Element

from atelier.playground.layout import box, text

COPY_SHARE = 0.3
"""A sample nearer to a training picture than this share of what held-out ones keep may be one."""


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
