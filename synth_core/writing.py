"""One program from Python: `synth_core.synthesize`, with no run, no LLM and no Prefect."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence

from pydantic import Field

from synth_core.errors import CannotWrite, UsageError
from synth_core.operators.catalog import find
from synth_core.program import syntax
from synth_core.program.renaming import program_class
from synth_core.providers.constructive import shared_synthesizer
from synth_core.records import Record, sha256
from synth_core.sampling.sample import sample
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies

_DRAWS = 20  # lists of operators to try; of 150 lists that the default strategy drew, all could be written


class SynthesizedProgram(Record):
    """A program that the synthesizer wrote.

    `synthesize(program.operators, seed=program.seed)` writes the same bytes again.
    """

    name: str = Field(description="Name of its nn.Module class; the name for its file, too")
    source: str = Field(description="The text: the class, get_inputs and get_init_inputs")
    digest: str = Field(description="SHA-256 of the source, hexadecimal")
    operators: tuple[str, ...] = Field(description="Catalog names that were asked for")
    seed: int
    plan: str = Field(description="The steps of forward in words, with the shapes of the values")


def synthesize(operators: Sequence[str] | None = None, *, seed: int | None = None) -> SynthesizedProgram:
    """Write one program by the constructive synthesizer: the same operators and seed give the same bytes.

    The program ran while it was written, but it is not proved sound: `validate` does that. The first call
    starts a child process that holds torch, which takes some seconds. Later calls use the same child and
    take about 0.1 s. Any thread may call.

    Args:
        operators: Catalog names, as `synth operators` lists them. The synthesizer may put them into another
            order. None: draw them as the default strategy does.
        seed: Any integer. None: draw one; the record holds it.

    Returns:
        The program and what it was asked for.

    Raises:
        UsageError: An operator is not in the catalog, or the list is empty.
        CannotWrite: No program was found for these operators.
        EnvironmentFault: The child process died twice.

    Example:
        >>> import synth_core
        >>> program = synth_core.synthesize(["Linear", "GELU"], seed=1)
        >>> program.name
        'SynthModel_Linear_GELU'
        >>> print(program.plan)
        x: [3, 32]
        Linear(x) -> h1 [3, 24]
        GELU(h1) -> h2 [3, 24]
        return h2
    """
    if seed is None:
        seed = secrets.randbelow(2**32)
    if operators is not None:
        return _write(_known(operators), seed)
    reason = CannotWrite("no list of operators was drawn")
    for drawn in itertools.islice(_drawn(seed), _DRAWS):
        try:
            return _write(drawn, seed)
        except CannotWrite as error:
            reason = error
    raise reason


def _known(operators: Sequence[str]) -> tuple[str, ...]:
    if isinstance(operators, str):
        raise UsageError(f"operators is a list of names: [{operators!r}], not {operators!r}")
    if not operators:
        raise UsageError("operators is empty; name one at least, or give None to draw them")
    return tuple(find(name).name for name in operators)


def _drawn(seed: int) -> Iterator[tuple[str, ...]]:
    """Lists of operators as a run of the default settings draws them, without end."""
    settings = Settings(seed=seed % 2**63)
    strategy = effective_strategies(settings)[0]
    for index in itertools.count():
        yield sample(settings, strategy, [index])[0].specification.operators


def _write(operators: tuple[str, ...], seed: int) -> SynthesizedProgram:
    written = shared_synthesizer().write(operators, seed)
    if isinstance(written, str):
        raise CannotWrite(written)
    program = program_class(syntax.parse(written.source))
    assert program is not None
    return SynthesizedProgram(
        name=program.name,
        source=written.source,
        digest=sha256(written.source),
        operators=operators,
        seed=seed,
        plan=written.plan,
    )
