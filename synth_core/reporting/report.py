"""What a report says, as plain data: printed, drawn as a page, or given out as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, computed_field

from synth_core.records import Record


class Yield(Record):
    """Accepted out of attempted, under some name (a strategy, an attempt's number)."""

    name: str
    attempted: int
    accepted: int
    cost_usd: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def rate(self) -> float:
        return self.accepted / self.attempted if self.attempted else 0.0


class StageRow(Record):
    """One stage: how many came in, how many it dropped and why, how long it took.

    total_s: seconds of all candidates added up, which many worked on at once: more than went by. median_s,
    p95_s: seconds that one candidate took. cached: candidates that had their result from a cache.
    """

    stage: str
    entered: int
    dropped: dict[str, int]
    total_s: float
    median_s: float | None
    p95_s: float | None
    cached: int

    @property
    def left(self) -> int:
        return self.entered - sum(self.dropped.values())


class FailureRow(Record):
    """One way to fail, with the detail met most often and the candidates to look at."""

    stage: str
    category: str
    check: str
    count: int
    share: float
    detail: str
    details: int
    candidates: tuple[str, ...]


class OperatorRow(Record):
    """One operator: of the candidates asked for it that got a verdict on their code, how many proved sound.

    low, high: the 95% Wilson score interval of the rate (Wilson 1927), which stays honest for small counts.
    realised: accepted programs that hold it, asked for or not.
    """

    name: str
    group: str
    judged: int
    sound: int
    rate: float
    low: float
    high: float
    realised: int


class Spend(Record):
    """What all calls came to, by the ledger of calls: failed ones and those of earlier sessions included.

    failed: calls that brought no good answer; cost_usd includes failed_cost_usd. lost: calls in flight when a
    process was killed. active_s: seconds for which sessions were at work, to the last line of that ledger.
    unsaid_usd: what these and calls that never said what they used may have cost besides,
    at most. unpriced: calls whose price is unknown. from_cache: attempts whose answer lay in the cache.
    """

    calls: int
    failed: int
    lost: int
    from_cache: int
    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    cached_tokens: int
    cost_usd: float
    failed_cost_usd: float
    unsaid_usd: float
    unpriced: int
    active_s: float


class Example(Record):
    """One candidate with its text: an accepted program, or a failure to learn from."""

    candidate_id: str
    name: str
    source: str
    stage: str
    category: str
    detail: str
    requested: tuple[str, ...]
    realised: tuple[str, ...]


class Report(Record):
    """A run, or (run_id empty) all runs of a folder."""

    model_config = ConfigDict(serialize_by_alias=True)  # "yield" is no name for an attribute

    output_dir: str
    run_id: str
    runs: int
    state: str
    started: datetime | None
    ended: datetime | None
    settings: dict[str, Any]
    versions: dict[str, str]
    attempted: int
    candidates: int
    accepted: int
    first_try: int
    rejected: dict[str, int]
    strategies: tuple[Yield, ...]
    attempts: tuple[Yield, ...]
    stages: tuple[StageRow, ...]
    failures: tuple[FailureRow, ...]
    filtered: dict[str, int]
    warnings: dict[str, int]
    tiers: dict[str, int]
    operators: tuple[OperatorRow, ...]
    never_realised: tuple[str, ...]
    lengths: dict[int, int]
    spend: Spend
    models: dict[str, int]
    accepted_examples: tuple[Example, ...]
    failed_examples: tuple[Example, ...]

    @computed_field(alias="yield")  # type: ignore[prop-decorator]
    @property
    def rate(self) -> float:
        """Accepted programs per attempt, retries counted as attempts."""
        return self.accepted / self.attempted if self.attempted else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_yield(self) -> float:
        """Accepted of candidates by first attempts alone: what the run would have come to without repair."""
        return self.first_try / self.candidates if self.candidates else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def final_yield(self) -> float:
        """Accepted of candidates after all their attempts."""
        return self.accepted / self.candidates if self.candidates else 0.0

    @property
    def further(self) -> str:
        """What further attempts were; runs of a folder may have made different ones."""
        repaired = self.runs == 1 and self.settings.get("on_failure") == "repair"
        return "repair" if repaired else "further attempts"

    @property
    def span_s(self) -> float | None:
        """Seconds from the run's first start to its end, the pauses before a resume included."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None
