"""`make faults`: every kind of fault, one summary line, exit 0 only if all was taken well."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tasks.families.table import FAMILIES

KINDS = (
    *("kills", "damage", "disks", "clocks", "tampering", "databases", "decisions"),
    *("commands", "outages", "rivals", "pages"),
)
SECONDS_AWAY = 60.0


def main() -> int:
    """Inject the faults; returns 0 if all is well, else 1."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=13 * len(FAMILIES), help="kills over all families"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    parser.add_argument("--only", type=_kinds, metavar="KINDS", help="of: " + ",".join(KINDS))
    parser.add_argument(
        "--skip", choices=KINDS, action="append", default=[], help="a kind of fault to leave out"
    )
    parser.add_argument("--family", choices=FAMILIES, help="kill fits of one family only")
    options = parser.parse_args()
    wanted = options.only or KINDS
    kinds = tuple(kind for kind in wanted if kind not in options.skip)
    if not kinds:
        parser.error(f"--only {','.join(wanted)} with --skip leaves no fault to inject")
    families = (options.family,) if options.family else FAMILIES
    with tempfile.TemporaryDirectory(prefix="atelier-faults-") as name:
        scratch = Path(name)
        os.environ["ATELIER_HOME"] = str(scratch / "home")
        tally = _inject(kinds, families, options.kills, options.seed, scratch)
    print(tally, flush=True)
    return 0 if tally.all_is_well else 1


def _kinds(text: str) -> tuple[str, ...]:
    """One kind of fault, or several with commas between them."""
    kinds = tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"no kind is called {kind!r}; of: {', '.join(KINDS)}")
    return kinds


def _inject(  # noqa: ANN202
    kinds: tuple[str, ...], families: tuple[str, ...], num_kills: int, seed: int, scratch: Path
):
    from atelier.services import process_settings

    process_settings.apply_settings()
    from faults import clocks, damage, databases, full_home, kills, servers, tampering
    from faults.decisions import KILLS_EACH, decide_under_kills
    from faults.fits import make_empty_database
    from faults.tally import Tally

    tally, started_at = Tally(), time.monotonic()
    print(f"seed {seed}", flush=True)
    empty = make_empty_database(scratch / "empty.db")
    if "kills" in kinds:
        for index, family in enumerate(families):
            dice = random.Random(f"{seed} {family}")
            share = num_kills // len(families) + (index < num_kills % len(families))
            if share:
                kills.kill_fits(family, share, dice, scratch, empty, tally)
    if "damage" in kinds:
        damage.corrupt_results(random.Random(seed), scratch, empty, tally)
        damage.corrupt_checkpoints(random.Random(seed), scratch, empty, tally)
    if "disks" in kinds:
        damage.fill_disks(scratch, empty, tally)
        full_home.fill_a_whole_home(scratch, tally)
    if "clocks" in kinds:
        clocks.set_clocks(servers.Studio(scratch / "clocks"), scratch, tally)
    if "tampering" in kinds:
        tampering.tamper(random.Random(seed), scratch, empty, tally)
    if "databases" in kinds:
        databases.lose_databases(scratch, empty, tally)
    if "decisions" in kinds:
        decide_under_kills(KILLS_EACH, random.Random(seed), scratch, empty, tally)
    if set(kinds) & {"commands", "outages", "rivals", "pages"}:
        _inject_beside_servers(kinds, seed, scratch, tally)
    print(f"{time.monotonic() - started_at:.0f} s", flush=True)
    return tally


def _inject_beside_servers(kinds: tuple[str, ...], seed: int, scratch: Path, tally) -> None:  # noqa: ANN001
    """Those that share one pair of servers."""
    from faults import pages, servers

    studio = servers.Studio(scratch / "studio")
    try:
        if "commands" in kinds:
            servers.kill_commands(studio, 6, random.Random(seed), scratch, tally)
        if "outages" in kinds:
            servers.stop_servers_in_between(studio, SECONDS_AWAY, tally)
            servers.stop_prefect_after_training(studio, SECONDS_AWAY, tally)
        if "rivals" in kinds:
            servers.run_rivals(studio, tally)
        if "pages" in kinds:
            pages.attack(studio, tally)
    finally:
        studio.run("down")


if __name__ == "__main__":
    sys.exit(main())
