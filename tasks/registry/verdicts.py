"""The tasks that act on a champion: named by the gate's decision, and verified at night.

What they do is told in modules that a command can import without Prefect.
"""

from prefect import task
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from tasks.evaluation.scorecard import PromotionDecision
from tasks.registry.promotion import carry_out
from tasks.registry.verification import UNVERIFIED, verified_copy
from tasks.registry.versions import Version
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED


@task(name="apply-decision", task_run_name="name {version.name}", **NETWORKED)
def apply_decision(version: Version, verdict: PromotionDecision) -> Version | None:
    """Carry out what the gate or a person decided; see `tasks.registry.promotion.carry_out`."""
    return carry_out(version, verdict)


@task(name="verify-champion", task_run_name="verify {name}", **NETWORKED)
def verify_champion(name: str) -> str:
    """What is wrong with the champion's package, in a line, or nothing; nothing is executed."""
    try:
        with verified_copy(name, "champion"):
            return ""
    except UNVERIFIED as error:
        report_unverified(name, str(error))
        return str(error)


def report_unverified(name: str, problem: str) -> None:
    """Tell of a champion that was not loaded: in the log, and as the event that its name stands in.

    Automations can wait for `atelier.model.unverified`.
    """
    log(f"WARNING: {problem}")
    if PREFECT_API_URL.value():
        emit_event(
            "atelier.model.unverified",
            resource={
                "prefect.resource.id": f"atelier.model.{name}",
                "prefect.resource.name": name,
            },
            payload={"problem": problem},
        )
