"""The program as a person uses it: the command, real servers, the registry, the gallery."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from atelier.__main__ import _parser, main
from tasks.families.table import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = re.compile(r"^(gallery|Prefect UI|MLflow UI) +(\S+)$", re.MULTILINE)
Ask = Callable[..., Any]
NOISE = ("Traceback", "Warning", "warning", "Deprecat", "ERROR", "INFO ", " | ")


def atelier(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with a home of its own."""
    kept = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    return subprocess.run(
        [sys.executable, "-m", "atelier", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**clean, "ATELIER_HOME": str(home), **extra},
    )


@dataclass(frozen=True)
class Studio:
    """A finished run: its home, what it printed, where its servers are."""

    home: Path
    arguments: tuple[str, ...]
    printed: str
    complained: str
    addresses: dict[str, str]

    @property
    def prefect(self) -> str:
        """The Prefect API."""
        return self.addresses["Prefect UI"] + "/api"

    @property
    def registry(self) -> MlflowClient:
        """The MLflow server's registry."""
        address = self.addresses["MLflow UI"].partition("/#")[0]
        return MlflowClient(address, registry_uri=address)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of small pictures in two classes, and a text."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for label, rows in (("top", slice(0, 4)), ("bottom", slice(4, 8))):
        (folder / "shapes" / label).mkdir(parents=True)
        for index in range(60):
            pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[rows] += 150
            Image.fromarray(pixels).save(folder / "shapes" / label / f"{index}.png")
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(320)]
    (folder / "tale.txt").write_text("\n".join(lines) + "\n")
    return folder / "shapes", folder / "tale.txt"


@pytest.fixture(scope="module")
def studio(
    tmp_path_factory: pytest.TempPathFactory, own_data: tuple[Path, Path]
) -> Iterator[Studio]:
    """One quick run on a person's own files; the servers are stopped at the end."""
    home = tmp_path_factory.mktemp("studio")
    pictures, text = own_data
    arguments = ("run", "--preset", "quick")
    arguments += ("--images", f"folder:{pictures}", "--text", f"file:{text}")
    try:
        done = atelier(home, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        addresses = dict(ADDRESS.findall(done.stdout))
        yield Studio(home, arguments, done.stdout, done.stderr, addresses)
    finally:
        stopped = atelier(home, "down")
    assert stopped.stdout.startswith("stopped: ")


NAMES = sorted(
    f"{'shapes' if family.data == 'images' else 'tale'}-{name}" for name, family in FAMILIES.items()
)
PICTURES = {name: {"samples.png", "training.png"} for name in NAMES if name.startswith("shapes-")}
PICTURES["shapes-vae"] |= {"interpolation.png", "reconstructions.png"}


@pytest.mark.soak
def test_a_run_ends_with_a_table_and_three_addresses_and_prints_no_noise(studio: Studio) -> None:
    assert studio.complained == ""
    assert not [word for word in NOISE if word in studio.printed]
    table = studio.printed.partition("model ")[2]
    for name in NAMES:
        assert re.search(rf"^{name} +1 +champion ", table, re.MULTILINE), table
    assert set(studio.addresses) == {"gallery", "Prefect UI", "MLflow UI"}
    page = Path(studio.addresses["gallery"].removeprefix("file://"))
    assert all(name in page.read_text() for name in NAMES)


@pytest.mark.soak
def test_all_models_are_registered_as_champions_with_their_lineage(studio: Studio) -> None:
    registry = studio.registry

    models = {model.name: model for model in registry.search_registered_models()}

    assert sorted(models) == NAMES
    for name, model in models.items():
        assert {alias: int(number) for alias, number in model.aliases.items()} == {"champion": 1}
        version = registry.get_model_version_by_alias(name, "champion")
        assert {"content_digest", "record", "main_metric"} <= set(version.tags)
        run = registry.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"]
        assert run.data.tags["prefect.flow_run_name"].startswith(name)


@pytest.mark.soak
def test_the_prefect_pages_hold_tables_progress_and_pictures(studio: Studio, ask: Ask) -> None:
    runs = ask(f"{studio.prefect}/flow_runs/filter", {})
    artifacts = ask(f"{studio.prefect}/artifacts/filter", {})

    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    keys = {artifact["key"] for artifact in artifacts}
    assert {*(f"{name}-scorecard" for name in NAMES), "gallery"} <= keys
    gallery = next(artifact for artifact in artifacts if artifact["key"] == "gallery")
    pictures = re.findall(r"!\[[^]]*\]\((http\S+)\)", gallery["data"])
    assert sorted(
        urllib.parse.parse_qs(urllib.parse.urlparse(url).query)["path"][0] for url in pictures
    ) == [f"gallery/{name}/{picture}" for name in PICTURES for picture in sorted(PICTURES[name])]
    for url in pictures:
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.read().startswith(b"\x89PNG")
    bars = [artifact for artifact in artifacts if artifact["type"] == "progress"]
    assert {bar["data"] for bar in bars} == {100.0}
    logs = ask(f"{studio.prefect}/logs/filter", {"limit": 200})
    assert any("bits per byte" in line["message"] for line in logs)


@pytest.mark.soak
def test_no_file_of_a_whole_run_holds_a_pickle(
    studio: Studio, scan_for_pickles: Callable[[Path], tuple[int, list[Path]]]
) -> None:
    """Data, fits, evaluations, versions, galleries, both servers' stores and results."""
    number, pickles = scan_for_pickles(studio.home)

    assert pickles == []
    assert number > 200


@pytest.mark.soak
def test_the_same_run_again_trains_and_registers_nothing(studio: Studio) -> None:
    again = atelier(studio.home, *studio.arguments)

    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("unchanged, trained before") >= len(NAMES)
    assert again.stdout.count("champion, unchanged") == len(NAMES)
    assert len(studio.registry.search_model_versions()) == len(NAMES)


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_a_champion_is_made_again_from_its_record(studio: Studio, name: str) -> None:
    again = atelier(studio.home, "reproduce", f"{name}@champion")

    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{name} version 1, reproduced: identical weights" in again.stdout
    assert "unchanged, trained before" not in again.stdout.partition(f"{name}:")[2]
    assert len(studio.registry.search_model_versions()) == len(NAMES)


@pytest.mark.soak
def test_the_server_creates_the_runs_of_a_schedule(studio: Studio, ask: Ask) -> None:
    """Some versions of SQLAlchemy break Prefect's scheduler without a word."""
    flows = ask(f"{studio.prefect}/flows/filter", {})
    deployment = ask(
        f"{studio.prefect}/deployments/",
        {
            "name": "often",
            "flow_id": flows[0]["id"],
            "schedules": [{"schedule": {"interval": 3600}, "active": True}],
        },
    )
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    deadline = time.monotonic() + 120
    while not (runs := ask(f"{studio.prefect}/flow_runs/filter", wanted)):
        assert time.monotonic() < deadline, "no scheduled run was created"
        time.sleep(1)

    assert {run["state_type"] for run in runs} == {"SCHEDULED"}
    ask(f"{studio.prefect}/deployments/{deployment['id']}", method="DELETE")


BAD_REQUESTS = [
    ({"num_samples": -1}, "num_samples over all rows must lie between 1 and 10000, got -1"),
    ({"num_samples": 10_000_000}, "must lie between 1 and 10000, got 10000000"),
    ({"num_samples": 10_000, "num_tokens": 20_000}, "num_tokens over all samples must lie"),
    ({"temperature": 0.0}, "temperature must lie between"),
    ({"temperature": "hot"}, "temperature"),
    ({"temprature": 0.5}, "unknown parameters ['temprature']; this model knows num_samples, seed"),
    ({"seed": -1}, "seed must lie between"),
    ({"top_p": 0.0}, "top_p must lie between"),
    ({"min_p": 2.0}, "min_p must lie between"),
]


@pytest.mark.soak
def test_a_champion_is_served(studio: Studio, ask: Ask) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m"]
    command += ["models:/tale-ngram@champion", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    uri = studio.addresses["MLflow UI"].partition("/#")[0]
    activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = studio.home / "serve.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": activated},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/invocations"
        body = {"dataframe_records": [{}], "params": {"num_samples": 2, "num_tokens": 30}}
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = ask(url, body)
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        assert [len(row["text"]) for row in answer["predictions"]] == [30, 30]
        before = sorted(path for path in studio.home.rglob("*") if path.is_file())
        for params, message in BAD_REQUESTS:
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(url, {**body, "params": params})
            assert refused.value.code == 400
            answer = json.load(refused.value)
            assert answer["error_code"] in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
            assert message in answer["message"]
        assert len(ask(url, body)["predictions"]) == 2  # it lives on
        after = sorted(path for path in studio.home.rglob("*") if path.is_file())
        assert [path for path in after if path not in before and path.suffix != ".log"] == []
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


BAD = [
    (("--images", "digit"), "is not a known source of images; choose one of"),
    (("--images", "folder:/no/where"), "is not a folder"),
    (("--text", "file:/no/where.txt"), "is not a file"),
    (("--images", "digits=folder:/no/where"), "comes with the program; choose another one"),
    (("--text", "My Poems=file:/no/where.txt"), "cannot be the name of a data set"),
    (("--images", "pets=digits"), "NAME=folder:PATH"),
    (("--image-size", "16"), "only applies to folder:PATH"),
    (("--text", "file:/dev/zero"), "is not a file"),
    (("--glob", "*.py"), "a glob only applies to text of folder:PATH"),
    (("--seed", "-1"), "a seed is a whole number from 0 to 2147483647, got '-1'"),
    (("--seed", "many"), "a seed is a whole number"),
    (("--approve", "0"), "a time to wait is a whole number from 1 to 604800, got '0'"),
    (("--families", "vae,nothing"), "argument --families/--models: unknown family 'nothing'; choo"),
    (("--models", "vae,nothing"), "argument --families/--models: unknown family 'nothing'; choo"),
    (("--preset", "fastest"), "invalid choice: 'fastest'"),
    (("--prefect-port", "70000"), "a port is a whole number from 1 to 65535"),
    (("--fast",), "unrecognized arguments: --fast"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_is_named_before_anything_starts(
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    umask = os.umask(0o077)
    try:
        code = main(["run", *arguments])
    except SystemExit as left:  # argparse ends the program itself
        code = left.code
    finally:
        os.umask(umask)

    assert code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert "Traceback" not in complaint
    assert not (tmp_path / "home" / "servers.json").exists()


@pytest.mark.parametrize("option", ["--families", "--models"])
def test_families_are_chosen_by_name_and_by_the_name_of_before(option: str) -> None:
    chosen = _parser().parse_args(["run", option, "gpt,vae"])

    parameters = chosen.flow.parameters(chosen)

    assert parameters["models"] == ("vae", "gpt")  # in the table's order
    assert _parser().parse_args(["run"]).families == tuple(FAMILIES)


def test_a_wrong_argument_ends_the_program_with_exit_code_2(tmp_path: Path) -> None:
    done = atelier(tmp_path / "home", "run", "--images", "digit")

    assert done.returncode == 2
    assert done.stderr.startswith("atelier: 'digit' is not a known source of images")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "1"}], ids=str
)
def test_a_path_that_is_not_utf8_is_named_under_every_locale(
    tmp_path: Path, locale: dict[str, str]
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path / "书") + b"-caf\xe9")

    done = atelier(tmp_path / "home", "run", "--images", f"folder:{odd}", **locale)

    assert done.returncode == 2
    assert done.stderr.startswith("atelier: ")
    assert "-caf\\xe9 is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_whose_output_was_closed_before_it_began_says_nothing(tmp_path: Path) -> None:
    close = "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", close, sys.executable, "-m", "atelier", "explain"]
    environment = {**os.environ, "ATELIER_HOME": str(tmp_path)}

    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=environment
    )

    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_prefect_is_imported_after_its_settings_are_made() -> None:
    code = (
        "import atelier.__main__, sys; print([m for m in ('prefect', 'torch') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout == "[]\n"


def test_a_run_is_checked_before_prefect_is_imported() -> None:
    """It would keep settings that lack the address of the servers, which are not up yet."""
    code = (
        "import sys; from atelier.__main__ import _parser; "
        "options = _parser().parse_args(['run', '--set', 'vae.model.latent_size=3']); "
        "print(options.flow.parameters(options)['settings']); "
        "print([m for m in ('prefect', 'torch', 'mlflow') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout == "{'vae.model.latent_size': 3}\n[]\n"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        done = atelier(tmp_path / "home", "up", "--prefect-port", str(port))

    assert done.returncode == 2
    assert f"port {port} is taken by another program" in done.stderr


@pytest.mark.soak
def test_bad_data_stops_the_run_before_any_model(studio: Studio, tmp_path: Path) -> None:
    """One line, exit code 2, nothing registered; the good images were not trained on either."""
    (tmp_path / "repeated.txt").write_text("ab" * 12_000)
    pictures = studio.arguments[4]

    done = atelier(
        studio.home, "run", "--images", pictures, "--text", f"file:{tmp_path / 'repeated.txt'}",
        "--seed", "77", "--tokenizer", "bpe",
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(r"has \d / \d / \d tokens", done.stderr)
    assert "wanted at least 1000 / 100 / 100" in done.stderr
    assert "trained" not in done.stdout
    assert len(studio.registry.search_model_versions()) == len(NAMES)


@pytest.mark.soak
def test_other_data_of_a_known_name_are_refused_and_a_name_of_ones_own_is_the_way_out(
    studio: Studio, tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "tale.txt").write_text("".join(f"{n} is no {n * n} at all\n" for n in range(900)))
    other = f"file:{tmp_path / 'tale.txt'}"
    run = ("run", "--preset", "quick", "--models", "ngram", "--text")

    refused = atelier(studio.home, *run, other)
    given_up = ask(f"{studio.prefect}/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 3})
    numbers = len(studio.registry.search_model_versions())
    named = atelier(studio.home, *run, f"saga={other}")

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "tale-ngram belongs to other data: it was trained on file:" in refused.stderr
    assert f"give these a name of their own: --text NAME={other}" in refused.stderr
    assert "trained in" not in refused.stdout
    assert numbers == len(NAMES)
    assert {each["state_type"] for each in given_up} == {"FAILED"}
    assert named.returncode == 0, named.stdout + named.stderr
    assert re.search(r"^saga-ngram +1 +champion ", named.stdout, re.MULTILINE)
    page = (studio.home / "gallery" / "index.html").read_text()
    assert all(f'<section id="{name}"' in page for name in [*NAMES, "saga-ngram"])
    assert atelier(studio.home, "reproduce", "saga-ngram").returncode == 0
    studio.registry.delete_registered_model("saga-ngram")


@pytest.mark.soak
def test_samples_of_a_model_that_does_not_exist_are_refused_and_the_page_stays(
    studio: Studio,
) -> None:
    page = studio.home / "gallery" / "index.html"
    before = page.read_bytes()

    done = atelier(studio.home, "sample", "tale-gtp")

    assert done.returncode == 2
    assert "no champion named tale-gtp (did you mean tale-gpt?); there are: sha" in done.stderr
    assert page.read_bytes() == before


def test_without_servers_down_and_status_are_calm(
    tmp_path: Path,
) -> None:
    down = atelier(tmp_path / "home", "down")
    status = atelier(tmp_path / "home", "status")

    assert (down.returncode, down.stdout) == (0, "stopped: nothing was up\n")
    assert (status.returncode, status.stdout) == (
        0,
        "no servers are up; `atelier up` starts them\n",
    )


def ended(what: str) -> "subprocess.CompletedProcess[str]":
    """A command whose work is a line of Python, in a process of its own."""
    code = f"""
import atexit, sys, threading, time
from atelier import __main__ as program

class Module:
    def __del__(self):
        print("taken apart")

module = Module()

def run(_):
    thread = threading.Thread(target=lambda: (time.sleep(0.2), print("thread ended")))
    thread.start()
    atexit.register(print, "hook ran")
    {what}

program._run = run
sys.exit(program.main())
"""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_a_command_ends_after_its_threads_and_hooks_and_takes_nothing_apart() -> None:
    """Taking modules apart takes a second or two after a run."""
    done = ended("return 3")

    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == "thread ended\nhook ran\n"


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [("raise RuntimeError('broken')", 1, "broken"), ("raise KeyboardInterrupt", 130, "stopped")],
)
def test_a_command_that_did_not_come_to_its_end_ends_as_python_has_it(
    what: str, code: int, said: str
) -> None:
    done = ended(what)

    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == "thread ended\nhook ran\ntaken apart\n"
