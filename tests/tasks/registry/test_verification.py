"""Nothing of a version is executed unless its files are those of the audit log."""

import json
import os
import py_compile
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.families.table import FAMILIES
from tasks.packaging.bundled_code import code_files, package_name
from tasks.packaging.files import PackageChanged, PackageUnknown, check_descriptions, files_of
from tasks.packaging.load_check import check_loads, samples_digest
from tasks.registry import (
    audit_anchor,
    audit_log,
    promotion,
    registration,
    verification,
    versions,
)
from tasks.registry.champion import evaluate_champion
from tasks.registry.loading import loaded
from tasks.registry.verdicts import verify_champion
from tasks.registry.verification import verified
from tasks.samples.comparison import show_difference
from tasks.samples.sampling import draw_samples
from tasks.store.files import BadInput, DiskFull
from tasks.tracking.mlflow_client import TrackingUnavailable, client

pytestmark = pytest.mark.slow

CODE = package_name()
EVIL = "\nopen('executed', 'w').close()\n"


def append(file: str) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        with (package / file).open("a") as opened:
            opened.write(EVIL)

    return change


def add(file: str, content: str = EVIL) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(content)

    return change


def compiled(package: Path) -> None:
    """Compiled code that Python prefers to the source beside it, whatever that says."""
    source = package.parent / "evil.py"
    source.write_text(EVIL)
    into = package / "code" / CODE / "ngram" / "__pycache__" / "model.cpython-311.pyc"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), str(into), doraise=True, invalidation_mode=unchecked)


def describe(**fields: Any) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        path = package / "MLmodel"
        described = yaml.safe_load(path.read_text())
        described["flavors"]["python_function"].update(fields)
        path.write_text(yaml.safe_dump(described))
        append("code/evil.py")(package)

    return change


def flip(package: Path) -> None:
    path = package / "artifacts" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def claim_much(package: Path) -> None:
    """A header that asks for 32 GiB."""
    header = {"weights": {"dtype": "F32", "shape": [2**33], "data_offsets": [0, 2**35]}}
    text = json.dumps(header).encode()
    path = package / "artifacts" / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def link(package: Path) -> None:
    path = package / "served_model.py"
    other = package.parent / "elsewhere.py"
    other.write_bytes(path.read_bytes() + EVIL.encode())
    path.unlink()
    path.symlink_to(other)


def endless(package: Path) -> None:
    path = package / "artifacts" / "weights.safetensors"
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(package: Path) -> None:
    os.mkfifo(package / "artifacts" / "pipe.json")


def endless_note(package: Path) -> None:
    """Under the name of MLflow's own note, which counts for nothing."""
    (package / "registered_model_meta").symlink_to("/dev/zero")


def folder_of_a_note(package: Path) -> None:
    add("registered_model_meta/evil.py")(package)


def link_folder(package: Path) -> None:
    shutil.copytree(package / "code", package.parent / "code-elsewhere")
    append(f"{CODE}/ngram/model.py")(package.parent / "code-elsewhere")
    shutil.rmtree(package / "code")
    (package / "code").symlink_to(package.parent / "code-elsewhere")


def lose(package: Path) -> None:
    (package / "artifacts" / "config.json").unlink()


def lose_all(package: Path) -> None:
    shutil.rmtree(package)


TAMPERINGS: list[tuple[Callable[[Path], None], str]] = [
    (append("served_model.py"), "served_model.py was changed"),
    (append(f"code/{CODE}/text/tokenizer.py"), f"code/{CODE}/text/tokenizer.py was changed"),
    (append("artifacts/config.json"), "artifacts/config.json was changed"),
    (append("requirements.txt"), "requirements.txt was changed"),
    (append("conda.yaml"), "conda.yaml was changed"),
    (add("code/sitecustomize.py"), "code/sitecustomize.py was added"),
    (add("code/json.py"), "code/json.py was added"),
    (add("code/evil/__init__.py"), "code/evil was added"),
    (add(f"code/{CODE}/evil.pth"), f"code/{CODE}/evil.pth was added"),
    (compiled, f"code/{CODE}/ngram/__pycache__ was added"),
    (describe(loader_module="evil"), "MLmodel was changed"),
    (describe(model_code_path="code/evil.py"), "MLmodel was changed"),
    (describe(config={"x": 1}), "MLmodel was changed"),
    (describe(python_model="evil.pkl"), "MLmodel was changed"),
    (flip, "artifacts/weights.safetensors was changed .sha256"),
    (claim_much, "artifacts/weights.safetensors was changed .* bytes, registered were"),
    (link, "served_model.py was changed"),
    (endless, "artifacts/weights.safetensors"),
    (pipe, "artifacts/pipe.json was added"),
    (endless_note, "registered_model_meta was added"),
    (folder_of_a_note, "registered_model_meta was added"),
    (link_folder, "its files cannot be fetched: Invalid path: resolved path is outside"),
    (lose, "artifacts/config.json is missing"),
    (lose_all, "is missing|cannot be fetched|has no files"),
]


def load(studio: Any, number: int = 2) -> None:
    with loaded(studio.name, str(number)):
        raise AssertionError("it was loaded")


@pytest.mark.parametrize(
    ("tamper", "message"), TAMPERINGS, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_a_package_that_was_changed_is_named_with_its_file_and_not_executed(
    studio: Any, tamper: Callable[[Path], None], message: str
) -> None:
    tamper(studio.package(2))

    with pytest.raises(PackageChanged, match=message) as caught:
        load(studio)

    told = str(caught.value)
    assert told.startswith("tale-ngram version 2 is not what was registered, and nothing of it is")
    assert "\n" not in told
    assert "`atelier rollback tale-ngram`" in told
    assert not (studio.home / "executed").exists()
    assert not list(studio.home.glob(".partial-*"))
    with loaded(studio.name, "1") as model:  # the other one stands
        assert model.family == "ngram"


def test_every_door_to_a_version_asks_first(studio: Any) -> None:
    append("served_model.py")(studio.package(2))
    append("served_model.py")(studio.package(1))
    tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{studio.corpus}"))
    for kind in ("evaluations", "comparisons"):
        shutil.rmtree(studio.home / "artifacts" / kind)

    problem = verify_champion.fn(studio.name)
    incumbent = evaluate_champion.fn(studio.name, tokens, FAMILIES["ngram"])

    assert "served_model.py was changed" in problem
    assert incumbent is not None
    assert incumbent.scorecard is None
    assert "served_model.py was changed" in incumbent.problem
    for door in (
        lambda: draw_samples.fn(studio.name, str(studio.home / "gallery")),
        lambda: show_difference.fn(studio.name, 1, 2),
        lambda: promotion.rollback(studio.name),
        lambda: promotion.promote(studio.name, 1, "it is better"),
        lambda: verified(studio.name, "champion", studio.home / "copy"),
    ):
        with pytest.raises(PackageChanged, match=r"served_model\.py was changed"):
            door()
    assert not (studio.home / "executed").exists()
    assert not (studio.home / "copy").exists()
    assert versions.champion_of(studio.name).version == 2


def test_the_note_that_mlflow_leaves_in_a_store_counts_for_nothing(studio: Any) -> None:
    """As after somebody has loaded a version from a store on this disk by its address."""
    note = "model_name: tale-ngram\nmodel_version: '2'\n"
    (studio.package(2) / "registered_model_meta").write_text(note)

    with verification.verified_copy(studio.name, "2") as (folder, _):
        assert not (folder / "registered_model_meta").exists()


def test_an_outage_and_a_full_disk_are_no_change_of_a_package(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails, as a server that stumbles over a dangling link does."""

    class Stumbling:
        def list_artifacts(self, path: str | None) -> list[Any]:
            raise OSError("500 Server Error: for url: http://127.0.0.1/x")

    monkeypatch.setattr(verification, "_store", lambda _: Stumbling())
    with pytest.raises(PackageChanged, match="its files cannot be fetched: 500 Server Error"):
        load(studio)

    monkeypatch.setattr(verification, "_BYTES_TO_BE_FREE", 10**18)
    with pytest.raises(DiskFull):
        load(studio)
    monkeypatch.setattr(verification, "_BYTES_TO_BE_FREE", 1)

    def away(self: MlflowClient, *which: str) -> Any:
        raise MlflowException("API request to http://127.0.0.1/x failed with exception")

    monkeypatch.setattr(MlflowClient, "get_model_version", away)
    with pytest.raises(TrackingUnavailable):
        load(studio)


def test_packages_swapped_between_versions_are_noticed(studio: Any) -> None:
    one, two = studio.package(1), studio.package(2)
    aside = one.with_name("aside")
    shutil.move(one, aside)
    shutil.move(two, one)
    shutil.move(aside, two)

    for number in (1, 2):
        with pytest.raises(PackageChanged, match=f"version {number} is not what was registered"):
            load(studio, number)


def test_a_registry_that_names_another_package_is_noticed(studio: Any) -> None:
    """Somebody with the database alone: version 2 shall be version 1, and shall say so."""
    tags = dict(client().get_model_version(studio.name, "1").tags)
    source = client().get_model_version(studio.name, "1").source
    studio.sql("UPDATE model_versions SET source = ?, storage_location = ? WHERE version = 2",
               source, source)  # fmt: skip
    with pytest.raises(PackageChanged, match="was changed"):
        load(studio)

    for tag in ("package_digest", "content_digest"):
        client().set_model_version_tag(studio.name, "2", tag, tags[tag])
    with pytest.raises(PackageChanged, match=r"its tag content_digest is .*, and in the audit log"):
        load(studio)


@pytest.mark.parametrize("source", ["/etc", "file:///etc", "http://127.0.0.1:9/x", "runs:/1/m"])
def test_a_version_may_not_lie_elsewhere(studio: Any, source: str) -> None:
    studio.sql("UPDATE model_versions SET source = ?, storage_location = ? WHERE version = 2",
               source, source)  # fmt: skip

    with pytest.raises(PackageChanged, match="its source in the registry is "):
        load(studio)


@pytest.mark.parametrize("tag", ["package_digest", "content_digest"])
def test_a_tag_that_was_changed_is_noticed(studio: Any, tag: str) -> None:
    client().set_model_version_tag(studio.name, "2", tag, "0" * 64)
    with pytest.raises(PackageChanged, match=f"its tag {tag} is 000000000000, and in the audit"):
        load(studio)

    client().delete_model_version_tag(studio.name, "2", tag)
    with pytest.raises(PackageChanged, match=f"its tag {tag} is missing"):
        load(studio)


def test_a_version_that_the_log_does_not_know_is_not_loaded(studio: Any) -> None:
    """As of an older program, or put there by somebody with the database and the store."""
    made = client().get_model_version(studio.name, "2")
    other = client().create_model_version(
        studio.name, made.source, made.run_id, tags=made.tags, await_creation_for=0
    )
    client().set_registered_model_alias(studio.name, "champion", other.version)

    with pytest.raises(PackageUnknown, match=r"version 3: .* `atelier doctor --repair tale-ngram="):
        load(studio, 3)
    assert "version 3" in verify_champion.fn(studio.name)
    client().set_registered_model_alias(studio.name, "champion", "2")
    with pytest.raises(PackageUnknown):
        promotion.promote(studio.name, 3, "it is new")


def test_what_is_loaded_is_the_copy_that_was_compared(studio: Any, tmp_path: Path) -> None:
    """Whoever changes the store after the comparison changes nothing."""
    with verification.verified_copy(studio.name, "champion") as (folder, _):
        assert (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777)[1] == 0o700
        before = files_of(folder)
        append("served_model.py")(studio.package(2))
        assert files_of(folder) == before

    (studio.package(2) / "served_model.py").write_bytes(code_files()["served_model.py"])
    found = verified(studio.name, "champion", tmp_path / "copy")
    assert found.version == 2
    assert files_of(tmp_path / "copy") == before
    assert found.digest == client().get_model_version(studio.name, "2").tags["package_digest"]
    with pytest.raises(BadInput, match="is there already"):
        verified(studio.name, "champion", tmp_path / "copy")


def test_the_log_holds_every_file_and_each_promotion_the_digest(studio: Any) -> None:
    entries = audit_log.entries_of(studio.name)
    (_, second) = [entry for entry in entries if entry.kind == "registered"]

    assert {"MLmodel", "served_model.py", "requirements.txt"} <= set(second.files)
    assert {name: tuple(of) for name, of in second.files.items()} == files_of(studio.package(2))
    promoted = [entry for entry in entries if entry.kind == "intent"][-1]
    assert promoted.digests["package"] == second.digests["package"]
    assert promoted.digests["content"] == second.digests["content"]


def test_a_log_whose_last_line_was_altered_lets_nothing_be_loaded(studio: Any) -> None:
    lines = studio.log_lines()
    studio.log.write_bytes(b"".join(lines).replace(b'"settles": 5', b'"settles": 4'))

    with pytest.raises(
        audit_log.AuditLogDamaged, match=r"line 6, or one before it, .* was altered"
    ):
        load(studio)


def test_a_registration_whose_files_change_on_the_way_is_undone(studio: Any) -> None:
    real = registration.fetched

    def changed_before(version: Any, files: Any) -> Any:
        append(f"code/{CODE}/vae/model.py")(studio.package(int(version.version)))
        return real(version, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "fetched", changed_before)
        with pytest.raises(PackageChanged, match=rf"code/{CODE}/vae/model\.py was changed"):
            studio.admitted(2)

    assert [v.version for v in versions.versions_of(studio.name)] == [1, 2]
    assert studio.admitted(2).is_new


def test_a_version_left_pending_counts_only_if_its_files_are_of_this_fit(studio: Any) -> None:
    for tamper in (None, append(f"code/{CODE}/vae/model.py"), describe(loader_module="evil")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registration, "note_package", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                studio.admitted(2)
        pending = max(versions.contents_of(studio.name))
        if tamper is not None:
            tamper(studio.package(pending))
        version = studio.admitted(2)
        assert version.is_new is (tamper is not None)
        assert version.version == pending + (tamper is not None)
        client().delete_model_version(studio.name, str(version.version))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (describe(loader_module="evil"), "MLmodel has loader_module: evil"),
        (describe(code="artifacts"), "MLmodel has code: artifacts"),
        (describe(code=None), "MLmodel has code: None"),
        (describe(model_code_path="/x/evil.py"), "MLmodel has model_code_path: evil.py"),
        (describe(python_model="evil.pkl"), "MLmodel has python_model"),
        (describe(config={"a": 1}), "MLmodel has config"),
        (describe(data="x"), "MLmodel has data"),
        (describe(predict_fn="evil"), "MLmodel has predict_fn"),
        (describe(env={"conda": "code/evil.py"}), "MLmodel has env: "),
        (
            describe(artifacts={"weights": {"path": "../../w.safetensors", "uri": ""}}),
            "MLmodel takes the artifact weights from ../../w.safetensors",
        ),
        (add("requirements.txt", "torch @ http://x/y.whl"), "requirements.txt asks for"),
        (add("requirements.txt", "--index-url=http://x"), "requirements.txt asks for"),
        (add("requirements.txt", "evil==1.0"), 'requirements.txt asks for "evil==1.0"'),
        (add("conda.yaml", "dependencies: [evil]"), 'conda.yaml asks for "evil"'),
        (add("conda.yaml", "channels: [evil]"), "conda.yaml takes packages from"),
        (add("python_env.yaml", "dependencies: [-r evil.txt]"), "python_env.yaml asks for"),
        (add("python_env.yaml", "dependencies: 5"), "MLmodel, or a file of its environment, is of"),
        (add("MLmodel", "- 1"), "MLmodel is no table of names and values"),
        (add("MLmodel", "a: ["), "MLmodel is no YAML"),
        (add("sitecustomize.py"), "sitecustomize.py is no part of a package"),
        (compiled, "model.cpython-311.pyc is no source code"),
        (add(f"code/{CODE}/fast.so"), f"code/{CODE}/fast.so is no source code"),
        (add("input_example.json"), "input_example.json is no part of a package"),
    ],
)
def test_what_could_make_mlflow_run_something_else_is_found_without_a_listing(
    studio: Any, tamper: Callable[[Path], None], message: str
) -> None:
    package = studio.package(2)
    check_descriptions(package)
    tamper(package)

    with pytest.raises(PackageChanged, match=message.replace(".", r"\.")):
        check_descriptions(package)


def test_an_anchor_of_the_log_is_kept_with_each_line(studio: Any) -> None:
    found = audit_anchor.checked_log(studio.name)

    name, value = audit_anchor.anchor_tag(found)

    assert (audit_anchor.model_tags(studio.name) or {})[name] == value == f"6 {found.heads[-1]}"


def test_one_bad_champion_leaves_the_gallery_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import sample_gallery
    from tasks.samples.plan import Piece

    changed = "bad-ngram version 2 is not what was registered"

    def draw(name: str, folder: str, seed: int, number: int) -> None:
        raise PackageChanged(changed)

    reported: list[tuple[str, str]] = []
    monkeypatch.setattr(sample_gallery, "draw_samples", draw)
    monkeypatch.setattr(sample_gallery, "report_unverified", lambda *what: reported.append(what))
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    bad = Piece(
        name="bad-ngram",
        family="ngram",
        version=2,
        seed=0,
        key="k",
        scorecard_run_id="",
        main_metric="test_bits_per_byte",
        main_value=1.0,
    )
    problems: list[str] = []

    shown = sample_gallery._work(bad, str(tmp_path), problems)

    assert shown.remark == f"version 2 cannot draw: {changed}"
    assert (shown.pictures, shown.texts) == ((), ())
    assert problems == [f"bad-ngram version 2: {changed}"]
    assert reported == [("bad-ngram", changed)]


def test_housekeeping_fails_over_a_changed_champion_after_its_other_work(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import maintenance

    done: list[str] = []
    for name in ("close_dead_flow_runs", "recover_from_crashes"):
        monkeypatch.setattr(maintenance, name, lambda **_: done.append("") or [])
    monkeypatch.setattr(maintenance, "retry_crashed_runs", lambda besides: [])
    for name in ("remove_surplus", "send_what_waits", "trim_home", "watch_disk"):
        monkeypatch.setattr(maintenance, name, lambda: 0)
    monkeypatch.setattr(maintenance, "collect_garbage", lambda: done.append("freed") or 0)
    monkeypatch.setattr(maintenance, "verify_champion", verify_champion.fn)
    assert maintenance.housekeeping.fn().verified == (studio.name,)
    append("served_model.py")(studio.package(2))

    with pytest.raises(ValueError, match=r"version 2 .* served_model\.py was changed"):
        maintenance.housekeeping.fn()

    assert done[-1] == "freed"
    assert not (studio.home / "executed").exists()


def test_a_version_loads_in_a_home_whose_name_means_something_in_an_address(
    studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow reads a percent sign and two digits in a path as a character."""
    home = tmp_path / "50%20 a#b?c %3F"
    shutil.copytree(studio.home / "ledger", home / "ledger")
    monkeypatch.setenv("ATELIER_HOME", str(home))

    with loaded("tale-ngram") as model:
        drawn = samples_digest(model)
    with verification.verified_copy("tale-ngram", "champion") as (folder, version):
        assert "%" not in str(folder)
        check_loads(f"models:/tale-ngram/{version.version}", folder, "text", samples=drawn)


def test_files_behind_a_stopped_server_are_found_in_the_home(studio: Any) -> None:
    """`atelier history` and `verify` work after `atelier down`, on the database alone."""
    package = studio.package(2)
    served = studio.home / "mlartifacts" / "models" / "m-1" / "artifacts"
    served.parent.mkdir(parents=True)
    shutil.copytree(package, served)
    source = client().get_model_version(studio.name, "2").source
    statement = "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?"
    studio.sql(statement, "mlflow-artifacts:/models/m-1/artifacts", source.rpartition("/")[2])

    assert verified(studio.name, "champion").version == 2
    append("served_model.py")(served)
    with pytest.raises(PackageChanged, match=r"served_model\.py was changed"):
        verified(studio.name, "champion")
    shutil.rmtree(studio.home / "mlartifacts")
    with pytest.raises(TrackingUnavailable, match="start it with `atelier up`"):
        verified(studio.name, "champion")


@pytest.mark.parametrize("which", ["9" * 5000, "²", "٣", "9" * 12])
def test_a_number_that_no_version_can_have_is_refused_in_a_line(studio: Any, which: str) -> None:
    with pytest.raises(BadInput, match="has no version"):
        verified(studio.name, which)


def test_a_misspelt_model_is_answered_by_the_nearest(studio: Any) -> None:
    with pytest.raises(BadInput, match=r"no model is named 'tale-ngarm' \(did you mean tale-ngram"):
        verified("tale-ngarm", "champion")
