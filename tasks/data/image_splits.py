"""Which images are trained on and which are held out, and whether there are enough of each."""

import numpy as np

from tasks.data.image_folder import RawImages
from tasks.data.own_files import one_line
from tasks.store.files import BadInput

MIN_IMAGES, MIN_PER_CLASS = 100, 8
MIN_HELD_OUT = 8
"""Images of a test or validation part that its author has made."""


def check_images(source: str, raw: RawImages, hashes: list[str]) -> None:
    """Raise BadInput for too few images, in all, of a class, or of an official part."""
    shown = one_line(source)
    first_of = dict(zip(reversed(hashes), reversed(raw.labels.tolist()), strict=True))
    if len(raw.class_names) == 1:
        raise BadInput(
            f"{shown} has one class ({raw.class_names[0]!r}) whose images can be read; wanted at"
            " least two, or all images in one folder to train without labels"
        )
    counts = np.bincount(
        [label for label in first_of.values() if label >= 0], minlength=len(raw.class_names)
    )
    if len(first_of) < MIN_IMAGES:
        raise BadInput(
            f"{shown} has {len(first_of)} different images{_of_rarest(raw, counts)}; wanted at"
            f" least {MIN_IMAGES} in all and {MIN_PER_CLASS} of each class"
        )
    if raw.class_names and counts.min() < MIN_PER_CLASS:
        raise BadInput(
            f"{shown} has {len(first_of)} different images{_of_rarest(raw, counts)}; wanted at"
            f" least {MIN_PER_CLASS} of each class: add some, or take that folder out"
        )
    for name, part in (("test", raw.official_test), ("validation", raw.official_validation)):
        if part is not None and (number := int(part.sum())) < MIN_HELD_OUT:
            raise BadInput(
                f"{shown}: the author's {name} part has {number} images; wanted at least"
                f" {MIN_HELD_OUT}: add some, or move all images into one folder for each class"
            )


def _of_rarest(raw: RawImages, counts: np.ndarray) -> str:
    if not raw.class_names:
        return ""
    return f", {counts.min()} of class {raw.class_names[int(counts.argmin())]!r}"


def split_images(
    labels: np.ndarray,
    hashes: list[str],
    official_test: np.ndarray | None = None,
    official_validation: np.ndarray | None = None,
) -> np.ndarray:
    """Each image's split, by class and content: (N,) of "train", "validation" or "test".

    Within a class the images are put in the order of their hashes and cut: 70 % train, 15 %
    validation, 15 % test, or 90 / 10 around an official test part; where the validation part is
    official as well, all others are for training. No seed takes part, so every run of every seed
    is judged on the same images; equal images always share a split, but for official ones.
    """
    splits = np.full(len(labels), "train", dtype=object)
    free = np.ones(len(labels), dtype=bool)
    fractions = {"test": 0.15, "validation": 0.15}
    if official_test is not None:
        splits[official_test] = "test"
        free = ~official_test
        fractions = {"validation": 0.1}
    if official_validation is not None:
        splits[official_validation] = "validation"
        free = free & ~official_validation
        del fractions["validation"]
    class_of: dict[str, int] = {}  # an image under two labels belongs to the first
    for index in np.flatnonzero(free):
        class_of.setdefault(hashes[index], int(labels[index]))
    split_of: dict[str, str] = {}
    for label in np.unique(labels):
        distinct = sorted(key for key, value in class_of.items() if value == label)
        start = 0
        for split, fraction in fractions.items():
            end = start + max(1, round(fraction * len(distinct)))
            split_of.update(dict.fromkeys(distinct[start:end], split))
            start = end
    for index in np.flatnonzero(free):
        splits[index] = split_of.get(hashes[index], "train")
    return splits
