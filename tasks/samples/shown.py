"""What the latest page of the gallery shows, as `gallery/works.json` tells; nothing is drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.runtime.progress import log
from tasks.store.files import home, read_json


def gallery_root() -> Path:
    """The folder of the page."""
    return home() / "gallery"


def shown_folder() -> Path | None:
    """The folder whose files the latest page was made of."""
    for record in shown_records():
        if isinstance(record, Mapping) and isinstance(record.get("folder"), str):
            return located(record["folder"]).parent
    return None


def located(folder: str) -> Path:
    """Where a work's files lie; the version before named them from the gallery's folder on."""
    path = home() / folder
    return path if path.parent.is_dir() else gallery_root() / folder


def shown_records() -> list[Any]:
    """The works of the latest page as they stand in its file; none where it cannot be read."""
    path = gallery_root() / "works.json"
    try:
        found = read_json(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        log(f"gallery: {path} cannot be read, so everything is drawn anew: {error}")
        return []
    return found if isinstance(found, list) else []
