"""The data that passes between stages: frozen records.

A candidate starts with a `Specification`. The stages add a `Prompt`, a `Completion`, a `Program` and a
`Graph`. Each stage that decides something appends one `Verdict`. Records are never mutated: a stage returns
`candidate.model_copy(update=...)`.

`Telemetry` (durations, money, cache hits, tries) differs between two runs of the same work. So it is separate
and not part of `content_digest`, by which Prefect's cache recognises equal batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of every record: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(StrEnum):
    """The stages, in the order in which a candidate passes them."""

    SAMPLE = "sample"
    PROMPT = "prompt"
    LLM = "llm"
    EXTRACT = "extract"
    VALIDATE_EAGER = "validate-eager"
    VALIDATE_COMPILE = "validate-compile"
    FILTER = "filter"
    PERSIST = "persist"


class Category(StrEnum):
    """Why a candidate was dropped. `Verdict.detail` gives the details, so that a person can act."""

    REFUSAL = "REFUSAL"
    TRUNCATED = "TRUNCATED"
    NO_CODE = "NO_CODE"
    SYNTAX_ERROR = "SYNTAX_ERROR"
    DISALLOWED_IMPORT = "DISALLOWED_IMPORT"
    CONTRACT_VIOLATION = "CONTRACT_VIOLATION"
    SHAPE_ERROR = "SHAPE_ERROR"
    EXCEPTION = "EXCEPTION"
    GRAPH_BREAK = "GRAPH_BREAK"
    COMPILE_ERROR = "COMPILE_ERROR"
    NUMERICAL_MISMATCH = "NUMERICAL_MISMATCH"
    NON_FINITE = "NON_FINITE"
    NONDETERMINISTIC = "NONDETERMINISTIC"
    DEGENERATE = "DEGENERATE"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CRASH = "CRASH"
    SANDBOX_VIOLATION = "SANDBOX_VIOLATION"
    OPERATORS_MISSING = "OPERATORS_MISSING"
    CONTAMINATED = "CONTAMINATED"
    DUPLICATE = "DUPLICATE"
    PROVIDER_ERROR = "PROVIDER_ERROR"


class Tier(StrEnum):
    """How strongly a program was isolated while it ran."""

    A = "A"  # namespaces + Landlock + seccomp
    B = "B"  # Landlock + seccomp, no namespaces
    C = "C"  # resource limits only; refused unless allowed


class Specification(Record):
    """What one candidate should contain, and how to ask for it."""

    operators: tuple[str, ...] = Field(description="Requested catalog names, in sampled order")
    strategy: str
    seed: int = Field(description="Seed of this candidate, derived from the run's seed and its index")
    provider: str
    prompt: str = Field(description="Name of a prompt template, or path of the user's own template")
    temperature: float
    revisit: bool = Field(
        default=False,
        description="Repeats operators of the folder on purpose; a duplicate only if shapes are equal too",
    )
    sample: int = Field(
        default=0,
        description="Which of many answers to one question: 0 for the shared cached one, else its own number",
    )


class Prompt(Record):
    """A rendered prompt. `digest` is the SHA-256 of `system` and `text` together."""

    template: str
    system: str
    text: str
    digest: str


class Outcome(StrEnum):
    """How one provider call ended. Each provider maps every answer to one of these."""

    OK = "ok"
    TRUNCATED = "truncated"
    BLOCKED = "blocked"
    EMPTY = "empty"
    BAD_RESPONSE = "bad_response"
    BAD_REQUEST = "bad_request"
    AUTH = "auth"
    QUOTA = "quota"
    UNKNOWN_MODEL = "unknown_model"
    RATE_LIMITED = "rate_limited"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    OVER_BUDGET = "over_budget"


class Usage(Record):
    """Tokens and cost of one call. `cost_usd` is None if the model's price is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None


class GpuSizes(Record):
    """Sizes that suit a GPU, for a program that is validated at small sizes: other values of its constants.

    Shapes and dtypes at these sizes are checked under FakeTensor. The program is not run at them.
    """

    constants: dict[str, int] = Field(description="Constant at module level -> its value on a GPU")
    flops: int = Field(
        description="2 per multiply-add of products and convolutions, 1 per element that another call writes"
    )
    bytes: int = Field(description="Inputs, parameters and outputs, each moved once")
    intensity: float = Field(description="flops / bytes")
    shape_sets: tuple[dict[str, int], ...] = Field(default=(), description="More values that also work")


class Completion(Record):
    """The provider's answer."""

    outcome: Outcome
    text: str = ""
    requested_model: str
    serving_model: str = ""
    finish_reason: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    error: str = ""
    sizes: GpuSizes | None = Field(default=None, description="GPU sizes, if requested and found")


class Program(Record):
    """Source text with one nn.Module class called `name`, get_inputs and get_init_inputs."""

    name: str
    source: str
    digest: str = Field(description="SHA-256 of the source, hexadecimal")

    @classmethod
    def of(cls, name: str, source: str) -> Program:
        return cls(name=name, source=source, digest=sha256(source))


class Node(Record):
    """One value of the captured graph."""

    name: str
    kind: str = Field(description="input | parameter | buffer | constant | call | output")
    target: str = Field(default="", description="Dotted name of the called function, e.g. torch.relu")
    inputs: tuple[str, ...] = Field(default=(), description="Names of the nodes it reads, in order")
    arguments: str = Field(default="", description="Other arguments, as canonical JSON")
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    operator: str = Field(default="", description="Catalog name it realises (first node of a module)")


class Graph(Record):
    """The captured graph as plain data. `operators` are the realised operators, in forward order."""

    nodes: tuple[Node, ...]
    operators: tuple[str, ...]


class Verdict(Record):
    """What one stage decided about one candidate."""

    stage: Stage
    passed: bool
    category: Category | None = None
    detail: str = ""
    check: str = Field(default="", description="Name of the check that failed")
    warnings: tuple[str, ...] = Field(default=(), description="Checks that failed but only warn")
    skipped: tuple[str, ...] = Field(default=(), description="Checks switched off by --skip-check")
    contract: dict[str, bool] = Field(default_factory=dict, description="Downstream rule -> whether it holds")
    measured: dict[str, Any] = Field(default_factory=dict, description="Measured values and their tolerances")
    tier: Tier | None = None
    torch: str = ""

    @classmethod
    def ok(cls, stage: Stage, **fields: Any) -> Verdict:
        return cls(stage=stage, passed=True, **fields)

    @classmethod
    def fail(cls, stage: Stage, category: Category, detail: str, **fields: Any) -> Verdict:
        return cls(stage=stage, passed=False, category=category, detail=detail, **fields)


class Telemetry(Record):
    """The data that differs between two runs of the same work."""

    usage: Usage = Usage()
    calls: int = Field(default=0, description="Requests to the provider, with failed ones")
    from_cache: tuple[str, ...] = Field(default=(), description="Stages answered by a per-candidate cache")
    seconds: dict[str, float] = Field(default_factory=dict, description="Stage -> wall seconds")


class Candidate(Record):
    """One attempt: specification -> prompt -> completion -> program -> verdicts."""

    index: int = Field(description="Position in the run; repeated attempts have the same index")
    attempt: int = Field(default=0, description="0 for the first attempt, then 1, 2, …")
    parent_id: str = Field(default="", description="`id` of the attempt this one repeats or repairs")
    specification: Specification
    prompt: Prompt | None = None
    completion: Completion | None = None
    program: Program | None = None
    graph: Graph | None = None
    verdicts: tuple[Verdict, ...] = ()
    telemetry: Telemetry = Telemetry()

    @property
    def id(self) -> str:
        """Index and attempt, unique in the run: `0000012.1`."""
        return f"{self.index:07d}.{self.attempt}"

    @property
    def failure(self) -> Verdict | None:
        """The verdict that dropped this candidate, or None while it is alive."""
        return next((v for v in self.verdicts if not v.passed), None)

    @property
    def alive(self) -> bool:
        return self.failure is None

    def passed(self, stage: Stage) -> bool:
        """Whether a verdict of this stage let the candidate pass."""
        return any(v.stage is stage and v.passed for v in self.verdicts)

    def judged(self, verdict: Verdict, **updates: Any) -> Candidate:
        """A copy with one more verdict. `updates` may set other fields."""
        return self.model_copy(update={**updates, "verdicts": (*self.verdicts, verdict)})

    def content_digest(self) -> str:
        """SHA-256 of everything except telemetry."""
        return sha256(self.model_dump_json(exclude={"telemetry"}))


class Manifest(Record):
    """Describes one shard. Task runs take and return manifests; the candidates are in the file at `path`."""

    path: str
    digest: str = Field(description="SHA-256 over the candidates' content digests, in order")
    signature: str = Field(default="", description="Hash of the requested operator signatures, in order")
    stage: Stage
    strategy: str = ""
    round: int = 0
    batch: int = 0
    total: int
    alive: int
    failed: dict[str, int] = Field(default_factory=dict, description="Category -> dropped in this stage")


def sha256(text: str) -> str:
    """Hexadecimal SHA-256 of the text's UTF-8 bytes. Lone surrogates are encoded, not rejected."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def operator_signature(operators: Iterable[str]) -> str:
    """Hash of an ordered list of operators: 16 hexadecimal digits, safe in a file name."""
    return sha256("\x1f".join(operators))[:16]
