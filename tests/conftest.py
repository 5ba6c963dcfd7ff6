"""Tiny real things for tests: a home, an image set, a corpus, a tracking database, a server."""

import atexit
import fcntl
import functools
import gc
import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier.services import process_settings

# Prefect makes its home when it is imported: not the one of the person who runs the tests.
# pytest-xdist hands its environment to its processes; a name of a socket has at most 107 bytes.
_TEMPORARY = os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_SESSION = tempfile.TemporaryDirectory(prefix="at-", dir=_TEMPORARY)
atexit.register(_SESSION.cleanup)
Path(_SESSION.name).chmod(0o711)  # PostgreSQL, which does not run as root, reaches its own folder
os.environ["TMPDIR"] = tempfile.tempdir = _SESSION.name
os.environ["ATELIER_HOME"] = str(Path(_SESSION.name, "home"))
os.environ["PYTHONWARNINGS"] = "default"
process_settings.apply_settings()

from tasks.data.ingestion import ImageSet, ingest_images, ingest_text  # noqa: E402
from tasks.data.tokenization import TokenSet, tokenize_corpus  # noqa: E402
from tasks.tracking.mlflow_client import client  # noqa: E402
from tasks.tracking.runs import open_run  # noqa: E402


def pytest_collection_finish() -> None:
    """Leave what is imported out of each later search for garbage: it stays, and is a million."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have the most slow tests, and end with the quick ones.

    pytest-xdist hands out whole files in this order: with a long one at the end, one process works
    while the others have nothing left.
    """
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[item.path])


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Undo what a command under test sets in the environment of its process."""
    before, temporary = dict(os.environ), tempfile.tempdir
    # What a test kills leaves its temporary files where no other test finds them.
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="", dir=temporary)
    yield
    tempfile.tempdir = temporary
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def atelier_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home; runs are kept in its own SQLite database."""
    home = tmp_path / "home"
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.delenv("ATELIER_DATA", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


def _write_pictures(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for label, columns in (("left", slice(0, 4)), ("right", slice(4, 8))):
        (folder / label).mkdir(parents=True)
        for index in range(60):
            pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[:, columns] += 150
            Image.fromarray(pixels).save(folder / label / f"{index:02d}.png")
    return folder


def _write_corpus(path: Path) -> Path:
    random = np.random.default_rng(1)
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(320)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """120 grey 8x8 pictures in two classes: bright on the left, bright on the right."""
    return _write_pictures(tmp_path / "pictures")


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A corpus of 14 kB in which some words follow others more often."""
    return _write_corpus(tmp_path / "corpus.txt")


@pytest.fixture(scope="session")
def written_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, written once: to be read only."""
    return _write_pictures(tmp_path_factory.mktemp("images") / "pictures")


@pytest.fixture(scope="session")
def written_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same corpus, written once: to be read only."""
    return _write_corpus(tmp_path_factory.mktemp("text") / "corpus.txt")


@pytest.fixture
def images(atelier_home: Path, image_folder: Path) -> ImageSet:
    """The receipt of the 120 pictures."""
    return ingest_images.fn(f"folder:{image_folder}")


@pytest.fixture
def tokens(atelier_home: Path, text_file: Path) -> TokenSet:
    """The receipt of the corpus, in characters."""
    return tokenize_corpus.fn(ingest_text.fn(f"file:{text_file}"))


@pytest.fixture
def run_id(tracking_database: str) -> Iterator[str]:
    """An open MLflow run in a database of its own."""
    with open_run("test") as opened:
        yield opened


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A file that `make` writes; pytest-xdist's processes share it, and the first one makes it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path, unfinished = folder / name, folder / "unfinished" / name
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished.parent.mkdir(exist_ok=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(unfinished.parent)  # MLflow makes a folder in the working directory
                make(unfinished)
            copy = shutil.copy(unfinished, folder / f"{name}.copy")
            Path(copy).rename(path)
    return path


@pytest.fixture(scope="session")
def newest_tables() -> Iterator[None]:
    """MLflow reads all its migrations for the name of the last, for each database that it opens."""
    from mlflow.store.db import utils

    with pytest.MonkeyPatch.context() as patch:
        newest = functools.cache(utils._get_latest_schema_revision)
        patch.setattr(utils, "_get_latest_schema_revision", newest)
        yield


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory, newest_tables: None) -> Path:
    """An empty MLflow database with all tables: making one takes seconds, copying it none."""

    def make(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
            client().search_experiments()

    return _made_once(tmp_path_factory, "mlflow.db", make)


@pytest.fixture(scope="session")
def migrated_prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of Prefect's server, which takes longer to make its tables than to start."""

    def make(path: Path) -> None:
        from prefect.server.database import dependencies
        from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings
        from prefect.utilities.asyncutils import run_coro_as_sync

        async def make_tables() -> None:
            database = dependencies.provide_database_interface()
            await database.create_db()
            await (await database.engine()).dispose()

        address = {PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{path}"}
        with dependencies.temporary_database_interface(), temporary_settings(address):
            run_coro_as_sync(make_tables())

    return _made_once(tmp_path_factory, "prefect.db", make)


@pytest.fixture
def tracking_database(
    migrated_database: Path, atelier_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Where this test's runs are kept."""
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    return os.environ["MLFLOW_TRACKING_URI"]


@pytest.fixture(scope="module")
def prefect(migrated_prefect_database: Path) -> Iterator[Any]:
    """A client of a Prefect server with a database of its own; flows called here report to it.

    For a module, and not for all of them: while it is open, its address is a setting of the
    whole process, and what emits events or asks for a server would find it.
    """
    from prefect.client.orchestration import get_client
    from prefect.testing import utilities

    def folder_with_tables() -> str:
        folder = tempfile.mkdtemp()
        shutil.copy(migrated_prefect_database, Path(folder, "prefect-test.db"))  # the harness's
        return folder

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(utilities, "mkdtemp", folder_with_tables)
        stack.enter_context(utilities.prefect_test_harness(server_startup_timeout=180))
        patch.undo()
        yield stack.enter_context(get_client(sync_client=True))
    gc.collect()  # what Prefect left open is reported to the module that opened it


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(256)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if head.startswith(b"\x93NUMPY") and b"|O" in head:
        return True  # an array of objects
    if zipfile.is_zipfile(path):
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
    return path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")


@pytest.fixture
def scan_for_pickles() -> Callable[[Path], tuple[int, list[Path]]]:
    """Looks into every file below a folder: how many there are, and which hold a pickle."""

    def scan(folder: Path) -> tuple[int, list[Path]]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return len(files), [path for path in files if _is_pickle(path)]

    return scan
