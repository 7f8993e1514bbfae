"""The filters, each a named row, and the stage that applies them.

A filter looks at a candidate's fingerprints and says what they are like, or nothing. Adding one is writing
one function and one row of `FILTERS`. They ask in the order of the table; the first that objects decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from synth_core.errors import UsageError
from synth_core.filtering import kernelbench
from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.index import Claim, Claims, claims_of
from synth_core.filtering.inventory import index_path, take_stock
from synth_core.records import Candidate, Category, Stage, Verdict, operator_signature


class FilterRule(NamedTuple):
    """name: what `--filters` calls it. key: the fingerprint that must be new in the folder ("" for none).
    objection: what the candidate is like, for filters that compare with more than the folder."""

    name: str
    category: Category
    proves: str
    key: str = ""
    objection: Callable[[Fingerprints], str] | None = None


def _like_kernelbench(prints: Fingerprints) -> str:
    for tier, problem in kernelbench.matches(prints):
        return f"same {tier} as KernelBench {problem}"
    return ""


FILTERS: tuple[FilterRule, ...] = (
    FilterRule(
        "contaminated",
        Category.CONTAMINATED,
        "no KernelBench problem has its text, its form, its operators in this order or its graph",
        objection=_like_kernelbench,
    ),
    FilterRule(
        "duplicate-operators",
        Category.DUPLICATE,
        "no program of the folder realises the same operators in the same order",
        key="operators",
    ),
    FilterRule(
        "duplicate-graph",
        Category.DUPLICATE,
        "no program of the folder computes the same graph, sizes and names aside",
        key="graph",
    ),
)
DEFAULT_FILTERS = tuple(rule.name for rule in FILTERS)


class Filter:
    """The stage `filter` of one run. Call `apply` for the batches in order: the first of two alike stays.

    "First" is by round, then by index within a run; between runs it is whoever claims first, since a
    program that is written is never taken back. A run that is resumed meets its own claims as its own.
    """

    def __init__(self, output_dir: Path | str, run_id: str, filters: Sequence[str] = DEFAULT_FILTERS) -> None:
        self._folder = Path(output_dir)
        self._run_id = run_id
        self._rules = tuple(rule for rule in FILTERS if rule.name in filters)
        if unknown := sorted(set(filters) - set(DEFAULT_FILTERS)):
            raise UsageError(f"unknown filter {unknown[0]!r}; there are {', '.join(DEFAULT_FILTERS)}")

    def apply(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Judge the alive candidates, in order; raises `EnvironmentFault` where the index can't be used."""
        prints = [Fingerprints.of(candidate) if candidate.alive else None for candidate in candidates]
        with claims_of(index_path(self._folder)) as claims:
            take_stock(claims, self._folder, self._run_id)
            return [
                self._judged(candidate, each, claims) if each else candidate
                for candidate, each in zip(candidates, prints, strict=True)
            ]

    def _judged(self, candidate: Candidate, prints: Fingerprints, claims: Claims) -> Candidate:
        began = time.perf_counter()
        verdict = next(
            filter(None, (self._objection(rule, candidate, prints, claims) for rule in self._rules)), None
        )
        if verdict is None:
            owner = Claim(self._run_id, candidate.id, candidate.program.name if candidate.program else "")
            claims.claim((kind, key, owner) for kind, key in prints.keys().items())
            verdict = Verdict.ok(Stage.FILTER, measured=prints.keys())
        seconds = {**candidate.telemetry.seconds, Stage.FILTER.value: time.perf_counter() - began}
        telemetry = candidate.telemetry.model_copy(update={"seconds": seconds})
        return candidate.judged(verdict, telemetry=telemetry)

    def _objection(
        self, rule: FilterRule, candidate: Candidate, prints: Fingerprints, claims: Claims
    ) -> Verdict | None:
        detail = rule.objection(prints) if rule.objection else ""
        key = prints.keys().get(rule.key)
        holder = claims.holder(rule.key, key) if key else None
        if holder and not self._is_own(holder, candidate):
            detail = f"{rule.key} already held by {holder.program}" + (
                f" (run {holder.run_id}, candidate {holder.candidate_id})" if holder.run_id else ""
            )
        return Verdict.fail(Stage.FILTER, rule.category, detail, check=rule.name) if detail else None

    def _is_own(self, holder: Claim, candidate: Candidate) -> bool:
        if holder.run_id:
            return (holder.run_id, holder.candidate_id) == (self._run_id, candidate.id)
        # A file that no ledger knows: ours, if a kill came between writing it and writing the ledger.
        path = self._folder / f"{holder.program}.py"
        assert candidate.program is not None
        return path.exists() and path.read_bytes() == candidate.program.source.encode()


def held(output_dir: Path | str, requested: Sequence[Sequence[str]]) -> list[str]:
    """What already has these operators in this order, for each list: a program, a KernelBench problem or "".

    Asked before a provider is: a sampled set that cannot be kept costs no call.
    """
    folder = Path(output_dir)
    with claims_of(index_path(folder)) as claims:
        take_stock(claims, folder, "")
        return [_holder_of(claims, operators) for operators in requested]


def _holder_of(claims: Claims, operators: Sequence[str]) -> str:
    if problem := kernelbench.by_operators(operators):
        return f"KernelBench {problem}"
    holder = claims.holder("operators", operator_signature(operators))
    return holder.program if holder else ""
