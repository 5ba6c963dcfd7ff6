"""How long commands take in a home of some years: 500 versions, 10,000 entries of the log.

python -m benchmarks.large_home      makes such a home in a temporary folder

One small model is trained; its version is registered again and again under other digests, and its
log is filled up. Both servers run, as they do in a home where `atelier up` works; each command is a
process of its own.
"""

import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.measured import record
from tasks.registry.audit_log import Entry

NUM_VERSIONS, NUM_ENTRIES, NUM_STEPS, REPEATS = 500, 10_000, 1000, 3
NAME = "tale-ngram"
COMMANDS = {
    "models": ["models"],
    "show": ["show", NAME],
    "doctor": ["doctor"],
    "history": ["history"],
    "history_of_one": ["history", NAME],
    "status": ["status"],
    "explain": ["explain", NAME],
    "gc": ["gc"],
    "promote": ["promote", NAME, "--to", "250", "--reason", "measured"],
    "rollback": ["rollback", NAME],
}


def atelier(home: Path, *arguments: str) -> float:
    """Run a command; returns the seconds it took. An exit code that tells of an error stops us."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "atelier", *arguments],
        env={**os.environ, "ATELIER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"atelier {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return took


def make_home(home: Path) -> None:
    """Train one small model, then make the home look as after years of work."""
    home.mkdir(parents=True, exist_ok=True)
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(words[(i * k + k) % 10] for k in range(1, 10)) + "." for i in range(320)]
    text = home / "tale.txt"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    run = ["run", "--models", "ngram", "--preset", "quick", "--text", f"file:{text}"]
    atelier(home, *run, *ports)
    url = json.loads((home / "servers.json").read_text(encoding="utf-8"))["mlflow"]["url"]
    add_versions(url)
    path = home / "ledger" / f"{NAME}.jsonl"
    lengthen(path)
    anchor(path, url)
    repeat(home / "steps" / f"{NAME}.jsonl")


def add_versions(url: str) -> None:
    """Register the first version again under other digests."""
    from mlflow.tracking import MlflowClient

    registry = MlflowClient(url)
    first = registry.get_model_version(NAME, "1")
    for number in range(2, NUM_VERSIONS + 1):
        tags = {**first.tags, "content_digest": content_of(number)}
        registry.create_model_version(
            NAME,
            source=first.source,
            run_id=first.run_id,
            model_id=first.source.removeprefix("models:/"),
            description=first.description,
            tags=tags,
            await_creation_for=0,
        )


def content_of(number: int) -> str:
    """The digest under which a copy of the first version is registered."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def lengthen(path: Path) -> None:
    """Fill a log up with registrations and refusals, each chained to the one before."""
    lines = path.read_bytes().splitlines()
    entries = [Entry(**json.loads(line)) for line in lines]
    (first,) = [entry for entry in entries if entry.kind == "registered"]
    refusal = replace(
        entries[-1],
        kind="refused",
        action="refuse",
        settles=None,
        from_version=1,
        why="not better: 1.7374 against the champion's 1.7302, difference +0.0072",
        who="flow run big-nightly (0)",
        evidence={"test_bits_per_byte": 1.7374, "interval": [1.596, 1.8637]},
        digests=dict.fromkeys(("data", "code", "judge", "recipe"), "0" * 64),
    )
    while len(lines) < NUM_ENTRIES:
        number = len(lines) + 1
        version = 2 + (number - len(entries) - 1) % (NUM_VERSIONS - 1)
        template = first if number < len(entries) + NUM_VERSIONS else refusal
        entry = replace(
            template,
            number=number,
            to_version=version,
            digests={**template.digests, "content": content_of(version)},
            previous=hashlib.sha256(lines[-1]).hexdigest(),
        )
        lines.append(json.dumps(asdict(entry), sort_keys=True).encode())
    path.write_bytes(b"\n".join(lines) + b"\n")


def anchor(path: Path, url: str) -> None:
    """Let the registry know the log's length and its last line."""
    from mlflow.tracking import MlflowClient

    first, *_, last = path.read_bytes().splitlines()
    digests = [hashlib.sha256(line).hexdigest() for line in (first, last)]
    value = f"{NUM_ENTRIES} {digests[1]}"
    MlflowClient(url).set_registered_model_tag(NAME, f"audit_log.{digests[0][:12]}", value)


def repeat(path: Path) -> None:
    """A step that ran every night for some years."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begun, ended = (json.loads(line) for line in lines[:2])
    with path.open("a", encoding="utf-8") as file:
        for number in range(NUM_STEPS):
            for line in (begun, ended):
                file.write(json.dumps({**line, "mark": f"night {number}"}) + "\n")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(home: Path, commands: dict[str, list[str]], repeats: int = REPEATS) -> dict[str, float]:
    """The median of each command's seconds."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):  # in turns: what else the machine does comes and goes
        for name, arguments in commands.items():
            times[name].append(atelier(home, *arguments))
            print(f"{name}: {times[name][-1]:.2f} s", flush=True)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Make the home, measure, and put the rows into the table."""
    with tempfile.TemporaryDirectory(prefix="atelier-large-") as folder:
        home = Path(folder) / "home"
        try:
            make_home(home)
            seconds = measure(home, COMMANDS)
        finally:
            atelier(home, "down")
    what = f"{NUM_VERSIONS} versions, {NUM_ENTRIES:,} entries of the log; wanted at most"
    settings: dict[str, Any] = {"reference": what, "reference_value": 5.0}
    for name, taken in seconds.items():
        record(f"large_home_{name}_seconds", taken, "s", seconds=taken, **settings)


if __name__ == "__main__":
    main()
