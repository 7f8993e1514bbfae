"""From an answer to a judgement: that of a prover, or what the end of a process means."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Any, Final

from synth_core.records import Category
from synth_core.validation.failures import categorise, one_line
from synth_core.validation.sandbox import HARNESS_FAILED

_MEMORY_WORDS = ("MemoryError", "allocate memory", "std::bad_alloc")
_MAX_DETAIL: Final = 1000
_MAX_DIGESTS: Final = 2**20

Judgement = dict[str, Any]
"""The fields of a `Verdict` except stage, tier and torch; and `graph`, a `Graph` as JSON or None."""
Answer = Mapping[str, Any]


def failure(category: Category | str, detail: str, **fields: Any) -> Judgement:
    detail = one_line(detail)[:_MAX_DETAIL]
    return {"passed": False, "category": category, "detail": detail, "graph": None, **fields}


def judgement(answer: Answer, seconds: float, memory_mb: int) -> Judgement:
    """The judgement in an answer of a zygote. seconds, memory_mb: the limits of the process."""
    if "judgement" in answer:  # the zygote died of it
        return dict(answer["judgement"])
    (said,) = answer["files"]
    if answer.get("judged"):
        found: Judgement = json.loads(said)
        return found
    observed, words = answer["observed"], one_line(said.decode(errors="replace").strip().rpartition("\n")[2])
    last = f": {words}" if words else ""
    if answer.get("prover"):
        return _of_a_prover(observed, seconds, last)
    if observed["violation"]:
        return failure(Category.SANDBOX_VIOLATION, observed["violation"], check="sandbox")
    if observed["timed_out"]:
        detail = f"still running after {seconds:g} CPU seconds"
        return failure(Category.TIMEOUT, detail, check="timeout")
    if observed["out_of_memory"] or (observed["exit_code"] == HARNESS_FAILED and _ran_out(words)):
        return failure(Category.OUT_OF_MEMORY, f"needs more than {memory_mb} MiB{last}", check="memory")
    if observed["signal"] is not None:
        name = signal.Signals(observed["signal"]).name
        return failure(Category.CRASH, f"killed by {name}{last}", check="crash")
    detail = f"ended itself with exit code {observed['exit_code']}{last}"
    return failure(Category.CRASH, detail, check="crash")


def _of_a_prover(observed: Mapping[str, Any], seconds: float, last: str) -> Judgement:
    """If a prover ends over a graph, that is a fault of the program."""
    if observed["timed_out"]:
        detail = f"proving it took more than {seconds:g} CPU seconds"
        return failure(Category.TIMEOUT, detail, check="timeout")
    if observed["out_of_memory"] or _ran_out(last):
        return failure(Category.OUT_OF_MEMORY, f"proving it takes too much memory{last}", check="memory")
    return failure(Category.CRASH, f"the prover did not survive its graph{last}", check="prover")


def _ran_out(words: str) -> bool:
    return any(word in words for word in _MEMORY_WORDS)


def rehearsal(answer: Answer, seconds: float, memory_mb: int) -> dict[str, Any]:
    """The digests of a plain run of the program; a judgement if the run ended badly or raised.

    The child wrote the digests, so nothing is proved by them alone. The prover compares them with those of
    the other process.
    """
    if "judgement" in answer or "observed" in answer:
        return judgement(answer, seconds, memory_mb)
    (said,) = answer["files"]
    try:
        if len(said) > _MAX_DIGESTS:
            raise ValueError("too long")
        found: dict[str, Any] = json.loads(said)
        if "error" in found:
            check, category, detail = categorise(found["error"])
            return failure(category, detail, check=check)
        return {"output": list(found["output"]), "state": dict(found["state"])}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        detail = "the process ended without saying all it should"
        return failure(Category.CRASH, detail, check="runs")
