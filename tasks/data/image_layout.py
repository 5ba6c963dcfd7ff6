"""What the folders of a person's pictures mean: classes, the author's split, or neither.

A class is a folder. Where the author has put the pictures into train/ and test/ (or val/), above or
below the classes, these are the parts of the data and not classes. A folder without sub-folders has
no classes, and models of it are trained without labels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from unicodedata import normalize

from tasks.data.own_files import readable
from tasks.store.files import BadInput

Part = Literal["train", "validation", "test"]
Folders = tuple[str, ...]
"""The folders in which a picture lies, from the one below the root to the innermost."""

_PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    **dict.fromkeys(("holdout", "heldout"), "test"),
}
_WORDS_BESIDE = {"set", "data", "dataset", "split", "part", "images", "image", "imgs", "img"}
_WORDS_BESIDE |= {"pictures", "photos", "seg"}

NO_CLASS = "beside the class folders"
NO_PART = "beside the author's split"
UNLABELLED_PART = "without a class"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What a picture's folders say of it, for each picture; empty class names mean no labels."""

    class_names: tuple[str, ...]
    labels: list[int]
    """Indices into class_names; -1 where there are none."""
    parts: list[Part] | None
    """The author's split, or None where the author has made none."""
    left_out: dict[int, str]
    """Indices of pictures that belong to no class or part, each with the reason."""
    notes: tuple[str, ...]
    """What was decided, in sentences."""


def part_named(name: str) -> Part | None:
    """The part of the data that a folder's name stands for: "Train", "02_test-set", "val2017"."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if not word.isdecimal() and word]
    if len(words) == 1:
        word = words[0].strip("0123456789")
        words = [re.sub(r"(set|data|images|imgs)$", "", word) or word]
    kept = [word for word in words if word not in _WORDS_BESIDE]
    return _PARTS.get("".join(kept))  # "hold-out" is one word, too


def layout_of(folder: str, pictures: Sequence[Folders]) -> Layout:
    """What the folders of some pictures, at least one, say of them.

    folder: the root, as messages call it. Raises BadInput for a split that cannot be used.
    """
    # Some systems write an accent as a letter of its own: to people such names are equal.
    pictures = [tuple(normalize("NFC", name) for name in each) for each in pictures]
    level = _level_of_split(pictures)
    if level is None and (apart := _parts_apart(pictures)) is not None:
        layout = _with_split(folder, apart, len(_shared(pictures)))
        return replace(layout, notes=(*layout.notes, _told_apart(pictures, apart)))
    if level is None:
        _check_there_is_training(folder, pictures)
        _check_parts_are_known(folder, pictures)
        return _without_split(pictures)
    return _with_split(folder, pictures, level)


def _check_there_is_training(folder: str, pictures: Sequence[Folders]) -> None:
    start = len(_shared(pictures))
    tops = {each[start] if len(each) > start else "" for each in pictures}
    if len(tops) > 1 and {part_named(top) for top in tops} == {"validation", "test"}:
        shown = " and ".join(sorted(f"{readable(top)}/" for top in tops))
        raise BadInput(
            f"{folder} holds {shown}, and no train/; give the folder that holds the training part"
            " too, or move all pictures into one folder for each class"
        )


def _check_parts_are_known(folder: str, pictures: Sequence[Folders]) -> None:
    """Folders with the same classes in each are parts of the data if one is named like one."""
    start = len(_shared(pictures))
    inner: dict[str, set[Folders]] = {}
    for each in pictures:
        if len(each) > start:
            inner.setdefault(each[start], set()).add(each[start + 1 :])
    tops = sorted(inner)
    unknown = [top for top in tops if not part_named(top)]
    alike = len({frozenset(classes) for classes in inner.values()}) == 1
    # Of many, one is a "train" among vehicles.
    if not alike or not 0 < len(unknown) <= len(tops) / 2 or len(inner[tops[0]]) < 2:
        return
    shown = " and ".join(f"{readable(top)}/" for top in tops)
    others = " and ".join(f"{readable(top)}/" for top in unknown)
    raise BadInput(
        f"{folder} holds {shown} with the same folders in each, like parts of the data, and no part"
        f" is known by the name {others}; wanted train/ beside test/ or val/: rename it, or move"
        " all pictures into one folder for each class"
    )


_PART_AT_AN_END = (
    re.compile(r"(?P<part>[A-Za-z]+)[\W_]+(?P<rest>.+)"),
    re.compile(r"(?P<part>[A-Za-z]?[a-z]+)(?P<rest>[A-Z].*)"),
    re.compile(r"(?P<rest>.+)[\W_]+(?P<part>[A-Za-z]+)"),
)


def _parts_apart(pictures: Sequence[Folders]) -> list[Folders] | None:
    """Folders like trainA/ and testA/, or cats_train/ and cats_test/, as train/A/ and test/A/.

    None unless all folders side by side are called so, and every part has the same rest of names:
    a train_station/ beside a test_tube/ are classes.
    """
    start = len(_shared(pictures))
    split = {each[start]: _taken_apart(each[start]) for each in pictures if len(each) > start}
    rests: dict[Part, set[str]] = {}
    for part, rest in (found for found in split.values() if found is not None):
        rests.setdefault(part, set()).add(rest)
    is_split = "train" in rests and len(rests) > 1 and None not in split.values()
    if not is_split or any(rest != rests["train"] for rest in rests.values()):
        return None
    apart = []
    for each in pictures:
        found = split[each[start]] if len(each) > start else None
        apart.append(each if found is None else (*each[:start], *found, *each[start + 1 :]))
    return apart


def _told_apart(pictures: Sequence[Folders], apart: Sequence[Folders]) -> str:
    start = len(_shared(pictures))
    before, after = next((b, a) for b, a in zip(pictures, apart, strict=True) if len(b) > start)
    part, rest = (readable(name) for name in after[start : start + 2])
    return f"names like {readable(before[start])}/ are read as {part}/{rest}/"


def _taken_apart(name: str) -> tuple[Part, str] | None:
    """A folder's name as a part of the data and the rest."""
    for pattern in _PART_AT_AN_END:
        matched = pattern.fullmatch(name)
        if matched and (part := _PARTS.get(matched["part"].lower())) is not None:
            return part, matched["rest"]
    return None


def _without_split(pictures: Sequence[Folders]) -> Layout:
    above = _shared([each for each in pictures if each] or pictures)
    places = ["/".join(each[len(above) :]) for each in pictures]
    classes = sorted({place for place in places if place})
    loose = [index for index, place in enumerate(places) if not place]
    if len(classes) < 2:
        return Layout(
            class_names=(),
            labels=[-1] * len(pictures),
            parts=None,
            left_out={},
            notes=(
                "no class folders: trained without labels (for labels, put the pictures of each"
                " class into a folder of its own)",
            ),
        )
    notes = []
    if any(part_named(name) for name in above):
        notes.append(f"held-out parts are cut from {readable('/'.join(above))}/")
    if loose:
        notes.append(
            f"{len(loose)} pictures lie beside the {len(classes)} class folders and are left out"
        )
    notes += _differ_in_case(classes)
    return Layout(
        class_names=tuple(map(readable, classes)),
        labels=[classes.index(place) if place else -1 for place in places],
        parts=None,
        left_out=dict.fromkeys(loose, NO_CLASS),
        notes=tuple(notes),
    )


def _differ_in_case(classes: Sequence[str]) -> list[str]:
    """Notes on classes that some systems, and most people, hold for one."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(name.casefold(), []).append(readable(name))
    return [
        f"{' and '.join(names)} are classes of their own, though only case tells them apart"
        for names in spellings.values()
        if len(names) > 1
    ]


def _shared(pictures: Sequence[Folders]) -> Folders:
    """The folders that all pictures lie in."""
    first, last = min(pictures), max(pictures)
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


def _level_of_split(pictures: Sequence[Folders]) -> int | None:
    """At which depth the folders are parts of the data, or None.

    There must be a training part and a held-out one. Other folders beside them are no objection
    only where the parts hold the same classes, two at least: else a "train" is a class of vehicles
    and a "test" one of documents.
    """
    start = len(_shared(pictures))
    deepest = max(map(len, pictures))
    for level in range(start, min(deepest, start + 2)):
        named = [part_named(each[level]) if len(each) > level else None for each in pictures]
        if not {"train"} < set(named) - {None}:
            continue
        strangers = {
            each[: level + 1]
            for each, part in zip(pictures, named, strict=True)
            if part is None and len(each) > start
        }
        if not strangers:
            return level
        inner: dict[Part, set[Folders]] = {}
        for tail, part in zip(_below(pictures, named, level), named, strict=True):
            if part is not None:
                inner.setdefault(part, set()).add(tail)
        train = inner.pop("train")
        if len(train) >= 2 and all(held_out == train for held_out in inner.values()):
            return level
    return None


def _below(pictures: Sequence[Folders], parts: Sequence[Part | None], level: int) -> list[Folders]:
    """The folders below the split; one that says a part's name again, test/test/, says nothing."""
    tails = [each[level + 1 :] for each in pictures]
    for part in {part for part in parts if part is not None}:
        inside = [index for index, each in enumerate(parts) if each == part]
        first = {tails[index][:1] for index in inside}
        if len(first) == 1 and [part_named(name) for name in first.pop()] == [part]:
            for index in inside:
                tails[index] = tails[index][1:]
    return tails


def _with_split(folder: str, pictures: Sequence[Folders], level: int) -> Layout:
    start = len(_shared(pictures))
    parts = [part_named(each[level]) if len(each) > level else None for each in pictures]
    below = _below(pictures, parts, level)
    around = [(*each[start:level], *tail) for each, tail in zip(pictures, below, strict=True)]
    used = [each for each, part in zip(around, parts, strict=True) if part is not None]
    above = len(_shared(used))
    places = ["/".join(each[above:]) for each in around]
    left_out = {index: NO_PART for index, part in enumerate(parts) if part is None}
    classes = _classes_by_part(parts, places)
    notes = [f"{len(left_out)} pictures lie {NO_PART} and are left out"] if left_out else []
    trained = classes["train"] - {""}
    if len(trained) < 2:
        trained = set()
        notes.append("no class folders: trained without labels")
    else:
        for part in _unlabelled(classes, trained):
            outside = [index for index, each in enumerate(parts) if each == part]
            left_out |= dict.fromkeys(outside, UNLABELLED_PART)
            notes.append(f"the {len(outside)} pictures of the {part} part have no class: left out")
            del classes[part]
        loose = {i for i, place in enumerate(places) if not place and i not in left_out}
        left_out |= dict.fromkeys(loose, NO_CLASS)
        _check_classes(folder, classes, trained)
        notes += _missing(classes, trained)
    ordered = sorted(trained)
    notes += _differ_in_case(ordered)
    index_of = {name: index for index, name in enumerate(ordered)}
    return Layout(
        class_names=tuple(map(readable, ordered)),
        labels=[index_of.get(place, -1) for place in places],
        parts=_as_used([part or "train" for part in parts], set(classes)),
        left_out=left_out,
        notes=(_told(pictures, parts, level, set(classes)), *notes),
    )


def _classes_by_part(parts: Sequence[Part | None], places: Sequence[str]) -> dict[Part, set[str]]:
    found: dict[Part, set[str]] = {}
    for part, place in zip(parts, places, strict=True):
        if part is not None:
            found.setdefault(part, set()).add(place)
    return found


def _unlabelled(classes: dict[Part, set[str]], trained: set[str]) -> list[Part]:
    """Held-out parts in one heap: their classes are the secret of a competition."""
    return [
        part
        for part, places in classes.items()
        if part != "train" and len(places) == 1 and not places & trained
    ]


def _check_classes(folder: str, classes: dict[Part, set[str]], trained: set[str]) -> None:
    for part, places in classes.items():
        if unknown := sorted(map(readable, places - trained - {""})):
            known = ", ".join(sorted(map(readable, trained))[:8])
            raise BadInput(
                f"{folder}: the {part} part has {len(unknown)} classes that the training part"
                f" lacks ({', '.join(unknown[:4])}); wanted some of: {known}: name the class"
                " folders alike, or move all pictures into one folder for each class"
            )


def _missing(classes: dict[Part, set[str]], trained: set[str]) -> list[str]:
    notes = []
    for part, places in classes.items():
        if lacking := sorted(map(readable, trained - places)):
            notes.append(f"the {part} part has no pictures of {', '.join(lacking[:4])}")
    return notes


def _as_used(parts: list[Part], present: set[Part]) -> list[Part] | None:
    """Of one held-out part, whatever its name, the test is made; validation is cut from train."""
    if present == {"train"}:
        return None
    if "test" not in present:
        return ["test" if part == "validation" else part for part in parts]
    return parts


def _told(
    pictures: Sequence[Folders], parts: Sequence[Part | None], level: int, present: set[Part]
) -> str:
    named = zip(pictures, parts, strict=True)
    names = sorted({readable(each[level]) for each, part in named if part in present})
    shown = ", ".join(f"{name}/" for name in names)
    if present == {"train"}:
        return f"held-out parts are cut from {shown}"
    told = f"the author's split is used: {shown}"
    if present == {"train", "validation"}:
        return f"{told}; its validation part is the test, and validation is cut from the training"
    return told if "validation" in present else f"{told}; validation is cut from the training part"
