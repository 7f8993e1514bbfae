"""One program in one stage, on its way through the supervisor."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from synth_core.records import Stage
from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox.confine import Limits


@dataclass(eq=False)
class Job:
    """One program in one stage."""

    id: int
    stage: Stage
    request: dict[str, Any]
    limits: Limits
    rejudge: bool = False
    """Where it passes beside others (`shared`) it is judged once more, alone."""
    alone: bool = False
    """Compile its C++ apart from that of other programs; on a GPU, take a worker that has served none."""
    whole: bool = False
    """GPU jobs: nothing may run beside it."""
    shared: bool = False
    """Its C++ was compiled together with others', or its worker had served others."""
    evidence: list[tuple[int, Observation]] = field(default_factory=list)
    seconds: float = 0.0
    vetted_on: str = ""
    """GPU jobs: the device that the vetting process stands on."""
    memory_mb: float = 0.0
    """GPU jobs: what it will need at most from now on, 0 where that is unknown (vetting.py)."""
    later_mb: float = 0.0
    """GPU jobs: the same of its second run."""
    queued: float = 0.0
    """GPU jobs: since when it waits for a worker, on the monotonic clock."""

    @property
    def on_gpu(self) -> bool:
        return bool(self.request["device"] == "cuda")

    @property
    def compiles(self) -> bool:
        return self.stage is Stage.VALIDATE_COMPILE

    def drop_evidence(self) -> None:
        for file, _ in self.evidence:
            os.close(file)
        self.evidence = []
