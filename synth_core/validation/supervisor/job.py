"""One program in one stage, on its way through the supervisor."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from synth_core.validation.evidence import Observation


@dataclass(eq=False)
class Job:
    """program: a file for the child. question: a file for the prover. The engine wrote both."""

    id: int
    stage: str
    program: int
    question: int
    text: str = ""
    """Hash of the program's text without its name."""
    alone: bool = False
    """Prove it in a prover that has no other case."""
    evidence: list[int] = field(default_factory=list)
    """The two files of the child: written before the seed was drawn, and after."""
    kept: bool = False
    """The first of the two files is that of another child, which captured the graph of the same text."""
    seed: int = 0
    observed: Observation = field(default_factory=Observation)
    seconds: float = 0.0

    def close(self) -> None:
        for file in (self.program, self.question, *self.evidence):
            os.close(file)
        self.evidence = []
