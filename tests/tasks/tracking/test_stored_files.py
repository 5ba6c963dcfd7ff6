"""A folder of MLflow's files, read without MLflow: what its own store of artifacts tells."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from tasks.packaging.files import files_of
from tasks.tracking.stored_files import StoredFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package: files, a folder of a folder, an empty folder, a file that is being written."""
    made = tmp_path / "a package"
    (made / "code" / "deep").mkdir(parents=True)
    (made / "empty").mkdir()
    (made / "code" / "model.py").write_text("x = 1\n")
    (made / "code" / "deep" / "weights").write_bytes(b"weights" * 100)
    (made / ".artifact.uploading.x").write_bytes(b"half")
    (made / "MLmodel").symlink_to("code/model.py")
    return made


def listed(store: Any, path: str | None = None) -> list[tuple[str, bool, int | None]]:
    found = [(each.path, each.is_dir, each.file_size) for each in store.list_artifacts(path)]
    return found + [one for name, is_dir, _ in found if is_dir for one in listed(store, name)]


def test_the_listing_and_the_copy_are_those_of_mlflow(folder: Path, tmp_path: Path) -> None:
    theirs, ours = LocalArtifactRepository(folder.as_uri()), StoredFiles.at(folder.as_uri())
    assert ours is not None
    assert listed(ours) == listed(theirs)
    assert ours.list_artifacts("nothing") == theirs.list_artifacts("nothing") == []

    for name, store in (("theirs", theirs), ("ours", ours)):
        (tmp_path / name).mkdir()
        store.download_artifacts("", str(tmp_path / name))

    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")
    assert set(files_of(tmp_path / "ours")) == {"MLmodel", "code/model.py", "code/deep/weights"}
    assert (tmp_path / "ours" / "empty").is_dir()


def leads_out_as_a_folder(folder: Path) -> None:
    (folder / "code" / "out").symlink_to("/usr")


def leads_out_as_a_file(folder: Path) -> None:
    (folder / "code" / "out").symlink_to("/etc/hostname")


def leads_nowhere(folder: Path) -> None:
    (folder / "code" / "out").symlink_to("nowhere")


def is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "code" / "out")


@pytest.mark.parametrize(
    "spoil", [leads_out_as_a_folder, leads_out_as_a_file, leads_nowhere, is_a_pipe]
)
def test_what_mlflow_does_not_copy_is_not_copied(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    theirs, ours = LocalArtifactRepository(str(folder)), StoredFiles.at(str(folder))
    assert ours is not None
    (tmp_path / "copy").mkdir()

    with pytest.raises((MlflowException, OSError)):
        theirs.download_artifacts("", str(tmp_path / "copy"))
    with pytest.raises(OSError, match=r"outside|No such file|named pipe"):
        ours.download_artifacts("", str(tmp_path / "copy"))


@pytest.mark.parametrize(
    "address", ["s3://bucket/1", "mlflow-artifacts:/1", "http://127.0.0.1:1/x", "file://host/x"]
)
def test_what_lies_elsewhere_is_not_read_here(address: str) -> None:
    assert StoredFiles.at(address) is None
