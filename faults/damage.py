"""Files flipped, cut and removed, and disks that fill up."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from faults.fits import STEPS, Fit, fitted, fresh, inspected
from faults.kills import count_leftovers
from faults.tally import Tally
from tasks.families.table import FAMILIES


def flip(path: Path, dice: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def cut(path: Path, dice: random.Random) -> None:
    """Drop the end."""
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))])


def lose(path: Path, _: random.Random) -> None:
    """Remove."""
    path.unlink()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (flip, cut, lose)


def corrupt_results(dice: random.Random, scratch: Path, empty: Path, tally: Tally) -> None:
    """Damage every stored file of every family in some way; each must be found and made again."""
    for family in FAMILIES:
        home = fresh(scratch / f"{family}-damaged", empty)
        expected = fitted(family, home)
        kinds = ["models"]
        if family in ("vae", "ngram"):  # others share their data
            kinds += ["images", "corpora", "tokens"]
        files = [path for kind in kinds for path in home.glob(f"artifacts/{kind}/*/*/*")]
        for path in filter(Path.is_file, sorted(files)):
            damage = dice.choice(DAMAGES)
            tally.corruptions += 1
            before = inspected(home, num_reasons)
            damage(path, dice)
            again = fitted(family, home)
            is_told = inspected(home, num_reasons) > before
            if again.digest == expected.digest and is_told:
                tally.corruptions_found += 1
            else:
                what = again.error or ("not told" if again.digest == expected.digest else "differs")
                tally.note(f"{damage.__name__} {path.relative_to(home)}: {what}")
        count_leftovers(home, tally)
        print(f"  {family}: {tally.corruptions} files damaged so far", flush=True)


def corrupt_checkpoints(dice: random.Random, scratch: Path, empty: Path, tally: Tally) -> None:
    """Damage the checkpoint of a killed fit: training must begin again, and say so."""
    for family in STEPS:
        expected = fitted(family, fresh(scratch / "whole", empty))
        home = fresh(scratch / "killed", empty)
        fit = Fit(family, home)
        while not list(home.rglob("checkpoint.safetensors")):
            if fit.wait(0.01) is not None:
                break
        fit.kill()
        (checkpoint,) = home.rglob("checkpoint.safetensors")
        dice.choice((flip, cut))(checkpoint, dice)
        tally.corruptions += 1
        again = fitted(family, home)
        if again.digest == expected.digest and "damaged" in inspected(home, last_reasons):
            tally.corruptions_found += 1
        else:
            tally.note(f"{family}: a damaged checkpoint: {again.error or 'differs, or not told'}")
        count_leftovers(home, tally)


def fill_disks(scratch: Path, empty: Path, tally: Tally) -> None:
    """Let the disk fill up in the middle of work; free some; the same work must end the same."""
    for family in FAMILIES:
        expected = fitted(family, fresh(scratch / "whole", empty))
        home = fresh(scratch / "small", empty)
        data = "images" if FAMILIES[family].data == "images" else "corpora"
        for kind, size_kb in (("models", 12), (data, 32)):
            disk = home / "artifacts" / kind
            disk.mkdir(parents=True)
            if not mount(disk, size_kb):
                tally.no_full_disks = "no right to mount"
                print("  disks: not tested, no right to mount; --skip disks says so", flush=True)
                return
            try:
                tally.full_disks += 1
                full = fitted(family, home)
                subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
                again = fitted(family, home)
                if not full.error.startswith("DiskFull") or "\n" in full.error:
                    tally.note(f"{family}: full disk below {kind}/: {full.error or 'unnoticed'}")
                elif again.digest != expected.digest:
                    tally.note(f"{family}: after a full disk: {again.error or 'differs'}")
                else:
                    tally.full_disks_survived += 1
                count_leftovers(home, tally)
            finally:
                subprocess.run(["umount", disk], check=True)
            shutil.rmtree(home / "artifacts", ignore_errors=True)
    print("  disks: full below models/ and below its data, for each family", flush=True)


def mount(folder: Path, size_kb: int) -> bool:
    """Put a small disk below a folder; returns whether that is allowed here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", folder]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def num_reasons() -> int:
    """How many reasons steps have given so far for doing work again."""
    from tasks.store.steps import history, steps

    return sum(
        1
        for step in steps()
        for record in history(step)
        for reason in record.reasons
        if "damaged" in reason
    )


def last_reasons() -> str:
    """What the fit that ran last said."""
    from tasks.store.steps import history, steps

    return " ".join(
        reason for step in steps() for record in history(step) for reason in record.reasons
    )
