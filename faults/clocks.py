"""Clocks that are set while all is at work: by seconds, by hours, and to 1970.

Setting the clock of the machine would hit its other users. So every process of a home sees a clock
of its own: a library that is loaded before all others answers what time it is, off by the seconds
that a file says. When processes began, which psutil reckons from a file of the kernel's, is put off
as much by a line that Python runs at each start.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from faults.servers import PROGRESS, QUICK, Studio, output_of, wait_for
from faults.tally import Tally

STEPS = {"3 s ahead": 3, "4 s back": -1, "5 hours ahead": 18_000, "7 hours back": -7200}
TO_1970 = "to 1970"
LONG = ("run", "--preset", "standard", "--models", "vae")

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

typedef int (*tell)(clockid_t, struct timespec *);

static long offset(tell real) {
    static long seconds, seen_at = -1;
    struct timespec up;
    real(CLOCK_MONOTONIC, &up);
    long now = up.tv_sec * 10 + up.tv_nsec / 100000000;
    if (now != seen_at) {
        FILE *file = fopen(getenv("FAULTS_CLOCK"), "r");
        if (file) {
            if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
            fclose(file);
        }
        seen_at = now;
    }
    return seconds;
}

int clock_gettime(clockid_t which, struct timespec *told) {
    static tell real;
    if (!real) real = (tell)dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, told);
    if (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) told->tv_sec += offset(real);
    return code;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
STARTS = """
import os
import psutil

_boot = psutil._pslinux.boot_time
psutil._pslinux.boot_time = lambda: _boot() + int(open(os.environ["FAULTS_CLOCK"]).read() or 0)
"""


def set_clocks(studio: Studio, scratch: Path, tally: Tally) -> None:
    """Set the clock of a home while a run trains; nothing may be closed, or begun twice."""
    if shutil.which("cc") is None:
        tally.no_clock_steps = "no C compiler"
        print("  clocks: not tested, no C compiler; --skip clocks says so", flush=True)
        return
    with _clock_of(studio, scratch) as setting:
        code, printed = studio.run("up")
        if code:
            tally.note(f"nothing to set the clock of: {printed[-700:]}")
            return
        whole = {name: studio.server(name)["pid"] for name in ("prefect", "mlflow", "worker")}
        for seed, (what, seconds) in enumerate({**STEPS, TO_1970: -int(time.time())}.items(), 90):
            tally.clock_steps += 1
            run = studio.start(*LONG, "--seed", str(seed))
            if not wait_for(run, PROGRESS.pattern):
                tally.note(f"no training to set the clock in: {output_of(run)[-500:]}")
                break
            setting.write_text(str(seconds))
            time.sleep(0.5)
            problem = _what_another_command_breaks(studio, whole)
            if code := run.wait():
                problem += f"; the run ended with {code}: {output_of(run)[-500:]}"
            if killed := _closed_by_others(studio):
                problem += f"; MLflow runs of living processes were closed: {killed}"
            if problem:
                tally.note(f"the clock was set {what}: {problem}")
            else:
                tally.clock_steps_survived += 1
            print(f"  clock set {what}: {problem or 'nothing closed, nothing begun twice'}")
        setting.write_text("0")
        code, printed = studio.run(*QUICK)
        if code:
            tally.note(f"after the clock was put right a run failed: {printed[-500:]}")
        if again := studio.repeated_tasks():
            tally.note(f"the clock was set: tasks with more than one run: {again}")
        studio.run("down")


def _what_another_command_breaks(studio: Studio, whole: dict[str, int]) -> str:
    """What `up` and `gc` do to a home at work; nothing, if all is well."""
    for arguments in (("up",), ("gc", "--yes")):
        code, printed = studio.run(*arguments)
        if code:
            return f"{' '.join(arguments)}: {printed[-300:]}"
        if "closed the run" in printed or "checkpoint" in printed:
            return f"{' '.join(arguments)}: {printed[-300:]}"
    now = {name: studio.server(name)["pid"] for name in whole}
    if now != whole:
        return f"processes were begun twice: {whole}, now {now}"
    lost = [name for name, pid in whole.items() if not psutil.pid_exists(pid)]
    return f"{', '.join(lost)} ended" if lost else ""


def _closed_by_others(studio: Studio) -> list[str]:
    """The names of MLflow runs that somebody took to be of the dead."""
    from mlflow.tracking import MlflowClient

    runs = MlflowClient(studio.server("mlflow")["url"])
    experiment = runs.get_experiment_by_name("atelier")
    found = runs.search_runs([experiment.experiment_id], "attributes.status = 'KILLED'")
    return [run.info.run_name for run in found]


@contextmanager
def _clock_of(studio: Studio, scratch: Path) -> Iterator[Path]:
    """The file that says how many seconds the clock of a home's processes is off."""
    folder, setting = scratch / "clock", scratch / "clock" / "seconds"
    folder.mkdir()
    (folder / "clock.c").write_text(CLOCK)
    (folder / "sitecustomize.py").write_text(STARTS)
    setting.write_text("0")
    library = folder / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, folder / "clock.c", "-ldl"]
    subprocess.run(command, check=True)
    added = {"FAULTS_CLOCK": setting, "PYTHONPATH": folder, "LD_PRELOAD": library}
    studio.environment |= {name: str(value) for name, value in added.items()}
    yield setting
    for name in added:
        del studio.environment[name]
