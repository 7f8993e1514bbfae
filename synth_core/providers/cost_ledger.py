"""The cost ledger: two lines for each call, one when it starts and one when it ends.

The start is on disk before the request is sent. So after a kill we know which calls were in flight, and their
worst case counts as spent: a resumed run cannot exceed the budget.

Every few seconds, and at the end, one more line says how long the session has worked and how many programs
this machine has written. Such programs cost nothing, so they have no lines of their own.

Each run has one file, `calls.jsonl`. It is only appended to. A kill or a full disk may leave an incomplete
line: the reader skips it, and the next write starts on a new line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth_core.providers.budget import Spending
from synth_core.providers.call import Reply
from synth_core.records import Outcome

FILE_NAME = "calls.jsonl"
_NOTE_SECONDS = 5.0  # seconds between two progress lines
_WRITTEN_PER_NOTE = 16  # programs written here between two progress lines, at most


@dataclass
class CallTotals:
    """The sums of a run's ledger.

    written: programs requested from a provider with `writes_here`. They are not in `calls`.
    lost: calls that were in flight when a process was killed.
    unpriced: calls of unknown price.
    worst_unsaid: the worst case of lost calls, and of calls that ended without reporting their usage.
    active_s: seconds of work, summed over sessions.
    """

    calls: int = 0
    written: int = 0
    lost: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    failed_cost_usd: float = 0.0
    worst_unsaid: Spending = field(default_factory=Spending)
    active_s: float = 0.0

    @property
    def failed(self) -> int:
        """Calls that ended without a complete answer."""
        return self.outcomes.total() - self.outcomes[Outcome.OK]

    def spending(self) -> Spending:
        """The sum of all spending. Calls that were lost or reported no usage count at their worst case."""
        tokens = self.input_tokens + self.output_tokens + self.thinking_tokens
        calls = self.calls + self.written
        spent = Spending(usd=self.cost_usd, tokens=tokens, calls=calls, wall_s=self.active_s)
        spent.add(Spending(usd=self.worst_unsaid.usd, tokens=self.worst_unsaid.tokens))
        return spent


class CallLedger:
    """Appends to a run's ledger and keeps its `totals`. Not thread-safe.

    run_dir: the run's folder. None: keep totals only, write no file.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self._file = -1
        self._began = time.monotonic()
        self._session = f"{time.time_ns():x}-{os.getpid()}"
        self._number = 0
        self._written = self._noted = 0  # programs of this session; those already on disk
        self._torn = False
        self.totals = read_totals(run_dir) if run_dir else CallTotals()
        if run_dir is not None:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._file = os.open(run_dir / FILE_NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._file).st_size
            self._torn = bool(size) and os.pread(self._file, 1, size - 1) != b"\n"

    def start(self, candidate: str, provider: str, model: str, worst: Spending) -> int:
        """Record the start of a call. Returns its number, to be passed to `end`."""
        self._number += 1
        self.totals.calls += 1
        self._write(
            start=self._number,
            candidate=candidate,
            provider=provider,
            model=model,
            worst_tokens=worst.tokens,
            worst_usd=worst.usd,
        )
        return self._number

    def end(self, number: int, reply: Reply, unsaid: Spending | None = None) -> None:
        """Record how a call ended and what it used. `unsaid` is its worst case, if it reported no usage."""
        values: dict[str, Any] = {
            "end": number,
            "outcome": reply.outcome.value,
            "status": reply.status,
            "call_s": round(reply.seconds, 3),
            "error": reply.error,
            **vars(reply.usage),
        }
        if unsaid:
            values |= {"worst_tokens": unsaid.tokens, "worst_usd": unsaid.usd}
        _add(self.totals, values)
        self._write(**values)

    def write_here(self) -> None:
        """Count a program that this machine will write."""
        self._written += 1
        self.totals.written += 1
        if self._written - self._noted >= _WRITTEN_PER_NOTE:
            self._note()

    async def keep_noting(self) -> None:
        """Write a progress line every few seconds, so that a killed session counts towards the budgets."""
        while True:
            await asyncio.sleep(_NOTE_SECONDS)
            with contextlib.suppress(OSError):  # on a full disk, the lines of the calls raise the error
                self._note()

    def close(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._note()
            os.close(self._file)
            self._file = -1

    def _note(self) -> None:
        self._noted = self._written
        self._write(written=self._written)

    def _write(self, **values: Any) -> None:
        if self._file < 0:
            return
        values |= {"session": self._session, "at": round(time.monotonic() - self._began, 3)}
        self._append(json.dumps(values).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        line = b"\n" * self._torn + line  # start a new line after an incomplete one, else both are lost
        self._torn = True
        if os.write(self._file, line) < len(line):  # one write call, so that lines never mix
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), FILE_NAME)
        self._torn = False


def read_totals(run_dir: Path) -> CallTotals:
    """Sum up a run's ledger. All zero if there is no ledger."""
    totals = CallTotals()
    open_calls: dict[tuple[str, int], Spending] = {}
    active: dict[str, float] = {}
    written: dict[str, int] = {}
    for values in _read(run_dir):
        session = values["session"]
        active[session] = max(active.get(session, 0.0), values["at"])
        if "start" in values:
            totals.calls += 1
            worst = Spending(usd=values["worst_usd"], tokens=values["worst_tokens"])
            open_calls[session, values["start"]] = worst
        elif "written" in values:
            written[session] = values["written"]
        else:
            open_calls.pop((session, values["end"]), None)
            _add(totals, values)
    totals.lost = len(open_calls)
    for worst in open_calls.values():
        totals.worst_unsaid.add(worst)
    totals.active_s = sum(active.values())
    totals.written = sum(written.values())
    return totals


def read_costs(run_dir: Path) -> dict[str, float]:
    """The cost of each candidate's calls in US dollars, with failed calls, without calls of unknown price."""
    candidates: dict[tuple[str, int], str] = {}
    costs: dict[str, float] = {}
    for values in _read(run_dir):
        if "start" in values:
            candidates[values["session"], values["start"]] = values["candidate"]
        elif values.get("cost_usd") is not None:
            candidate = candidates[values["session"], values["end"]]
            costs[candidate] = costs.get(candidate, 0.0) + values["cost_usd"]
    return costs


def _read(run_dir: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = (run_dir / FILE_NAME).read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):  # not JSON, or not text
            yield json.loads(line)


def _add(totals: CallTotals, values: dict[str, Any]) -> None:
    totals.outcomes[values["outcome"]] += 1
    if "worst_tokens" in values:
        totals.worst_unsaid.add(Spending(usd=values["worst_usd"], tokens=values["worst_tokens"]))
    totals.input_tokens += values["input_tokens"]
    totals.output_tokens += values["output_tokens"]
    totals.thinking_tokens += values["thinking_tokens"]
    totals.cached_tokens += values["cached_tokens"]
    cost = values["cost_usd"]
    totals.unpriced += cost is None
    totals.cost_usd += cost or 0.0
    if values["outcome"] != "ok":
        totals.failed_cost_usd += cost or 0.0
