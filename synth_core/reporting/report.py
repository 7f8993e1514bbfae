"""The contents of a report as plain data. It can be printed, rendered as a page, or written as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, computed_field

from synth_core.records import Record


class Yield(Record):
    """How many attempts of one group were accepted. `name` is a strategy or the number of an attempt."""

    name: str
    attempted: int
    accepted: int
    cost_usd: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def rate(self) -> float:
        return self.accepted / self.attempted if self.attempted else 0.0


class StageRow(Record):
    """One stage: how many candidates entered, how many it dropped and why, and how long it took.

    total_s: sum of all candidates' seconds. It exceeds the wall time, because candidates run in parallel.
    median_s, p95_s: seconds per candidate, the median and the 95th percentile.
    cached: candidates whose result came from a cache.
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
    """One kind of failure: the same stage, category and check.

    share: of all attempts. detail: the most frequent one. details: the number of different details.
    candidates: the ids of a few examples.
    """

    stage: str
    category: str
    check: str
    count: int
    share: float
    detail: str
    details: int
    candidates: tuple[str, ...]


class OperatorRow(Record):
    """How often candidates with one requested operator were sound.

    judged: candidates that requested it and whose code was judged. sound: how many of these passed.
    rate: sound / judged.
    low, high: the 95% score interval of the rate (Wilson 1927), which is also valid for small counts.
    realised: accepted programs that contain the operator, requested or not.
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
    """The sums of the cost ledger, with failed calls and with earlier sessions.

    failed: calls without a good answer.
    lost: calls in flight when a process was killed.
    from_cache: attempts whose answer came from the cache.
    cost_usd: includes failed_cost_usd, but not unsaid_usd.
    unsaid_usd: the most that lost calls, and calls that reported no usage, may have cost.
    unpriced: calls of unknown price.
    active_s: seconds of work, summed over sessions, up to the ledger's last line.
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
    """One candidate with its text, as an example of an accepted program or of a failure."""

    candidate_id: str
    name: str
    source: str
    stage: str
    category: str
    detail: str
    requested: tuple[str, ...]
    realised: tuple[str, ...]


class Report(Record):
    """The report of one run, or of all runs of a folder (then `run_id` is empty)."""

    model_config = ConfigDict(serialize_by_alias=True)  # "yield" is a Python keyword, not an attribute name

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
        """Accepted programs per attempt. Retries count as attempts."""
        return self.accepted / self.attempted if self.attempted else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_yield(self) -> float:
        """Share of candidates accepted at the first attempt: the yield without repair or retries."""
        return self.first_try / self.candidates if self.candidates else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def final_yield(self) -> float:
        """Share of candidates accepted after all attempts."""
        return self.accepted / self.candidates if self.candidates else 0.0

    @property
    def further(self) -> str:
        """What to call further attempts. Several runs may differ, so for them the name is general."""
        repaired = self.runs == 1 and self.settings.get("on_failure") == "repair"
        return "repair" if repaired else "further attempts"

    @property
    def span_s(self) -> float | None:
        """Seconds from the run's first start to its end, with pauses between sessions."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None
