"""Turns candidates into rows of batch jobs, and replies back into answers with their cost."""

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
    """One question of a job.

    owners: positions of the candidates that ask it.
    reserved: the budget holds a reservation of its highest possible cost, until it is answered.
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
        """Reserve the row's highest possible cost. Without room for it, mark the row over budget: False."""
        if reason := self.lane.reserve_row(self.request):
            self.asked = replace(self.asked, reply=failed(Outcome.OVER_BUDGET, reason))
        self.reserved = not reason
        return self.reserved

    def give_up(self) -> None:
        """Mark an unanswered row over budget if a budget is spent. A resumed run finds its job again."""
        if self.reserved and (reason := self.lane.refuses_row(self.request)):
            self.asked = replace(self.asked, reply=failed(Outcome.OVER_BUDGET, reason))

    def release(self) -> None:
        if self.reserved:
            self.lane.release_row(self.request)
        self.reserved = False


async def ask_rows(rows: Mapping[str, Row], cache_dir: Path, retries: int, keep: KeepAnswer) -> None:
    """Ask all rows that the budget has room for, and set `asked` of each.

    rows: by the key of their answer.
    """
    try:
        admitted = {key: row for key, row in rows.items() if row.reserve()}
        await _ask(admitted, cache_dir, retries, keep)
        for row in admitted.values():
            row.give_up()
    finally:  # a job that was not accepted, or that a later run collects, leaves reservations
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
