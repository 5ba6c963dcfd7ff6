"""Manual approval: a flow run waits in the Prefect UI until a person decides, or time is up."""

from dataclasses import replace
from typing import Literal

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Running
from pydantic import Field

from flows.device_slot import released_slot
from tasks.evaluation.scorecard import PromotionDecision
from tasks.registry.versions import Version, page_of
from tasks.runtime.markup import markdown
from tasks.runtime.progress import log

SECONDS_BETWEEN_LOOKS = 5


class Decision(RunInput):
    """The form that a person fills in."""

    decision: Literal["accept", "refuse"] = Field(
        description="accept: this version becomes champion; refuse: the present champion stays"
    )
    reason: str = Field(default="", description="kept in the audit log")


@flow(name="request-approval", flow_run_name="{version.name} version {version.version}: approve?")
def request_approval(
    version: Version, verdict: PromotionDecision, timeout_seconds: int
) -> PromotionDecision:
    """Pause until somebody accepts or refuses a version that the gate accepted.

    In the Prefect UI the paused run has a Resume button with the form. When nobody answers in
    time, the present champion stays, and a later run may ask again.

    Args:
        version: what the gate accepted; it is registered, and no alias has moved.
        verdict: what the gate said.
        timeout_seconds: how long to wait.
    """
    form = Decision.with_initial_data(
        description=f"**{markdown(version.name)}**, [version {version.version}]"
        f"({page_of(version)}), may become champion. The gate: {markdown(verdict.reason)}."
    )
    log(f"{version.name}: version {version.version} is awaiting manual approval in the Prefect UI")
    with released_slot():
        answer = _answered(form, timeout_seconds)
    if answer is None:
        return PromotionDecision(
            accepted=False,
            reason=f"nobody approved it within {timeout_seconds} s; the champion stays",
        )
    said = {"accept": "accepted", "refuse": "refused"}[answer.decision] + " manually"
    said += f": {answer.reason}" if answer.reason else ""
    if answer.decision == "refuse":
        return PromotionDecision(accepted=False, reason=said, decided_by="the Prefect UI")
    return replace(verdict, reason=f"{verdict.reason}; {said}")


def _answered(form: type[Decision], timeout_seconds: int) -> Decision | None:
    """What a person filled in, or None when nobody did in time."""
    try:
        return pause_flow_run(
            wait_for_input=form, timeout=timeout_seconds, poll_interval=SECONDS_BETWEEN_LOOKS
        )
    except FlowPauseTimeout:
        _go_on()
        return None


def _go_on() -> None:
    """Take the run out of its pause: one that is over its time may otherwise only fail."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None, "only a flow run can have paused"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(context.flow_run.id, Running(), force=True)
