"""The filters, one row each, and the stage that applies them.

A filter looks at a candidate's fingerprints. It returns one line that says what the candidate is similar to,
or an empty string. To add a filter, write one function and add one row to `FILTERS`. They run in that order,
and the first objection decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from synth_core.errors import UsageError
from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.index import Claim, Claims
from synth_core.filtering.inventory import claims_in
from synth_core.filtering.reference import kernelbench
from synth_core.filtering.sketch import NEAR, similarity
from synth_core.records import Candidate, Category, Stage, Verdict, operator_signature


class Folder(NamedTuple):
    """The folder, as filters see it.

    claims: the fingerprints that its programs hold. is_own: whether a claim belongs to the candidate itself.
    """

    claims: Claims
    is_own: Callable[[Claim], bool]


Objection = Callable[[Fingerprints, Folder], str]


class FilterRule(NamedTuple):
    """One row of `FILTERS`.

    name: for `--skip-filter`.
    proves: what holds for a program that passes.
    objection: returns one line that says what the program is similar to, or an empty string.
    revisit: this rule replaces the other duplicate rules for a program that was requested again on purpose.
    """

    name: str
    category: Category
    proves: str
    objection: Objection
    revisit: bool = False


def _like_kernelbench(prints: Fingerprints, _: Folder) -> str:
    """A text of which no fingerprint could be taken may be a copy of anything."""
    if not prints.text:
        return prints.unreadable or "its text does not parse and cannot be compared"
    match = kernelbench().match(prints)
    if match is None:
        return ""
    alike = f"text {match.score:.0%} similar to" if match.tier == "near" else f"same {match.tier} as"
    return f"{alike} KernelBench {match.problem}"


def _same(kind: str) -> Objection:
    def objection(prints: Fingerprints, folder: Folder) -> str:
        key = prints.keys().get(kind)
        holder = folder.claims.holder(kind, key) if key else None
        return f"same {kind} as {_described(holder)}" if holder and not folder.is_own(holder) else ""

    return objection


def _near_duplicate(prints: Fingerprints, folder: Folder) -> str:
    for other, holder in folder.claims.sketches(prints.operator_set()):
        score = similarity(prints.sketch, other)
        if score >= NEAR and not folder.is_own(holder):
            return f"text {score:.0%} similar, ignoring names and sizes, to {_described(holder)}"
    return ""


def _described(claim: Claim) -> str:
    origin = (
        f"run {claim.run_id}, candidate {claim.candidate_id}" if claim.run_id else "a file of unknown origin"
    )
    return f"{claim.program} ({origin})"


FILTERS: tuple[FilterRule, ...] = (
    FilterRule(
        "contaminated",
        Category.CONTAMINATED,
        "no KernelBench problem has its text, form or graph, its operators in this order, or nearly its text",
        _like_kernelbench,
    ),
    FilterRule(
        "duplicate-operators",
        Category.DUPLICATE,
        "no program of the folder realises the same operators in the same order",
        _same("operators"),
    ),
    FilterRule(
        "duplicate-graph",
        Category.DUPLICATE,
        "no program of the folder computes the same graph, ignoring sizes and names",
        _same("graph"),
    ),
    FilterRule(
        "near-duplicate",
        Category.DUPLICATE,
        "no program of the folder with the same set of operators is 70% similar, ignoring names and sizes",
        _near_duplicate,
    ),
    FilterRule(
        "duplicate-shapes",
        Category.DUPLICATE,
        "no program of the folder has the operators of a revisited program in the same order and shapes",
        _same("shapes"),
        revisit=True,
    ),
)


def resolve_filters(skip: Sequence[str]) -> tuple[FilterRule, ...]:
    """All filters except those to skip. Raises `UsageError` for an unknown name."""
    names = [rule.name for rule in FILTERS]
    if unknown := [name for name in skip if name not in names]:
        raise UsageError(f"unknown filter {unknown[0]!r}; known: {', '.join(names)}")
    return tuple(rule for rule in FILTERS if rule.name not in skip)


class Filter:
    """The stage `filter` of one run.

    Call `apply` for the batches in order, because of two duplicates the first stays.

    Within a run, "first" means the lower round, then the lower index. Between runs, the run that claims first
    wins, because a written program is never deleted. A resumed run recognises its own claims.
    """

    def __init__(self, output_dir: Path | str, run_id: str, skip: Sequence[str] = ()) -> None:
        self._folder = Path(output_dir)
        self._run_id = run_id
        self._rules = resolve_filters(skip)

    def apply(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Judge the live candidates, in order. Raises `EnvironmentFault` if the index cannot be used."""
        prints = [_prints(candidate) for candidate in candidates]
        with claims_in(self._folder, self._run_id) as claims:
            return [
                self._judged(candidate, each, claims) if each else candidate
                for candidate, each in zip(candidates, prints, strict=True)
            ]

    def _judged(self, candidate: Candidate, prints: Fingerprints, claims: Claims) -> Candidate:
        began = time.perf_counter()
        verdict = self._verdict(candidate, prints, claims)
        if verdict.passed and candidate.program:
            claims.claim(prints, Claim(self._run_id, candidate.id, candidate.program.name))
        seconds = {**candidate.telemetry.seconds, Stage.FILTER.value: time.perf_counter() - began}
        telemetry = candidate.telemetry.model_copy(update={"seconds": seconds})
        return candidate.judged(verdict, telemetry=telemetry)

    def _verdict(self, candidate: Candidate, prints: Fingerprints, claims: Claims) -> Verdict:
        folder = Folder(claims, lambda claim: self._is_own(claim, candidate))
        revisited = self._is_revisited(candidate, prints, claims)
        for rule in self._rules:
            if rule.category is Category.DUPLICATE and rule.revisit != revisited:
                continue
            if detail := rule.objection(prints, folder):
                return Verdict.fail(Stage.FILTER, rule.category, detail, check=rule.name)
        return Verdict.ok(Stage.FILTER, measured=prints.keys())

    def _is_revisited(self, candidate: Candidate, prints: Fingerprints, claims: Claims) -> bool:
        """Whether the candidate repeats operators of the folder on purpose, in the same order.

        False if the folder's program is in no ledger: then its shapes are unknown and cannot be compared.
        """
        holder = claims.holder("operators", prints.keys().get("operators", ""))
        return candidate.specification.revisit and bool(holder and holder.run_id)

    def _is_own(self, claim: Claim, candidate: Candidate) -> bool:
        if claim.run_id:
            return (claim.run_id, claim.candidate_id) == (self._run_id, candidate.id)
        # The file is in no ledger. It is this candidate's if a kill came between the two writes.
        path = self._folder / f"{claim.program}.py"
        source = candidate.program.source if candidate.program else ""
        return path.exists() and path.read_bytes() == source.encode()


def refuse_held(
    candidates: Sequence[Candidate], output_dir: Path | str, run_id: str, skip: Sequence[str] = ()
) -> list[Candidate]:
    """Drop candidates that `filter` would reject anyway, before a provider is asked, to save the calls.

    A candidate is dropped if a KernelBench problem or a program of another run has its operators in the same
    order. A candidate with `revisit` is compared with KernelBench only.
    Programs of this run are ignored here: which of them exist by now differs each time, so `filter` decides.
    """
    rules = {rule.name for rule in resolve_filters(skip)}
    with claims_in(Path(output_dir), run_id) as claims:
        return [_refused(candidate, claims, run_id, rules) for candidate in candidates]


def _refused(candidate: Candidate, claims: Claims, run_id: str, rules: set[str]) -> Candidate:
    operators = candidate.specification.operators
    if "contaminated" in rules and (problem := kernelbench().holds(operators)):
        detail = f"the sampled operators are those of KernelBench {problem}"
        failed = Verdict.fail(Stage.SAMPLE, Category.CONTAMINATED, detail, check="contaminated")
        return candidate.judged(failed)
    if candidate.specification.revisit:
        return candidate
    holder = claims.holder("operators", operator_signature(operators))
    if "duplicate-operators" in rules and holder and holder.run_id != run_id:
        detail = f"the sampled operators are those of {holder.program}"
        failed = Verdict.fail(Stage.SAMPLE, Category.DUPLICATE, detail, check="duplicate-operators")
        return candidate.judged(failed)
    return candidate


def _prints(candidate: Candidate) -> Fingerprints | None:
    if not candidate.alive or candidate.program is None:
        return None
    return Fingerprints.of(candidate.program.source, candidate.graph)
