"""Packages, tags and logs changed by somebody: found, named, and nothing of them executed."""

import json
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

from faults.damage import cut, flip
from faults.registries import NAME, copied, done_in, load, make_registry, packages, problems
from faults.tally import Tally
from tasks.packaging.bundled_code import package_name

MARK = "executed"
_EVIL = f"\nopen({MARK!r}, 'w').close()\n"


def tamper(dice: random.Random, scratch: Path, empty: Path, tally: Tally) -> None:
    """Do all of it to a champion, one by one; each must be refused by name and told of."""
    first = scratch / "registry" / "home"
    make_registry(first, empty)
    stores = done_in(first, packages)
    kept = scratch / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    for number, store in stores.items():
        shutil.copytree(store, kept / str(number))
    for name, change, file in _changes(dice):
        for number, store in stores.items():  # as they were; they lie in the first home
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(kept / str(number), store)
        home = copied(first, scratch / "registry" / "damaged")
        change(home, {number: Path(store) for number, store in stores.items()})
        tally.tamperings += 1
        refused, told = done_in(home, load), done_in(home, problems)
        was_executed = (home / MARK).exists()
        if was_executed:
            tally.note(f"{name}: it was executed")
        elif file not in refused or "\n" in refused:
            tally.note(f"{name}: {refused or 'it was loaded'}")
        elif not told:
            tally.note(f"{name}: nobody tells of it")
        else:
            tally.tamperings_found += 1
    for number, store in stores.items():
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(kept / str(number), store)
    if (refused := done_in(first, load)) or done_in(first, problems):
        tally.note(f"what nobody touched is refused: {refused}")
    print(f"  tampering: {tally.tamperings} ways", flush=True)


Change = Callable[[Path, dict[int, Path]], None]


def _changes(dice: random.Random) -> list[tuple[str, Change, str]]:
    """What is done, how, and what the refusal must name."""
    bitten = dice.choice(
        ("artifacts/weights.safetensors", f"code/{package_name()}/ngram/model.py", "MLmodel")
    )
    return [
        ("code appended", _append("served_model.py"), "served_model.py"),
        (
            "a module appended",
            _append(f"code/{package_name()}/text/tokenizer.py"),
            f"code/{package_name()}/text/tokenizer.py",
        ),
        ("a module added", _append("code/sitecustomize.py"), "code/sitecustomize.py"),
        ("requirements added", _append("requirements.txt"), "requirements.txt"),
        ("a bit flipped", lambda _, stores: flip(stores[2] / bitten, dice), bitten),
        ("an end cut", lambda _, stores: cut(stores[2] / bitten, dice), bitten),
        ("weights of 32 GiB", _claim_much, "artifacts/weights.safetensors"),
        ("another loader", _load_otherwise, "MLmodel"),
        ("a link for a file", _link, "served_model.py"),
        ("packages swapped", _swap, "version 2 is not what was registered"),
        ("a tag of the digest", _tag("package_digest"), "its tag package_digest"),
        ("a tag of the content", _tag("content_digest"), "its tag content_digest"),
        ("the log's last line", _alter_last_line, "it was altered"),
        ("the log's end", _cut_log, "its end was cut off"),
        ("the log's first line", _alter_first_line, "was altered"),
    ]


def _append(file: str) -> Change:
    def change(_: Path, stores: dict[int, Path]) -> None:
        with (stores[2] / file).open("a") as opened:
            opened.write(_EVIL)

    return change


def _claim_much(_: Path, stores: dict[int, Path]) -> None:
    tensor = {"dtype": "F32", "shape": [2**33], "data_offsets": [0, 2**35]}
    header = json.dumps({"weights": tensor}).encode()
    content = struct.pack("<Q", len(header)) + header
    (stores[2] / "artifacts" / "weights.safetensors").write_bytes(content)


def _load_otherwise(_: Path, stores: dict[int, Path]) -> None:
    path = stores[2] / "MLmodel"
    path.write_text(path.read_text().replace("mlflow.pyfunc.loaders.code_model", "evil_loader"))


def _link(home: Path, stores: dict[int, Path]) -> None:
    path = stores[2] / "served_model.py"
    (home / "elsewhere.py").write_text(path.read_text() + _EVIL)
    path.unlink()
    path.symlink_to(home / "elsewhere.py")


def _swap(_: Path, stores: dict[int, Path]) -> None:
    aside = stores[1].with_name("aside")
    shutil.move(stores[1], aside)
    shutil.move(stores[2], stores[1])
    shutil.move(aside, stores[2])


def _tag(name: str) -> Change:
    def change(home: Path, _: dict[int, Path]) -> None:
        statement = "UPDATE model_version_tags SET value = ? WHERE key = ? AND version = 2"
        with sqlite3.connect(home / "mlflow.db") as database:
            database.execute(statement, ("0" * 64, name))
        database.close()

    return change


def _log(home: Path) -> Path:
    return home / "ledger" / f"{NAME}.jsonl"


def _alter_last_line(home: Path, _: dict[int, Path]) -> None:
    lines = _log(home).read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b'"kind": "done"', b'"kind": "void"')
    _log(home).write_bytes(b"".join(lines))


def _cut_log(home: Path, _: dict[int, Path]) -> None:
    lines = _log(home).read_bytes().splitlines(keepends=True)
    _log(home).write_bytes(b"".join(lines[:-1]))


def _alter_first_line(home: Path, _: dict[int, Path]) -> None:
    _log(home).write_bytes(_log(home).read_bytes().replace(b'"number": 1,', b'"number": 1 ,'))
