"""Exceptions: our own faults and the user's mistakes.

A bad program is never an exception; it is a `Verdict` in the ledger.

    SynthError
    ├── UsageError        the user's mistake: one line says what and how to mend it; exit 2
    ├── CannotWrite       the synthesizer finds no program for these operators; exit 1
    └── EnvironmentFault  the machine fails us (disk full, no sandbox, server gone); exit 1
        └── HopelessProvider  every further call would fail alike (bad key, quota, unknown model)
"""


class SynthError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class UsageError(SynthError):
    """A mistake in options, files or environment that the user can mend; its text is one line."""

    exit_code = 2


class CannotWrite(SynthError):
    """The operators do not fit together here. Other operators, another seed or another place may do."""


class EnvironmentFault(SynthError):
    """The machine or a service it needs is unusable; nothing accepted so far is lost."""


class HopelessProvider(EnvironmentFault):
    """The provider answered in a way that no retry mends; the text counts what was seen."""
