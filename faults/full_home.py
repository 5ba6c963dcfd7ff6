"""A disk that fills up below a whole home: databases, journals, artifacts, all at once."""

import subprocess
import time
from pathlib import Path

from faults.damage import mount
from faults.servers import PROGRESS, Studio, output_of, wait_for
from faults.tally import Tally

RUN = ("run", "--preset", "quick", "--models", "vae", "--seed", "60")
TOLD = r"no space is left at \S+ \(\d"
SECONDS_FULL = 30.0


def fill_a_whole_home(scratch: Path, tally: Tally) -> None:
    """Fill the disk of a home while a model trains; what waits must say so, and go on after."""
    disk = scratch / "whole-home"
    disk.mkdir()
    if not mount(disk, 400_000):
        tally.no_full_disks = "no right to mount"
        return
    studio = Studio(disk)
    try:
        tally.full_disks += 1
        run = studio.start(*RUN)
        if not wait_for(run, PROGRESS.pattern, 300):
            tally.note(f"no training to fill the disk in: {output_of(run)[-500:]}")
            return
        _fill(disk / "filler")
        is_told = wait_for(run, TOLD, 60)
        time.sleep(SECONDS_FULL)
        (disk / "filler").unlink()
        code = run.wait()
        printed = output_of(run)
        again, retold = studio.run(*RUN)
        if not is_told:
            tally.note(f"the home was full, and nobody said so: {printed[-700:]}")
        elif code not in (0, 2) or (code and "run the same command again" not in printed):
            tally.note(f"the home was full: it ended with {code}: {printed[-700:]}")
        elif again:
            tally.note(f"after the home was full: {retold[-700:]}")
        else:
            tally.full_disks_survived += 1
        print(f"  disks: a whole home was full for {SECONDS_FULL:.0f} s; it ended with {code}")
    finally:
        studio.run("down")
        subprocess.run(["umount", "-l", disk], check=True)


def _fill(path: Path) -> None:
    """Take all that is left."""
    try:
        with path.open("wb") as file:
            while True:
                file.write(b"\0" * 65_536)
                file.flush()
    except OSError:
        return
