"""What came of a trial: a record that is read without PyTorch and Prefect."""

from dataclasses import dataclass, field

from tasks.search.study import Result, TrialEnd


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a trial."""

    state: TrialEnd
    value: float | None
    """The objective, of which less is better; None of a failed trial."""
    objective: str = ""
    unit: str = ""
    reason: str = ""
    """Why it failed, in words."""
    seconds: float = 0.0
    """Of its training."""
    fit: str = ""
    """The digest of the fit: of weights and configuration."""
    run_id: str = ""
    """The MLflow run that has the curves of the training."""
    curve_name: str = ""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """A metric of the training by step, thinned out."""
    rungs: dict[str, float] = field(default_factory=dict)
    """The objective after parts of the training, by their steps, where trials may be pruned."""

    def as_result(self) -> Result:
        """What the study is told."""
        return Result(state=self.state, value=self.value, rungs=self.rungs)
