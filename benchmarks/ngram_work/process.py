"""Wall time and peak memory of a whole process, as a small process beside it sees them.

A child's peak counts what its parent held when it started it; so commands are started by this
module in an interpreter of its own, which imports nothing large.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """What a command took, from its start to its end."""

    seconds: float
    peak_mb: float
    """Peak resident memory in units of 10^6 bytes; pages of mapped files count when touched."""


def measured(command: list[str]) -> EvaluationResult:
    """Run a command. Raises RuntimeError with the end of what it said when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ngram_work.process", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return EvaluationResult(**json.loads(done.stdout.splitlines()[-1]))


def _main(command: list[str]) -> int:
    started_at = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started_at
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1e6}))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
