"""The manifest of a data set: a row for every file that was seen, used or not, with the reason."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tasks.data.image_folder import RawImages
from tasks.data.text_files import RawText


def image_manifest(
    raw: RawImages, hashes: list[str], splits: np.ndarray, order: Sequence[str], source: str
) -> pd.DataFrame:
    """A row for each file; `row` is its place in pixels.npy, or -1 for one that was set aside.

    order: the splits, in the order in which they are stored.
    """
    height, width = raw.pixels.shape[2:]
    kept = pd.DataFrame(
        {
            "id": raw.ids,
            "label": raw.labels,
            "split": splits.astype(str),
            "sha256": hashes,
            "width": width,
            "height": height,
            "source": source,
            "quarantine_reason": None,
        }
    )
    first = kept.drop_duplicates("sha256").set_index("sha256")["id"]
    original = kept["sha256"].map(first)
    kept["duplicate_of"] = original.where(original != kept["id"], None)
    kept["row"] = kept["split"].map(list(order).index).argsort(kind="stable").argsort()
    lost = pd.DataFrame(
        {
            "id": [each.id for each in raw.set_aside],
            "label": -1,
            "split": "quarantined",
            "sha256": "",
            "width": 0,
            "height": 0,
            "source": source,
            "quarantine_reason": [each.reason for each in raw.set_aside],
            "duplicate_of": None,
            "row": -1,
        }
    )
    return kept if lost.empty else pd.concat([kept, lost], ignore_index=True)


def text_manifest(raw: RawText, source: str) -> pd.DataFrame:
    """A row for each file; `row` is its place in the text, or -1 for one that was set aside."""
    used: list[Mapping[str, object]] = [
        {"id": name, "characters": length, "row": row, "quarantine_reason": None}
        for row, (name, length) in enumerate(raw.files)
    ]
    lost: list[Mapping[str, object]] = [
        {"id": each.id, "characters": 0, "row": -1, "quarantine_reason": each.reason}
        for each in raw.set_aside
    ]
    columns = ["id", "characters", "source", "quarantine_reason", "row"]
    return pd.DataFrame([*used, *lost]).assign(source=source).reindex(columns=columns)
