"""Where a search's trials are tried: processes of this machine, or a Ray cluster.

A runner says only where. The trials, their order and what they give are the same with any of them.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from tasks.search.study import BATCH_SIZE
from tasks.store.files import BadInput

if TYPE_CHECKING:
    from tasks.search.outcome import Outcome
    from tasks.search.trial import TrialRequest

RunnerName = Literal["processes", "ray", "ray:auto"]
"""processes: of this machine; ray: Ray, started on this machine for the time of the search;
ray:auto: the cluster that this machine is a node of."""
RUNNERS: tuple[RunnerName, ...] = get_args(RunnerName)
MAX_CPUS = 256
MAX_GPUS = 64.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where trials are tried, and what each of them takes there."""

    runner: RunnerName
    workers: int
    """So many trials at a time, at most."""
    threads: int
    """Of PyTorch, in each trial."""
    cpus: int
    gpus: float | None
    """None: one where the search computes on a GPU, else none."""

    @property
    def is_of_this_machine(self) -> bool:
        """Whether nothing but this machine is needed."""
        return self.runner != "ray:auto"

    @property
    def wanted(self) -> str:
        """What a trial takes, in words."""
        gpus = f" and {counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{counted(self.cpus, 'CPU')}{gpus}"


class TrialRunner(Protocol):
    """Tries out trials, from several threads at a time; see `tasks.search.workers.Workers`."""

    def try_out(self, request: "TrialRequest") -> "Outcome":
        """A trial's outcome; raises what the trial's settings cannot be blamed for."""


def counted(number: float, what: str) -> str:
    """A number of things, in words."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def checked_place(
    runner: RunnerName,
    *,
    threads: int,
    workers: int | None = None,
    trial_cpus: int | None = None,
    trial_gpus: float | None = None,
) -> Place:
    """Where trials are tried, as far as it is known before a cluster is asked.

    workers: None is one process, or a whole batch of trials on Ray, which begins as many of them as
    there is room for; trial_cpus: None is the number of threads. Raises BadInput.
    """
    for name, value in (("--trial-cpus", trial_cpus), ("--trial-gpus", trial_gpus)):
        if runner == "processes" and value is not None:
            raise BadInput(
                f"{name} says what a trial takes of Ray's nodes, and this search runs in processes"
                " of this machine; add --runner ray, or leave it out"
            )
    if trial_gpus is not None and trial_gpus > 1 and trial_gpus != int(trial_gpus):
        raise BadInput(
            f"--trial-gpus wants a part of one GPU, such as 0.5, or whole ones; got {trial_gpus:g}"
        )
    if runner != "processes" and find_spec("ray") is None:
        raise BadInput(
            f"--runner {runner} needs Ray, which is not installed; it is the extra `ray`:"
            " `make setup` installs it, or pip install 'ray>=2.60,<3'; or search without --runner"
        )
    return Place(
        runner=runner,
        workers=workers or (1 if runner == "processes" else BATCH_SIZE),
        threads=threads,
        cpus=trial_cpus or threads,
        gpus=trial_gpus,
    )


def check_cluster(place: Place) -> None:
    """Raise BadInput where there is no cluster, or none of its nodes has room for a trial.

    It starts no cluster, and leaves one that it asked.
    """
    from tasks.search.ray_trials import asked_cluster

    if place.runner != "processes":
        asked_cluster(place)


def runner_at(place: Place) -> AbstractContextManager[TrialRunner]:
    """What tries trials out there, for the time of a block."""
    if place.runner == "processes":
        from tasks.search.workers import Workers

        return Workers(place.workers, place.threads)
    from tasks.search.ray_trials import RayTrials

    return RayTrials(place)
