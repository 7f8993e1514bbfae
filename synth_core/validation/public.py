"""Validation for Python users: `synth_core.validate` and `Validator`. `synth validate` uses it, too."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from pydantic import Field

from synth_core.errors import SynthError, UsageError
from synth_core.limited import Unreadable, limited
from synth_core.program.naming import operators_named
from synth_core.program.reading import Given, ProgramLike, read_program
from synth_core.records import Candidate, Category, Program, Record, Specification, Stage, Tier
from synth_core.settings import Settings, ValidationSettings
from synth_core.validation import gate
from synth_core.validation.engine import Engine

AHEAD = 64
"""Programs in work at once, running or waiting. Several programs are compiled together."""

_Like = TypeVar("_Like", bound=ProgramLike)


class Validation(Record):
    """The result for one program. `stage`, `category`, `check` and `detail` say why it was not accepted."""

    path: str = Field(description="The file; empty if the text was given")
    accepted: bool
    stage: Stage | None = Field(default=None, description="The stage that it failed; None if it was accepted")
    category: Category | None = Field(default=None, description="The kind of failure")
    check: str = Field(default="", description="Name of the check that failed; `synth checks` lists them")
    detail: str = Field(default="", description="The failure in words")
    warnings: tuple[str, ...] = Field(default=(), description="Checks and rules that failed but only warn")
    skipped: tuple[str, ...] = Field(default=(), description="Checks that the settings switched off")
    tier: Tier | None = Field(default=None, description="How strongly it was isolated; None: it was not run")
    realised_operators: tuple[str, ...] = Field(default=(), description="Catalog names, in forward order")
    contract: dict[str, bool] = Field(default_factory=dict, description="Downstream rule -> held")
    measured: dict[Stage, dict[str, Any]] = Field(
        default_factory=dict, description="Stage -> tolerances, and the errors that it measured"
    )


def validate(program: ProgramLike, settings: ValidationSettings | None = None) -> Validation:
    """Prove one program sound: static gate, eager mode, torch.compile. It runs in a sandbox, never here.

    A program called `SynthModel_<Op>_<Op>…` must realise the operators in its name, in any order. The name of
    a file is its name without `.py`; the name of a text is the name of its class. The rule
    `class_named_as_file` rejects a file whose class has another name. To let it only warn, name it in
    `warn_rules` of the settings.

    Each call starts worker processes, which takes some seconds. For more than one program use `Validator`.

    Args:
        program: The path of a file, the text itself, or an object with the text in `source`, such as a result
            of `synth_core.synthesize`. A string without a line break is a path if it ends in `.py` or names
            something that exists. Any other string is a text.
        settings: Limits and rules: `timeout` in CPU seconds for each stage, `memory_mb` in MiB.

    Returns:
        Whether it was accepted, and if not, why.

    Raises:
        UsageError: The path is not a file, a check or rule in `settings` does not exist, or no sandbox works
            on this machine and `allow_unsandboxed` is off.
        EnvironmentFault: The machine lacks a C++ compiler, or the workers cannot be started.

    Example:
        >>> import synth_core
        >>> result = synth_core.validate("import torch\\nx = torch.ones(")
        >>> result.accepted, result.category.value
        (False, 'SYNTAX_ERROR')
        >>> print(result.detail)
        line 2: '(' was never closed
    """
    with Validator(settings, workers=1) as validator:
        return validator.validate(program)


class Validator:
    """Proves many programs sound with warm worker processes.

    They start with the first program, which takes some seconds. They end with `close`, with the end of the
    `with` block, or with this process. Any thread may use a Validator. Beside a running asyncio loop,
    `await asyncio.to_thread(validator.validate, program)` keeps the loop free. After Ctrl-C you can continue
    to use it. A forked process needs its own Validator.

    Args:
        settings: Limits and rules: `timeout` in CPU seconds for each stage, `memory_mb` in MiB.
        workers: Number of programs to run in parallel; 0: one per CPU core.
        cache_dir: Folder where verdicts are kept; None: the user's cache folder. A program that was validated
            before with the same settings is not run again.

    Raises:
        UsageError: A check or rule in `settings` does not exist, or `cache_dir` cannot be used.

    Example:
        >>> import synth_core
        >>> programs = [synth_core.synthesize(["Linear", "GELU"], seed=n).source for n in (1, 2)]
        >>> with synth_core.Validator(workers=1) as validator:
        ...     for result in validator.validate_many(programs):
        ...         print(result.accepted, result.realised_operators)
        True ('Linear', 'GELU')
        True ('Linear', 'GELU')
    """

    def __init__(
        self,
        settings: ValidationSettings | None = None,
        *,
        workers: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if workers < 0:
            raise UsageError(f"workers must be 0 or more, got {workers}")
        machine = Settings(num_worker=workers, cache_dir=os.fspath(cache_dir or "")).resolved()
        self._engine = Engine(settings or ValidationSettings(), machine.num_worker, machine.cache_dir)
        self._owner = os.getpid()
        self._ahead = max(AHEAD, 2 * machine.num_worker)
        # In a notebook the cell that made it runs again, and the old one is simply dropped.
        self._close = weakref.finalize(self, self._engine.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Programs without a result fail. A closed Validator takes no more programs."""
        self._close()

    def validate(self, program: ProgramLike) -> Validation:
        """Prove one program sound. Like `synth_core.validate`, but it uses the workers that already run."""
        return _result(self._start(program))

    def validate_many(self, programs: Iterable[ProgramLike]) -> Iterator[Validation]:
        """Validate programs, `workers` at once, and give the results in the order of the programs.

        A result comes as soon as it and all results before it are known. `programs` may be endless: it is
        read as the work proceeds, at most 64 programs ahead, or twice `workers` if that is more.

        Args:
            programs: Paths and texts, as `synth_core.validate` takes them.

        Raises:
            UsageError, EnvironmentFault: As `synth_core.validate`, in place of that program's result. No
                further results follow. A bad text is never an exception: its result says what is wrong.
        """
        started: deque[_Started] = deque()
        for program in programs:
            started.append(self._start(program))
            while started and (started[0].candidate.done() or len(started) >= self._ahead):
                yield _result(started.popleft())
        while started:
            yield _result(started.popleft())

    def as_completed(self, programs: Iterable[_Like]) -> Iterator[tuple[_Like, Validation]]:
        """Validate programs as `validate_many` does, and give each result as soon as it is known.

        Returns:
            Pairs: what was given, and its result, in no fixed order.

        Raises:
            UsageError, EnvironmentFault: As `validate_many`.
        """
        started: dict[Future[Candidate], tuple[_Like, _Started]] = {}
        for program in programs:
            one = self._start(program)
            started[one.candidate] = program, one
            patience = None if len(started) >= self._ahead else 0
            yield from _completed(started, patience)
        while started:
            yield from _completed(started, None)

    def _start(self, program: ProgramLike) -> _Started:
        """Read a program and start its validation. An error is raised when the result is requested."""
        if not self._close.alive:
            raise UsageError("this Validator is closed; make another")
        if self._owner != os.getpid():  # the thread that receives the worker's answers was not forked
            raise UsageError("this Validator was made before a fork; make another in this process")
        candidate: Future[Candidate] = Future()
        try:
            given = read_program(program, at_most=gate.MAX_BYTES + 1)
        except SynthError as error:
            candidate.set_exception(error)
            return _Started("", candidate)
        # A daemon thread: after an interrupt Python does not wait for programs that nobody needs any more.
        threading.Thread(target=_judge, args=(self._engine, given, candidate), daemon=True).start()
        return _Started(str(given.path or ""), candidate)


class _Started(NamedTuple):
    """A program that is being judged. path: as in `Validation`."""

    path: str
    candidate: Future[Candidate]


def _completed(
    started: dict[Future[Candidate], tuple[_Like, _Started]], patience: float | None
) -> Iterator[tuple[_Like, Validation]]:
    """The programs that are done after `patience` seconds; None: wait for at least one."""
    for future in wait(started, patience, FIRST_COMPLETED).done:
        program, one = started.pop(future)
        yield program, _result(one)


def _judge(engine: Engine, given: Given, candidate: Future[Candidate]) -> None:
    try:
        (done,) = engine.validate_compile(engine.validate_eager([_candidate(given)]))
    except BaseException as error:
        candidate.set_exception(error)
    else:
        candidate.set_result(done)


def _candidate(given: Given) -> Candidate:
    name = given.path.stem if given.path else _class_name(given.source)
    specification = Specification(
        operators=operators_named(name) or (),
        strategy="",
        seed=0,
        provider="",
        prompt="",
        temperature=0.0,
    )
    return Candidate(index=0, specification=specification, program=Program.of(name, given.source))


def _class_name(source: str) -> str:
    """The name of the program's class. If there is none, validation says what is wrong."""
    try:
        return str(limited("synth_core.validation.reading:class_name", source)) or "program"
    except Unreadable:
        return "program"


def _result(started: _Started) -> Validation:
    candidate = started.candidate.result()
    failure = candidate.failure
    contract = {rule: holds for verdict in candidate.verdicts for rule, holds in verdict.contract.items()}
    return Validation(
        path=started.path,
        accepted=failure is None,
        stage=failure.stage if failure else None,
        category=failure.category if failure else None,
        check=failure.check if failure else "",
        warnings=tuple(name for verdict in candidate.verdicts for name in verdict.warnings),
        skipped=tuple(sorted({name for verdict in candidate.verdicts for name in verdict.skipped})),
        detail=failure.detail if failure else "",
        tier=next((verdict.tier for verdict in candidate.verdicts if verdict.tier), None),
        realised_operators=candidate.graph.operators if candidate.graph else (),
        contract=contract,
        measured={verdict.stage: verdict.measured for verdict in candidate.verdicts if verdict.measured},
    )
