"""The code that a version brings along, under a package name of its own.

Two versions whose `models/` differ work in one process at the same time because each imports its
copy by another name, `models_<digest>`, and none meets the `models` of this project.
"""

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from tasks.store.files import (
    digest_of,
    outside_the_home,
    project_root,
    scratch_folder,
    write_bytes,
)

SERVED_MODEL = Path(__file__).with_name("served_model.py")
_IMPORT_FROM = re.compile(rb"^(\s*from )models(?=[. ])", re.MULTILINE)
_IMPORT = re.compile(rb"^(\s*import )models$", re.MULTILINE)


@cache
def _project_code(root: Path) -> tuple[str, dict[str, bytes]]:
    """The package name for the present code, and its files under that name; read once a process."""
    folder = root / "models"
    sources = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    contents = {name: path.read_bytes() for name, path in sorted(sources.items())}
    served = SERVED_MODEL.read_bytes()
    told = {name: content.decode() for name, content in contents.items()}
    name = f"models_{digest_of([told, served.decode()])[:12]}"
    files = {f"code/{name}/{path}": renamed(text, name) for path, text in contents.items()}
    return name, {**files, SERVED_MODEL.name: renamed(served, name)}


def renamed(source: bytes, name: str) -> bytes:
    """A module's text with its imports of `models` turned to another package name."""
    source = _IMPORT_FROM.sub(rb"\g<1>" + name.encode(), source)
    return _IMPORT.sub(rb"\g<1>" + name.encode() + b" as models", source)


def package_name() -> str:
    """What `models` is called inside a version that is made now."""
    return _project_code(project_root())[0]


def code_files() -> dict[str, bytes]:
    """The code of a version by its path in the package, as this project would write it now."""
    return _project_code(project_root())[1]


@contextmanager
def written_code() -> Iterator[tuple[Path, Path]]:
    """These files in a folder for a while: its copy of `models`, and the file MLflow executes.

    The copy can be imported meanwhile, since MLflow executes that file when it logs a version.
    """
    name, files = package_name(), code_files()
    path = list(sys.path)
    with scratch_folder(outside_the_home()) as folder:
        for place, content in files.items():
            write_bytes(folder / place, content)
        code = folder / "code"
        sys.path.insert(0, str(code))
        try:
            yield code / name, folder / SERVED_MODEL.name
        finally:
            sys.path[:] = path
            take_out({name})


def take_out(packages: Collection[str]) -> dict[str, ModuleType]:
    """The imported modules of some packages, which are then no longer found by their names.

    Their objects go on working; a copy that lies elsewhere is imported afresh.
    """
    names = [name for name in sys.modules if name.partition(".")[0] in packages]
    return {name: sys.modules.pop(name) for name in names}
