"""The exceptions that Synth raises on purpose.

A bad program is never an exception. It is a `Verdict` in the ledger.

    SynthError
    ├── UsageError        the user's mistake: one line says what is wrong and how to fix it; exit code 2
    ├── CannotWrite       the synthesizer finds no program for these operators; exit code 1
    └── EnvironmentFault  the machine cannot do the work (disk full, no sandbox, no server); exit code 1
        └── HopelessProvider  every further call would fail in the same way (bad key, quota, unknown model)
"""


class SynthError(Exception):
    """Base of all exceptions that this package raises on purpose."""

    exit_code = 1


class UsageError(SynthError):
    """A mistake in options, files or environment that the user can fix. Its text is one line."""

    exit_code = 2


class CannotWrite(SynthError):
    """The operators do not fit together here. Other operators, another seed or another place may do."""


class EnvironmentFault(SynthError):
    """The machine, or a service that it needs, cannot be used. No accepted program is lost."""


class HopelessProvider(EnvironmentFault):
    """The provider answered in a way that no retry can fix. The text counts the answers."""
