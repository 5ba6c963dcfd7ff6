"""`atelier settings`, and how `run` takes settings: all of it before anything is started."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from atelier.__main__ import main
from tasks.families.table import FAMILIES, names
from tasks.settings.catalogue import settings_of
from tasks.settings.values import checked

Told = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return tmp_path


def told_by(capsys: Told, *arguments: str) -> str:
    assert main(["settings", *arguments]) == 0
    return capsys.readouterr().out


def test_every_setting_is_listed_with_value_origin_limits_and_meaning(capsys: Told) -> None:
    told = told_by(capsys, "vae")

    assert told.startswith("VAE, preset standard, for digits: 8x8x1, 10 classes\n")
    for name, setting in settings_of(FAMILIES["vae"]).items():
        assert (f"  {name} " in told) == (not setting.is_fixed)
    (line,) = [line for line in told.splitlines() if "vae.training.warmup_steps" in line]
    assert line.split()[1:4] == ["200", "from", "vae.training.steps,"]
    assert "a whole number between 0 and 10,000,000" in line
    assert "      Units of the latent point z.\n" in told


def test_values_follow_preset_data_and_what_is_set(capsys: Told) -> None:
    told = told_by(capsys, "vae", "--preset", "quick", "--set", "vae.training.steps=80")

    rows = {line.split()[0]: line.split()[1:3] for line in told.splitlines() if "vae." in line[:6]}
    assert rows["vae.training.steps"] == ["80", "set"]
    assert rows["vae.training.warmup_steps"] == ["10", "from"]
    assert '"logistic"' in told_by(capsys, "vae", "--images", "cifar10")


def test_what_was_not_read_yet_is_said_to_be_assumed(capsys: Told, tmp_path: Path) -> None:
    told = told_by(capsys, "gan", "--images", f"folder:{tmp_path}", "--image-size", "24")

    assert "24x24x3, 10 classes (assumed: the images were not read yet)" in told
    assert "the text was not read yet" in told_by(capsys, "ngram")


@pytest.mark.parametrize("family", names())
def test_the_file_it_prints_sets_nothing_until_a_line_is_uncommented(
    family: str, capsys: Told
) -> None:
    printed = told_by(capsys, family, "--toml")

    nothing = tomllib.loads(printed)
    assert checked(nothing) == {}
    lines = [line.removeprefix("# ") if " = " in line else line for line in printed.splitlines()]
    everything = checked(tomllib.loads("\n".join(lines)))
    settable = [n for n, each in settings_of(FAMILIES[family]).items() if not each.is_fixed]
    assert set(settable) - set(everything) <= {"ngram.model.sentence_end"}  # none has no TOML


def test_what_is_set_already_stands_uncommented_in_the_file(capsys: Told) -> None:
    printed = told_by(capsys, "gan", "--toml", "--set", "gan.model.loss=hinge")

    assert checked(tomllib.loads(printed)) == {"gan.model.loss": "hinge"}


WRONG = [
    (["--set", "vae.model.latent_sise=4"], "did you mean vae.model.latent_size"),
    (["--set", "vae.model.latent_size"], "--set wants NAME=VALUE"),
    (["--set", "vae.model.latent_size=many"], "between 1 and 4,096; got 'many'"),
    (["--set", "vae.model.latent_size=0"], "between 1 and 4,096; got '0'"),
    (["--set", "vae.training.learning_rate=nan"], "at most 10; got 'nan'"),
    (["--set", "gan.model.loss=hing"], "one of relativistic, hinge, wasserstein; got 'hing'"),
    (["--set", "gpt.training.seed=4"], "is decided by --seed"),
    (["--set", "vae.model.channels=3"], "is decided by the images"),
    (["--set", "gpt.model.num_heads=7"], "num_heads = 14"),
    (["--families", "vae", "--set", "gpt.training.steps=4"], "only vae are trained"),
    (["--gan-loss", "hinge", "--set", "gan.model.loss=wasserstein"], "give one of them"),
    (["--config", "no-such.toml"], "no-such.toml cannot be read: No such file or directory"),
    (["--set", "gan.model.num_packed=2"], "got 0.1 with 10 classes and 2 packed"),
    (["--set", "gan.training.shards=5"], "batch_size must be a multiple of shards, got 96 and 5"),
    (["--processes", "64"], "64 processes are asked for, and this machine lets us use"),
    (["--processes", "1", "--families", "ngram"], "ngram is not trained by gradients"),
    (["--seconds", "5", "--families", "ngram"], "ngram is not trained by steps; leave it out"),
    (["--seconds", "5", "--set", "vae.training.steps=9"], "--seconds would choose it"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda each: str(each)[:50])
def test_a_wrong_setting_ends_a_run_before_anything_is_started(
    arguments: list[str], message: str, capsys: Told, own_home: Path
) -> None:
    assert main(["run", *arguments]) == 2

    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (own_home / "home" / "logs").exists()  # where servers write


def given_by(arguments: list[str]) -> dict[str, Any]:
    """What a run would be called with."""
    from atelier.__main__ import _parser

    options = _parser().parse_args(["run", *arguments])
    parameters: dict[str, Any] = options.flow.parameters(options)
    return dict(parameters.get("settings", {}))


def test_an_assignment_goes_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[vae.model]\nlatent_size = 3\nbase_width = 8\n[gpt.training]\nsteps = 9\n")

    both = ["--config", str(file), "--set", "vae.model.latent_size=5"]

    assert given_by(both) == {
        "vae.model.latent_size": 5,
        "vae.model.base_width": 8,
        "gpt.training.steps": 9,
    }
    # a file may say something of families that are not trained now
    only = given_by(["--config", str(file), "--families", "gpt"])
    assert only == {"gpt.training.steps": 9}
    assert given_by([]) == {}


def test_a_number_of_processes_implies_shards() -> None:
    assert given_by(["--processes", "1", "--families", "vae,ngram"]) == {"vae.training.shards": 4}
    set_to = ["--set", "gpt.training.shards=8", "--processes", "1", "--families", "gpt"]
    assert given_by(set_to) == {"gpt.training.shards": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[vae", "is not TOML"),
        (b"\xff", "is not UTF-8"),
        (b"vae.model.x = 1", "no setting"),
        (b"a = " + b"[" * 10_000, "too deep to be read"),
        (b"\xef\xbb\xbf[vae.model]\nlatent_size = 0", "between 1 and 4,096; got 0"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    content: bytes, message: str, tmp_path: Path, capsys: Told
) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)

    for command in ("run", "search"):
        assert main([command, "--config", str(file)]) == 2

        said = capsys.readouterr().err
        assert message in said or (command == "search" and f"{file}: unknown" in said)


def test_an_unknown_family_is_named(capsys: Told) -> None:
    assert main(["settings", "vea"]) == 2

    assert "unknown family 'vea'; choose from vae, gan" in capsys.readouterr().err
