"""A registered version as a folder that runs without this project, once its files are verified."""

from pathlib import Path

from tasks.families.table import FAMILIES
from tasks.packaging.export import write_export
from tasks.registry.verification import verified_copy
from tasks.store.files import BadInput
from tasks.store.output_folder import check_free


def export_version(name: str, alias_or_version: str, folder: Path) -> list[str]:
    """Write a version into a folder that is empty or not there; returns the files' names.

    Raises BadInput for a folder that holds files and for a version that is not there, and what
    `verified_copy` raises; nothing of the version is executed.
    """
    check_free(folder)
    with verified_copy(name, alias_or_version) as (package, version):
        family = FAMILIES.get(version.tags.get("family", ""))
        if family is None:
            raise BadInput(f"{name} version {version.version} is of no family that is known here")
        facts = {
            "model": name,
            "version": version.version,
            "digest": version.tags.get("content_digest", ""),
            "purpose": family.purpose,
            "limits": family.limits,
            "main_metric": version.tags.get("main_metric", ""),
            "main_value": version.tags.get("main_value", ""),
        }
        return write_export(package, folder, family.loader or f"load_{family.data}", facts)
