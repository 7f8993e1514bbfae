"""From candidates to the rows of batch jobs and back: what a row cost, and what of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from synth_core.errors import EnvironmentFault
from synth_core.providers.batch import JobFolder, ask_in_batches
from synth_core.providers.call import Reply, Request, failed, scrub
from synth_core.providers.lane import Lane
from synth_core.providers.retry import Asked, add_usage
from synth_core.records import Candidate, Outcome, Usage

FOLDER = "batches"  # under the cache folder

KeepAnswer = Callable[[str, Candidate, Lane, Reply], None]


@dataclass
class Row:
    """One question of a job; `owners` are the positions of the candidates that asked it.

    reserved: the budget holds what it may cost at most, until it is answered.
    """

    lane: Lane
    request: Request
    candidate: Candidate
    owners: list[int]
    reserved: bool = False
    asked: Asked = field(
        default_factory=lambda: Asked(failed(Outcome.TRANSIENT, "not asked"), Usage(cost_usd=0.0), 0, 0.0)
    )

    def reserve(self) -> bool:
        """Reserve what the row may cost; False, and the row over budget, where there is no room for it."""
        if reason := self.lane.reserve_row(self.request):
            self.asked = replace(self.asked, reply=failed(Outcome.OVER_BUDGET, reason))
        self.reserved = not reason
        return self.reserved

    def give_up(self) -> None:
        """Wait no longer for the answer: a resumed run finds the job again."""
        if self.reserved and (reason := self.lane.refuses_row(self.request)):
            self.asked = replace(self.asked, reply=failed(Outcome.OVER_BUDGET, reason))

    def release(self) -> None:
        if self.reserved:
            self.lane.release_row(self.request)
        self.reserved = False


async def ask_rows(rows: Mapping[str, Row], cache_dir: Path, retries: int, keep: KeepAnswer) -> None:
    """Ask all rows that the budget has room for, given by the key of their answer, and fill in what came of
    each."""
    try:
        admitted = {key: row for key, row in rows.items() if row.reserve()}
        await _ask(admitted, cache_dir, retries, keep)
        for row in admitted.values():
            row.give_up()
    finally:  # of a job that was not taken, or is collected another day
        for row in rows.values():
            row.release()


async def _ask(rows: Mapping[str, Row], cache_dir: Path, retries: int, keep: KeepAnswer) -> None:
    def receive(key: str, reply: Reply) -> None:
        row = rows[key]
        keep(key, row.candidate, row.lane, reply)
        row.reserved = False
        reply = row.lane.account_row(row.request, row.candidate.id, reply)
        row.lane.breaker.observe(reply)
        usage = add_usage(row.asked.usage, reply.usage)
        row.asked = Asked(reply, usage, row.asked.calls + 1, 0.0)

    def again(key: str) -> bool:
        rows[key].lane.breaker.check()
        return rows[key].reserve()

    by_provider = sorted(rows, key=lambda key: rows[key].lane.provider.name)
    for _, keys in groupby(by_provider, key=lambda key: rows[key].lane.provider.name):
        questions = {key: rows[key].request for key in keys}
        lane = rows[next(iter(questions))].lane
        assert lane.batches is not None
        try:
            folder = JobFolder(cache_dir / FOLDER)
            await ask_in_batches(
                lane.batches,
                questions,
                folder,
                retries,
                keep=receive,
                admit=again,
                time_left=lane.time_left,
            )
            lane.breaker.check()
        except EnvironmentFault as error:
            raise type(error)(scrub(str(error), lane.key)) from None
