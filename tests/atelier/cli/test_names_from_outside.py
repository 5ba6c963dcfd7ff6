"""A name given to a command never becomes a path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.reproduce import reproduce
from flows.sample_gallery import sample_gallery
from tasks.evaluation.scorecard import PromotionDecision
from tasks.families.table import FAMILIES
from tasks.registry import promotion, verdicts
from tasks.registry.champion import evaluate_champion
from tasks.registry.loading import loaded
from tasks.registry.versions import Version, find_version, recorded, versions_of
from tasks.samples.comparison import show_difference
from tasks.samples.sampling import draw_samples
from tasks.store.files import BadInput

CLIMBING = "../../../../x"


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", CLIMBING),
        ("history", "/etc/hostname"),
        ("rollback", CLIMBING),
        ("promote", CLIMBING, "--to", "1", "--reason", "mine"),
        ("reproduce", CLIMBING),
        ("reproduce", f"digits-vae@{CLIMBING}"),
        ("reproduce", f"digits-vae@{'9' * 5000}"),
        ("sample", CLIMBING),
        ("sample", "digits-vae", "a' or name like '%"),
        ("explain", CLIMBING),
        ("history", "a\x1b[31mb\u202e"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("ascii", "replace").decode(),
)
def test_a_name_that_is_a_path_is_refused_and_nothing_is_touched(
    tmp_path: Path, arguments: tuple[str, ...], call: Callable[..., Any]
) -> None:
    home = tmp_path / "a" / "b" / "c" / "home"
    for step in (tmp_path, *home.parents[:4]):
        step.mkdir(parents=True, exist_ok=True)
        for name in ("x", "x.lock", "x.jsonl"):
            (step / name).write_text("precious")
    home.mkdir()
    (home / "mlflow.db").touch()  # as if models were registered
    before = contents(tmp_path)

    done = call(home, *arguments)

    assert done.returncode == 2, done.stderr
    assert "cannot be the name of a" in done.stderr
    assert "wanted lower-case letters and digits of any script" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert contents(tmp_path) == before


VERSION = Version(
    name=CLIMBING,
    version=1,
    alias="",
    run_id="",
    digest="",
    main_metric="",
    main_value=0.0,
    seconds=0.0,
    is_new=True,
)


@pytest.mark.parametrize(
    "use",
    [
        lambda: promotion.history(CLIMBING),
        lambda: promotion.rollback(CLIMBING),
        lambda: promotion.promote(CLIMBING, 1, "mine"),
        lambda: promotion.withdrawal_reason(CLIMBING, 1),
        lambda: verdicts.apply_decision.fn(VERSION, PromotionDecision(accepted=True, reason="")),
        lambda: find_version(CLIMBING, "0"),
        lambda: find_version("a' or name != 'b", "0"),
        lambda: versions_of(CLIMBING),
        lambda: recorded(CLIMBING, "champion"),
        lambda: recorded("digits-vae", CLIMBING),
        lambda: evaluate_champion.fn(CLIMBING, None, FAMILIES["vae"]),
        lambda: show_difference.fn(CLIMBING, 1, 2),
        lambda: loaded(CLIMBING).__enter__(),
        lambda: loaded("digits-vae", "1/../2").__enter__(),
        lambda: draw_samples.fn(CLIMBING, "works"),
    ],
)
def test_the_functions_below_refuse_it_too(
    tracking_database: str, tmp_path: Path, use: Callable[[], object]
) -> None:
    before = contents(tmp_path)

    with pytest.raises(BadInput):
        use()

    assert contents(tmp_path) == before


def test_what_is_a_number_in_another_script_is_no_traceback(tracking_database: str) -> None:
    for which in ("²", "٣", "1" * 180):
        with pytest.raises(BadInput, match="has no version"):
            recorded("digits-vae", which)


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        (sample_gallery, {"names": ["digits-vae", CLIMBING]}),
        (reproduce, {"name": CLIMBING}),
        (reproduce, {"name": "digits-vae", "which": CLIMBING}),
    ],
)
def test_forms_and_api_refuse_it_before_a_flow_begins(flow: object, parameters: object) -> None:
    with pytest.raises(Exception, match="cannot be the name of a"):
        flow.validate_parameters(parameters)
