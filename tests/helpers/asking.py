"""What the provider tests ask with: keys of the right shape, and candidates to ask about."""

from __future__ import annotations

from synth_core.prompting import render_prompts
from synth_core.records import Candidate, Specification

KEYS = {"openai": "sk-proj-Qw7xZ2mN9pLrT4vB", "gemini": "AIzaSyD3kP9mXq7LwT2vR8"}


def candidates(provider: str, count: int, *, first: int = 0, prompt: str = "ordered") -> list[Candidate]:
    """Candidates with their prompts, each asking something else."""
    made = [
        Candidate(
            index=index,
            specification=Specification(
                operators=("Conv2d", "ReLU", *("Tanh" for _ in range(index % 5))),
                strategy="test",
                seed=index,
                provider=provider,
                prompt=prompt,
                temperature=0.5,
                sample=index,
            ),
        )
        for index in range(first, first + count)
    ]
    return render_prompts(made)
