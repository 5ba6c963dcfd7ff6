"""The counts of a fault-injection run, and its last line."""

import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """What was done to the program, and how it took it."""

    kills: int = 0
    sequences: int = 0
    """How often work was killed, once or more, and then run to its end."""
    identical: int = 0
    """After how many of them all was as if nothing had happened."""
    corruptions: int = 0
    corruptions_found: int = 0
    full_disks: int = 0
    full_disks_survived: int = 0
    no_full_disks: str = ""
    """Why disks could not be filled, where that was asked for."""
    outages: int = 0
    outages_survived: int = 0
    clock_steps: int = 0
    """How often the clock was set while work went on."""
    clock_steps_survived: int = 0
    no_clock_steps: str = ""
    """Why the clock could not be set, where that was asked for."""
    rivals: int = 0
    rivals_at_peace: int = 0
    pages: int = 0
    """Requests as pages of others make them."""
    pages_refused: int = 0
    tamperings: int = 0
    tamperings_found: int = 0
    losses: int = 0
    """Databases lost, replaced or rolled back."""
    losses_explained: int = 0
    orphans: int = 0
    """MLflow runs left open."""
    temporary_files: int = 0
    """Half-written files that stayed."""
    problems: list[str] = field(default_factory=list)

    def count_temporary_files(self, home: Path) -> None:
        """Count half-written files that no living process is writing, and say which."""
        for pattern in (".partial-*", "checkpoint.safetensors"):
            for path in home.rglob(pattern):
                time.sleep(1.0)  # a server's or a worker's own file is renamed by then
                if path.exists():
                    self.temporary_files += 1
                    print(f"  left behind: {path.relative_to(home)}", flush=True)

    def note(self, problem: str) -> None:
        """Something that must not be."""
        self.problems.append(problem)
        print(f"  PROBLEM: {problem}", flush=True)

    @property
    def all_is_well(self) -> bool:
        """Whether the program took everything, and was given everything that was asked for."""
        return (
            not self.problems
            and not self.no_full_disks
            and not self.no_clock_steps
            and self.identical == self.sequences
            and self.corruptions_found == self.corruptions
            and self.full_disks_survived == self.full_disks
            and self.outages_survived == self.outages
            and self.clock_steps_survived == self.clock_steps
            and self.rivals_at_peace == self.rivals
            and self.pages_refused == self.pages
            and self.tamperings_found == self.tamperings
            and self.losses_explained == self.losses
            and self.orphans == self.temporary_files == 0
        )

    def __str__(self) -> str:
        disks = f"{self.full_disks_survived} of {self.full_disks} full disks survived"
        if self.no_full_disks:
            disks = f"full disks not tested: {self.no_full_disks}"
        clocks = f"{self.clock_steps_survived} of {self.clock_steps} steps of the clock survived"
        if self.no_clock_steps:
            clocks = f"steps of the clock not tested: {self.no_clock_steps}"
        return (
            f"{self.kills} kills, {self.identical} of {self.sequences} sequences identical;"
            f" {self.corruptions_found} of {self.corruptions} corruptions found;"
            f" {disks};"
            f" {self.outages_survived} of {self.outages} outages survived;"
            f" {clocks};"
            f" {self.rivals_at_peace} of {self.rivals} pairs of rivals at peace;"
            f" {self.pages_refused} of {self.pages} hostile requests refused;"
            f" {self.tamperings_found} of {self.tamperings} tamperings found;"
            f" {self.losses_explained} of {self.losses} lost databases explained;"
            f" {self.orphans} orphans; {self.temporary_files} temporary files"
        )
